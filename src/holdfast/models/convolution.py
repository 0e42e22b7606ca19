"""Convolutions that are cheap to differentiate twice."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function

__all__ = ["conv2d"]


def conv2d(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
) -> Tensor:
    """Do what `torch.conv2d` does, with derivatives that are convolutions of the same size.

    Examples
    --------
    >>> conv2d(torch.ones(1, 1, 3, 3), torch.ones(1, 1, 3, 3)).flatten()
    tensor([9.])
    """
    ours = input.ndim == 4 and not isinstance(padding, str) and torch.is_grad_enabled()
    if not ours or torch.is_autocast_enabled(input.device.type):
        return torch.conv2d(input, weight, bias, stride, padding, dilation, groups)
    settings = (_pair(stride), _pair(padding), _pair(dilation), groups)
    result: Tensor = _Convolution.apply(input, weight, bias, settings)
    return result


def _pair(value: Any) -> list[int]:
    return [value, value] if isinstance(value, int) else list(value)


def _backward(
    gradient: Tensor, input: Tensor, weight: Tensor, settings: Any, mask: list[bool]
) -> tuple[Tensor | None, ...]:
    stride, padding, dilation, groups = settings
    return torch.ops.aten.convolution_backward(
        gradient, input, weight, None, stride, padding, dilation, False, [0, 0], groups, mask
    )


def _wanted(ctx: Any, place: int) -> bool:
    """Tell whether the pass that is under way asks for the derivative by that input.

    ``ctx.needs_input_grad`` alone says yes for every weight, also where `torch.autograd.grad` wants
    the derivative by the images only.
    """
    if not ctx.needs_input_grad[place]:
        return False
    try:
        return bool(torch._C._will_engine_execute_node(ctx.next_functions[place][0]))
    except (AttributeError, RuntimeError):  # no such question here; then better too much
        return True


# Three maps, linear in each of their two tensors; the derivatives of each are the other two.


class _Convolution(Function):
    """Input and weight to output."""

    @staticmethod
    def forward(ctx: Any, input: Tensor, weight: Tensor, bias: Tensor | None, settings: Any) -> Any:
        ctx.save_for_backward(input, weight)
        ctx.settings = settings
        return torch.conv2d(input, weight, bias, *settings)

    @staticmethod
    def backward(ctx: Any, gradient: Any) -> Any:
        input, weight = ctx.saved_tensors
        by_input = by_weight = by_bias = None
        if _wanted(ctx, 0):
            by_input = _ToInput.apply(gradient, weight, input.shape, ctx.settings)
        if _wanted(ctx, 1):
            by_weight = _ToWeight.apply(gradient, input, weight.shape, ctx.settings)
        if _wanted(ctx, 2):
            by_bias = gradient.sum((0, 2, 3))
        return by_input, by_weight, by_bias, None


class _ToInput(Function):
    """Output and weight to input."""

    @staticmethod
    def forward(ctx: Any, output: Tensor, weight: Tensor, shape: Any, settings: Any) -> Any:
        ctx.save_for_backward(output, weight)
        ctx.settings = settings
        like = output.new_empty(shape)
        return _backward(output, like, weight, settings, [True, False, False])[0]

    @staticmethod
    def backward(ctx: Any, gradient: Any) -> Any:
        output, weight = ctx.saved_tensors
        by_output = by_weight = None
        if _wanted(ctx, 0):
            by_output = _Convolution.apply(gradient, weight, None, ctx.settings)
        if _wanted(ctx, 1):
            by_weight = _ToWeight.apply(output, gradient, weight.shape, ctx.settings)
        return by_output, by_weight, None, None


class _ToWeight(Function):
    """Output and input to weight."""

    @staticmethod
    def forward(ctx: Any, output: Tensor, input: Tensor, shape: Any, settings: Any) -> Any:
        ctx.save_for_backward(output, input)
        ctx.settings = settings
        like = output.new_empty(shape)
        return _backward(output, input, like, settings, [False, True, False])[1]

    @staticmethod
    def backward(ctx: Any, gradient: Any) -> Any:
        output, input = ctx.saved_tensors
        by_output = by_input = None
        if _wanted(ctx, 0):
            by_output = _Convolution.apply(input, gradient, None, ctx.settings)
        if _wanted(ctx, 1):
            by_input = _ToInput.apply(output, gradient, input.shape, ctx.settings)
        return by_output, by_input, None, None
