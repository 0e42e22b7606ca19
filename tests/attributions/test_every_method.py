import dataclasses

import pytest
import torch

from holdfast.attributions import (
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
    sampled,
)
from holdfast.contracts import Attribution, InputError
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
