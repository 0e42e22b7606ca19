"""Checks of where maps point: how much of them lies on the object, and a box drawn from them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from jaxtyping import Bool, Float, Float64
from torch import Tensor, nn

from holdfast.adversarial import correct
from holdfast.attributions import Gradient
from holdfast.audit.measures import spread
from holdfast.contracts import Attribution, Batch, HoldfastError, InputError, checked
from holdfast.metrics import (
    box_from_contour,
    box_from_map,
    box_iou,
    box_masks,
    clipped_heatmap,
    concentration,
    energy_game,
    grey_mask,
    heatmap,
    loc,
    mask_from_map,
    mask_iou,
    pointing_game,
    positive_percentage,
)
from holdfast.metrics.heatmap import Border

__all__ = [
    "ContourLocalization",
    "Localization",
    "WeaklySupervisedLocalization",
    "objects_of",
]

_GRID = tuple(step / 20 for step in range(1, 20))


@dataclass(frozen=True)
@checked
class Localization:
    """How much of each map lies on the object.

    Maps are those of the label, of images that the model gets right; other images have no value.
    The object is the image's mask or, where it has none, its box.

    Parameters
    ----------
    attribution : Attribution
        What makes the maps.
    largest : float
        Objects that cover more than this share of the image are left out. The paper takes boxes of
        less than 0.8 of the original image; by default all count.

    Raises
    ------
    InputError
        If ``largest`` is outside [0, 1].
    HoldfastError
        When called, if the data has neither boxes nor masks.

    References
    ----------
    Wang et al., Robust Models Are More Interpretable Because Attributions Look Normal (ICLR 2022),
    section 5.2; the pointing game is that of Zhang et al., Top-down Neural Attention by Excitation
    Backprop (ECCV 2016).

    Examples
    --------
    >>> model = nn.Sequential(nn.Flatten(), nn.Linear(64, 2))
    >>> images = torch.rand(2, 1, 8, 8)
    >>> boxes = torch.tensor([[0.0, 0.0, 4.0, 8.0]]).expand(2, 4)
    >>> batch = Batch(images=images, labels=model(images).argmax(1), boxes=boxes)
    >>> list(Localization(Gradient())(model, batch))
    ['loc', 'energy_game', 'positive_percentage', 'concentration', 'pointing_game']
    """

    attribution: Attribution
    largest: float = 1.0

    def __post_init__(self) -> None:
        if not 0 <= self.largest <= 1:
            raise InputError("Localization.largest", self.largest, "a number in [0, 1]")

    def __call__(self, model: nn.Module, batch: Batch) -> dict[str, Float64[Tensor, " n"]]:
        """Return Loc, EG, PP, Con and the pointing game of each image, ``(N,)``.

        None at all if no image has a value.
        """
        images, labels = batch["images"], batch["labels"]
        objects, known = objects_of(batch)
        small = objects.double().mean((1, 2)) <= self.largest
        chosen = correct(model, images, labels) & known & small
        if not chosen.any():
            return {}
        maps = self.attribution(model, images[chosen], labels[chosen])
        figures = {metric.__name__: metric(maps, objects[chosen]) for metric in _METRICS}
        return spread(figures, chosen)


@dataclass(frozen=True)
@checked
class WeaklySupervisedLocalization:
    """How well a box, and a mask, drawn from the map of the label meet the true ones.

    As the paper's text says; what its public code does is `ContourLocalization`. Which threshold
    suits depends on model and map, so all are recorded: GT-known Loc at a threshold is the share of
    images with ``box_iou`` of at least 0.5 there, Top-1 Loc the share where ``top_1`` holds as
    well, Top-1 Seg the same with ``mask_iou``. Images without a box or a mask have no overlap.

    Parameters
    ----------
    attribution : Attribution
        What makes the maps.
    thresholds : tuple of float
        Shares in [0, 1] of the largest heat; see `holdfast.metrics.heatmap`. Measures are named by
        their first two decimals, which have to differ.
    border : {"inside", "zero"}
        Of the mean filter; see `holdfast.metrics.heatmap`. The paper does not say.

    Raises
    ------
    InputError
        If thresholds are outside [0, 1] or too close to each other.
    HoldfastError
        When called, if the data has neither boxes nor masks.

    References
    ----------
    Singh et al., Attributional Robustness Training using Input-Gradient Spatial Alignment (ECCV
    2020), section 4.2; Choe et al., Evaluating Weakly Supervised Object Localization Methods Right
    (CVPR 2020).

    Examples
    --------
    >>> model = nn.Sequential(nn.Flatten(), nn.Linear(64, 2))
    >>> boxes = torch.tensor([[0.0, 0.0, 4.0, 8.0]])
    >>> batch = Batch(images=torch.rand(1, 1, 8, 8), labels=torch.tensor([0]), boxes=boxes)
    >>> list(WeaklySupervisedLocalization(thresholds=(0.2, 0.4))(model, batch))
    ['top_1', 'box_iou/0.20', 'box_iou/0.40']
    """

    attribution: Attribution = Gradient()
    thresholds: tuple[float, ...] = _GRID
    border: Border = "inside"

    def __post_init__(self) -> None:
        _check_thresholds(self)
        if self.border not in get_args(Border):
            expected = "'inside' or 'zero'"
            raise InputError("WeaklySupervisedLocalization.border", repr(self.border), expected)

    def __call__(self, model: nn.Module, batch: Batch) -> dict[str, Float64[Tensor, " n"]]:
        """Return the overlaps at each threshold, and whether the prediction is right, ``(N,)``."""
        images, labels = batch["images"], batch["labels"]
        objects_of(batch)  # refuses data without any
        maps = self.attribution(model, images, labels)
        return _overlaps(
            {"top_1": correct(model, images, labels).double()},
            batch,
            self.thresholds,
            lambda given, threshold: box_from_map(maps[given], threshold, self.border),
            lambda given, threshold: mask_from_map(maps[given], threshold, self.border),
        )

    def pictures(self, model: nn.Module, batch: Batch) -> dict[str, Tensor]:
        """Return what the gallery keeps: heat maps, thresholds, and a box for each of them.

        Returns
        -------
        dict of str to Tensor
            ``heat_maps (N, H, W)`` in [0, 1], ``thresholds (T,)`` and ``estimated_boxes
            (N, T, 4)`` in pixels.
        """
        maps = self.attribution(model, batch["images"], batch["labels"])
        boxes = [box_from_map(maps, t, self.border) for t in self.thresholds]
        return _pictures(heatmap(maps, self.border), self.thresholds, boxes)


@dataclass(frozen=True)
@checked
class ContourLocalization:
    """How well boxes and masks meet the true ones, drawn as the public code of ECCV 2020 does.

    The heat is `holdfast.metrics.clipped_heatmap`, the box that of the contour with the largest
    area, see `holdfast.metrics.box_from_contour`; the paper's text has neither, see
    `WeaklySupervisedLocalization`. Measures are the same.

    Parameters
    ----------
    attribution : Attribution
        What makes the maps; in the public code the gradient of the loss.
    thresholds : tuple of float
        Shares in [0, 1] of white; see `holdfast.metrics.grey_mask`. Measures are named by their
        first two decimals, which have to differ.
    target : {"prediction", "label"}
        Of which class the maps are: that code says GT-known and takes the predicted class.
    low, high, sigma : float
        Percentiles and deviation of the blur; see `holdfast.metrics.clipped_heatmap`.

    Raises
    ------
    InputError
        If thresholds are outside [0, 1] or too close to each other, or ``target`` is another.
    HoldfastError
        When called, if the data has neither boxes nor masks.

    References
    ----------
    Singh et al., Attributional Robustness Training using Input-Gradient Spatial Alignment (ECCV
    2020), public code, directory ``WSOL_CUB``. That code also cuts the true box to whole pixels of
    a frame that is off by up to one of them, and counts the last pixel twice in areas; this check
    does not.

    Examples
    --------
    >>> model = nn.Sequential(nn.Flatten(), nn.Linear(64, 2))
    >>> boxes = torch.tensor([[0.0, 0.0, 4.0, 8.0]])
    >>> batch = Batch(images=torch.rand(1, 1, 8, 8), labels=torch.tensor([0]), boxes=boxes)
    >>> list(ContourLocalization()(model, batch))
    ['top_1', 'box_iou/0.20']
    """

    attribution: Attribution = Gradient(output="loss")
    thresholds: tuple[float, ...] = (0.2,)
    target: Literal["prediction", "label"] = "prediction"
    low: float = 2.0
    high: float = 98.0
    sigma: float = 3.0

    def __post_init__(self) -> None:
        _check_thresholds(self)
        if self.target not in ("prediction", "label"):
            expected = "'prediction' or 'label'"
            raise InputError("ContourLocalization.target", repr(self.target), expected)

    def __call__(self, model: nn.Module, batch: Batch) -> dict[str, Float64[Tensor, " n"]]:
        """Return the overlaps at each threshold, and whether the prediction is right, ``(N,)``."""
        objects_of(batch)  # refuses data without any
        heat = self._heat(model, batch)
        return _overlaps(
            {"top_1": correct(model, batch["images"], batch["labels"]).double()},
            batch,
            self.thresholds,
            lambda given, threshold: box_from_contour(heat[given], threshold),
            lambda given, threshold: grey_mask(heat[given], threshold),
        )

    def pictures(self, model: nn.Module, batch: Batch) -> dict[str, Tensor]:
        """Return what the gallery keeps, as `WeaklySupervisedLocalization` does."""
        heat = self._heat(model, batch)
        boxes = [box_from_contour(heat, threshold) for threshold in self.thresholds]
        return _pictures(heat, self.thresholds, boxes)

    def _heat(self, model: nn.Module, batch: Batch) -> Float[Tensor, "n h w"]:
        targets = batch["labels"] if self.target == "label" else None
        maps = self.attribution(model, batch["images"], targets)
        return clipped_heatmap(maps, self.low, self.high, self.sigma)


_METRICS = (loc, energy_game, positive_percentage, concentration, pointing_game)


def objects_of(batch: Batch) -> tuple[Bool[Tensor, "n h w"], Bool[Tensor, " n"]]:
    """Return the pixels of each object, and which images have one marked."""
    images = batch["images"]
    size = images.shape[-2], images.shape[-1]
    if "boxes" not in batch and "masks" not in batch:
        raise HoldfastError(
            "localization needs to know where the objects are, and this data has neither boxes nor "
            "masks (columns bbox and mask)"
        )
    objects = torch.zeros(len(images), *size, dtype=torch.bool, device=images.device)
    known = objects.new_zeros(len(images))
    if "boxes" in batch:
        known = ~batch["boxes"].isnan().any(1)
        objects = box_masks(batch["boxes"].nan_to_num(), size)
    if "masks" in batch:
        masks: Float[Tensor, "n h w"] = batch["masks"]
        given = ~masks.isnan().flatten(1).any(1)
        objects = torch.where(given[:, None, None], masks > 0.5, objects)
        known = known | given
    return objects, known


def _check_thresholds(check: WeaklySupervisedLocalization | ContourLocalization) -> None:
    where, thresholds = f"{type(check).__name__}.thresholds", check.thresholds
    if not thresholds or not all(0 <= t <= 1 for t in thresholds):
        raise InputError(where, thresholds, "numbers in [0, 1], at least one")
    if len({f"{t:.2f}" for t in thresholds}) < len(thresholds):
        raise InputError(where, thresholds, "numbers that differ in their two decimals")


def _overlaps(
    measures: dict[str, Float64[Tensor, " n"]],
    batch: Batch,
    thresholds: tuple[float, ...],
    box: Callable[[Tensor, float], Tensor],
    mask: Callable[[Tensor, float], Tensor],
) -> dict[str, Float64[Tensor, " n"]]:
    """Add the overlap of boxes and masks at each threshold, for the images that have them."""
    if "boxes" in batch:
        true = batch["boxes"]
        given = ~true.isnan().any(1)
        for threshold in thresholds:
            overlap = box_iou(box(given, threshold), true[given])
            measures |= spread({f"box_iou/{threshold:.2f}": overlap}, given)
    if "masks" in batch:
        true = batch["masks"]
        given = ~true.isnan().flatten(1).any(1)
        for threshold in thresholds:
            overlap = mask_iou(mask(given, threshold), true[given])
            measures |= spread({f"mask_iou/{threshold:.2f}": overlap}, given)
    return measures


def _pictures(
    heat: Float[Tensor, "n h w"], thresholds: tuple[float, ...], boxes: list[Tensor]
) -> dict[str, Tensor]:
    return {
        "heat_maps": heat,
        "thresholds": torch.tensor(thresholds),
        "estimated_boxes": torch.stack(boxes, 1),
    }
