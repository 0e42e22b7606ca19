"""Max-pooling that can be differentiated twice."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from holdfast.models.smooth import maximum_over

__all__ = ["adaptive_max_pool", "max_pool"]


def max_pool(
    x: Tensor,
    shape: Sequence[int],
    kernel_size: Any,
    stride: Any,
    padding: Any,
    dilation: Any,
    beta: float,
) -> Tensor:
    """Pool by ``log(Σ exp(βx)) / β`` of each window.

    Parameters
    ----------
    x : Tensor
        Any dimensions, the last of them spatial.
    shape : sequence of int
        The spatial dimensions of the result, as many as ``x`` is pooled over.
    kernel_size, stride, padding, dilation : int or sequence of int
        As max-pooling has them; stride None is the kernel's size.
    beta : float
        Sharpness β.

    Examples
    --------
    >>> x = torch.tensor([[[1.0, 1.0, 0.0, 9.0]]])
    >>> max_pool(x, [2], 2, None, 0, 1, beta=5.0)
    tensor([[[1.1386, 9.0000]]])
    """
    kernels, paddings = _each(kernel_size, shape), _each(padding, shape)
    strides, dilations = _each(stride or kernel_size, shape), _each(dilation, shape)
    windows = []
    for out, kernel, step, pad, gap in zip(
        shape, kernels, strides, paddings, dilations, strict=True
    ):
        starts = torch.arange(out, device=x.device) * step - pad
        windows.append(starts[:, None] + torch.arange(kernel, device=x.device) * gap)
    return _pool(x, windows, beta)


def adaptive_max_pool(x: Tensor, shape: Sequence[int], beta: float) -> Tensor:
    """Pool likewise over as many windows as the result has places, which may differ by one pixel.

    Examples
    --------
    >>> adaptive_max_pool(torch.tensor([[[1.0, 1.0, 9.0]]]), [2], beta=5.0)
    tensor([[[1.1386, 9.0000]]])
    """
    windows = []
    for out, size in zip(shape, x.shape[-len(shape) :], strict=True):
        places = torch.arange(out, device=x.device)
        starts, ends = places * size // out, ((places + 1) * size + out - 1) // out
        window = starts[:, None] + torch.arange(-(-size // out) + 1, device=x.device)
        windows.append(window.where(window < ends[:, None], -1))
    return _pool(x, windows, beta)


def _pool(x: Tensor, windows: Sequence[Tensor], beta: float) -> Tensor:
    """Pool over windows given, dimension by dimension, as indices; those outside are left out."""
    first = x.ndim - len(windows)
    inside = torch.ones((), dtype=torch.bool, device=x.device)
    for number, window in enumerate(windows):
        dim = first + 2 * number
        size = x.shape[dim]
        x = x.index_select(dim, window.clamp(0, size - 1).flatten()).unflatten(dim, window.shape)
        within = (window >= 0) & (window < size)
        inside = inside[..., None, None] & within
    x = x.masked_fill(~inside, -torch.inf)
    return maximum_over(x, [first + 2 * number + 1 for number in range(len(windows))], beta)


def _each(value: Any, shape: Sequence[int]) -> list[int]:
    """Spell a setting out for each spatial dimension."""
    values = [value] if isinstance(value, int) else list(value)
    return values * len(shape) if len(values) == 1 else values
