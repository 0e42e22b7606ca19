import dataclasses

import pytest
import torch
from torch import nn

from holdfast.adversarial import BoundaryPipeline, BoundarySearch, SmoothedPGD
from holdfast.attributions import BoundarySaliency, BoundarySmoothGrad, Gradient
from holdfast.models import softplus

QUICK = BoundarySearch(steps=6, scout_steps=4, restarts=2, restart_steps=3)


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


def test_by_default_the_search_is_the_published_one(model, images):
    """PGD of at most 40 steps, gradients summed over 50 copies, until under 10 % are left."""
    method = BoundarySmoothGrad(seed=3)
    noise = torch.randn(50, 2, 5, 5, generator=torch.Generator().manual_seed(3)).double() * 0.15
    own = model(images).argmax(1)
    maps, found = method.with_found(model, images)
    for n, image in enumerate(images):
        x, taken = image.clone(), 0
        while True:
            copies = (x + noise).requires_grad_(True)
            logits = model(copies)
            lost = float((logits.argmax(1) == own[n]).double().mean()) < 0.1
            if lost or taken == 40:
                break
            loss = nn.functional.cross_entropy(logits, own[n].expand(50), reduction="sum")
            gradient = torch.autograd.grad(loss, copies)[0].sum(0)
            delta = x + 2 * 3.0 / 40 * gradient / gradient.norm() - image
            x, taken = (image + delta * min(1.0, 3.0 / float(delta.norm()))).clamp(0, 1), taken + 1
        expected = torch.autograd.grad(logits[:, own[n]].mean(), copies)[0].sum(0)
        assert torch.allclose(maps[n], expected, atol=1e-9)
        assert bool(found[n]) == lost
    assert found.any()


def test_another_search_gives_other_points_which_are_nearer(model, images):
    published, ours = BoundarySmoothGrad(samples=9), BoundarySmoothGrad(QUICK, samples=9)
    first, second = published.boundary(model, images), ours.boundary(model, images)
    both = first.found & second.found
    assert both.any()
    assert (second.distances[both] < first.distances[both]).all()


def test_takes_the_published_pipeline_too(model, images):
    search = BoundaryPipeline(("pgd",), epsilons=(1.0, 3.0), step_size=None, steps=10)
    method = BoundarySmoothGrad(search, samples=3)
    maps, found = method.with_found(model, images)
    assert found.any()
    assert torch.equal(method.boundary(model, images).found, found)
    assert maps.shape == images.shape


def test_where_nothing_was_found_it_is_smooth_grad_where_the_search_ended(model, images):
    method = BoundarySmoothGrad(SmoothedPGD(eps=1e-3, steps=2), samples=3, noise=0.01)
    with pytest.warns(UserWarning, match="found for 5 of 5 images; .* at the image, or"):
        maps = method(model, images)
    points = method.boundary(model, images).points
    assert not torch.equal(points, images)
    own = model(images).argmax(1)
    assert torch.allclose(maps, method.smooth_gradient(model, points, own))


def test_chunks_do_not_change_the_result(model, images):
    method = BoundarySmoothGrad(SmoothedPGD(steps=5), samples=7)
    whole = method.with_found(model, images)[0]
    for chunk in (2, 10):
        small = dataclasses.replace(method, chunk=chunk).with_found(model, images)[0]
        assert torch.allclose(small, whole, atol=1e-9)


class TestWithOurSearch:
    def test_is_the_mean_gradient_at_the_smoothed_boundary(self, model, images):
        method = BoundarySmoothGrad(QUICK, samples=4, noise=0.1, seed=3)
        noise = torch.randn(4, 2, 5, 5, generator=torch.Generator().manual_seed(3)).double() * 0.1
        smoothed = Function(lambda x: torch.stack([model(x + e) for e in noise]).mean(0))
        boundary = QUICK(smoothed, images)
        own = model(images).argmax(1)
        expected = Gradient()(smoothed, boundary.points, own)
        maps, found = method.with_found(model, images)
        assert torch.equal(found, boundary.found)
        assert torch.allclose(maps, expected, atol=1e-8)

    def test_without_noise_it_is_boundary_saliency(self, model, images):
        smooth = BoundarySmoothGrad(QUICK, samples=2, noise=0.0)(model, images)
        assert torch.allclose(smooth, BoundarySaliency(QUICK)(model, images), atol=1e-8)


class TestTheoremOne:
    """The more a classifier is smoothed, the nearer is its gradient to that at its boundary."""

    @pytest.fixture
    def network(self):
        network = nn.Sequential(nn.Flatten(), nn.Linear(50, 200), nn.ReLU(), nn.Linear(200, 2))
        network[3].weight.data *= 8
        return network.double()

    def test_by_softplus(self, network, images):
        gaps = []
        for beta in (100.0, 20.0, 4.0):
            with softplus(beta):
                centre(network, network(images))
                saliency = Gradient()(network, images)
                maps, found = BoundarySaliency(QUICK).with_found(network, images)
            assert found.all()
            gaps.append((saliency - maps).flatten(1).norm(dim=1).mean())
        assert gaps[0] > 1.2 * gaps[1] > 1.44 * gaps[2]

    def test_by_noise(self, network, images):
        drawn = torch.randn(40, 2, 5, 5, generator=torch.Generator().manual_seed(0)).double()
        gaps = []
        for noise in (0.01, 0.1, 0.5):
            copies = (images[:, None] + noise * drawn).flatten(0, 1)
            centre(network, network(copies))
            method = BoundarySmoothGrad(QUICK, samples=40, noise=noise)
            own = network(copies).view(5, 40, 2).mean(1).argmax(1)
            maps, found = method.with_found(network, images, own)
            assert found.all()
            copies.requires_grad_(True)
            network(copies).gather(1, own.repeat_interleave(40)[:, None]).sum().backward()
            smoothed = copies.grad.view(5, 40, 2, 5, 5).mean(1)
            gaps.append((smoothed - maps).flatten(1).norm(dim=1).mean())
        assert gaps[0] > 1.2 * gaps[1] > 1.44 * gaps[2]


def centre(network, logits):
    """Bring the boundary among the images, as near to them however smooth the network is."""
    with torch.no_grad():
        network[3].bias -= logits.mean(0)
