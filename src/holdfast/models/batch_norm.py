"""Batch-norm that is cheap to differentiate twice."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

__all__ = ["batch_norm"]


def batch_norm(
    input: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    """Do what `torch.nn.functional.batch_norm` does, with second derivatives in few passes.

    In eval mode it is the one multiplication and addition that batch-norm is there. In train mode
    the second derivative is written out, where PyTorch's own goes over the feature maps two dozen
    times; there is no third one. Values are the same up to rounding.

    Examples
    --------
    >>> x = torch.rand(4, 3, 2, 2)
    >>> batch_norm(x, None, None, training=True).mean((0, 2, 3)).abs().max() < 1e-6
    tensor(True)
    """
    if input.ndim < 2 or torch.is_autocast_enabled(input.device.type):
        return F.batch_norm(input, running_mean, running_var, weight, bias, training, momentum, eps)
    half = input.dtype not in (torch.float32, torch.float64)
    if training and not half and input.numel() > input.shape[1] and torch.is_grad_enabled():
        settings = (running_mean, running_var, momentum, eps)
        result: Tensor = _BatchNorm.apply(input.contiguous(), weight, bias, settings)
        return result
    if training or running_mean is None or running_var is None:
        # Too few values to normalize is PyTorch's error to tell; sums of halves are its own, too.
        return F.batch_norm(input, running_mean, running_var, weight, bias, training, momentum, eps)
    if half:  # as PyTorch, which rounds the result only
        running_mean, running_var = running_mean.float(), running_var.float()
    scale = (running_var + eps).rsqrt()
    scale = scale if weight is None else scale * weight
    shift = -running_mean * scale if bias is None else bias - running_mean * scale
    return torch.addcmul(_wide(shift, input), input, _wide(scale, input)).to(input.dtype)


class _BatchNorm(Function):
    """Input, weight and bias to output, by the statistics of the batch."""

    @staticmethod
    def forward(
        ctx: Any, input: Tensor, weight: Tensor | None, bias: Tensor | None, settings: Any
    ) -> Any:
        mean, var, momentum, eps = settings
        output, centre, rate = torch.native_batch_norm(
            input, weight, bias, mean, var, True, momentum, eps
        )
        ctx.save_for_backward(input, weight, centre, rate)
        ctx.eps = eps
        return output

    @staticmethod
    def backward(ctx: Any, gradient: Any) -> Any:
        input, weight, centre, rate = ctx.saved_tensors
        by_input, by_weight, by_bias = _ToInput.apply(
            gradient, input, weight, centre, rate, ctx.eps
        )
        return by_input, by_weight, by_bias if ctx.needs_input_grad[2] else None, None


class _ToInput(Function):
    """Gradients by the output to those by input, weight and bias.

    With x̂ the normalized input, g the gradient by the output, γ the weight, r the inverse deviation
    and P the projection that takes away what is constant in a channel and what is along x̂, the
    first of these is γ r P g.
    """

    @staticmethod
    def forward(
        ctx: Any,
        gradient: Tensor,
        input: Tensor,
        weight: Tensor | None,
        centre: Tensor,
        rate: Tensor,
        eps: float,
    ) -> Any:
        ctx.save_for_backward(gradient, input, weight, centre, rate)
        ctx.eps = eps
        ctx.set_materialize_grads(False)
        mask = [True, weight is not None, weight is not None]
        return _backward(gradient, input, weight, centre, rate, eps, mask)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, h: Any, by_weight: Any, by_bias: Any) -> Any:
        g, x, weight, centre, rate = ctx.saved_tensors
        gamma = torch.ones_like(rate) if weight is None else weight
        count = x.numel() // x.shape[1]
        scaled = (x - _wide(centre, x)) * _wide(rate, x)
        # Each derivative is a·h + b·g + c·x̂ + d with a number a channel for a, b, c and d.
        to_g, to_x, to_weight = _Mix(), _Mix(), None
        g_scaled = _dot(g, scaled)
        if h is not None:
            h_sum, h_scaled, g_sum = _sum(h), _dot(h, scaled), _sum(g)
            inner = _dot(h, g) - h_sum * g_sum / count - h_scaled * g_scaled / count
            to_g.add(h=gamma * rate, scaled=-gamma * rate * h_scaled / count)
            to_g.add(one=-gamma * rate * h_sum / count)
            part = gamma * rate.square() / count
            to_x.add(
                h=-part * g_scaled,
                g=-part * h_scaled,
                scaled=part * (2 * g_scaled * h_scaled / count - inner),
                one=part * (g_scaled * h_sum + h_scaled * g_sum) / count,
            )
            to_weight = rate * inner
        if by_weight is not None:
            # The weight's gradient is ⟨g, x̂⟩.
            to_g.add(scaled=by_weight)
            to_x.add(
                g=rate * by_weight,
                scaled=-rate * by_weight * g_scaled / count,
                one=-rate * by_weight * _sum(g) / count,
            )
        if by_bias is not None:
            to_g.add(one=by_bias)
        parts = {"h": h, "g": g, "scaled": scaled}
        by_gradient = to_g.of(parts, x) if ctx.needs_input_grad[0] else None
        by_input = to_x.of(parts, x) if ctx.needs_input_grad[1] else None
        return by_gradient, by_input, to_weight if weight is not None else None, None, None, None


class _Mix:
    """A sum of feature maps, with a factor for each channel."""

    def __init__(self) -> None:
        self.factors: dict[str, Tensor] = {}

    def add(self, **factors: Tensor) -> None:
        for name, factor in factors.items():
            self.factors[name] = self.factors[name] + factor if name in self.factors else factor

    def of(self, parts: dict[str, Any], like: Tensor) -> Tensor:
        mixed = _wide(self.factors.pop("one", like.new_zeros(like.shape[1])), like)
        for name, factor in self.factors.items():
            mixed = torch.addcmul(mixed, parts[name], _wide(factor, like))
        return mixed.expand_as(like)


def _backward(
    gradient: Tensor,
    input: Tensor,
    weight: Tensor | None,
    centre: Tensor,
    rate: Tensor,
    eps: float,
    mask: list[bool],
) -> tuple[Tensor | None, ...]:
    return torch.ops.aten.native_batch_norm_backward(
        gradient, input, weight, None, None, centre, rate, True, eps, mask
    )


def _wide(channels: Tensor, like: Tensor) -> Tensor:
    return channels.view(1, -1, *(1,) * (like.ndim - 2))


def _sum(x: Tensor) -> Tensor:
    return x.sum([0, *range(2, x.ndim)])


def _dot(x: Tensor, y: Tensor) -> Tensor:
    return _sum(x * y)
