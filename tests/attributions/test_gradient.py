import captum.attr
import pytest
import torch
from torch import nn

from holdfast.attributions import Gradient, InputXGradient


@pytest.fixture
def images():
    return torch.rand(5, 2, 5, 5, dtype=torch.float64)


@pytest.fixture
def targets():
    return torch.tensor([0, 1, 2, 3, 0])


def test_gradient_equals_captum(relu_model, images, targets):
    ours = Gradient()(relu_model, images, targets)
    theirs = captum.attr.Saliency(relu_model).attribute(
        images.clone().requires_grad_(True), target=targets, abs=False
    )
    assert torch.allclose(ours, theirs, atol=1e-12)


def test_input_x_gradient_equals_captum(relu_model, images, targets):
    ours = InputXGradient()(relu_model, images, targets)
    theirs = captum.attr.InputXGradient(relu_model).attribute(images, target=targets)
    assert torch.allclose(ours, theirs, atol=1e-12)


def test_input_x_gradient_of_a_network_without_biases_sums_to_the_logit(images, targets):
    model = nn.Sequential(
        nn.Conv2d(2, 3, 3, bias=False), nn.ReLU(), nn.Flatten(), nn.Linear(27, 4, bias=False)
    ).double()
    maps = InputXGradient()(model, images, targets)
    logits = model(images).gather(1, targets[:, None])[:, 0]
    assert torch.allclose(maps.flatten(1).sum(1), logits)


@pytest.mark.parametrize("output", ["logit", "probability", "log_probability", "loss"])
def test_equals_finite_differences(smooth_model, images, targets, output):
    def value(x):
        z = smooth_model(x)
        chosen = torch.arange(len(x)), targets
        if output == "logit":
            return z[chosen]
        p = (z.exp() / z.exp().sum(1, keepdim=True))[chosen]
        return {"probability": p, "log_probability": p.log(), "loss": -p.log()}[output]

    maps = Gradient(output=output)(smooth_model, images, targets)
    h = 1e-6
    for c, y, x in [(0, 0, 0), (1, 4, 2), (0, 2, 3)]:
        step = torch.zeros_like(images)
        step[:, c, y, x] = h
        slope = (value(images + step) - value(images - step)) / (2 * h)
        assert torch.allclose(maps[:, c, y, x], slope, atol=1e-7)
