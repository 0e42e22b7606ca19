"""Pixel scores: what an attribution map says about each pixel, as one number.

Every metric that compares two maps compares their pixel scores.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from holdfast.contracts import InputError, check_same_shape

__all__ = ["check_finite", "check_scores", "pixel_scores"]


def pixel_scores(maps: Float[Tensor, "n c h w"]) -> Float[Tensor, "n p"]:
    """Collapse the channels of attribution maps: the sum of absolute values at each pixel.

    Parameters
    ----------
    maps : Tensor
        Attribution maps ``(N, C, H, W)``.

    Returns
    -------
    Tensor
        ``(N, H·W)``, row by row; differentiable.

    Raises
    ------
    InputError
        If ``maps`` has not four dimensions.

    Examples
    --------
    >>> pixel_scores(torch.tensor([[[[1.0, -2.0]], [[-3.0, 0.5]]]]))
    tensor([[4.0000, 2.5000]])
    """
    if maps.ndim != 4:
        raise InputError("maps", f"shape {tuple(maps.shape)}", "shape (N, C, H, W)")
    return maps.abs().sum(1).flatten(1)


def check_scores(first: Tensor, second: Tensor) -> None:
    """Refuse what is not two finite score matrices ``(N, P)`` of one shape, P at least 1.

    Raises
    ------
    InputError
        Names ``first`` or ``second``, whichever is at fault.

    Examples
    --------
    >>> check_scores(torch.zeros(2, 3), torch.zeros(2, 4))
    Traceback (most recent call last):
        ...
    holdfast.contracts.InputError: second: expected shape (2, 3), that of first, got (2, 4)
    """
    if first.ndim != 2 or first.shape[1] == 0:
        raise InputError("first", f"shape {tuple(first.shape)}", "shape (N, P), P at least 1")
    check_same_shape(first, second, ("first", "second"))
    check_finite(first, "first")
    check_finite(second, "second")


def check_finite(values: Tensor, name: str) -> None:
    """Refuse a tensor that is not floating-point, or holds NaN or an infinity.

    Raises
    ------
    InputError
        Names the tensor ``name``.

    Examples
    --------
    >>> check_finite(torch.tensor([0.0, float("nan")]), "scores")
    Traceback (most recent call last):
        ...
    holdfast.contracts.InputError: scores: expected finite values, got 1 NaN or infinite
    """
    if not values.is_floating_point():
        raise InputError(name, values.dtype, "floating-point values")
    bad = int((~torch.isfinite(values.detach())).sum())
    if bad:
        raise InputError(name, f"{bad} NaN or infinite", "finite values")
