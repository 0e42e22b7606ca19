"""Weakly supervised segmentation: a mask from a map, and how well it meets the true one."""

from __future__ import annotations

from jaxtyping import Bool, Float, Float64
from torch import Tensor

from holdfast.contracts import InputError, check_same_shape
from holdfast.metrics.heatmap import Border, check_share, heatmap
from holdfast.metrics.regions import Masks, as_masks
from holdfast.metrics.wsol import check_correct

__all__ = ["mask_from_map", "mask_iou", "top1_seg"]


def mask_from_map(
    maps: Float[Tensor, "n c h w"], threshold: float = 0.2, border: Border = "inside"
) -> Bool[Tensor, "n h w"]:
    """Take the hot pixels of each map for the object: those whose heat reaches the threshold.

    Parameters
    ----------
    maps : Tensor
        Attribution maps ``(N, C, H, W)``.
    threshold : float
        A share in [0, 1] of the largest heat; see `heatmap`.
    border : {"inside", "zero"}
        Of the mean filter; see `heatmap`.

    Returns
    -------
    Tensor
        ``(N, H, W)``, bool. A map without differences has an empty mask.

    Raises
    ------
    InputError
        If the maps are no finite ``(N, C, H, W)``, or the threshold is outside [0, 1].

    Examples
    --------
    >>> import torch
    >>> maps = torch.tensor([[[[0.0, 0.0, 0.0, -1.0, 1.0]]]])
    >>> mask_from_map(maps, threshold=0.5)
    tensor([[[False, False, False,  True,  True]]])
    """
    check_share(threshold, "threshold")
    heat = heatmap(maps, border)
    return (heat >= threshold) & (heat.amax((1, 2), keepdim=True) > 0)


def mask_iou(first: Masks, second: Masks) -> Float64[Tensor, " n"]:
    """Intersection over union of two masks an image.

    Parameters
    ----------
    first, second : Tensor
        Masks ``(N, H, W)``, where above a half is object.

    Returns
    -------
    Tensor
        ``(N,)`` in [0, 1], float64; 0 if a mask is empty, even if both are.

    Raises
    ------
    InputError
        If these are no two sets of equally many finite masks of one size.

    Examples
    --------
    >>> import torch
    >>> mask_iou(torch.tensor([[[1.0, 1.0, 0.0]]]), torch.tensor([[[0.0, 1.0, 1.0]]]))
    tensor([0.3333], dtype=torch.float64)
    """
    one, other = as_masks(first, "first"), as_masks(second, "second")
    check_same_shape(one, other, ("first", "second"))
    other = other.to(one.device)
    shared, covered = (one & other).sum((1, 2)), (one | other).sum((1, 2))
    return shared.double() / covered.clamp_min(1)


def top1_seg(
    maps: Float[Tensor, "n c h w"],
    masks: Masks,
    correct: Bool[Tensor, " n"],
    threshold: float = 0.2,
    iou: float = 0.5,
) -> Bool[Tensor, " n"]:
    """Top-1 Seg: whether the prediction is right and the mask from the map meets the true one.

    Singh et al., *Attributional Robustness Training using Input-Gradient Spatial Alignment*, 2020,
    section 5.

    Parameters
    ----------
    maps : Tensor
        Attribution maps ``(N, C, H, W)``.
    masks : Tensor
        The true masks ``(N, H, W)``, where above a half is object.
    correct : Tensor
        Whether the model's prediction for each image is right ``(N,)``, bool.
    threshold : float
        Of `mask_from_map`; `best_threshold` finds one.
    iou : float
        The masks meet if their intersection over union is at least so much.

    Returns
    -------
    Tensor
        ``(N,)``, bool. A map without differences, or an empty true mask, is never met.

    Raises
    ------
    InputError
        If the maps are no finite ``(N, C, H, W)``, masks or ``correct`` do not fit them, or
        ``threshold`` or ``iou`` are outside [0, 1].

    Examples
    --------
    >>> import torch
    >>> maps = torch.tensor([[[[0.0, 0.0, 0.0, -1.0, 1.0]]]])
    >>> masks = torch.tensor([[[0.0, 0.0, 1.0, 1.0, 1.0]]])
    >>> top1_seg(maps, masks, correct=torch.tensor([True]), threshold=0.5)
    tensor([True])
    """
    check_share(iou, "iou")
    check_correct(correct, len(maps))
    found = mask_from_map(maps, threshold)
    if masks.shape != found.shape:
        raise InputError("masks", f"shape {tuple(masks.shape)}", f"shape {tuple(found.shape)}")
    overlap = mask_iou(found, as_masks(masks, "masks").to(found.device))
    return (overlap >= iou) & (overlap > 0) & correct.to(found.device)
