import dataclasses
import math

import numpy as np
import pytest
import torch
from scipy import optimize
from torch import nn

from holdfast.adversarial import BoundarySearch
from holdfast.contracts import InputError


class Constant(nn.Module):
    """Three classes, of which the second always wins."""

    def forward(self, x):
        return x.flatten(1)[:, :3] * 0 + torch.tensor([0.0, 2.0, 1.0])


class Steps(nn.Module):
    """Black and dark images are of class 0, all others of class 1; the gradient is 0."""

    def forward(self, x):
        bright = (x.mean((1, 2, 3)) > 0.4).to(x.dtype) + 0 * x.sum((1, 2, 3))
        return torch.stack([1 - bright, bright], 1)


def linear(classes=2, pixels=8, dtype=torch.float64):
    return nn.Sequential(nn.Flatten(), nn.Linear(pixels, classes)).to(dtype)


def near(model, images):
    """Shift the last layer so that the boundaries between all classes are near the images."""
    with torch.no_grad():
        z = model(images)
        model[-1].bias -= z.mean(0)
    return model


def length(delta):
    return delta.flatten(1).norm(dim=1)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_distance_of_a_linear_model_is_the_closed_form(dtype):
    images = 0.4 + 0.2 * torch.rand(20, 2, 2, 2, dtype=dtype)
    model = near(linear(dtype=dtype), images)
    boundary = BoundarySearch()(model, images)
    w = model[1].weight[0] - model[1].weight[1]
    z = model(images)
    expected = (z[:, 0] - z[:, 1]).abs() / w.norm()
    assert expected.max() < 0.4  # no pixel reaches its limit
    assert boundary.found.all()
    assert torch.allclose(boundary.distances, expected, rtol=1e-4, atol=1e-6)


def test_distance_of_many_linear_classes_is_the_nearest_plane():
    images = 0.4 + 0.2 * torch.rand(20, 2, 3, 3, dtype=torch.float64)
    model = near(linear(classes=6, pixels=18), images)
    z, weight = model(images).detach(), model[1].weight.detach()
    own = z.argmax(1)
    gaps = z.gather(1, own[:, None]) - z
    widths = (weight[own][:, None] - weight).norm(dim=2)
    expected = torch.where(gaps > 0, gaps / widths, math.inf).amin(1)
    boundary = BoundarySearch(restarts=5)(model, images)
    assert torch.allclose(boundary.distances, expected, rtol=2e-4)


def test_equals_a_general_solver_where_pixels_reach_their_limits():
    """Least squares under linear constraints, one for each other class, the least of them."""
    images = torch.rand(8, 1, 3, 3, dtype=torch.float64)
    images[:, :, 0] = (images[:, :, 0] > 0.5).double()
    model = linear(classes=3, pixels=9)
    model[1].weight.data *= 3
    model = near(model, images)
    weight, bias = (p.detach().numpy() for p in (model[1].weight, model[1].bias))
    boundary = BoundarySearch(restarts=2)(model, images)
    clipped = 0
    for n in range(8):
        x = images[n].flatten().numpy()
        own = int(np.argmax(weight @ x + bias))
        best = math.inf
        for other in {0, 1, 2} - {own}:
            a, b = weight[own] - weight[other], bias[own] - bias[other]
            solved = optimize.minimize(
                lambda z, x=x: ((z - x) ** 2).sum(),
                np.full(9, 0.5),
                bounds=[(0, 1)] * 9,
                constraints={"type": "ineq", "fun": lambda z, a=a, b=b: -(a @ z + b)},
                method="SLSQP",
                options={"ftol": 1e-12, "maxiter": 500},
            )
            if solved.success:
                best = min(best, math.sqrt(solved.fun))
        assert boundary.distances[n].item() == pytest.approx(best, rel=0.01)
        clipped += int(((boundary.points[n] == 0) | (boundary.points[n] == 1)).any())
    assert clipped > 4


def test_is_as_near_as_the_nearest_of_a_fine_grid():
    """In two dimensions one can look everywhere."""
    torch.manual_seed(3)
    model = nn.Sequential(
        nn.Flatten(), nn.Linear(2, 24), nn.ReLU(), nn.Linear(24, 24), nn.ReLU(), nn.Linear(24, 4)
    )
    for layer in model[1::2]:
        layer.weight.data *= 3
    near(model, torch.rand(200, 1, 1, 2))
    ticks = torch.linspace(0, 1, 401)
    grid = torch.cartesian_prod(ticks, ticks).view(-1, 1, 1, 2)
    images = torch.rand(40, 1, 1, 2)
    with torch.no_grad():
        own, classes = model(images).argmax(1), model(grid).argmax(1)
    apart = torch.cdist(images.flatten(1), grid.flatten(1))
    nearest = torch.where(own[:, None] != classes, apart, math.inf).amin(1)
    assert nearest.isfinite().all()
    boundary = BoundarySearch()(model, images)
    assert boundary.found.all()
    assert (boundary.distances > nearest - 0.01).all()
    assert (boundary.distances < 1.1 * nearest + 0.01).double().mean() > 0.9


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_every_point_is_just_beyond_the_boundary(relu_model, dtype):
    images = torch.rand(60, 2, 5, 5, dtype=dtype)
    model = relu_model.to(dtype)
    model.last.weight.data *= 5
    own = model(images).argmax(1)
    boundary = BoundarySearch()(model, images)
    points = boundary.points
    assert boundary.found.any()
    assert ((points >= 0) & (points <= 1)).all()
    assert torch.equal(model(points).argmax(1), boundary.labels)
    assert torch.equal(boundary.labels != own, boundary.found)
    assert torch.allclose(
        boundary.distances[boundary.found], length(points - images)[boundary.found]
    )
    z = model(images + (1 - 1e-3) * (points - images))
    # In float32, some of these images are nearer to the boundary than rounding can tell.
    slack = 4e-6 if dtype == torch.float32 else 0
    assert (z.amax(1) - z.gather(1, own[:, None])[:, 0] <= slack).all()
    alone = torch.cat([model(point[None]) for point in points]).argmax(1)
    assert torch.equal(alone, boundary.labels)


def test_same_in_any_batch_order_and_chunk(relu_model):
    images = torch.rand(7, 2, 5, 5).double()
    relu_model.last.weight.data *= 5
    search = BoundarySearch()
    whole = search(relu_model, images)
    order = torch.tensor([3, 6, 0, 2, 5, 1, 4])
    shuffled = search(relu_model, images[order])
    assert torch.allclose(shuffled.points, whole.points[order], atol=1e-9)
    alone = [search(relu_model, image[None]) for image in images]
    assert torch.allclose(torch.cat([one.points for one in alone]), whole.points, atol=1e-9)
    small = dataclasses.replace(search, chunk=2)(relu_model, images)
    assert torch.allclose(small.points, whole.points, atol=1e-9)
    assert torch.equal(small.labels, whole.labels)


def test_labels_say_what_to_leave(relu_model):
    images = torch.rand(6, 2, 5, 5).double()
    relu_model.last.weight.data *= 5
    predicted = relu_model(images).argmax(1)
    labels = predicted.clone()
    labels[2] = (labels[2] + 1) % 4
    boundary = BoundarySearch()(relu_model, images, labels)
    assert boundary.found[2]
    assert boundary.distances[2] == 0
    assert boundary.labels[2] == predicted[2]
    assert torch.equal(boundary.points[2], images[2])
    others = BoundarySearch()(relu_model, images)
    kept = torch.arange(6) != 2
    assert torch.allclose(boundary.points[kept], others.points[kept], atol=1e-9)


def test_a_constant_model_has_no_boundary():
    images = torch.rand(3, 1, 2, 3)
    boundary = BoundarySearch()(Constant(), images)
    assert not boundary.found.any()
    assert torch.equal(boundary.points, images)
    assert torch.equal(boundary.distances, torch.full((3,), math.inf))
    assert boundary.labels.tolist() == [1, 1, 1]


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_model_that_answers_no_number_has_no_boundary(value):
    class Broken(nn.Module):
        def forward(self, x):
            return x.flatten(1)[:, :3] * value

    images = 0.1 + 0.8 * torch.rand(3, 1, 2, 3)
    boundary = BoundarySearch()(Broken(), images)
    assert not boundary.found.any()
    assert torch.equal(boundary.points, images)


def test_finds_boundaries_where_gradients_vanish():
    images = torch.full((2, 1, 4, 4), 0.1)
    images[1] = 0.9
    boundary = BoundarySearch()(Steps(), images)
    assert boundary.found.all()
    assert boundary.labels.tolist() == [1, 0]
    # The lines to white and black cross where the mean passes 0.4: 0.3 and 0.5 a pixel away.
    assert boundary.distances[0] <= 0.3 * 4 * 1.2
    assert boundary.distances[1] <= 0.5 * 4 * 1.2


def test_saturated_probabilities_are_no_obstacle():
    images = 0.4 + 0.2 * torch.rand(5, 2, 2, 2)
    model = near(linear(dtype=torch.float32), images)
    expected = BoundarySearch()(model, images).distances
    for parameter in model.parameters():
        parameter.data *= 1e4
    assert torch.allclose(BoundarySearch()(model, images).distances, expected, rtol=1e-3)


def test_two_classes_and_more_restarts_than_classes():
    images = 0.4 + 0.2 * torch.rand(4, 2, 2, 2).double()
    model = near(linear(), images)
    few = BoundarySearch(restarts=1)(model, images)
    assert torch.allclose(BoundarySearch(restarts=9)(model, images).distances, few.distances)


def test_leaves_the_model_and_the_generator_as_they_were(stateful_model, untouched):
    images = torch.rand(4, 2, 5, 5)
    copy, before = images.clone(), torch.get_rng_state()
    with untouched(stateful_model):
        BoundarySearch()(stateful_model, images)
    assert torch.equal(images, copy)
    assert torch.equal(torch.get_rng_state(), before)


def test_runs_inside_no_grad_and_on_images_that_require_it(relu_model):
    images = torch.rand(2, 2, 5, 5).double()
    expected = BoundarySearch()(relu_model, images)
    with torch.no_grad():
        boundary = BoundarySearch()(relu_model, images.clone().requires_grad_(True))
    assert torch.equal(boundary.points, expected.points)
    assert not boundary.points.requires_grad


@pytest.mark.parametrize("field", ["steps", "scout_steps", "restarts", "restart_steps"])
def test_refuses_settings_and_does_without_each_stage(field, relu_model, own_errors):
    with pytest.raises(InputError, match=f"BoundarySearch.{field}: expected a number of at least"):
        BoundarySearch(**{field: -1})
    relu_model.last.weight.data *= 5
    images = torch.rand(3, 2, 5, 5).double()
    boundary = BoundarySearch(**{field: 0})(relu_model, images)
    changed = relu_model(boundary.points).argmax(1) != relu_model(images).argmax(1)
    assert torch.equal(changed, boundary.found)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"images": torch.rand(2, 5, 5)}, "images: expected shape"),
        ({"images": torch.full((2, 2, 5, 5), 2.0)}, "images: expected values in"),
        ({"labels": torch.tensor([0, 9])}, "labels: expected classes from 0 to 3, got 9"),
        ({"labels": torch.tensor([0])}, "labels: expected shape"),
        ({"model": nn.Sequential(nn.Flatten(), nn.Linear(50, 1))}, "of at least 2 classes"),
    ],
)
def test_refuses(changes, says, relu_model, own_errors):
    arguments = {"model": relu_model.float(), "images": torch.rand(2, 2, 5, 5)} | changes
    with pytest.raises(InputError, match=says):
        BoundarySearch()(**arguments)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int16, torch.int32])
def test_labels_may_be_integers_of_any_size(dtype):
    model = nn.Sequential(nn.Flatten(), nn.Linear(4, 3)).double()
    images = torch.rand(3, 1, 2, 2, dtype=torch.float64)
    labels = model(images).argmax(1)
    expected = BoundarySearch()(model, images, labels)
    found = BoundarySearch()(model, images, labels.to(dtype))
    assert torch.equal(found.points, expected.points)
