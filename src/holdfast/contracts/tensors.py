"""Checks of images and labels, and the cutting of batches into chunks that fit memory."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from holdfast.errors import InputError

__all__ = [
    "check_images",
    "check_labels",
    "check_precision",
    "check_same_shape",
    "chunks",
    "default_chunk",
]


def check_images(images: Any, name: str = "images") -> None:
    """Refuse what is no batch of images ``(N, C, H, W)`` in [0, 1].

    Raises
    ------
    InputError
        If ``images`` is no floating-point tensor of four dimensions, is empty, has NaN or infinite
        values, leaves [0, 1], or was made inside `torch.inference_mode`.

    Examples
    --------
    >>> check_images(torch.full((1, 3, 8, 8), 200.0))
    Traceback (most recent call last):
        ...
    holdfast.contracts.InputError: images: expected values in [0, 1], got values in [200, 200]
    """
    if not isinstance(images, Tensor):
        raise InputError(name, type(images).__name__, "a tensor (N, C, H, W)")
    if images.ndim != 4 or images.numel() == 0:
        raise InputError(name, f"shape {tuple(images.shape)}", "shape (N, C, H, W), none of them 0")
    if not images.is_floating_point():
        raise InputError(name, images.dtype, "floating-point values in [0, 1]")
    _check_autograd(images, name)
    low, high = torch.stack(torch.aminmax(images.detach())).tolist()
    if not (low == low and high == high):
        raise InputError(name, "NaN", "finite values in [0, 1]")
    # Half a grey level of float16 is the slack that rounding may take.
    if low < -1e-4 or high > 1 + 1e-4:
        raise InputError(name, f"values in [{low:g}, {high:g}]", "values in [0, 1]")


def check_precision(images: Tensor, name: str = "images") -> None:
    """Refuse images in half precision, whose steps near 1 are as large as a grey level or half one.

    A perturbation of them is rounded out of its ε, or to nothing. The classifier may be in half
    precision: it is given the images in its own.

    Raises
    ------
    InputError
        If ``images`` have fewer than 32 bits.

    Examples
    --------
    >>> check_precision(torch.zeros(1, 1, 2, 2, dtype=torch.bfloat16))
    Traceback (most recent call last):
        ...
    holdfast.contracts.InputError: images: expected float32 or float64 images, of which \
perturbations can keep to their size (the model may stay in half precision), got torch.bfloat16
    """
    if torch.finfo(images.dtype).bits < 32:
        size = "float32 or float64 images, of which perturbations can keep to their size"
        raise InputError(name, images.dtype, f"{size} (the model may stay in half precision)")


def check_labels(labels: Any, count: int, classes: int | None = None, name: str = "labels") -> None:
    """Refuse labels that are not ``count`` integers in ``[0, classes)``.

    Raises
    ------
    InputError
        If ``labels`` is no integer tensor ``(count,)``, leaves the range, or was made inside
        `torch.inference_mode`.

    Examples
    --------
    >>> check_labels(torch.tensor([0, 10]), count=2, classes=10)
    Traceback (most recent call last):
        ...
    holdfast.contracts.InputError: labels: expected classes from 0 to 9, got 10
    """
    if not isinstance(labels, Tensor):
        raise InputError(name, type(labels).__name__, f"an integer tensor ({count},)")
    if labels.is_floating_point() or labels.is_complex() or labels.dtype == torch.bool:
        raise InputError(name, labels.dtype, "integers, one class an image")
    if labels.shape != (count,):
        raise InputError(name, f"shape {tuple(labels.shape)}", f"shape ({count},)")
    _check_autograd(labels, name)
    if classes is None or count == 0:
        return
    low, high = torch.stack(torch.aminmax(labels.detach())).tolist()
    if low < 0 or high >= classes:
        wrong = low if low < 0 else high
        raise InputError(name, wrong, f"classes from 0 to {classes - 1}")


def _check_autograd(x: Tensor, name: str) -> None:
    """Refuse, outside `torch.inference_mode`, what was made inside: autograd takes none of it."""
    if x.is_inference() and not torch.is_inference_mode_enabled():
        expected = "a tensor that autograd may use: its clone(), or one made under torch.no_grad()"
        raise InputError(name, "one made inside torch.inference_mode()", expected)


def check_same_shape(first: Tensor, second: Tensor, names: tuple[str, str]) -> None:
    """Refuse two tensors of different shape; the error names both.

    Examples
    --------
    >>> check_same_shape(torch.zeros(2, 3), torch.zeros(3, 2), ("a", "b"))
    Traceback (most recent call last):
        ...
    holdfast.contracts.InputError: b: expected shape (2, 3), that of a, got (3, 2)
    """
    if first.shape != second.shape:
        expected = f"shape {tuple(first.shape)}, that of {names[0]}"
        raise InputError(names[1], tuple(second.shape), expected)


def default_chunk(images: Tensor, copies: int = 1) -> int:
    """How many images a method takes at a time when it is not told.

    On an accelerator the feature maps must fit its memory: 64 of them for every image and copy stay
    near one gigabyte of float32. On the CPU the cache is what counts: 64 colour images of 32×32 or
    64×64 pixels at a time, or 20 of 224×224, were measured to be faster than many more.

    Parameters
    ----------
    images : Tensor
        The images ``(N, C, H, W)``.
    copies : int
        How many inputs the model sees for each image (path points, noisy samples).
    """
    channels, height, width = images.shape[-3:]
    if images.device.type == "cpu":
        values = channels * height * width
        size = max(205_000 // values, min(64, 3_000_000 // values))
    else:
        size = 2**22 // (height * width)
    return max(1, min(256, size) // copies)


def chunks(count: int, size: int) -> Iterator[slice]:
    """Slices that cut ``count`` items into as few runs of at most ``size`` as can be.

    The runs are about equally long, as a short last one would take longer than its share.

    Examples
    --------
    >>> [(s.start, s.stop) for s in chunks(9, 4)]
    [(0, 3), (3, 6), (6, 9)]
    """
    runs = max(1, math.ceil(count / size))
    length = max(1, math.ceil(count / runs))
    for start in range(0, count, length):
        yield slice(start, min(start + length, count))
