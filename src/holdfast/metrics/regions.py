"""Where the object is: a box or a mask an image, as the pixels that belong to it."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from holdfast.contracts import InputError
from holdfast.metrics.scores import check_finite

__all__ = ["Masks", "Regions", "as_masks", "box_masks", "check_boxes", "region_masks"]

Masks = Bool[Tensor, "n h w"] | Float[Tensor, "n h w"]
"""A mask for each image, where above a half is object."""

Regions = Float[Tensor, "n 4"] | Masks
"""A box (x0, y0, x1, y1) in pixels or a mask for each image."""


def box_masks(boxes: Float[Tensor, "n 4"], size: tuple[int, int]) -> Bool[Tensor, "n h w"]:
    """Mark the pixels whose centres lie in each image's box.

    Parameters
    ----------
    boxes : Tensor
        x0, y0, x1, y1 in pixels, ``(N, 4)``. The first pixel reaches from 0 to 1, so its centre is
        at a half; a box that ends where it begins holds none, and what lies outside the image does
        not count.
    size : tuple of int
        Height and width (H, W) of the images.

    Returns
    -------
    Tensor
        ``(N, H, W)``, bool.

    Raises
    ------
    InputError
        If ``boxes`` is no matrix of four columns, or holds NaN or an infinity.

    Examples
    --------
    >>> box_masks(torch.tensor([[1.0, 0.0, 3.0, 1.0]]), (2, 3)).int()
    tensor([[[0, 1, 1],
             [0, 0, 0]]], dtype=torch.int32)
    """
    check_boxes(boxes, "boxes")
    height, width = size
    y = (torch.arange(height, device=boxes.device) + 0.5)[None, :, None]
    x = (torch.arange(width, device=boxes.device) + 0.5)[None, None, :]
    x0, y0, x1, y1 = boxes[:, :, None, None].unbind(1)
    return (x0 <= x) & (x < x1) & (y0 <= y) & (y < y1)


def region_masks(regions: Regions, maps: Float[Tensor, "n c h w"]) -> Bool[Tensor, "n h w"]:
    """Bring boxes or masks to masks of the maps' size, on their device.

    Parameters
    ----------
    regions : Tensor
        Boxes ``(N, 4)`` or masks ``(N, H, W)``, where above a half is object.
    maps : Tensor
        The attribution maps ``(N, C, H, W)`` that they belong to.

    Returns
    -------
    Tensor
        ``(N, H, W)``, bool.

    Raises
    ------
    InputError
        If ``regions`` is neither, does not fit the maps, or holds NaN or an infinity.

    Examples
    --------
    >>> region_masks(torch.tensor([[[0.2, 0.9]]]), torch.zeros(1, 3, 1, 2))
    tensor([[[False,  True]]])
    """
    count, _, height, width = maps.shape
    if regions.shape not in ((count, 4), (count, height, width)):
        expected = f"boxes ({count}, 4) or masks ({count}, {height}, {width})"
        raise InputError("regions", f"shape {tuple(regions.shape)}", expected)
    regions = regions.detach().to(maps.device)
    if regions.ndim == 3:
        return as_masks(regions, "regions")
    check_boxes(regions, "regions")
    return box_masks(regions, (height, width))


def as_masks(masks: Masks, name: str) -> Bool[Tensor, "n h w"]:
    """Return masks as bools: above a half is object.

    Raises
    ------
    InputError
        If these are no finite ``(N, H, W)``; names the argument ``name``.

    Examples
    --------
    >>> as_masks(torch.tensor([[[0.2, 0.9]]]), "masks")
    tensor([[[False,  True]]])
    """
    if masks.ndim != 3:
        raise InputError(name, f"shape {tuple(masks.shape)}", "shape (N, H, W)")
    if masks.dtype == torch.bool:
        return masks
    check_finite(masks, name)
    return masks > 0.5


def check_boxes(boxes: Tensor, name: str) -> None:
    """Refuse what is not finite boxes ``(N, 4)``.

    Raises
    ------
    InputError
        Names the argument ``name``.

    Examples
    --------
    >>> check_boxes(torch.zeros(2, 3), "boxes")
    Traceback (most recent call last):
        ...
    holdfast.contracts.InputError: boxes: expected shape (N, 4), got shape (2, 3)
    """
    if boxes.ndim != 2 or boxes.shape[1] != 4:
        raise InputError(name, f"shape {tuple(boxes.shape)}", "shape (N, 4)")
    check_finite(boxes, name)
