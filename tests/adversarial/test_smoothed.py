import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from holdfast.adversarial import SmoothedPGD
from holdfast.contracts import InputError, StuckWarning

SHAPE = (2, 3, 5)


@pytest.fixture
def model():
    torch.manual_seed(3)
    layers = nn.Sequential(nn.Flatten(), nn.Linear(30, 16), nn.Tanh(), nn.Linear(16, 4)).double()
    layers[3].weight.data *= 4
    return layers


@pytest.fixture
def images():
    return torch.rand(6, *SHAPE, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


@pytest.fixture
def noise():
    drawn = torch.randn(7, *SHAPE, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    return 0.1 * drawn


def naive(model, image, noise, eps, length, steps, kept):
    """Appendix B.5, one image and one noisy copy at a time, in ℓ2."""
    own = model(image[None]).argmax(1)
    x, taken = image.clone(), 0
    while True:
        share = sum(int(model((x + e)[None]).argmax(1) == own) for e in noise) / len(noise)
        if share < kept or taken == steps:
            return x, share < kept, taken
        gradient = torch.zeros_like(x)
        for e in noise:
            copy = (x + e)[None].requires_grad_(True)
            F.cross_entropy(model(copy), own).backward()
            gradient += copy.grad[0]
        delta = x + length * gradient / gradient.norm() - image
        delta = delta * min(1.0, eps / float(delta.norm()))
        x, taken = (image + delta).clamp(0, 1), taken + 1


@pytest.mark.parametrize(("eps", "kept"), [(2.0, 0.1), (2.0, 0.5), (0.6, 0.1)])
def test_equals_the_naive_loop(eps, kept, model, images, noise):
    boundary = SmoothedPGD(eps, steps=12, kept=kept)(model, images, noise)
    steps = set()
    for n, image in enumerate(images):
        point, found, taken = naive(model, image, noise, eps, 2 * eps / 12, 12, kept)
        assert torch.allclose(boundary.points[n], point, atol=1e-10)
        assert bool(boundary.found[n]) == found
        distance = float((point - image).norm()) if found else math.inf
        assert float(boundary.distances[n]) == pytest.approx(distance)
        steps.add(taken)
    assert len(steps) > 1  # some stop early


def test_of_a_linear_model_it_goes_straight_until_a_tenth_is_left():
    """With 10 copies on a line, no copy may be left: the last of them decides."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(2, 2, bias=False)).double()
    model[1].weight.data = torch.tensor([[3.0, 4.0], [0.0, 0.0]]).double()
    image = torch.tensor([0.5, 0.5]).double().view(1, 1, 1, 2)
    model.append(Shifted())  # class 0 where 3x + 4y > 3: at a distance of 0.1
    along = torch.tensor([0.6, 0.8]).double().view(1, 1, 1, 2)
    noise = torch.linspace(-0.2, 0.2, 10).double().view(10, 1, 1, 1) * along
    search = SmoothedPGD(eps=1.0, step_size=0.01, steps=40)
    boundary = search(model, image, noise)
    assert boundary.found.all()
    # The copy farthest inside is 0.2 ahead of the image, which is 0.1 from the plane.
    assert float(boundary.distances) == pytest.approx(0.31)
    assert torch.allclose(boundary.points, image - 0.31 * along)


class Shifted(nn.Module):
    def forward(self, z):
        return z - torch.tensor([3.0 - 1e-6, 0.0]).to(z)


def test_an_image_whose_copies_are_lost_is_its_own_point(model, images, noise):
    other = (model(images).argmax(1) + 1) % 4
    boundary = SmoothedPGD(eps=2.0, steps=3)(model, images, 0 * noise, other)
    assert boundary.found.all()
    assert torch.equal(boundary.points, images)
    assert boundary.distances.tolist() == [0.0] * 6
    assert torch.equal(boundary.labels, model(images).argmax(1))


def test_neither_chunks_nor_batch_change_the_result(model, images, noise):
    whole = SmoothedPGD(eps=2.0, steps=6)(model, images, noise)
    for chunk in (1, 3, 20):
        small = SmoothedPGD(eps=2.0, steps=6, chunk=chunk)(model, images, noise)
        assert torch.allclose(small.points, whole.points, atol=1e-10)
    few = SmoothedPGD(eps=2.0, steps=6)(model, images[2:4], noise)
    assert torch.allclose(few.points, whole.points[2:4], atol=1e-10)


def test_leaves_everything_as_it_was(stateful_model, untouched):
    images, noise = torch.rand(2, 2, 5, 5), torch.randn(3, 2, 5, 5)
    copy, state = images.clone(), torch.get_rng_state()
    with untouched(stateful_model):
        SmoothedPGD(steps=2)(stateful_model, images, noise)
    assert torch.equal(images, copy)
    assert torch.equal(torch.get_rng_state(), state)


def test_warns_where_there_was_no_direction(images, noise):
    class Constant(nn.Module):
        def forward(self, x):
            return 0 * x.flatten(1)[:, :2] + torch.tensor([0.0, 1.0])

    with pytest.warns(StuckWarning, match="SmoothedPGD: for 6 of 6 images"):
        boundary = SmoothedPGD(steps=2)(Constant(), images, noise)
    assert not boundary.found.any()
    assert boundary.distances.isinf().all()


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"eps": -1}, "eps"),
        ({"steps": 0}, "SmoothedPGD.steps"),
        ({"step_size": 0.0}, "SmoothedPGD.step_size"),
        ({"kept": 0.0}, "SmoothedPGD.kept: expected a share above 0"),
        ({"norm": "l1"}, "SmoothedPGD.norm"),
    ],
)
def test_refuses_settings(settings, says, own_errors):
    with pytest.raises(InputError, match=says):
        SmoothedPGD(**settings)


@pytest.mark.parametrize("shape", [(2, 3, 5), (4, 2, 5, 3), (0, 2, 3, 5)])
def test_refuses_other_noise(shape, model, images, own_errors):
    with pytest.raises(InputError, match=r"noise: expected shape \(M, 2, 3, 5\)"):
        SmoothedPGD()(model, images, torch.zeros(shape))
