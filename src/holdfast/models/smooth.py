"""Smooth functions that tend to the piecewise-linear ones as their sharpness β grows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function
from torch.nn import functional as F

__all__ = [
    "absolute",
    "clamp",
    "clamp_between",
    "elu",
    "hardshrink",
    "hardsigmoid",
    "hardswish",
    "larger",
    "leaky_relu",
    "maximum_over",
    "prelu",
    "relu",
    "smaller",
    "softshrink",
    "threshold",
]

Kinks = Sequence[tuple[float, float]]
"""Where the slope of a function changes, and by how much."""


def relu(z: Tensor, beta: float) -> Tensor:
    """Return softplus, ``log(1 + exp(βz)) / β``; off by at most ``log(2) / β``, at 0.

    Examples
    --------
    >>> relu(torch.zeros(1), beta=1.0)
    tensor([0.6931])
    """
    if not _differentiated(z):
        return F.softplus(z, beta=beta)
    result: Tensor = _Softplus.apply(z, torch.sigmoid(beta * z), beta)
    return result


def clamp(z: Tensor, low: float | None, high: float | None, beta: float) -> Tensor:
    """Return ``low + softplus(z − low) − softplus(z − high)``; None is no bound.

    Examples
    --------
    >>> clamp(torch.tensor([3.0, 6.0, 9.0]), 0.0, 6.0, beta=1.0)
    tensor([3.0000, 5.3093, 5.9515])
    """
    if low == 0 and high is None:
        return relu(z, beta)
    kinks = []
    if low is not None:
        kinks.append((low, 1.0))
    if high is not None:
        kinks.append((high, -1.0))
    left = 1.0 if low is None else 0.0
    return _bent(z, lambda z: z.clamp(low, high), left, kinks, beta)


def clamp_between(
    z: Tensor, low: Tensor | float | None, high: Tensor | float | None, beta: float
) -> Tensor:
    """Return the same for bounds that are tensors, and may have gradients.

    Examples
    --------
    >>> clamp_between(torch.tensor([3.0, 6.0]), torch.zeros(2), None, beta=1.0)
    tensor([3.0486, 6.0025])
    """
    least, most = (None if b is None else torch.as_tensor(b).to(z) for b in (low, high))
    if least is None or most is None:
        raised = z if least is None else larger(z, least, beta)
        return raised if most is None else smaller(raised, most, beta)
    z, least, most = torch.broadcast_tensors(z, least, most)
    least = torch.minimum(least, most)  # so is a clamp defined
    below, above = torch.sigmoid(beta * _apart(least, z)), torch.sigmoid(beta * _apart(z, most))

    def value(z: Tensor, low: Tensor, high: Tensor) -> Tensor:
        raised = F.softplus(-_apart(z, low).abs(), beta=beta)
        return z.clamp(low, high) + raised - F.softplus(-_apart(z, high).abs(), beta=beta)

    return _with_slopes(value, (z, least, most), (1 - below - above, below, above))


def leaky_relu(z: Tensor, slope: float, beta: float) -> Tensor:
    """Return ``a z + (1 − a) softplus(z)``, of slope ``a`` far below 0.

    Examples
    --------
    >>> leaky_relu(torch.tensor([-10.0, 10.0]), 0.1, beta=5.0)
    tensor([-1., 10.])
    """
    return _bent(z, lambda z: F.leaky_relu(z, slope), slope, [(0.0, 1 - slope)], beta)


def prelu(z: Tensor, slope: Tensor, beta: float) -> Tensor:
    """Return ``a z + (1 − a) softplus(z)`` for slopes ``a`` that may be learned.

    Examples
    --------
    >>> prelu(torch.tensor([-10.0, 10.0]), torch.tensor([0.1, 0.1]), beta=5.0)
    tensor([-1., 10.])
    """
    return slope * z + (1 - slope) * relu(z, beta)


def absolute(z: Tensor, beta: float) -> Tensor:
    """Return ``softplus(z) + softplus(−z)``, which is ``2 log(2) / β`` at 0.

    It is not lowered to be exact there: it would be off everywhere else.

    Examples
    --------
    >>> absolute(torch.tensor([-10.0, 10.0]), beta=5.0)
    tensor([10., 10.])
    """
    return _bent(z, torch.abs, -1.0, [(0.0, 2.0)], beta)


def hardsigmoid(z: Tensor, beta: float) -> Tensor:
    """Return the smooth clamp of ``z + 3`` to [0, 6], a sixth of it.

    Examples
    --------
    >>> hardsigmoid(torch.tensor([-3.0, 0.0, 3.0]), beta=5.0)
    tensor([0.0231, 0.5000, 0.9769])
    """
    return _bent(z, F.hardsigmoid, 0.0, [(-3.0, 1 / 6), (3.0, -1 / 6)], beta)


def hardswish(z: Tensor, beta: float) -> Tensor:
    """Return z times the smooth hard sigmoid.

    Examples
    --------
    >>> hardswish(torch.tensor([-3.0, 0.0, 3.0]), beta=5.0)
    tensor([-0.0693,  0.0000,  2.9307])
    """
    return z * hardsigmoid(z, beta)


def softshrink(z: Tensor, width: float, beta: float) -> Tensor:
    """Return ``softplus(z − λ) − softplus(−z − λ)``.

    Examples
    --------
    >>> softshrink(torch.tensor([-9.0, 0.0, 9.0]), 0.5, beta=10.0)
    tensor([-8.5000,  0.0000,  8.5000])
    """
    kinks = [(-width, -1.0), (width, 1.0)]
    return _bent(z, lambda z: F.softshrink(z, width), 1.0, kinks, beta)


def threshold(z: Tensor, edge: float, value: float, beta: float) -> Tensor:
    """Return ``v + softplus(z − t) + (t − v) σ(β(z − t))``: the jump at t becomes a sigmoid.

    Examples
    --------
    >>> threshold(torch.tensor([-9.0, 9.0]), 1.0, 5.0, beta=5.0)
    tensor([5., 9.])
    """
    smooth = value + relu(z - edge, beta)
    if edge == value:
        return smooth
    return smooth + (edge - value) * torch.sigmoid(beta * (z - edge))


def hardshrink(z: Tensor, width: float, beta: float) -> Tensor:
    """Return the smooth soft shrinkage plus ``λ (σ(β(z − λ)) − σ(β(−z − λ)))``.

    Examples
    --------
    >>> hardshrink(torch.tensor([-9.0, 0.0, 9.0]), 0.5, beta=20.0)
    tensor([-9.,  0.,  9.])
    """
    steps = torch.sigmoid(beta * (z - width)) - torch.sigmoid(beta * (-z - width))
    return softshrink(z, width, beta) + width * steps


def elu(z: Tensor, alpha: float, scale: float, input_scale: float, beta: float) -> Tensor:
    """Return ``s (softplus(z) + α (exp(−i softplus(−z)) − 1))``, for s and i the two scales.

    ELU, SELU and CELU are so for softplus = ReLU. Their second derivative, and SELU's first, jumps
    at 0; this one's does not.

    Examples
    --------
    >>> elu(torch.tensor([-10.0, 10.0]), 1.0, 1.0, 1.0, beta=5.0)
    tensor([-1.0000, 10.0000])
    """
    below = torch.expm1(-input_scale * relu(-z, beta))
    return scale * (relu(z, beta) + alpha * below)


def larger(a: Tensor, b: Tensor, beta: float) -> Tensor:
    """Return ``b + softplus(a − b)``, which is ``log(exp(βa) + exp(βb)) / β``.

    Examples
    --------
    >>> larger(torch.zeros(1), torch.zeros(1), beta=1.0)
    tensor([0.6931])
    """
    a, b = torch.broadcast_tensors(*_alike(a, b))
    share = torch.sigmoid(beta * _apart(a, b))

    def value(a: Tensor, b: Tensor) -> Tensor:
        return torch.maximum(a, b) + F.softplus(-_apart(a, b).abs(), beta=beta)

    return _with_slopes(value, (a, b), (share, 1 - share))


def smaller(a: Tensor, b: Tensor, beta: float) -> Tensor:
    """Return ``b − softplus(b − a)``.

    Examples
    --------
    >>> smaller(torch.zeros(1), torch.zeros(1), beta=1.0)
    tensor([-0.6931])
    """
    return -larger(-a, -b, beta)


def maximum_over(z: Tensor, dims: Sequence[int], beta: float) -> Tensor:
    """Return ``log(Σ exp(βz)) / β`` over ``dims``, as `larger` does of two; the dimensions go.

    Above the maximum of n values by at most ``log(n) / β``. Its slopes are shares, ``softmax(βz)``.
    Those of the mean weighted by these shares, which is nearer to the maximum, leave [0, 1] where
    values are close, and attacks that follow them are weaker than random signs.

    Examples
    --------
    >>> maximum_over(torch.tensor([[1.0, 1.0], [0.0, 9.0]]), [1], beta=5.0)
    tensor([1.1386, 9.0000])
    """
    gone = sorted(dim % z.ndim for dim in dims)
    last = z.movedim(gone, list(range(-len(gone), 0))).flatten(-len(gone))
    return torch.logsumexp(beta * last, -1) / beta


def _with_slopes(
    value: Callable[..., Tensor], tensors: tuple[Tensor, ...], slopes: tuple[Tensor, ...]
) -> Tensor:
    result: Tensor = _WithSlopes.apply(value, *tensors, *slopes)
    return result


def _differentiated(*tensors: Tensor) -> bool:
    return torch.is_grad_enabled() and any(z.requires_grad for z in tensors)


def _alike(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    dtype = torch.result_type(a, b)
    return a.to(dtype), b.to(dtype)


def _bent(
    z: Tensor, exact: Callable[[Tensor], Tensor], left: float, kinks: Kinks, beta: float
) -> Tensor:
    """Round the kinks of a continuous piecewise-linear function.

    Such a function is a line of slope ``left`` plus ``c · relu(z − k)`` for every kink k, where its
    slope grows by c; each ReLU becomes a softplus. The value is put together from the function
    itself and the small differences ``c · softplus(−|z − k|)``: nothing cancels, so it is exact to
    the last digit far from the kinks, with huge bounds and at infinite values, too.
    """

    def value(z: Tensor) -> Tensor:
        result = exact(z)
        for place, change in kinks:
            result = result + change * F.softplus(-(z - place).abs(), beta=beta)
        return result.to(z.dtype)

    if not _differentiated(z):
        return value(z)
    slope = torch.full_like(z, left)
    for place, change in kinks:
        slope = slope + change * torch.sigmoid(beta * (z - place))
    return _with_slopes(value, (z,), (slope,))


def _apart(a: Tensor, b: Tensor) -> Tensor:
    # The difference of two infinities is no number; they are equal.
    return torch.nan_to_num(a - b, nan=0.0)


class _Softplus(Function):
    """Softplus that is given its own slope, so that each backward pass is a multiplication.

    The slope comes with its graph, through which second derivatives go.
    """

    @staticmethod
    def forward(ctx: Any, z: Tensor, slope: Tensor, beta: float) -> Tensor:
        ctx.save_for_backward(slope)
        return F.softplus(z, beta=beta)

    @staticmethod
    def backward(ctx: Any, gradient: Any) -> Any:
        (slope,) = ctx.saved_tensors
        return gradient * slope, None, None


class _WithSlopes(Function):
    """Any function of some tensors, given its slopes likewise."""

    @staticmethod
    def forward(ctx: Any, value: Callable[..., Tensor], *given: Tensor) -> Tensor:
        count = len(given) // 2
        ctx.save_for_backward(*given[count:])
        return value(*given[:count])

    @staticmethod
    def backward(ctx: Any, gradient: Any) -> Any:
        slopes = ctx.saved_tensors
        wanted = ctx.needs_input_grad[1 : 1 + len(slopes)]
        grown = [gradient * s if w else None for s, w in zip(slopes, wanted, strict=True)]
        return None, *grown, *[None] * len(slopes)
