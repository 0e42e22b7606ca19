"""What a forward pass needs so that it can be differentiated twice."""

from __future__ import annotations

import re
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.overrides import TorchFunctionMode

from holdfast.contracts import HoldfastError
from holdfast.models.batch_norm import batch_norm
from holdfast.models.checkpointing import no_checkpointing
from holdfast.models.convolution import conv2d
from holdfast.models.modes import active_modes

__all__ = ["double_backward", "no_second_derivative"]


class double_backward(TorchFunctionMode):  # noqa: N801 - used like torch.no_grad, named like it
    """Within the block, what a model computes has a second derivative, and a cheap one.

    Values and first derivatives are the same up to rounding; what changes is how they are worked
    out.

    - Attention runs on the math kernel of ``scaled_dot_product_attention``, as the fused kernels
      cannot be differentiated twice. ``nn.MultiheadAttention`` and ``nn.TransformerEncoderLayer``
      leave their fast path, which no attention kernel and no surrogate reaches.
    - Hard sigmoid, whose second derivative PyTorch lacks, is written out. Recurrent layers leave
      cuDNN, which has none either.
    - The derivatives of two-dimensional convolutions are convolutions again, each of the size of
      the first, and only what the backward pass asks for is worked out. PyTorch's own second
      derivative works out a gradient of the weights even where nobody asks for it, by a convolution
      whose kernel is a whole feature map. Convolutions of images without a batch, with a padding by
      name, or under autocast are left as they are.
    - Batch-norm becomes `holdfast.models.batch_norm.batch_norm`, which is as frugal.
    - Checkpointed parts of the model keep their activations; see `no_checkpointing`.

    Exported programs are reached; models compiled to TorchScript only by the first point.

    Examples
    --------
    >>> x = torch.rand(1, 1, 4, 4, requires_grad=True)
    >>> with double_backward():
    ...     y = torch.nn.Conv2d(1, 2, 3)(x).square().sum()
    >>> (first,) = torch.autograd.grad(y, x, create_graph=True)
    >>> torch.autograd.grad(first.sum(), x)[0].shape
    torch.Size([1, 1, 4, 4])
    """

    def __init__(self) -> None:
        super().__init__()
        self._entered: list[ExitStack] = []

    def __enter__(self) -> double_backward:
        with ExitStack() as stack:
            stack.enter_context(sdpa_kernel(SDPBackend.MATH))
            stack.enter_context(no_checkpointing())
            stack.callback(torch.backends.mha.set_fastpath_enabled, _fast_path())
            torch.backends.mha.set_fastpath_enabled(False)
            super().__enter__()
            self._entered.append(stack.pop_all())
        return self

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        self._entered.pop().close()

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        """Answer calls of the functions above, and let every other one through."""
        kwargs = kwargs or {}
        if func in _CONVOLUTION:
            return conv2d(*args, **kwargs)
        if func is F.batch_norm:
            return batch_norm(*args, **kwargs)
        if func is _ATEN.batch_norm.default:
            return batch_norm(args[0], args[3], args[4], args[1], args[2], *args[5:8])
        if func in _HARD_SIGMOID and not _others():
            return _hard_sigmoid(*args, **kwargs)
        if func in _HARD_SIGMOID_ and not _others():
            return _hard_sigmoid(*args, **{**kwargs, "inplace": True})
        if func in _RECURRENT:
            with torch.backends.cudnn.flags(enabled=False):
                return func(*args, **kwargs)
        return func(*args, **kwargs)


def no_second_derivative(error: RuntimeError) -> HoldfastError | None:
    """Make our error of PyTorch's for functions that it cannot differentiate twice, if it is one.

    Examples
    --------
    >>> no_second_derivative(RuntimeError("double backwards on deform_conv2d not supported"))
    HoldfastError('model: PyTorch cannot differentiate it twice (double backwards on deform_conv2d \
not supported). Use methods that differentiate once or not at all: RandomSearch and RandomSign for \
explanations')
    """
    reason = str(error).split("\n")[0].rstrip(".")
    if not re.search(r"is not implemented|not (currently )?support|once_differentiable", reason):
        return None
    return HoldfastError(
        f"model: PyTorch cannot differentiate it twice ({reason}). Use methods that differentiate "
        "once or not at all: RandomSearch and RandomSign for explanations"
    )


def _fast_path() -> bool:
    enabled: bool = torch.backends.mha.get_fastpath_enabled()
    return enabled


def _others() -> bool:
    """Tell whether a mode of ours around this one has its own rule for activation functions."""
    return any(not isinstance(mode, double_backward) for mode in active_modes())


def _hard_sigmoid(input: Tensor, inplace: bool = False) -> Tensor:
    if inplace:
        return input.copy_(_HardSigmoid.apply(input.clone()))
    result: Tensor = _HardSigmoid.apply(input)
    return result


class _HardSigmoid(Function):
    """``min(max(0, x + 3), 6) / 6``, with a derivative that can be differentiated."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return F.hardsigmoid(x)

    @staticmethod
    def backward(ctx: Any, gradient: Any) -> Any:
        (x,) = ctx.saved_tensors
        return torch.where((x > -3) & (x < 3), gradient / 6, 0)


_ATEN = torch.ops.aten
# Exported programs call ATen's functions by themselves.
_CONVOLUTION = frozenset({torch.conv2d, _ATEN.conv2d.default})
_HARD_SIGMOID = frozenset({F.hardsigmoid, torch._C._nn.hardsigmoid, _ATEN.hardsigmoid.default})
_HARD_SIGMOID_ = frozenset({torch._C._nn.hardsigmoid_, _ATEN.hardsigmoid_.default})
_RECURRENT = frozenset({torch.lstm, torch.gru, torch.rnn_tanh, torch.rnn_relu})
