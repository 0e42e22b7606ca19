"""Checks of where maps point: how much of them lies on the object, and a box drawn from them."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Float64
from torch import Tensor, nn

from holdfast.adversarial import correct
from holdfast.attributions import Gradient
from holdfast.audit.measures import spread
from holdfast.contracts import Attribution, Batch, HoldfastError, InputError, checked
from holdfast.metrics import (
    box_from_map,
    box_iou,
    box_masks,
    concentration,
    energy_game,
    heatmap,
    loc,
    mask_from_map,
    mask_iou,
    pointing_game,
    positive_percentage,
)

__all__ = ["Localization", "WeaklySupervisedLocalization", "objects_of"]

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

    Raises
    ------
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

    def __call__(self, model: nn.Module, batch: Batch) -> dict[str, Float64[Tensor, " n"]]:
        """Return Loc, EG, PP, Con and the pointing game of each image, ``(N,)``.

        None at all if no image has a value.
        """
        images, labels = batch["images"], batch["labels"]
        objects, known = objects_of(batch)
        chosen = correct(model, images, labels) & known
        if not chosen.any():
            return {}
        maps = self.attribution(model, images[chosen], labels[chosen])
        figures = {metric.__name__: metric(maps, objects[chosen]) for metric in _METRICS}
        return spread(figures, chosen)


@dataclass(frozen=True)
@checked
class WeaklySupervisedLocalization:
    """How well a box, and a mask, drawn from the map of the label meet the true ones.

    Which threshold suits depends on model and map, so all are recorded: GT-known Loc at a threshold
    is the share of images with ``box_iou`` of at least 0.5 there, Top-1 Loc the share where
    ``top_1`` holds as well, Top-1 Seg the same with ``mask_iou``.

    Parameters
    ----------
    attribution : Attribution
        What makes the maps.
    thresholds : tuple of float
        Shares in [0, 1] of the largest heat; see `holdfast.metrics.heatmap`. Measures are named by
        their first two decimals, which have to differ.

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

    def __post_init__(self) -> None:
        where = f"{type(self).__name__}.thresholds"
        if not self.thresholds or not all(0 <= t <= 1 for t in self.thresholds):
            raise InputError(where, self.thresholds, "numbers in [0, 1], at least one")
        if len({f"{t:.2f}" for t in self.thresholds}) < len(self.thresholds):
            raise InputError(where, self.thresholds, "numbers that differ in their two decimals")

    def __call__(self, model: nn.Module, batch: Batch) -> dict[str, Float64[Tensor, " n"]]:
        """Return the overlaps at each threshold, and whether the prediction is right, ``(N,)``."""
        images, labels = batch["images"], batch["labels"]
        objects_of(batch)  # refuses data without any
        maps = self.attribution(model, images, labels)
        measures = {"top_1": correct(model, images, labels).double()}
        for threshold in self.thresholds:
            if "boxes" in batch:
                given = ~batch["boxes"].isnan().any(1)
                overlap = box_iou(box_from_map(maps[given], threshold), batch["boxes"][given])
                measures |= spread({f"box_iou/{threshold:.2f}": overlap}, given)
        for threshold in self.thresholds:
            if "masks" in batch:
                given = ~batch["masks"].isnan().flatten(1).any(1)
                overlap = mask_iou(mask_from_map(maps[given], threshold), batch["masks"][given])
                measures |= spread({f"mask_iou/{threshold:.2f}": overlap}, given)
        return measures

    def pictures(self, model: nn.Module, batch: Batch) -> dict[str, Tensor]:
        """Return what the gallery keeps: heat maps, thresholds, and a box for each of them.

        Returns
        -------
        dict of str to Tensor
            ``heat_maps (N, H, W)`` in [0, 1], ``thresholds (T,)`` and ``estimated_boxes
            (N, T, 4)`` in pixels.
        """
        maps = self.attribution(model, batch["images"], batch["labels"])
        return {
            "heat_maps": heatmap(maps),
            "thresholds": torch.tensor(self.thresholds),
            "estimated_boxes": torch.stack([box_from_map(maps, t) for t in self.thresholds], 1),
        }


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
