import pytest
import torch
from torch import nn
from torch.nn import functional as F

from holdfast.adversarial import FGSM, accuracy
from holdfast.contracts import InputError


def test_closed_form_on_a_linear_model():
    model = nn.Sequential(nn.Flatten(), nn.Linear(30, 2)).double()
    images, labels = torch.rand(6, 1, 5, 6).double(), torch.tensor([0, 1, 0, 1, 0, 1])
    weight = model[1].weight.detach()
    away = (weight[1 - labels] - weight[labels]).sign().view_as(images)
    expected = (images + 0.1 * away).clamp(0, 1)
    assert torch.allclose(FGSM(0.1)(model, images, labels), expected, atol=1e-15)


def test_is_one_signed_step_from_the_image(smooth_model):
    images, labels = torch.rand(4, 2, 5, 5).double(), torch.tensor([0, 1, 2, 3])
    x = images.clone().requires_grad_(True)
    F.cross_entropy(smooth_model(x), labels).backward()
    expected = (images + 0.2 * x.grad.sign()).clamp(0, 1)
    for chunk in (None, 3):
        attacked = FGSM(0.2, chunk=chunk)(smooth_model, images, labels)
        assert torch.allclose(attacked, expected, atol=1e-15)


def test_takes_digits_down(digits):
    model, images, labels = digits
    assert accuracy(model, images, labels) > 0.9
    assert accuracy(model, images, labels, FGSM(0.15)) < 0.4


def test_refuses_settings(own_errors):
    with pytest.raises(InputError, match="eps"):
        FGSM(-0.1)
