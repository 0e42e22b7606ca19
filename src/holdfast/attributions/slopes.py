"""The gradients of DeepLIFT's rules: what is passed back between an image and its baseline.

Every tensor here holds images in the front half of its first dimension and their baselines, in the
same order, in the back half.
"""
# ruff: noqa: D102 - forward and backward are autograd's

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

__all__ = ["Bilinear", "LogSumExp", "PoolFrom", "PoolTo", "Slope", "State"]


class State:
    """Whether the rules hold: only until the map is made.

    What was computed may be differentiated in turn, and that by the common rules.
    """

    def __init__(self) -> None:
        self.active = True
        self.inside = False

    @contextmanager
    def backward(self) -> Iterator[None]:
        """Within the block, which computes gradients, no call is intercepted."""
        before, self.inside = self.inside, True
        try:
            yield
        finally:
            self.inside = before


class Slope(torch.autograd.Function):
    """``y = σ(x)``, whose gradient is the slope from baseline to image.

    Where both are equal there is no slope, and the gradient takes its usual way, through y.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, y: Tensor, state: State) -> Tensor:
        ctx.state = state
        ctx.save_for_backward(x, y)
        return y.clone()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (gradient,) = gradients
        if not ctx.state.active:
            return None, gradient, None
        with ctx.state.backward():
            x, y = ctx.saved_tensors
            moved, way = _way(x)
            slope = torch.where(moved, _twice(_difference(y)) / way, 0)
            return gradient * slope, torch.where(moved, 0, gradient), None


class Bilinear(torch.autograd.Function):
    """``y = a · b`` for any product, each factor's gradient taken at the mean of the other's ends.

    ``Δ(a · b) = Δa · b̄ + ā · Δb`` exactly, b̄ the mean of image's and baseline's b.
    """

    @staticmethod
    def forward(
        ctx: Any, a: Tensor, b: Tensor, product: Callable[[Tensor, Tensor], Tensor], state: State
    ) -> Tensor:
        ctx.product, ctx.state = product, state
        ctx.save_for_backward(a, b)
        return product(a, b)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (gradient,) = gradients
        a, b = ctx.saved_tensors
        with ctx.state.backward():
            at_a, at_b = (_mean(a), _mean(b)) if ctx.state.active else (a, b)
            to_a = to_b = None
            if ctx.needs_input_grad[0]:
                to_a = _pulled(lambda x: ctx.product(x, at_b), a, gradient)
            if ctx.needs_input_grad[1]:
                to_b = _pulled(lambda x: ctx.product(at_a, x), b, gradient)
        return to_a, to_b, None, None


class LogSumExp(torch.autograd.Function):
    """``s = log Σ exp z``, kept as a dimension of one; the change of s is shared exactly.

    With p = exp(z − s), which sums to 1 at both ends, and L the logarithmic mean
    ``(p − p₀) / (log p − log p₀)``, it holds that ``Δs = Σ L Δz / Σ L``. Where image and baseline
    agree, L = p and this is the gradient.
    """

    @staticmethod
    def forward(ctx: Any, z: Tensor, dim: int, state: State) -> Tensor:
        ctx.dim, ctx.state = dim, state
        ctx.save_for_backward(z)
        return z.logsumexp(dim, keepdim=True)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (gradient,) = gradients
        (z,) = ctx.saved_tensors
        with ctx.state.backward():
            logs = z.log_softmax(ctx.dim)
            if not ctx.state.active:
                return gradient * logs.exp(), None, None
            image, baseline = logs.chunk(2)
            away = (image - baseline).abs()
            # Masked entries are -inf at both ends, and their difference is no number.
            away = torch.where(away > 1e-10, away, 1e-10)
            shares = torch.maximum(image, baseline).exp() * -torch.expm1(-away) / away
            return gradient * _twice(shares / shares.sum(ctx.dim, keepdim=True)), None, None


class PoolFrom(torch.autograd.Function):
    """Where max-pooling takes its input: once for shares of the change, once for the gradient.

    Backwards, shares are divided by the change of the pixel, which makes them a slope.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, state: State) -> tuple[Tensor, Tensor]:
        ctx.state = state
        ctx.save_for_backward(x)
        return x.clone(), x.clone()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        shares, plain = gradients
        if not ctx.state.active:
            return plain, None
        with ctx.state.backward():
            (x,) = ctx.saved_tensors
            moved, way = _way(x)
            whole = _twice(torch.add(*shares.chunk(2)))
            return torch.where(moved, whole / way, plain), None


class PoolTo(torch.autograd.Function):
    """Where max-pooling gives its output, the same twice; backwards, each half gets its share."""

    @staticmethod
    def forward(ctx: Any, shares: Tensor, plain: Tensor, state: State) -> Tensor:
        ctx.state = state
        ctx.save_for_backward(shares)
        return plain.clone()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (gradient,) = gradients
        if not ctx.state.active:
            return None, gradient, None
        with ctx.state.backward():
            (y,) = ctx.saved_tensors
            image, baseline = y.chunk(2)
            top = torch.maximum(image, baseline)
            return gradient * torch.cat([top - baseline, image - top]), gradient, None


def _pulled(function: Callable[[Tensor], Tensor], at: Tensor, gradient: Tensor) -> Tensor:
    """Pull a gradient back through a linear function; graphs run through all but ``at``."""
    recorded = torch.is_grad_enabled()
    with torch.enable_grad():
        x = at.detach().requires_grad_(True)
        (pulled,) = torch.autograd.grad(function(x), x, gradient, create_graph=recorded)
    return pulled


def _way(x: Tensor) -> tuple[Tensor, Tensor]:
    """Tell where image and baseline differ, and by how much (1 where they do not)."""
    difference = _difference(x)
    largest = torch.maximum(*x.detach().abs().chunk(2))
    moved = difference.abs() > 1e-10 * largest
    return _twice(moved), _twice(torch.where(moved, difference, 1))


def _difference(both: Tensor) -> Tensor:
    image, baseline = both.chunk(2)
    return image - baseline


def _mean(both: Tensor) -> Tensor:
    image, baseline = both.chunk(2)
    return _twice((image + baseline) / 2)


def _twice(half: Tensor) -> Tensor:
    return torch.cat([half, half])
