import dataclasses
import itertools

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from holdfast.adversarial import BoundarySearch
from holdfast.attributions import (
    BoundaryDeepLIFT,
    BoundaryIntegratedGradients,
    BoundarySaliency,
    BoundarySmoothGrad,
    DeepLIFT,
    Gradient,
    IntegratedGradients,
    deep_lift,
    integrate,
)
from holdfast.contracts import Attribution, InputError
from holdfast.models import softplus

QUICK = BoundarySearch(steps=6, scout_steps=4, restarts=2, restart_steps=3)
METHODS = [
    BoundarySaliency(QUICK),
    BoundaryIntegratedGradients(QUICK, steps=4, output="probability"),
    BoundarySmoothGrad(QUICK, samples=3, noise=0.1),
    BoundaryDeepLIFT(QUICK),
]


class Constant(nn.Module):
    """Three classes, of which the second always wins, whatever the gradients."""

    def forward(self, x):
        flat = x.flatten(1)
        scores = [flat.square().sum(1) * 1e-3, flat.sum(1) * 1e-3 + 9, 0 * flat[:, 0]]
        return torch.stack(scores, 1)


class Function(nn.Module):
    """A classifier made of a function of images."""

    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function(x)


@pytest.fixture
def images():
    return torch.rand(5, 2, 5, 5, dtype=torch.float64)


def vector(*values):
    return torch.tensor(values, dtype=torch.float64).view(1, 1, 1, -1)


class TestBoundarySaliency:
    def test_is_the_normal_of_a_linear_models_boundary(self):
        weight = torch.randn(8, dtype=torch.float64)

        def scores(x):
            score = (x.flatten(1) - 0.5) @ weight
            return torch.stack([score, torch.zeros_like(score)], 1)

        binary = Function(scores)
        image = 0.5 + 0.1 * weight.view(1, 2, 2, 2) / weight.norm() + 0.01
        map, found = BoundarySaliency().with_found(binary, image)
        assert found.all()
        assert torch.equal(map.flatten(), weight)

    def test_is_the_normal_of_the_nearest_of_two_planes_where_the_gradient_is_not(self):
        """Class 0 is where both of two linear functions are positive, by the lesser of them."""
        first, second = torch.tensor([1.0, 0.5]).double(), torch.tensor([-1.0, 4.0]).double()

        def scores(x):
            h1 = x.flatten(1) @ first - 0.3
            h2 = x.flatten(1) @ second - 1.2
            lesser = h1 - torch.relu(h1 - h2)
            return torch.stack([lesser, torch.zeros_like(lesser)], 1)

        two = Function(scores)
        image = vector(0.35, 0.55)
        h1, h2 = image.flatten() @ first - 0.3, image.flatten() @ second - 1.2
        assert 0 < h1 < h2
        assert h2 / second.norm() < h1 / first.norm()
        assert torch.equal(Gradient()(two, image).flatten(), first)
        search = BoundarySearch(restarts=8)
        assert torch.equal(BoundarySaliency(search)(two, image).flatten(), second)
        assert search(two, image).distances[0] == pytest.approx(float(h2 / second.norm()), rel=1e-4)

    def test_is_the_gradient_at_the_boundary_point(self, model, images):
        points = QUICK(model, images).points.requires_grad_(True)
        own = model(images).argmax(1)
        model(points).gather(1, own[:, None]).sum().backward()
        assert torch.allclose(BoundarySaliency(QUICK)(model, images), points.grad, atol=1e-9)


class TestBoundaryIntegratedGradients:
    def test_is_complete(self, smooth_model, images):
        with torch.no_grad():
            smooth_model[-1].weight *= 8
            smooth_model[-1].bias -= smooth_model(images).mean(0)
        own = smooth_model(images).argmax(1)[:, None]
        big = BoundaryIntegratedGradients()
        maps, found = big.with_found(smooth_model, images)
        points = big.search(smooth_model, images).points
        change = smooth_model(images).gather(1, own) - smooth_model(points).gather(1, own)
        assert found.all()
        assert change.abs().min() > 1e-3
        assert torch.allclose(maps.flatten(1).sum(1), change.flatten(), rtol=0.01)

    def test_is_complete_for_relu(self, model, images):
        own = model(images).argmax(1)[:, None]
        big = BoundaryIntegratedGradients(steps=200)
        maps, found = big.with_found(model, images)
        points = big.search(model, images).points
        change = model(images).gather(1, own) - model(points).gather(1, own)
        assert found.all()
        assert torch.allclose(maps.flatten(1).sum(1), change.flatten(), rtol=0.01)

    def test_equals_captum_from_the_same_baseline(self, model, images):
        import captum.attr

        ours = BoundaryIntegratedGradients(QUICK)(model, images)
        theirs = captum.attr.IntegratedGradients(model).attribute(
            images,
            QUICK(model, images).points,
            target=model(images).argmax(1),
            n_steps=20,
            method="riemann_trapezoid",
        )
        # Captum's 20 trapezoid weights sum to 19/20; the rule's own sum to 1.
        assert torch.allclose(ours, theirs * 20 / 19, atol=1e-6)

    def test_only_the_straight_path_treats_equal_pixels_equally(self):
        """The example of appendix C: f = min(x, y) at (1, 1) from (0, 0)."""
        least = Function(lambda x: F.pad(x.flatten(1).amin(1, keepdim=True), (0, 1)))
        ends = vector(0.0, 0.0), vector(1.0, 1.0)

        def along(path):
            total = torch.zeros_like(ends[0])
            places = [path(t) for t in torch.linspace(0, 1, 51).double()]
            middle, one = torch.tensor([[0.5]]).double(), torch.ones(1).double()
            target = torch.tensor([0])
            for start, end in itertools.pairwise(places):
                total += integrate(least, end, start, target, middle, one)
            return total.flatten().tolist()

        assert along(lambda t: vector(t, t)) == pytest.approx([0.5, 0.5])
        assert along(lambda t: vector(t**2, t)) == pytest.approx([1, 0])
        assert along(lambda t: vector(t, t**2)) == pytest.approx([0, 1])

    def test_treats_equal_pixels_equally(self):
        """x·y + x + y > 1.2 is nearest left along the diagonal, from (1, 1)."""

        def scores(x):
            x, y = x.flatten(1).unbind(1)
            return torch.stack([x * y, 1.2 - x - y], 1)

        maps = BoundaryIntegratedGradients()(Function(scores), vector(1.0, 1.0)).flatten()
        edge = 2.2**0.5 - 1
        assert torch.allclose(maps, torch.full_like(maps, (1 - edge**2) / 2), rtol=0.01)

    def test_refuses_a_line_of_one_point(self, own_errors):
        with pytest.raises(InputError, match=r"BoundaryIntegratedGradients.steps: expected"):
            BoundaryIntegratedGradients(steps=1)


def test_deep_lift_starts_at_the_boundary_point(model, images):
    points = QUICK(model, images).points
    own = model(images).argmax(1)
    maps, found = BoundaryDeepLIFT(QUICK).with_found(model, images)
    assert found.all()
    assert torch.allclose(maps, deep_lift(model, images, points, own), atol=1e-9)
    change = (model(images) - model(points)).gather(1, own[:, None])
    assert torch.allclose(maps.flatten(1).sum(1), change.flatten())


@pytest.mark.parametrize(
    ("method", "fallback"),
    [
        (BoundarySaliency(QUICK), Gradient()),
        (BoundaryIntegratedGradients(QUICK), IntegratedGradients(steps=20, rule="trapezoid")),
        (BoundaryDeepLIFT(QUICK), DeepLIFT()),
        (BoundarySmoothGrad(QUICK, samples=2, noise=0.0), Gradient()),
    ],
    ids=lambda method: type(method).__name__,
)
def test_falls_back_aloud_where_there_is_no_boundary(method, fallback):
    images = torch.rand(3, 1, 2, 3).double()
    with pytest.warns(UserWarning, match=r"no boundary found for 3 of 3 images") as warned:
        maps = method(Constant(), images)
    assert len(warned) == 1
    assert torch.allclose(maps, fallback(Constant(), images))
    assert maps.abs().sum() > 0
    assert not method.with_found(Constant(), images)[1].any()


@pytest.mark.parametrize("method", METHODS, ids=lambda method: type(method).__name__)
class TestEveryMethod:
    def test_is_an_attribution_that_is_silent_where_all_is_found(
        self, method, model, images, recwarn
    ):
        assert isinstance(method, Attribution)
        assert method(model, images).shape == images.shape
        assert not recwarn

    def test_targets_default_to_the_prediction(self, method, model, images):
        predicted = model(images).argmax(1)
        assert torch.equal(method(model, images), method(model, images, predicted))
        other = method(model, images, (predicted + 1) % 4)
        assert not torch.allclose(method(model, images), other)

    def test_neither_chunks_nor_batch_change_the_result(self, method, model, images):
        whole = method(model, images)
        small = dataclasses.replace(method, chunk=2)
        assert torch.allclose(small(model, images), whole, atol=1e-7)
        assert torch.allclose(method(model, images[3:4]), whole[3:4], atol=1e-7)

    def test_leaves_everything_as_it_was(self, method, stateful_model, untouched):
        images = torch.rand(3, 2, 5, 5)
        copy, before = images.clone(), torch.get_rng_state()
        with untouched(stateful_model):
            maps, _ = method.with_found(stateful_model, images)
        assert not maps.requires_grad
        with untouched(stateful_model):
            method.with_found(stateful_model, images, create_graph=True)
        assert torch.equal(images, copy)
        assert not images.requires_grad
        assert torch.equal(torch.get_rng_state(), before)

    def test_works_inside_no_grad(self, method, model, images):
        expected = method(model, images)
        with torch.no_grad():
            assert torch.equal(method(model, images), expected)

    def test_derivative_reaches_the_weights(self, method, model, images):
        maps = method(model, images, create_graph=True)
        (gradient,) = torch.autograd.grad(maps.square().sum(), model.conv.weight)
        assert gradient.abs().sum() > 0

    @pytest.mark.parametrize(
        ("changes", "says"),
        [
            ({"images": torch.rand(2, 5, 5)}, "images: expected shape"),
            ({"targets": torch.tensor([0, 9])}, "targets: expected classes"),
            ({"targets": torch.tensor([0])}, "targets: expected shape"),
        ],
    )
    def test_refuses(self, method, changes, says, model, own_errors):
        batch = {"images": torch.rand(2, 2, 5, 5), "targets": torch.tensor([0, 1])} | changes
        with pytest.raises(InputError, match=says):
            method(model.float(), **batch)

    def test_prints_as_its_own_configuration(self, method):
        assert eval(repr(method)) == method


def test_big_holds_the_boundary_point_fixed(model, images):
    with softplus(beta=3.0):
        points = QUICK(model, images[:1]).points
        own = model(images[:1]).argmax(1)
        positions = torch.linspace(0, 1, 20).double()[None]
        weights = torch.full((20,), 1 / 19).double()
        weights[[0, -1]] /= 2

        def maps(x, method=None):
            if method:
                return method(model, x, own, create_graph=True)
            return integrate(model, x, points, own, positions, weights, create_graph=True)

        results = []
        for method in (None, BoundaryIntegratedGradients(QUICK)):
            x = images[:1].clone().requires_grad_(True)
            results.append(torch.autograd.grad(maps(x, method).square().sum(), x)[0])
        assert torch.allclose(*results)
        assert results[0].abs().sum() > 0
