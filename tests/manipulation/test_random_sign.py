import pytest
import torch
from scipy import stats

from holdfast.attributions import Gradient
from holdfast.contracts import InputError
from holdfast.manipulation import RandomSign


def test_signs_are_even_and_independent(relu_model):
    images = torch.full((40, 2, 5, 5), 0.5, dtype=torch.float64)
    images += 1e-3 * torch.rand_like(images)  # the draws depend on the content
    labels = relu_model(images).argmax(1)
    outcome = RandomSign(Gradient(), 1e-9)(relu_model, images, labels)
    up = int((outcome.images[outcome.preserved] > images[outcome.preserved]).sum())
    count = images[outcome.preserved].numel()
    assert count == images.numel()
    assert stats.binomtest(up, count, 0.5).pvalue > 1e-4


def test_more_draws_never_do_worse(relu_model):
    images = torch.rand(6, 2, 5, 5, dtype=torch.float64)
    labels = relu_model(images).argmax(1)
    one, ten = (RandomSign(Gradient(), 0.1, n)(relu_model, images, labels) for n in (1, 10))
    assert (ten.similarity <= one.similarity).all()
    assert (ten.similarity < one.similarity).any()


def test_refuses_no_draws(own_errors):
    with pytest.raises(InputError, match="RandomSign.draws"):
        RandomSign(Gradient(), 0.1, draws=0)
