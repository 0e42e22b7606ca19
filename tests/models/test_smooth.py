import math

import pytest
import torch
from torch.nn import functional as F

from holdfast.models import smooth
from holdfast.models.smooth_pool import adaptive_max_pool, max_pool

BETA = 4.0
BOUND = torch.tensor([0.3, -0.2, 0.1], dtype=torch.float64)
UNARY = {
    "relu": lambda z: smooth.relu(z, BETA),
    "clamp": lambda z: smooth.clamp(z, -0.5, 0.8, BETA),
    "clamp below": lambda z: smooth.clamp(z, 0.2, None, BETA),
    "clamp_between": lambda z: smooth.clamp_between(z, BOUND, BOUND + 1, BETA),
    "leaky_relu": lambda z: smooth.leaky_relu(z, 0.2, BETA),
    "prelu": lambda z: smooth.prelu(z, BOUND, BETA),
    "absolute": lambda z: smooth.absolute(z, BETA),
    "hardsigmoid": lambda z: smooth.hardsigmoid(z, BETA),
    "hardswish": lambda z: smooth.hardswish(z, BETA),
    "softshrink": lambda z: smooth.softshrink(z, 0.5, BETA),
    "threshold": lambda z: smooth.threshold(z, 0.5, 0.2, BETA),
    "hardshrink": lambda z: smooth.hardshrink(z, 0.5, BETA),
    "elu": lambda z: smooth.elu(z, 1.6, 1.1, 0.7, BETA),
    "larger": lambda z: smooth.larger(z, BOUND, BETA),
    "smaller": lambda z: smooth.smaller(z, BOUND, BETA),
    "maximum_over": lambda z: smooth.maximum_over(z, [1], BETA),
    "max_pool": lambda z: max_pool(z, [2], 2, 1, 0, 1, BETA),
    "adaptive_max_pool": lambda z: adaptive_max_pool(z, [2], BETA),
}


@pytest.mark.parametrize("name", UNARY)
def test_derivatives_are_those_of_the_value(name):
    """By finite differences of the value, of the first and of the second derivative."""
    torch.manual_seed(0)
    z = torch.randn(2, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(UNARY[name], z)
    assert torch.autograd.gradgradcheck(UNARY[name], z)


@pytest.mark.parametrize("name", UNARY)
def test_the_value_is_the_same_without_a_gradient(name):
    z = torch.randn(2, 3, dtype=torch.float64)
    assert torch.equal(UNARY[name](z), UNARY[name](z.clone().requires_grad_(True)))


def test_bounds_that_are_tensors_do_as_numbers():
    z = torch.linspace(-3, 3, 31, dtype=torch.float64)
    for low, high in ((-0.5, 0.8), (0.2, 0.2), (1.0, -1.0)):
        given = (torch.full((31,), bound, dtype=torch.float64) for bound in (low, high))
        between = smooth.clamp_between(z, *given, BETA)
        assert torch.allclose(between, smooth.clamp(z, min(low, high), high, BETA))
    assert torch.allclose(between, torch.full_like(z, -1.0))  # as PyTorch defines it
    one_sided = smooth.clamp_between(z, None, torch.tensor(0.8), BETA)
    assert torch.allclose(one_sided, smooth.clamp(z, None, 0.8, BETA))


def test_equal_infinities_are_equal():
    ends = torch.tensor([-torch.inf, torch.inf, -torch.inf], requires_grad=True)
    others = torch.tensor([-torch.inf, torch.inf, 1.0], requires_grad=True)
    value = smooth.larger(ends, others, BETA)
    slopes = torch.autograd.grad(value.sum(), (ends, others))
    assert value.tolist() == [-torch.inf, torch.inf, 1.0]
    assert slopes[0].tolist() == [0.5, 0.5, 0.0]
    assert slopes[1].tolist() == [0.5, 0.5, 1.0]


@pytest.mark.parametrize("count", [2, 4, 9, 100])
def test_the_smooth_maximum_is_above_the_maximum_by_no_more_than_said(count):
    bound = math.log(count) / BETA
    equal = torch.zeros(1, count, dtype=torch.float64)
    assert smooth.maximum_over(equal, [1], BETA).item() == pytest.approx(bound)
    anything = torch.randn(20000, count, dtype=torch.float64)
    off = smooth.maximum_over(anything, [1], BETA) - anything.amax(1)
    assert 0 <= off.min() <= off.max() <= bound


def test_the_slopes_of_the_smooth_maximum_are_shares():
    z = torch.randn(500, 4, dtype=torch.float64, requires_grad=True)
    (slopes,) = torch.autograd.grad(smooth.maximum_over(z, [1], BETA).sum(), z)
    assert slopes.min() >= 0
    assert torch.allclose(slopes.sum(1), torch.ones(500, dtype=torch.float64))


def test_the_smooth_maximum_of_two_is_the_larger():
    z = torch.randn(50, 2, dtype=torch.float64)
    both = smooth.larger(z[:, 0], z[:, 1], BETA)
    assert torch.allclose(smooth.maximum_over(z, [1], BETA), both, atol=1e-12)


@pytest.mark.parametrize(
    ("kernel", "stride", "padding", "dilation", "ceil"),
    [(2, None, 0, 1, False), (3, 2, 1, 1, False), ((3, 2), (2, 1), (1, 0), (1, 2), True)],
)
def test_max_pool_equals_the_loop_over_windows(kernel, stride, padding, dilation, ceil):
    x = torch.randn(2, 3, 7, 6, dtype=torch.float64)
    shape = F.max_pool2d(x, kernel, stride, padding, dilation, ceil).shape
    ours = max_pool(x, shape[2:], kernel, stride, padding, dilation, BETA)
    pair = lambda v: (v, v) if isinstance(v, int) else v  # noqa: E731
    k, s, p, d = pair(kernel), pair(stride or kernel), pair(padding), pair(dilation)
    expected = torch.zeros(shape, dtype=torch.float64)
    for i in range(shape[2]):
        for j in range(shape[3]):
            rows = [r for a in range(k[0]) if 0 <= (r := i * s[0] - p[0] + a * d[0]) < 7]
            columns = [c for b in range(k[1]) if 0 <= (c := j * s[1] - p[1] + b * d[1]) < 6]
            window = x[:, :, rows][..., columns].flatten(2)
            expected[:, :, i, j] = torch.exp(BETA * window).sum(2).log() / BETA
    assert torch.allclose(ours, expected, atol=1e-12)


@pytest.mark.parametrize("shape", [(1, 1), (3, 4), (2, 5), (7, 6)])
def test_adaptive_max_pool_equals_the_loop_over_windows(shape):
    x = torch.randn(2, 3, 7, 6, dtype=torch.float64)
    ours = adaptive_max_pool(x, shape, BETA)
    for i in range(shape[0]):
        for j in range(shape[1]):
            rows = slice(i * 7 // shape[0], math.ceil((i + 1) * 7 / shape[0]))
            columns = slice(j * 6 // shape[1], math.ceil((j + 1) * 6 / shape[1]))
            window = x[:, :, rows, columns].flatten(2)
            expected = torch.exp(BETA * window).sum(2).log() / BETA
            assert torch.allclose(ours[:, :, i, j], expected, atol=1e-12)
