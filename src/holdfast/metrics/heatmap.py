"""From a map to a heat map in [0, 1], and the threshold above which it counts as object."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from holdfast.contracts import InputError
from holdfast.metrics.scores import check_finite

__all__ = ["best_threshold", "check_share", "heatmap"]

_GRID = tuple(step / 20 for step in range(1, 20))


def heatmap(maps: Float[Tensor, "n c h w"]) -> Float[Tensor, "n h w"]:
    """Make a map fit for thresholds: magnitudes, averaged over channels, scaled and smoothed.

    The mean over the channels of absolute values, scaled to [0, 1] from the least to the most,
    then a mean filter of 3×3 pixels, and last divided by the largest value, so that a threshold is
    a share of it (Singh et al., *Attributional Robustness Training using Input-Gradient Spatial
    Alignment*, 2020, section 4.2, after Choe and Shim, *Attention-based Dropout Layer*, 2019). At
    the border the mean is over the pixels that are there.

    Parameters
    ----------
    maps : Tensor
        Attribution maps ``(N, C, H, W)``; for localization gradients, as a rule.

    Returns
    -------
    Tensor
        ``(N, H, W)`` in [0, 1], with largest value 1; a map without differences becomes zero. No
        gradient flows.

    Raises
    ------
    InputError
        If the maps are no finite ``(N, C, H, W)``.

    Examples
    --------
    >>> heatmap(torch.tensor([[[[0.0, -4.0, 0.0, 2.0, 2.0]]]]))
    tensor([[[1.0000, 0.6667, 1.0000, 0.6667, 1.0000]]])
    """
    if maps.ndim != 4 or 0 in maps.shape[1:]:
        raise InputError("maps", f"shape {tuple(maps.shape)}", "shape (N, C, H, W)")
    check_finite(maps, "maps")
    heat = maps.detach().abs()
    # Before the mean, so that huge values cannot leave the range in it.
    largest = heat.amax((1, 2, 3), keepdim=True)
    heat = (heat / torch.where(largest > 0, largest, 1)).mean(1, keepdim=True)
    low, high = heat.amin((2, 3), keepdim=True), heat.amax((2, 3), keepdim=True)
    heat = (heat - low) / torch.where(high > low, high - low, 1)
    heat = F.avg_pool2d(heat, 3, stride=1, padding=1, count_include_pad=False).squeeze(1)
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
