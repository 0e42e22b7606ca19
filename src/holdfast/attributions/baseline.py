"""The image that an attribution compares with: a number, one image, or one for each image."""

from __future__ import annotations

import dataclasses
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from holdfast.contracts import InputError, check_images

__all__ = ["check_baseline", "expand_baseline", "same_settings"]


def expand_baseline(
    baseline: float | Tensor, images: Float[Tensor, "n c h w"]
) -> Float[Tensor, "n c h w"]:
    """Give each image its baseline.

    Parameters
    ----------
    baseline : float or Tensor
        The value of every pixel, or one image ``(C, H, W)`` for all, or ``(N, C, H, W)``.
    images : Tensor
        The images ``(N, C, H, W)``, for their shape, type and device.

    Raises
    ------
    InputError
        If the baseline's shape does not fit the images.

    Examples
    --------
    >>> expand_baseline(0.5, torch.rand(2, 1, 1, 1)).flatten()
    tensor([0.5000, 0.5000])
    """
    if not isinstance(baseline, Tensor):
        return torch.full_like(images, baseline, requires_grad=False)
    if baseline.shape[-3:] != images.shape[1:] or (
        baseline.ndim == 4 and len(baseline) not in (1, len(images))
    ):
        expected = f"one image of shape {tuple(images.shape[1:])}, or {len(images)} of them"
        raise InputError("baseline", f"shape {tuple(baseline.shape)}", expected)
    return baseline.to(images).expand_as(images)


def check_baseline(owner: object, field: str = "baseline") -> None:
    """Refuse a setting that is neither a number in [0, 1] nor an image or images in [0, 1].

    Called from ``__post_init__``, like the checks of `holdfast.contracts`.
    """
    value, name = getattr(owner, field), f"{type(owner).__name__}.{field}"
    if isinstance(value, Tensor):
        if value.ndim not in (3, 4):
            raise InputError(name, f"shape {tuple(value.shape)}", "shape (C, H, W) or (N, C, H, W)")
        check_images(value if value.ndim == 4 else value[None], name)
    elif not 0 <= value <= 1:
        raise InputError(name, value, "a value in [0, 1]")


def same_settings(first: object, second: object) -> bool:
    """Whether two methods are the same, where a setting may be a tensor.

    The equality that a dataclass makes by itself cannot compare tensors.

    Examples
    --------
    >>> from holdfast.attributions import IntegratedGradients
    >>> white = torch.ones(1, 2, 2)
    >>> same_settings(IntegratedGradients(baseline=white), IntegratedGradients(baseline=1.0))
    False
    >>> IntegratedGradients(baseline=white) == IntegratedGradients(baseline=white.clone())
    True
    """
    if type(first) is not type(second):
        return False
    fields = dataclasses.fields(first)  # type: ignore[arg-type] # both are dataclasses
    return all(_same(getattr(first, field.name), getattr(second, field.name)) for field in fields)


def _same(first: Any, second: Any) -> bool:
    if isinstance(first, Tensor) and isinstance(second, Tensor):
        return first.device == second.device and torch.equal(first, second)
    if isinstance(first, Tensor) or isinstance(second, Tensor):
        return False
    return bool(first == second)
