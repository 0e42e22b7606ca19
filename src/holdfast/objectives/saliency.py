"""Saliency maps as training targets: brought to a scale, or made of boxes and masks."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor

__all__ = ["signed_saliency", "unit_saliency"]


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
