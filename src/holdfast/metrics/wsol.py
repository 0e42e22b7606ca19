"""Weakly supervised object localization: a box from a map, and how well it meets the true one."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Bool, Float, Float64
from scipy import ndimage
from torch import Tensor

from holdfast.contracts import InputError, check_same_shape
from holdfast.metrics.heatmap import Border, check_share, heatmap
from holdfast.metrics.regions import check_boxes

__all__ = ["box_from_map", "box_iou", "check_correct", "gt_known_loc", "top1_loc"]


def box_from_map(
    maps: Float[Tensor, "n c h w"], threshold: float = 0.2, border: Border = "inside"
) -> Float[Tensor, "n 4"]:
    """Draw a box around the largest hot spot of each map.

    Of the pixels whose heat (`heatmap`) is at least the threshold, the box holds the largest
    connected component, where pixels that touch at a corner are connected. Of components of equally
    many pixels it is the one that begins first, row by row.

    Parameters
    ----------
    maps : Tensor
        Attribution maps ``(N, C, H, W)``; for localization gradients, as a rule.
    threshold : float
        A share in [0, 1] of the largest heat.
    border : {"inside", "zero"}
        Of the mean filter; see `heatmap`.

    Returns
    -------
    Tensor
        Boxes ``(N, 4)``: x0, y0, x1, y1 in pixels, where the first pixel reaches from 0 to 1. A map
        without differences has the empty box 0, 0, 0, 0.

    Raises
    ------
    InputError
        If the maps are no finite ``(N, C, H, W)``, or the threshold is outside [0, 1].

    Examples
    --------
    >>> maps = torch.zeros(1, 1, 9, 9)
    >>> maps[:, :, 2:5, 3:7] = -1
    >>> box_from_map(maps, threshold=0.5)
    tensor([[3., 2., 7., 5.]])
    """
    check_share(threshold, "threshold")
    heat = heatmap(maps, border)
    hot = (heat >= threshold) & (heat.amax((1, 2), keepdim=True) > 0)
    boxes = np.zeros((len(heat), 4), dtype=np.float32)
    for box, pixels in zip(boxes, hot.cpu().numpy(), strict=True):
        components, count = ndimage.label(pixels, structure=np.ones((3, 3)))
        if count:
            largest = int(np.bincount(components.ravel())[1:].argmax())
            rows, columns = ndimage.find_objects(components)[largest]
            box[:] = columns.start, rows.start, columns.stop, rows.stop
    return torch.from_numpy(boxes).to(maps.device)


def box_iou(first: Float[Tensor, "n 4"], second: Float[Tensor, "n 4"]) -> Float64[Tensor, " n"]:
    """Intersection over union of two boxes an image.

    Parameters
    ----------
    first, second : Tensor
        Boxes ``(N, 4)``: x0, y0, x1, y1.

    Returns
    -------
    Tensor
        ``(N,)`` in [0, 1], float64; 0 if a box is empty, even if both are.

    Raises
    ------
    InputError
        If these are no two sets of equally many finite boxes.

    Examples
    --------
    >>> first, second = torch.tensor([[0.0, 0.0, 2.0, 2.0]]), torch.tensor([[1.0, 0.0, 3.0, 2.0]])
    >>> box_iou(first, second)
    tensor([0.3333], dtype=torch.float64)
    """
    check_boxes(first, "first")
    check_same_shape(first, second, ("first", "second"))
    check_boxes(second, "second")
    first, second = first.detach().double(), second.detach().to(first.device).double()
    low = torch.maximum(first[:, :2], second[:, :2])
    high = torch.minimum(first[:, 2:], second[:, 2:])
    sides = [high - low, first[:, 2:] - first[:, :2], second[:, 2:] - second[:, :2]]
    shared, one, other = (side.clamp_min(0).prod(1) for side in sides)
    return torch.where(shared > 0, shared / (one + other - shared), 0)


def gt_known_loc(
    maps: Float[Tensor, "n c h w"],
    boxes: Float[Tensor, "n 4"],
    threshold: float = 0.2,
    iou: float = 0.5,
) -> Bool[Tensor, " n"]:
    """GT-known Loc: whether the box from the map meets the true one, whatever was predicted.

    The maps should be those of the true class, which is known (Choe and Shim, *Attention-based
    Dropout Layer for Weakly Supervised Object Localization*, 2019).

    Parameters
    ----------
    maps : Tensor
        Attribution maps ``(N, C, H, W)``.
    boxes : Tensor
        The true boxes ``(N, 4)``: x0, y0, x1, y1 in pixels.
    threshold : float
        Of `box_from_map`; `best_threshold` finds one.
    iou : float
        The boxes meet if their intersection over union is at least so much.

    Returns
    -------
    Tensor
        ``(N,)``, bool. A map without differences, or an empty true box, is never met.

    Raises
    ------
    InputError
        If the maps are no finite ``(N, C, H, W)``, the boxes do not fit them, or ``threshold`` or
        ``iou`` are outside [0, 1].

    Examples
    --------
    >>> maps = torch.zeros(1, 1, 8, 8)
    >>> maps[:, :, 2:5, 3:7] = 1
    >>> gt_known_loc(maps, torch.tensor([[3.0, 2.0, 8.0, 6.0]]), threshold=0.5)
    tensor([True])
    """
    check_share(iou, "iou")
    check_boxes(boxes, "boxes")
    if len(boxes) != len(maps):
        raise InputError("boxes", f"{len(boxes)} boxes", f"one for each of {len(maps)} maps")
    found = box_from_map(maps, threshold)
    overlap = box_iou(found, boxes.to(found.device))
    return (overlap >= iou) & (overlap > 0)


def top1_loc(
    maps: Float[Tensor, "n c h w"],
    boxes: Float[Tensor, "n 4"],
    correct: Bool[Tensor, " n"],
    threshold: float = 0.2,
    iou: float = 0.5,
) -> Bool[Tensor, " n"]:
    """Top-1 Loc: whether the prediction is right and the box from the map meets the true one.

    Parameters
    ----------
    maps : Tensor
        Attribution maps ``(N, C, H, W)``.
    boxes : Tensor
        The true boxes ``(N, 4)``: x0, y0, x1, y1 in pixels.
    correct : Tensor
        Whether the model's prediction for each image is right ``(N,)``, bool.
    threshold, iou : float
        As for `gt_known_loc`.

    Returns
    -------
    Tensor
        ``(N,)``, bool.

    Raises
    ------
    InputError
        As `gt_known_loc`; or if ``correct`` is not one bool an image.

    Examples
    --------
    >>> maps = torch.zeros(2, 1, 8, 8)
    >>> maps[:, :, 2:5, 3:7] = 1
    >>> boxes = torch.tensor([[3.0, 2.0, 8.0, 6.0]]).expand(2, 4)
    >>> top1_loc(maps, boxes, correct=torch.tensor([True, False]), threshold=0.5)
    tensor([ True, False])
    """
    check_correct(correct, len(maps))
    met = gt_known_loc(maps, boxes, threshold, iou)
    return met & correct.to(met.device)


def check_correct(correct: Tensor, count: int) -> None:
    """Refuse what is not ``count`` bools.

    Examples
    --------
    >>> check_correct(torch.tensor([1.0]), count=1)
    Traceback (most recent call last):
        ...
    holdfast.contracts.InputError: correct: expected bools (1,), got torch.float32 of shape (1,)
    """
    if correct.dtype != torch.bool or correct.shape != (count,):
        came = f"{correct.dtype} of shape {tuple(correct.shape)}"
        raise InputError("correct", came, f"bools ({count},)")
