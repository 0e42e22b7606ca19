"""What the tests of training losses share: naive ascents, and gradients side by side."""

import pytest
import torch

from holdfast.adversarial import PGD


@pytest.fixture
def images():
    return torch.rand(3, 2, 5, 5, dtype=torch.float64) * 0.6 + 0.2


@pytest.fixture
def labels():
    return torch.tensor([0, 3, 1])


@pytest.fixture
def attack():
    """An ℓ2 attack: its steps show the direction of the gradient, not only its signs."""
    return PGD(eps=0.3, step_size=0.1, steps=3, norm="l2", seed=0)


@pytest.fixture
def ascend():
    """PGD in ℓ2 written out, for a function of all images that returns one number."""

    def run(value, images, start, attack):
        x = start.detach()
        for _ in range(attack.steps):
            x = x.requires_grad_(True)
            (gradient,) = torch.autograd.grad(value(x), x)
            moved = []
            for now, centre, slope in zip(x.detach(), images, gradient, strict=True):
                delta = now + attack.step_size * slope / (slope**2).sum().sqrt() - centre
                length = (delta**2).sum().sqrt()
                if length > attack.eps:
                    delta = delta * attack.eps / length
                moved.append((centre + delta).clamp(0, 1))
            x = torch.stack(moved)
        return x

    return run


@pytest.fixture
def same_gradients():
    """Assert that two losses have the same gradients in all weights, and that these are not 0."""

    def check(model, ours, naive, atol=1e-10):
        weights = list(model.parameters())
        options = {"allow_unused": True, "materialize_grads": True}
        first = torch.autograd.grad(ours, weights, **options)
        second = torch.autograd.grad(naive, weights, **options)
        assert max(g.abs().max() for g in second) > 1e-4
        for a, b in zip(first, second, strict=True):
            assert torch.allclose(a, b, atol=atol, rtol=1e-7)

    return check
