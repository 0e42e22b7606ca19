import pytest
import torch
from torch import nn
from torch.nn import functional as F

from holdfast.contracts import InputError
from holdfast.models import Normalized
from holdfast.objectives import CURE, curvature


def naive_curvature(model, image, label, h):
    """‖∇ℓ(x + h z) − ∇ℓ(x)‖², one image, z = sign(∇ℓ) / ‖sign(∇ℓ)‖."""

    def gradient(x):
        loss = -model(x[None]).log_softmax(1)[0, label]
        return torch.autograd.grad(loss, x, create_graph=True)[0]

    before = gradient(image.clone().requires_grad_(True))
    sign = torch.tensor([float(g > 0) - float(g < 0) for g in before.flatten()]).to(image)
    z = sign.view_as(image) / sum(s * s for s in sign) ** 0.5
    after = gradient((image + h * z).detach().requires_grad_(True))
    return sum((a - b) ** 2 for a, b in zip(after.flatten(), before.flatten(), strict=True))


@pytest.mark.parametrize("squared", [True, False])
def test_equals_the_naive_computation(smooth_model, images, labels, same_gradients, squared):
    objective = CURE(weight=3.0, h=0.7, squared=squared)
    ours = objective(smooth_model, {"images": images, "labels": labels})
    squares = [
        naive_curvature(smooth_model, image, label, 0.7)
        for image, label in zip(images, labels, strict=True)
    ]
    bent = sum(s if squared else s.sqrt() for s in squares) / 3
    expected = F.cross_entropy(smooth_model(images), labels) + 3.0 * bent
    assert ours["curvature"].item() == pytest.approx(bent.item(), rel=1e-10)
    assert ours["loss"].item() == pytest.approx(expected.item(), rel=1e-10)
    same_gradients(smooth_model, ours["loss"], expected)


def test_is_the_second_derivative_of_a_quadratic_loss(labels):
    """To first order in h it is h² ‖H z‖²."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(6, 4)).double()
    images = torch.rand(3, 1, 2, 3).double()
    expected = []
    for image, label in zip(images, labels, strict=True):

        def loss(x, label=label):
            return F.cross_entropy(model(x[None]), label[None])

        z = torch.autograd.functional.jacobian(loss, image).sign().flatten() / 6**0.5
        hessian = torch.autograd.functional.hessian(loss, image).view(6, 6)
        expected.append((1e-4 * hessian @ z).square().sum())
    ours = curvature(model, images, labels, h=1e-4)
    assert torch.allclose(ours, torch.stack(expected), rtol=1e-3)


def test_h_is_in_the_units_of_the_anchor(smooth_model, images, labels):
    """What the network sees is four times as far apart, and gradients a quarter."""
    model = Normalized(smooth_model, mean=0.5, std=0.25).double()
    inside = curvature(model, images, labels, h=0.8)
    pixels = curvature(model, images, labels, h=0.2, anchor="pixels")
    assert torch.allclose(pixels, 16 * inside)
    seen = (images - 0.5) / 0.25
    assert torch.allclose(inside, curvature(smooth_model, seen, labels, h=0.8))


@pytest.mark.parametrize(("epoch", "h"), [(0, 0.5), (1, 1.0), (3, 2.0), (9, 2.0)])
def test_h_grows_during_the_warmup(smooth_model, images, labels, epoch, h):
    batch = {"images": images, "labels": labels, "epoch": epoch}
    warmed = CURE(h=2.0, warmup=4)(smooth_model, batch)["curvature"]
    assert warmed == CURE(h=h)(smooth_model, batch)["curvature"]


def test_descending_it_flattens_the_loss(smooth_model, images, labels):
    batch = {"images": images, "labels": labels}
    before = CURE(h=0.5)(smooth_model, batch)["curvature"]
    weights = list(smooth_model.parameters())
    for weight, g in zip(weights, torch.autograd.grad(before, weights), strict=True):
        weight.data -= 0.1 * g
    assert CURE(h=0.5)(smooth_model, batch)["curvature"] < before


@pytest.mark.parametrize("squared", [True, False])
def test_a_flat_loss_bends_nowhere(squared):
    model = nn.Sequential(nn.Flatten(), nn.Linear(6, 2))
    nn.init.zeros_(model[1].weight)
    batch = {"images": torch.rand(2, 1, 2, 3), "labels": torch.tensor([0, 1])}
    terms = CURE(squared=squared)(model, batch)
    terms["loss"].backward()
    assert terms["curvature"] < 1e-15
    assert all(p.grad.isfinite().all() for p in model.parameters())


def test_works_under_no_grad(smooth_model, images, labels):
    batch = {"images": images, "labels": labels}
    expected = CURE()(smooth_model, batch)["loss"].item()
    with torch.no_grad():
        assert CURE()(smooth_model, batch)["loss"].item() == expected


@pytest.mark.parametrize(
    "settings", [{"weight": -1.0}, {"h": 0.0}, {"warmup": -1}, {"anchor": "x"}]
)
def test_refuses_settings(settings, own_errors):
    with pytest.raises(InputError, match=rf"CURE\.{next(iter(settings))}"):
        CURE(**settings)


def test_a_warmup_needs_to_know_the_epoch(smooth_model, images, labels, own_errors):
    with pytest.raises(InputError, match="batch: expected an entry 'epoch'"):
        CURE(warmup=3)(smooth_model, {"images": images, "labels": labels})
