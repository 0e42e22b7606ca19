"""Boxes and masks from maps as the public code of ECCV 2020 draws them.

The paper's text has a procedure of its own: `holdfast.metrics.heatmap` and `box_from_map`.
"""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Bool, Float
from scipy import ndimage
from torch import Tensor

from holdfast.contracts import InputError
from holdfast.metrics.heatmap import check_share, grey_map, mean_filter, unit_range

__all__ = ["box_from_contour", "clipped_heatmap", "grey_mask"]

_GREYS = 256


def clipped_heatmap(
    maps: Float[Tensor, "n c h w"], low: float = 2.0, high: float = 98.0, sigma: float = 3.0
) -> Float[Tensor, "n h w"]:
    """Make a map fit for thresholds: cut off its extremes and blur it.

    The mean over the channels of absolute values; what lies outside of two percentiles of the
    image's own values becomes these; scaled to [0, 1] from the least to the most; a mean filter of
    3×3 pixels that takes 0 beyond the border; a Gaussian filter, mirrored at the border and cut off
    at four deviations; and scaled to [0, 1] once more (public code of Singh et al., *Attributional
    Robustness Training using Input-Gradient Spatial Alignment*, 2020, for gradients of the loss).

    Parameters
    ----------
    maps : Tensor
        Attribution maps ``(N, C, H, W)``.
    low, high : float
        The percentiles, from 0 to 100.
    sigma : float
        Standard deviation of the Gaussian filter, in pixels; made for images of 224×224.

    Returns
    -------
    Tensor
        ``(N, H, W)`` in [0, 1]; zero where nothing differs between the percentiles. No gradient
        flows.

    Raises
    ------
    InputError
        If the maps are no finite ``(N, C, H, W)``, the percentiles do not ascend within [0, 100],
        or ``sigma`` is below 0.

    Notes
    -----
    That code scales by the least and the most of a whole batch, so that, through the 0 beyond the
    border, a map depends on what else is in its batch. Here every image is a batch of its own.

    Examples
    --------
    >>> maps = torch.zeros(1, 1, 9, 15)
    >>> maps[..., 4, 7] = -1
    >>> clipped_heatmap(maps, low=0.0, high=100.0, sigma=1.0)[0, 4, 5:10]
    tensor([0.3402, 0.7871, 1.0000, 0.7871, 0.3402])
    """
    if not 0 <= low < high <= 100:
        raise InputError("low, high", f"{low}, {high}", "percentiles in [0, 100], low below high")
    if sigma < 0:
        raise InputError("sigma", sigma, "a number of at least 0")
    grey = grey_map(maps).double().cpu()
    if not len(grey):
        return grey.to(maps)
    least, most = np.percentile(grey.flatten(1).numpy(), [low, high], axis=1)[:, :, None, None]
    cut = torch.from_numpy(np.clip(grey.numpy(), least, most))
    heat = mean_filter(unit_range(cut), border="zero").numpy()
    return unit_range(torch.from_numpy(ndimage.gaussian_filter(heat, (0, sigma, sigma)))).to(maps)


def grey_mask(heat: Float[Tensor, "n h w"], threshold: float = 0.2) -> Bool[Tensor, "n h w"]:
    """Take the pixels that are brighter than a threshold among 256 greys.

    As OpenCV's ``threshold`` does with images of 8 bits: strictly brighter than ``int(255 t)``.

    Parameters
    ----------
    heat : Tensor
        `clipped_heatmap` ``(N, H, W)`` in [0, 1].
    threshold : float
        t, a share in [0, 1] of white; the public code's is 0.2.

    Returns
    -------
    Tensor
        ``(N, H, W)``, bool.

    Raises
    ------
    InputError
        If the heat is no ``(N, H, W)`` in [0, 1], or the threshold is outside [0, 1].

    Notes
    -----
    That code goes to grey by way of a colour map, "cubehelix", whose luminance is the heat; the
    two differ by at most one grey.

    Examples
    --------
    >>> grey_mask(torch.tensor([[[0.0, 0.2, 0.21, 1.0]]]))
    tensor([[[False, False,  True,  True]]])
    """
    check_share(threshold, "threshold")
    if heat.ndim != 3 or not ((heat >= 0) & (heat <= 1)).all():
        raise InputError("heat", f"shape {tuple(heat.shape)}", "(N, H, W) with values in [0, 1]")
    greys = (heat * _GREYS).floor().clamp(max=_GREYS - 1)
    return greys > int(threshold * (_GREYS - 1))


def box_from_contour(heat: Float[Tensor, "n h w"], threshold: float = 0.2) -> Float[Tensor, "n 4"]:
    """Draw a box around the contour that encloses the largest area of each heat map.

    Of the pixels of `grey_mask`, those that touch at sides or corners make a spot. Its area is that
    of the polygon through the centres of its outermost pixels, as OpenCV's ``contourArea`` has it:
    holes count, and a line of pixels has none. Of equal areas it is the spot that begins last, row
    by row, which OpenCV lists first.

    Parameters
    ----------
    heat : Tensor
        `clipped_heatmap` ``(N, H, W)`` in [0, 1].
    threshold : float
        As for `grey_mask`.

    Returns
    -------
    Tensor
        Boxes ``(N, 4)``: x0, y0, x1, y1 in pixels. Where no pixel is bright enough, the empty box
        0, 0, 0, 0; the public code takes the first pixel, which meets no object either.

    Raises
    ------
    InputError
        As `grey_mask`.

    Examples
    --------
    >>> heat = torch.zeros(1, 9, 12)
    >>> heat[:, 1, :] = 1  # many pixels, no area
    >>> heat[:, 4:7, 3:6] = 0.5
    >>> box_from_contour(heat)
    tensor([[3., 4., 6., 7.]])
    """
    boxes = np.zeros((len(heat), 4), dtype=np.float32)
    masks = grey_mask(heat, threshold).cpu().numpy()
    for box, pixels in zip(boxes, masks, strict=True):
        spots, count = ndimage.label(pixels, structure=np.ones((3, 3)))
        if count:
            frames = ndimage.find_objects(spots)
            areas = [_area(spots[frame] == n) for n, frame in enumerate(frames, 1)]
            # OpenCV lists contours from the last to the first.
            rows, columns = frames[count - 1 - int(np.argmax(areas[::-1]))]
            box[:] = columns.start, rows.start, columns.stop, rows.stop
    return torch.from_numpy(boxes).to(heat.device)


def _area(spot: np.ndarray) -> float:
    """Return the area within the outer contour of one spot.

    Between the centres of four pixels lies a unit square, of which the polygon covers all where the
    four belong to the filled spot, a half where three do, and nothing otherwise.
    """
    filled = ndimage.binary_fill_holes(spot).astype(int)
    corners = filled[1:, 1:] + filled[1:, :-1] + filled[:-1, 1:] + filled[:-1, :-1]
    return float((corners == 4).sum() + (corners == 3).sum() / 2)
