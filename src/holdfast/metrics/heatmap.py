"""From a map to a heat map in [0, 1], and the threshold above which it counts as object."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal, get_args

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from holdfast.contracts import InputError
from holdfast.metrics.scores import check_finite

__all__ = [
    "Border",
    "best_threshold",
    "check_share",
    "grey_map",
    "heatmap",
    "mean_filter",
    "unit_range",
]

Border = Literal["inside", "zero"]
"""What a mean filter takes beyond the border: nothing, the mean being over what is there; or 0."""

_GRID = tuple(step / 20 for step in range(1, 20))


def heatmap(maps: Float[Tensor, "n c h w"], border: Border = "inside") -> Float[Tensor, "n h w"]:
    """Make a map fit for thresholds: magnitudes, averaged over channels, scaled and smoothed.

    The mean over the channels of absolute values, scaled to [0, 1] from the least to the most,
    then a mean filter of 3×3 pixels, and last divided by the largest value, so that a threshold is
    a share of it (Singh et al., *Attributional Robustness Training using Input-Gradient Spatial
    Alignment*, 2020, section 4.2, after Choe and Shim, *Attention-based Dropout Layer*, 2019).

    Parameters
    ----------
    maps : Tensor
        Attribution maps ``(N, C, H, W)``; for localization gradients, as a rule.
    border : {"inside", "zero"}
        What the mean filter takes at the border: the mean of the pixels that are there, or of nine
        with 0 for those that are not, which darkens the border by a third and corners by five
        ninths. The paper does not say; its public code does the latter, among other things that
        the text does not have, see `clipped_heatmap`.

    Returns
    -------
    Tensor
        ``(N, H, W)`` in [0, 1], with largest value 1; a map without differences becomes zero. No
        gradient flows.

    Raises
    ------
    InputError
        If the maps are no finite ``(N, C, H, W)``, or the border is another.

    Examples
    --------
    >>> heatmap(torch.tensor([[[[0.0, -4.0, 0.0, 2.0, 2.0]]]]))
    tensor([[[1.0000, 0.6667, 1.0000, 0.6667, 1.0000]]])
    """
    heat = mean_filter(unit_range(grey_map(maps)), border)
    top = heat.amax((1, 2), keepdim=True)
    return heat / torch.where(top > 0, top, 1)


def best_threshold(
    measure: Callable[[float], Tensor],
    thresholds: Sequence[float] = _GRID,
) -> float:
    """Find the threshold at which a measure is highest on average.

    Which threshold suits depends on the model and the kind of map, so that models compared at one
    and the same are compared unfairly (Choe et al., *Evaluating Weakly Supervised Object
    Localization Methods Right*, 2020). Choose it on other images than those you report.

    Parameters
    ----------
    measure : callable
        Gives the values ``(N,)`` at a threshold, such as whether each image is localized.
    thresholds : sequence of float
        Which to try; by default 0.05, 0.10, …, 0.95.

    Returns
    -------
    float
        The best; of equally good ones, the first.

    Raises
    ------
    InputError
        If there is no threshold to try, or the measure gives no value or NaN.

    Examples
    --------
    >>> from holdfast.metrics import gt_known_loc
    >>> maps, boxes = torch.zeros(1, 1, 9, 9), torch.tensor([[4.0, 4.0, 6.0, 6.0]])
    >>> maps[:, :, 4:6, 4:6] = 1  # smoothing spreads it by a pixel, at half the heat
    >>> best_threshold(lambda threshold: gt_known_loc(maps, boxes, threshold))
    0.55
    """
    if not thresholds:
        raise InputError("thresholds", "none", "at least one")
    means = [float(measure(threshold).double().mean()) for threshold in thresholds]
    if any(mean != mean for mean in means):
        raise InputError("measure", "no value, or NaN", "values (N,), N at least 1")
    return thresholds[means.index(max(means))]


def check_share(value: float, name: str) -> None:
    """Refuse a number outside [0, 1].

    Examples
    --------
    >>> check_share(1.5, "threshold")
    Traceback (most recent call last):
        ...
    holdfast.contracts.InputError: threshold: expected a number in [0, 1], got 1.5
    """
    if not 0 <= value <= 1:
        raise InputError(name, value, "a number in [0, 1]")


def grey_map(maps: Float[Tensor, "n c h w"]) -> Float[Tensor, "n h w"]:
    """Return the mean over the channels of absolute values, as shares of the largest of a map.

    Raises
    ------
    InputError
        If the maps are no finite ``(N, C, H, W)``.

    Examples
    --------
    >>> grey_map(torch.tensor([[[[0.0, -4.0]], [[2.0, 2.0]]]]))
    tensor([[[0.2500, 0.7500]]])
    """
    if maps.ndim != 4 or 0 in maps.shape[1:]:
        raise InputError("maps", f"shape {tuple(maps.shape)}", "shape (N, C, H, W)")
    check_finite(maps, "maps")
    sizes = maps.detach().abs()
    # Before the mean, so that huge values cannot leave the range in it.
    largest = sizes.amax((1, 2, 3), keepdim=True)
    return (sizes / torch.where(largest > 0, largest, 1)).mean(1)


def unit_range(grey: Float[Tensor, "n h w"]) -> Float[Tensor, "n h w"]:
    """Scale each map to [0, 1], from its least to its most; one without differences becomes zero.

    Examples
    --------
    >>> unit_range(torch.tensor([[[3.0, 5.0, 4.0]]]))
    tensor([[[0.0000, 1.0000, 0.5000]]])
    """
    low, high = grey.amin((1, 2), keepdim=True), grey.amax((1, 2), keepdim=True)
    return (grey - low) / torch.where(high > low, high - low, 1)


def mean_filter(heat: Float[Tensor, "n h w"], border: Border) -> Float[Tensor, "n h w"]:
    """Average each pixel with its eight neighbours; see `heatmap` for the border.

    Examples
    --------
    >>> mean_filter(torch.ones(1, 1, 3), "inside"), mean_filter(torch.ones(1, 1, 3), "zero")
    (tensor([[[1., 1., 1.]]]), tensor([[[0.2222, 0.3333, 0.2222]]]))
    """
    if border not in get_args(Border):
        raise InputError("border", repr(border), "'inside' or 'zero'")
    beyond = border == "zero"
    return F.avg_pool2d(heat[:, None], 3, stride=1, padding=1, count_include_pad=beyond)[:, 0]
