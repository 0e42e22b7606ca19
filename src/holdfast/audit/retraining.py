"""What ROAR retrains by: the run's own data, network and optimizer, from scratch, naturally."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from holdfast.contracts import InputError
from holdfast.objectives import Natural
from holdfast.training.recipe import Recipe, part_of

__all__ = ["natural_settings", "naturally", "on_one_device"]

_FRESH: dict[str, Any] = {"weights": None, "attributing": False}
"""Of an architecture: weights that knew whole images would tell the new model of them, and a
decoder of maps has no part in its accuracy."""


def naturally(recipe: Recipe) -> Recipe:
    """Keep a recipe's data, network and optimizer, and train naturally from fresh weights.

    Whether a map named the pixels that matter is asked of the images. A model that is retrained by
    another objective answers for that, too: adversarial training does not learn from images with
    many holes what natural training does, and a teacher has never seen any.

    Parameters
    ----------
    recipe : Recipe
        What a model was trained by, in whatever way. Where it began from published weights, their
        normalization stays.

    Raises
    ------
    HoldfastError
        If it began from published weights, does not say their normalization, and they cannot be
        asked for it.

    Examples
    --------
    >>> from holdfast.training import load_recipe
    >>> naturally(load_recipe("digits/art")).objective
    Natural()
    """
    model = recipe.model
    if model.weights is not None and model.mean is None and not model.standardize:
        model = model.filled(model.described())
    return replace(recipe, model=replace(model, **_FRESH), objective=Natural())


def natural_settings(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Do the same to the settings of a run, as plain YAML holds them.

    So a teacher need not be there any more, nor is a class of somebody's own imported, if only the
    objective had use for them.

    Parameters
    ----------
    settings : mapping
        A run's ``config.yaml``, which says the normalization of published weights itself.

    Raises
    ------
    InputError
        If ``model`` is no mapping.

    Examples
    --------
    >>> natural = natural_settings({"model": {"weights": "a.pth"}, "objective": "mine.Own"})
    >>> natural["objective"], natural["model"]["weights"]
    ({'class_path': 'Natural'}, None)
    """
    model = {**part_of(settings, "model"), **_FRESH}
    return {**settings, "model": model, "objective": {"class_path": "Natural"}}


def on_one_device(recipe: Recipe) -> Recipe:
    """Refuse several devices: each process that Lightning starts would do all of this anew.

    Raises
    ------
    InputError
        Names ``recipe.trainer.devices``.

    Examples
    --------
    >>> from holdfast.training import load_recipe
    >>> on_one_device(load_recipe("digits/natural")).trainer["devices"]
    1
    """
    devices = recipe.trainer.get("devices", 1)
    one = devices in (1, "1") or (isinstance(devices, list) and len(devices) == 1)
    if not one or recipe.trainer.get("num_nodes", 1) != 1:
        raise InputError("recipe.trainer.devices", devices, "1, on one node")
    return replace(recipe, trainer={"devices": 1, **recipe.trainer})
