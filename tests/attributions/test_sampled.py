import captum.attr
import numpy as np
import pytest
import torch

from holdfast.attributions import Gradient, GradientSHAP, SmoothGrad
from holdfast.contracts import InputError, generators

SAMPLES = 6


@pytest.fixture
def images():
    return torch.rand(3, 2, 5, 5, dtype=torch.float64)


@pytest.fixture
def targets():
    return torch.tensor([0, 1, 2])


class Replay:
    """Hands out draws made beforehand, in the order in which Captum asks for them."""

    def __init__(self, monkeypatch, noise, choice=None, place=None):
        monkeypatch.setattr(torch, "normal", lambda mean, std: noise.flatten(0, 1) * std.sign())
        if place is not None:
            flat = iter([choice.flatten().numpy()])
            monkeypatch.setattr(np.random, "choice", lambda *_: next(flat))
            monkeypatch.setattr(np.random, "uniform", lambda *_: place.flatten().numpy())


def test_smooth_grad_equals_captum(relu_model, images, targets, monkeypatch):
    ours = SmoothGrad(samples=SAMPLES, noise=0.2, seed=4)(relu_model, images, targets)
    noise = torch.stack(
        [
            torch.stack([0.2 * torch.randn(2, 5, 5, generator=die) for _ in range(SAMPLES)])
            for die in generators(images, 4)
        ]
    ).double()
    Replay(monkeypatch, noise)
    theirs = captum.attr.NoiseTunnel(captum.attr.Saliency(relu_model)).attribute(
        images, nt_samples=SAMPLES, stdevs=1.0, target=targets, abs=False
    )
    assert torch.allclose(ours, theirs, atol=1e-6)


@pytest.mark.parametrize("noise", [0.0, 0.1])
def test_gradient_shap_equals_captum(noise, relu_model, images, targets, monkeypatch):
    baselines = torch.rand(4, 2, 5, 5).double()
    method = GradientSHAP(samples=SAMPLES, noise=noise, baselines=baselines, seed=2)
    ours = method(relu_model, images, targets)
    choice, place, added = torch.zeros(3, SAMPLES).long(), torch.zeros(3, SAMPLES), []
    for n, die in enumerate(generators(images, 2)):
        for k in range(SAMPLES):
            choice[n, k] = torch.randint(4, (), generator=die)
            place[n, k] = torch.rand((), generator=die)
            if noise:
                added.append(noise * torch.randn(2, 5, 5, generator=die))
    added = (
        torch.stack(added).view(3, SAMPLES, 2, 5, 5) if noise else torch.zeros(3, SAMPLES, 1, 1, 1)
    )
    Replay(monkeypatch, added.double(), choice, place)
    theirs = captum.attr.GradientShap(relu_model).attribute(
        images, baselines, n_samples=SAMPLES, stdevs=1.0 if noise else 0.0, target=targets
    )
    assert torch.allclose(ours, theirs, atol=1e-6)


def test_without_noise_smooth_grad_is_the_gradient(relu_model, images, targets):
    maps = SmoothGrad(samples=3, noise=0.0)(relu_model, images, targets)
    assert torch.allclose(maps, Gradient()(relu_model, images, targets))


def test_smooth_grad_of_a_parabola_is_its_gradient():
    # E[2 (x + ε)] = 2 x, whatever the noise; the error of the mean shrinks with its root.
    def model(x):
        return torch.stack([x.square().sum((1, 2, 3)), x.sum((1, 2, 3))], 1)

    images = torch.rand(2, 1, 3, 3).double()
    method = SmoothGrad(samples=4000, noise=0.3)
    maps = method(as_module(model), images, torch.tensor([0, 0]))
    error = maps - 2 * images
    assert error.abs().max() < 5 * 2 * 0.3 / 4000**0.5
    assert error.std() > 0.2 * 2 * 0.3 / 4000**0.5


def test_gradient_shap_approaches_completeness(smooth_model, images):
    targets = torch.tensor([3, 0, 1])
    method = GradientSHAP(samples=3000, baselines=(0.0, 1.0))
    gathered = method(smooth_model, images, targets).flatten(1).sum(1)
    ends = [smooth_model(torch.full_like(images, value)) for value in (0.0, 1.0)]
    change = (smooth_model(images) - (ends[0] + ends[1]) / 2).gather(1, targets[:, None])[:, 0]
    spread = (ends[0] - ends[1]).abs().max()
    assert (gathered - change).abs().max() < 0.1 * spread


@pytest.mark.parametrize("method", [SmoothGrad(samples=3), GradientSHAP(samples=3, noise=0.1)])
def test_draws_follow_the_seed_and_leave_the_global_dice_alone(method, relu_model, images):
    import dataclasses

    before = torch.get_rng_state()
    first, again = method(relu_model, images), method(relu_model, images)
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(first, again)
    assert not torch.equal(dataclasses.replace(method, seed=1)(relu_model, images), first)


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: SmoothGrad(samples=0), "SmoothGrad.samples"),
        (lambda: SmoothGrad(noise=-0.1), "SmoothGrad.noise"),
        (lambda: GradientSHAP(samples=0), "GradientSHAP.samples"),
        (lambda: GradientSHAP(baselines=()), "GradientSHAP.baselines: expected at least one"),
        (lambda: GradientSHAP(baselines=(0.0, 3.0)), "GradientSHAP.baselines: expected at least"),
        (lambda: GradientSHAP(baselines=torch.ones(2, 5, 5)), "GradientSHAP.baselines: expected s"),
    ],
)
def test_refuses_settings(make, says, own_errors):
    with pytest.raises(InputError, match=says):
        make()


def test_refuses_baselines_of_another_shape(relu_model, images, own_errors):
    method = GradientSHAP(baselines=torch.zeros(2, 1, 5, 5))
    with pytest.raises(InputError, match="GradientSHAP.baselines: expected images of shape"):
        method(relu_model, images)


def as_module(function):
    class Module(torch.nn.Module):
        def forward(self, x):
            return function(x)

    return Module()
