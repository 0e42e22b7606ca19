"""What a study at a smaller scale leaves out: one rule for trainings, one for audits."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

from holdfast.contracts import InputError
from holdfast.training.recipe import Recipe

__all__ = ["LEAST_EXPLAINED", "LEAST_IMAGES", "check_scale", "rule", "scaled", "scaled_count"]

LEAST_IMAGES = 200
LEAST_EXPLAINED = 50


def check_scale(scale: float) -> None:
    """Refuse a scale that is not above 0 and at most 1.

    Raises
    ------
    InputError
        If it is not.
    """
    if not 0 < scale <= 1:
        raise InputError("scale", scale, "a number above 0 and at most 1")


def rule(scale: float, images: int | None = None, explained: int | None = None) -> str:
    """Say in words what holds at a scale.

    Examples
    --------
    >>> rule(1.0)
    'Scale 1: trained as long, and audited on as many images, as the study says.'
    """
    parts = []
    if scale < 1:
        parts.append(
            f"every epoch has {scale:g} of its batches (at least one), and steps and schedules in "
            f"steps are {scale:g} of the published ones"
        )
    if images is not None:
        parts.append(f"at most {images:,} test images")
    elif scale < 1:
        parts.append(f"{scale:g} of the test images, at least {LEAST_IMAGES}")
    if explained is not None:
        parts.append(f"the explanations of at most {explained:,} attacked")
    elif scale < 1:
        parts.append(
            f"{scale:g} of the images whose explanations are attacked, at least {LEAST_EXPLAINED}"
        )
    if not parts:
        return "Scale 1: trained as long, and audited on as many images, as the study says."
    return f"Scale {scale:g}: {'; '.join(parts)}."


def scaled(recipe: Recipe, scale: float, images: int) -> Recipe:
    """Shorten a training: of every epoch, and of all steps, the share ``scale``.

    The number of epochs stays, and with it schedules and objectives that count epochs. Schedules
    that count steps are shortened with these.

    Parameters
    ----------
    recipe : Recipe
        The training.
    scale : float
        Above 0 and at most 1.
    images : int
        How many images an epoch has.

    Examples
    --------
    >>> from holdfast.training import load_recipe
    >>> scaled(load_recipe("digits/natural"), 0.1, images=1280).trainer
    {'max_epochs': 60, 'limit_train_batches': 2}
    """
    if scale == 1:
        return recipe
    full = images // recipe.batch_size if images > recipe.batch_size else 1
    trainer: dict[str, Any] = dict(recipe.trainer)
    trainer["limit_train_batches"] = max(1, round(scale * full))
    for name in ("max_steps", "min_steps"):
        if trainer.get(name) is not None and trainer[name] > 0:
            trainer[name] = max(1, round(scale * trainer[name]))
    optimizer = recipe.optimizer
    if optimizer.interval == "step":
        schedule = {round(scale * at): rate for at, rate in sorted(optimizer.schedule.items())}
        optimizer = replace(optimizer, schedule=schedule)
    return replace(recipe, trainer=trainer, optimizer=optimizer)


def scaled_count(count: int, scale: float, least: int) -> int:
    """Shorten a number of images, but not below ``least`` of them.

    Examples
    --------
    >>> scaled_count(10_000, 0.01, 200), scaled_count(10_000, 0.5, 200), scaled_count(136, 0.1, 200)
    (200, 5000, 136)
    """
    return min(count, max(least, math.ceil(scale * count)))
