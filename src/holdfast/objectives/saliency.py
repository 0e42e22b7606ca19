"""Saliency maps as training targets: brought to a scale, or made of boxes and masks."""

from __future__ import annotations

import math

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from holdfast.contracts import InputError

__all__ = ["box_masks", "signed_saliency", "unit_saliency"]


def signed_saliency(
    maps: Float[Tensor, "n c h w"], quantile: float = 0.99
) -> Float[Tensor, "n c h w"]:
    """Bring signed maps to [−1, 1]: divide each by a quantile of its magnitudes, and cut.

    Parameters
    ----------
    maps : Tensor
        Attribution maps, ``(N, C, H, W)``.
    quantile : float
        The share of a map's components that keep their proportions; larger ones become −1 or 1.
        With 1 nothing is cut, with 0 nearly all that is left is the sign.

    Returns
    -------
    Tensor
        ``(N, C, H, W)`` in [−1, 1]. Where the quantile itself is zero, the signs.

    Examples
    --------
    >>> maps = torch.tensor([-4.0, 1.0, 0.0, 2.0]).view(1, 1, 2, 2)
    >>> signed_saliency(maps, quantile=1.0).flatten()
    tensor([-1.0000,  0.2500,  0.0000,  0.5000])
    >>> signed_saliency(maps, quantile=0.75).flatten()
    tensor([-1.0000,  0.5000,  0.0000,  1.0000])
    """
    sizes = maps.abs().flatten(1)
    # torch.quantile refuses large batches.
    rank = max(1, math.ceil(quantile * sizes.shape[1]))
    scale = sizes.kthvalue(rank, dim=1).values.view(-1, 1, 1, 1)
    scaled = maps / scale.clamp_min(torch.finfo(maps.dtype).tiny)
    return torch.where(scale > 0, scaled.clamp(-1, 1), maps.sign())


def unit_saliency(maps: Float[Tensor, "n c h w"]) -> Float[Tensor, "n 1 h w"]:
    """Bring maps to one channel in [0, 1]: the channel mean of magnitudes, from least to most.

    A map without differences becomes zero.

    Examples
    --------
    >>> unit_saliency(torch.tensor([-3.0, 2.0, 1.0, 1.0]).view(1, 1, 2, 2)).flatten()
    tensor([1.0000, 0.5000, 0.0000, 0.0000])
    """
    sizes = maps.abs().mean(1, keepdim=True)
    low = sizes.amin((2, 3), keepdim=True)
    span = sizes.amax((2, 3), keepdim=True) - low
    return (sizes - low) / span.clamp_min(torch.finfo(maps.dtype).tiny)


def box_masks(boxes: Float[Tensor, "n 4"], size: tuple[int, int]) -> Bool[Tensor, "n h w"]:
    """Mark the pixels whose centres lie in each image's box.

    Parameters
    ----------
    boxes : Tensor
        x0, y0, x1, y1 in pixels, ``(N, 4)``.
    size : tuple of int
        Height and width of the images.

    Raises
    ------
    InputError
        If ``boxes`` is no matrix of four columns, or not finite.

    Examples
    --------
    >>> box_masks(torch.tensor([[1.0, 0.0, 3.0, 1.0]]), (2, 3)).int()
    tensor([[[0, 1, 1],
             [0, 0, 0]]], dtype=torch.int32)
    """
    if boxes.ndim != 2 or boxes.shape[1] != 4:
        raise InputError("boxes", f"shape {tuple(boxes.shape)}", "shape (N, 4)")
    if not boxes.isfinite().all():
        raise InputError("boxes", "NaN or infinite values", "x0, y0, x1, y1 in pixels")
    height, width = size
    y = (torch.arange(height, device=boxes.device) + 0.5)[None, :, None]
    x = (torch.arange(width, device=boxes.device) + 0.5)[None, None, :]
    x0, y0, x1, y1 = boxes[:, :, None, None].unbind(1)
    return (x0 <= x) & (x < x1) & (y0 <= y) & (y < y1)
