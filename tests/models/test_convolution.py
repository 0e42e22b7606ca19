import pytest
import torch
from torch import nn
from torch.autograd import gradcheck, gradgradcheck
from torch.nn import functional as F

from holdfast.models import double_backward

SETTINGS = [
    {},
    {"stride": 2},
    {"padding": 1},
    {"padding": (1, 0), "stride": (1, 2)},
    {"dilation": 2, "padding": 2},
    {"groups": 2},
    {"groups": 2, "stride": 2, "padding": 1},
]


def tensors(groups=1, bias=True):
    x = torch.rand(2, 4, 5, 6, dtype=torch.float64, requires_grad=True)
    weight = torch.rand(6, 4 // groups, 3, 3, dtype=torch.float64, requires_grad=True)
    return (x, weight, torch.rand(6, dtype=torch.float64, requires_grad=True) if bias else None)


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
@pytest.mark.parametrize("bias", [True, False])
def test_first_and_second_derivatives_by_finite_differences(settings, bias):
    given = tensors(settings.get("groups", 1), bias)
    given = given if bias else given[:2]

    def convolve(*tensors):
        with double_backward():
            return F.conv2d(*tensors, **settings)

    assert gradcheck(convolve, given)
    assert gradgradcheck(convolve, given)


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_equals_pytorchs_own(settings):
    x, weight, bias = tensors(settings.get("groups", 1))

    def second(mode):
        if mode is None:
            y = F.conv2d(x, weight, bias, **settings)
        else:
            with mode:
                y = F.conv2d(x, weight, bias, **settings)
        (first,) = torch.autograd.grad(y.pow(3).sum(), x, create_graph=True)
        return y, first, *torch.autograd.grad(first.pow(2).sum(), (x, weight, bias))

    for ours, theirs in zip(second(double_backward()), second(None), strict=True):
        assert torch.allclose(ours, theirs, rtol=1e-10)


def test_takes_modules_and_leaves_weights_without_a_gradient():
    layer = nn.Conv2d(1, 2, 3)
    x = torch.rand(1, 1, 5, 5, requires_grad=True)
    with double_backward():
        y = layer(x).square().sum()
    (first,) = torch.autograd.grad(y, x, create_graph=True)
    torch.autograd.grad(first.square().sum(), x)
    assert layer.weight.grad is None


@pytest.mark.parametrize("frozen", [True, False])
def test_works_out_no_gradient_of_weights_that_nobody_wants(frozen):
    """The reason for its being: PyTorch's own second derivative convolves by the feature map."""
    layer = nn.Conv2d(3, 3, 3, padding=1, bias=False).requires_grad_(not frozen)
    x = torch.rand(4, 3, 8, 8, requires_grad=True)
    with torch.profiler.profile(record_shapes=True) as profile:
        with double_backward():
            y = layer(x).pow(3).sum()
        (first,) = torch.autograd.grad(y, x, create_graph=True)
        torch.autograd.grad(first.square().sum(), x)
    kernels = [
        event.input_shapes[1] for event in profile.events() if event.name == "aten::convolution"
    ]
    # Once there, once for the first derivative's own derivative.
    assert kernels == [[3, 3, 3, 3]] * 2


@pytest.mark.parametrize(
    ("x", "settings"),
    [
        (torch.rand(2, 3, 6, 6), {"padding": "same"}),
        (torch.rand(3, 6, 6), {}),
    ],
    ids=["padding by name", "no batch"],
)
def test_leaves_the_rest_to_pytorch(x, settings):
    weight = torch.rand(2, 3, 3, 3)
    with double_backward():
        assert torch.equal(F.conv2d(x, weight, **settings), F.conv2d(x, weight, **settings))


def test_works_under_autocast():
    layer = nn.Conv2d(1, 2, 3)
    x = torch.rand(1, 1, 5, 5, requires_grad=True)
    with torch.autocast("cpu", dtype=torch.bfloat16), double_backward():
        y = layer(x)
    assert y.dtype == torch.bfloat16
    y.sum().backward()
    assert torch.isfinite(x.grad).all()
