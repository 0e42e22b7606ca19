import pytest
import torch
from torch import nn
from torch.autograd import gradcheck, gradgradcheck
from torch.nn import functional as F

from holdfast.models import double_backward
from holdfast.models.batch_norm import batch_norm

SHAPES = [(4, 3, 3, 2), (6, 3), (3, 2, 4)]


def tensors(shape, affine):
    x = torch.randn(shape, dtype=torch.float64, requires_grad=True)
    channels = torch.randn(2, shape[1], dtype=torch.float64, requires_grad=True)
    return (x, *channels.detach().requires_grad_().unbind()) if affine else (x,)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("affine", [True, False])
def test_first_and_second_derivatives_by_finite_differences(shape, affine):
    def normalize(x, *channels):
        return batch_norm(x, None, None, *channels, training=True)

    given = tensors(shape, affine)
    assert gradcheck(normalize, given)
    assert gradgradcheck(normalize, given)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("affine", [True, False])
@pytest.mark.parametrize("training", [True, False])
def test_equals_pytorchs_own(shape, affine, training):
    inputs = tensors(shape, affine)
    mean, var = torch.randn(2, shape[1], dtype=torch.float64).unbind()

    def second(normalize):
        running = mean.clone(), var.abs()
        y = normalize(inputs[0], *running, *inputs[1:], training=training, momentum=0.3, eps=0.01)
        first = torch.autograd.grad(y.pow(3).sum(), inputs, create_graph=True)
        twice = torch.autograd.grad(sum(f.pow(2).sum() for f in first), inputs)
        return y, *first, *twice, *running

    for ours, theirs in zip(second(batch_norm), second(F.batch_norm), strict=True):
        assert torch.allclose(ours, theirs, rtol=1e-9)


@pytest.mark.parametrize("wanted", [0, 1, 2])
def test_second_derivative_of_one_of_the_first_ones(wanted):
    inputs = tensors((4, 3, 2, 2), True)

    def second(normalize):
        y = normalize(inputs[0], None, None, *inputs[1:], training=True)
        (first,) = torch.autograd.grad(y.pow(3).sum(), inputs[wanted], create_graph=True)
        return torch.autograd.grad(first.pow(2).sum(), inputs)

    for ours, theirs in zip(second(batch_norm), second(F.batch_norm), strict=True):
        assert torch.allclose(ours, theirs, rtol=1e-9)


@pytest.mark.parametrize("training", [True, False])
def test_modules_within_the_block(training):
    ours, theirs = nn.BatchNorm2d(3).train(training), nn.BatchNorm2d(3).train(training)
    x = torch.rand(4, 3, 5, 5)
    with double_backward():
        y = ours(x)
    assert torch.allclose(y, theirs(x), atol=1e-6)
    assert torch.equal(ours.running_mean, theirs.running_mean)
    assert torch.equal(ours.num_batches_tracked, theirs.num_batches_tracked)


def test_too_few_values_are_refused_as_pytorch_does():
    with pytest.raises(ValueError, match="more than 1 value"):
        batch_norm(torch.rand(1, 3, 1, 1, requires_grad=True), None, None, training=True)


def test_works_under_autocast():
    layer = nn.BatchNorm2d(2)
    x = torch.rand(4, 2, 3, 3, requires_grad=True)
    with torch.autocast("cpu", dtype=torch.bfloat16), double_backward():
        layer(x).square().sum().backward()
    assert torch.isfinite(x.grad).all()
