import dataclasses

import captum.attr
import pytest
import torch
from torch import nn

from holdfast.attributions import (
    AdversarialGradientIntegration,
    BoundaryDeepLIFT,
    BoundaryIntegratedGradients,
    BoundarySaliency,
    BoundarySmoothGrad,
    DeepLIFT,
    GradCAM,
    GradCAMPlusPlus,
    Gradient,
    GradientSHAP,
    GuidedBackprop,
    GuidedGradCAM,
    GuidedGradCAMPlusPlus,
    InputXGradient,
    IntegratedGradients,
    SmoothGrad,
    from_captum,
    sampled,
)
from holdfast.contracts import Attribution, InputError, same_draws
from holdfast.metrics import kendall_tau, pixel_scores
from holdfast.models import softplus

METHODS = [
    Gradient(),
    InputXGradient(output="probability"),
    IntegratedGradients(steps=4),
    IntegratedGradients(steps=4, rule="trapezoid", baseline=0.5),
    SmoothGrad(samples=4, noise=0.1),
    GradientSHAP(samples=4, noise=0.1),
    GuidedBackprop(),
    DeepLIFT(),
    GradCAM(),
    GradCAMPlusPlus(),
    GuidedGradCAM(),
    GuidedGradCAMPlusPlus(),
]


@pytest.fixture
def images():
    return torch.rand(5, 2, 5, 5, dtype=torch.float64)


@pytest.fixture
def targets():
    return torch.tensor([0, 1, 2, 3, 0])


@pytest.fixture
def fixed_draws(monkeypatch):
    """Random draws that do not change with the image, as a derivative takes them."""

    def generators(images, seed):
        return [torch.Generator().manual_seed(seed + n) for n in range(len(images))]

    monkeypatch.setattr(sampled, "generators", generators)


@pytest.mark.parametrize("method", METHODS, ids=repr)
class TestEveryMethod:
    def test_is_an_attribution_of_the_images_shape(self, method, relu_model, images):
        assert isinstance(method, Attribution)
        assert method(relu_model, images).shape == images.shape

    def test_targets_default_to_the_prediction(self, method, relu_model, images):
        predicted = relu_model(images).argmax(1)
        assert torch.equal(method(relu_model, images), method(relu_model, images, predicted))

    def test_chunks_do_not_change_the_result(self, method, relu_model, images, targets):
        whole = method(relu_model, images, targets)
        for chunk in (1, 3, 7):
            small = dataclasses.replace(method, chunk=chunk)
            assert torch.allclose(small(relu_model, images, targets), whole, atol=1e-12)

    def test_does_not_depend_on_the_batch(self, method, relu_model, images, targets):
        whole = method(relu_model, images, targets)
        alone = method(relu_model, images[3:4], targets[3:4])
        assert torch.allclose(alone, whole[3:4], atol=1e-12)

    def test_explains_a_frozen_model(self, method, relu_model, images, targets):
        expected = method(relu_model, images, targets)
        relu_model.requires_grad_(False)
        assert torch.equal(method(relu_model, images, targets), expected)

    def test_leaves_model_and_images_as_they_were(self, method, stateful_model, untouched):
        images = torch.rand(3, 2, 5, 5)
        copy = images.clone()
        with untouched(stateful_model):
            maps = method(stateful_model, images)
        assert not maps.requires_grad
        assert not images.requires_grad
        assert torch.equal(images, copy)
        with untouched(stateful_model):
            method(stateful_model, images, create_graph=True)
        assert not images.requires_grad

    def test_works_inside_no_grad(self, method, relu_model, images, targets):
        with torch.no_grad():
            assert torch.equal(
                method(relu_model, images, targets), method(relu_model, images, targets)
            )

    @pytest.mark.usefixtures("fixed_draws")
    def test_second_derivative_passes_gradcheck(self, method, relu_model, images, targets):
        def maps(x):
            with softplus(beta=3.0):
                return method(relu_model, x, targets[:1], create_graph=True)

        x = (images[:1] * 0.8 + 0.1).requires_grad_(True)
        assert torch.autograd.gradcheck(maps, (x,), atol=1e-5)

    def test_derivative_reaches_the_weights(self, method, relu_model, images, targets):
        maps = method(relu_model, images, targets, create_graph=True)
        gradients = torch.autograd.grad(maps.square().sum(), relu_model.conv.weight)
        assert gradients[0].abs().sum() > 0

    @pytest.mark.parametrize(
        ("changes", "says"),
        [
            ({"images": torch.rand(2, 5, 5)}, "images: expected shape"),
            ({"images": torch.rand(2, 2, 5, 5) * 255}, "images: expected values in"),
            ({"images": torch.full((2, 2, 5, 5), float("nan"))}, "images: expected finite"),
            ({"targets": torch.tensor([0, 9])}, "targets: expected classes"),
            ({"targets": torch.tensor([0])}, "targets: expected shape"),
            ({"targets": torch.tensor([0.0, 1.0])}, "targets: expected integers"),
        ],
    )
    def test_refuses(self, method, changes, says, relu_model, own_errors):
        batch = {"images": torch.rand(2, 2, 5, 5), "targets": torch.tensor([0, 1])} | changes
        with pytest.raises(InputError, match=says):
            method(relu_model.float(), **batch)

    def test_prints_as_its_own_configuration(self, method):
        assert eval(repr(method)) == method


def _name(method):
    return type(method).__name__


RANDOM = [
    SmoothGrad(samples=4, noise=0.1),
    GradientSHAP(samples=4, noise=0.1),
    IntegratedGradients(steps=3, rule="stratified"),
    BoundarySmoothGrad(samples=3, noise=0.1, seed=1),
    from_captum(captum.attr.GradientShap, baselines=torch.zeros(2, 2, 5, 5).double(), n_samples=3),
]
OTHERS = [
    BoundarySaliency(),
    BoundaryIntegratedGradients(steps=3),
    BoundaryDeepLIFT(),
    AdversarialGradientIntegration(classes=2, steps=4),
]


@pytest.mark.parametrize("method", [*METHODS, *RANDOM, *OTHERS], ids=_name)
class TestUnderTheSameDraws:
    def test_a_vanishing_perturbation_leaves_the_map(self, method, images, targets):
        """A smooth model, whose maps are continuous; ReLU's jump for some inputs."""
        model = _smooth()
        moved = (images + 1e-7 * torch.randn_like(images).sign()).clamp(0, 1)
        before = method(model.to(images), images, targets)
        with same_draws(images, moved):
            after = method(model, moved, targets)
        tau = kendall_tau(pixel_scores(before), pixel_scores(after))
        assert (tau > 0.99).all(), tau

    def test_they_do_not_depend_on_batch_or_order(self, method, images, targets):
        model = _smooth()
        moved = (images + 0.01 * torch.randn_like(images)).clamp(0, 1)
        order = torch.tensor([3, 1])
        with same_draws(images, moved):
            whole = method(model, moved, targets)
            few = method(model, moved[order], targets[order])
        assert torch.allclose(few, whole[order], atol=1e-9)


@pytest.mark.parametrize("method", RANDOM, ids=_name)
def test_another_seed_changes_the_draws(method, images, targets):
    model = _smooth()
    before = torch.get_rng_state()
    first = method(model, images, targets)
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(method(model, images, targets), first)
    other = dataclasses.replace(method, seed=method.seed + 1)(model, images, targets)
    assert not torch.allclose(other, first)


@pytest.mark.parametrize("method", RANDOM[:2], ids=repr)
def test_without_them_a_vanishing_perturbation_is_other_noise(method, images, targets):
    """What made maps differ where nothing happened; should it end, the test above says nothing."""
    model = _smooth()
    moved = (images - 1e-5).clamp(0, 1)
    before, after = (method(model, x, targets) for x in (images, moved))
    assert kendall_tau(pixel_scores(before), pixel_scores(after)).mean() < 0.97


def _smooth():
    torch.manual_seed(5)
    return nn.Sequential(
        nn.Conv2d(2, 3, 3), nn.Tanh(), nn.Flatten(), nn.Linear(27, 8), nn.Tanh(), nn.Linear(8, 4)
    ).double()
