import math

import pytest
import torch
import torchvision
from torch import nn
from torch.nn import functional as F

from holdfast.contracts import InputError
from holdfast.models import softplus


def closed_form(z, beta):
    return torch.log(1 + torch.exp(beta * z)) / beta


FORMS = {
    "F.relu": F.relu,
    "F.relu in place": lambda z: F.relu(z, inplace=True),
    "torch.relu": torch.relu,
    "torch.relu_": torch.relu_,
    "F.relu_": F.relu_,
    "Tensor.relu": lambda z: z.relu(),
    "Tensor.relu_": lambda z: z.relu_(),
    "nn.ReLU": nn.ReLU(),
    "nn.ReLU in place": nn.ReLU(inplace=True),
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_becomes_the_closed_form_and_back(form):
    z = torch.linspace(-0.4, 0.4, 41, dtype=torch.float64)
    with softplus(beta=10.0):
        within = FORMS[form](z.clone())
    assert torch.allclose(within, closed_form(z, 10.0), atol=1e-12, rtol=0)
    assert torch.equal(FORMS[form](z.clone()), z.clamp_min(0))


@pytest.mark.parametrize("form", [form for form in FORMS if "place" in form or form.endswith("_")])
def test_in_place_forms_overwrite_their_input(form):
    z = torch.tensor([-1.0, 0.0, 1.0])
    with softplus(beta=5.0):
        returned = FORMS[form](z)
    assert returned is z
    assert torch.allclose(z, closed_form(torch.tensor([-1.0, 0.0, 1.0]), 5.0))


@pytest.mark.parametrize("form", FORMS)
def test_second_derivative_is_that_of_softplus(form):
    beta = 7.0
    z = torch.linspace(-0.5, 0.5, 11, dtype=torch.float64, requires_grad=True)
    with softplus(beta):
        value = FORMS[form](z * 1)
        (first,) = torch.autograd.grad(value.sum(), z, create_graph=True)
    (second,) = torch.autograd.grad(first.sum(), z)
    sigmoid = torch.sigmoid(beta * z)
    assert torch.allclose(first, sigmoid)
    assert torch.allclose(second, beta * sigmoid * (1 - sigmoid))


def test_torchvision_resnet_has_a_second_derivative_and_is_restored():
    model = torchvision.models.resnet18(num_classes=5).eval()  # its ReLUs work in place
    images = torch.rand(2, 3, 32, 32, requires_grad=True)

    def curvature():
        score = model(images)[:, 0].sum()
        (gradient,) = torch.autograd.grad(score, images, create_graph=True)
        (second,) = torch.autograd.grad(
            gradient.square().sum(), images, allow_unused=True, materialize_grads=True
        )
        return second

    before = model(images)
    assert curvature().abs().max() == 0
    with softplus(beta=50.0):
        assert not torch.equal(model(images), before)
        assert curvature().abs().max() > 0
    assert torch.equal(model(images), before)
    assert curvature().abs().max() == 0


def test_blocks_nest_and_an_error_inside_ends_them():
    z = torch.zeros(())
    with softplus(beta=1.0):
        with softplus(beta=2.0):
            assert torch.relu(z).item() == pytest.approx(math.log(2) / 2)
        assert torch.relu(z).item() == pytest.approx(math.log(2))
        with pytest.raises(ZeroDivisionError), softplus(beta=3.0):
            1 / 0  # noqa: B018
        assert torch.relu(z).item() == pytest.approx(math.log(2))
    assert torch.relu(z) == 0


@pytest.mark.parametrize("beta", [0.0, -1.0, float("nan")])
def test_refuses_beta(beta):
    with pytest.raises(InputError, match="beta: expected a number above 0"):
        softplus(beta)
