"""Recipes: everything that one training run is made of, as YAML.

A recipe names its parts by class, as Lightning does::

    objective:
      class_path: holdfast.objectives.ART
      init_args: {weight: 0.5, attack: {eps: 8/255, step_size: 1.5/255, steps: 3}}

The types of all values come from the signatures of those classes. Classes of Holdfast may be named
without their module (``class_path: ART``); a user's own class works by its import path. Where an
argument is a trained model, a teacher, the recipe names the folder of its run::

    objective:
      class_path: DefensiveDistillation
      init_args: {teacher: runs/cifar10/natural}
"""

from __future__ import annotations

import copy
import functools
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any, Literal

from holdfast import plain_yaml
from holdfast.contracts import HoldfastError, InputError, Objective, check_positive, checked
from holdfast.data import ImageData
from holdfast.models import Architecture
from holdfast.training.settings import build, to_settings

__all__ = [
    "OptimizerSettings",
    "Recipe",
    "build",
    "load_recipe",
    "named_by",
    "overlay",
    "part_of",
    "read_recipe",
    "recipe_names",
    "to_settings",
]


_LARGEST = 3.4028e38
"""Of float32."""


@dataclass(frozen=True)
@checked
class OptimizerSettings:
    """The optimizer and its learning-rate schedule.

    Parameters
    ----------
    name : {"sgd", "adam", "adamw"}
        Which of torch's optimizers.
    lr : float
        Learning rate.
    momentum : float
        Momentum of SGD.
    nesterov : bool
        Nesterov's momentum, for SGD.
    weight_decay : float
        ℓ2 penalty (for AdamW decoupled).
    schedule : dict of int to float
        From which epoch or step on the learning rate is how much. Before the first entry it is
        ``lr``.
    interval : {"epoch", "step"}
        What the schedule counts.

    Examples
    --------
    >>> OptimizerSettings("sgd", lr=0.1, schedule={50: 0.01, 80: 0.001}).rate_at(60)
    0.01
    """

    name: Literal["sgd", "adam", "adamw"] = "sgd"
    lr: float = 0.1
    momentum: float = 0.9
    nesterov: bool = False
    weight_decay: float = 0.0
    schedule: dict[int, float] = field(default_factory=dict)
    interval: Literal["epoch", "step"] = "epoch"

    def __post_init__(self) -> None:
        check_positive(self, "lr")
        check_positive(self, "momentum", "weight_decay", zero=True)
        if self.nesterov and not self.momentum:
            raise InputError("OptimizerSettings.nesterov", True, "False where momentum is 0")
        for start, rate in self.schedule.items():
            if start < 0 or not 0 <= rate <= _LARGEST:
                expected = "rates of at least 0, from epochs or steps of at least 0 on"
                raise InputError("OptimizerSettings.schedule", f"{start}: {rate}", expected)
        for name in ("lr", "momentum", "weight_decay"):
            if getattr(self, name) > _LARGEST:
                expected = f"a number of at most {_LARGEST:.2g}, as weights can hold"
                raise InputError(f"OptimizerSettings.{name}", getattr(self, name), expected)

    def rate_at(self, count: int) -> float:
        """Return the learning rate from epoch or step ``count`` on."""
        begun = [start for start in self.schedule if start <= count]
        return self.schedule[max(begun)] if begun else self.lr


@dataclass(frozen=True)
@checked
class Recipe:
    """One training run: data, model, objective, optimizer, length.

    Parameters
    ----------
    data : ImageData
        The images.
    model : Architecture
        The classifier. Number of classes, channels and image size are filled in from the data.
    objective : Objective
        The training loss.
    optimizer : OptimizerSettings
        Optimizer and learning-rate schedule.
    batch_size : int
        Images a step.
    trainer : dict
        Arguments of ``lightning.Trainer``, such as ``max_epochs``, ``max_steps``, ``devices``,
        ``precision``.
    seed : int
        Seeds the weights, the order of the images and all draws of the objective.
    audit : dict, optional
        The settings with which `holdfast audit` examines the model.
    source : str
        The paper and table that the recipe is taken from.
    """

    data: ImageData
    model: Architecture
    objective: Objective
    optimizer: OptimizerSettings = OptimizerSettings()
    batch_size: int = 128
    trainer: dict[str, Any] = field(default_factory=dict)
    seed: int = 0
    audit: dict[str, Any] | None = None
    source: str = ""

    def __post_init__(self) -> None:
        check_positive(self, "batch_size")


def recipe_names() -> list[str]:
    """Return the names of the recipes that come with Holdfast.

    Examples
    --------
    >>> "mnist/art" in recipe_names()
    True
    """
    return list(_shipped())


@functools.cache
def _shipped() -> tuple[str, ...]:
    root = resources.files("holdfast.training") / "recipes"
    names = (
        f"{folder.name}/{file.name.removesuffix('.yaml')}"
        for folder in root.iterdir()
        for file in folder.iterdir()
        if file.name.endswith(".yaml")
    )
    return tuple(sorted(names))


def read_recipe(name: str | Path, overrides: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Read a recipe as a plain mapping, with values replaced at dotted keys.

    Parameters
    ----------
    name : str or Path
        The name of a recipe of Holdfast (``"mnist/art"``) or the path of a YAML file. A YAML file
        may begin from another: ``base: digits/natural``; its own values are laid over that.
    overrides : mapping, optional
        Values at dotted keys, such as ``{"trainer.max_steps": 100}``. The ``init_args`` between a
        class and its arguments can be left out.

    Raises
    ------
    HoldfastError
        If there is no such recipe or it is no YAML mapping.

    Examples
    --------
    >>> read_recipe("digits/art", {"objective.weight": 1.0})["objective"]["init_args"]["weight"]
    1.0
    """
    return overlay(_read(name, ()), overrides or {})


def overlay(tree: dict[str, Any], overrides: Mapping[str, Any]) -> dict[str, Any]:
    """Replace values of plain settings at dotted keys, in place; return the settings.

    Examples
    --------
    >>> overlay({"audit": {"k": 100}}, {"audit.k": 32})
    {'audit': {'k': 32}}
    """
    for key, value in overrides.items():
        _set(tree, key, value)
    return tree


def part_of(tree: Mapping[str, Any], name: str) -> dict[str, Any]:
    """Return the settings of a part, none where there are none.

    Examples
    --------
    >>> part_of({"data": {"size": 8}}, "data"), part_of({}, "data")
    ({'size': 8}, {})
    """
    part = tree.get(name, {})
    if not isinstance(part, dict):
        raise InputError(name, repr(part), "a mapping of settings")
    return part


def load_recipe(name: str | Path, overrides: Mapping[str, Any] | None = None) -> Recipe:
    """Read a recipe and build its parts.

    Raises
    ------
    HoldfastError
        If there is no such recipe, or it has a setting that is unknown, missing or wrong. An error
        names the setting by its dotted key, and the recipe where the setting stands there.

    Examples
    --------
    >>> load_recipe("digits/natural").objective
    Natural()
    """
    tree = read_recipe(name, overrides)
    with named_by(name, overrides or {}):
        return build(Recipe, tree, at="")


@contextmanager
def named_by(name: str | Path, overrides: Mapping[str, Any]) -> Iterator[None]:
    """Say of a setting that is wrong in which recipe it stands, if it is none of the overrides.

    Examples
    --------
    >>> with named_by("mine.yaml", {"data.size": 8}):
    ...     raise InputError("batch_size", 0, "a number above 0")
    Traceback (most recent call last):
        ...
    holdfast.contracts.InputError: batch_size in mine.yaml: expected a number above 0, got 0
    """
    try:
        yield
    except InputError as error:
        key = f"{error.argument}."
        if error.argument == "trust_code" or any(
            key.startswith(f"{one}.") or f"{one}.".startswith(key) for one in overrides
        ):
            raise
        argument = f"{error.argument} in {name}" if error.argument else str(name)
        raise InputError(argument, error.came, error.expected) from error


# --- plain mappings ------------------------------------------------------------------------------


def _read(name: Any, above: tuple[str, ...]) -> dict[str, Any]:
    """Read a recipe with all that it begins from; ``above`` are those that begin from it."""
    if not isinstance(name, str | os.PathLike):
        raise InputError("base", repr(name), "the name of a recipe, or a YAML file")
    if str(name) in above:
        raise HoldfastError(f"recipe {name} begins from itself: {' → '.join((*above, str(name)))}")
    tree = _yaml(name)
    if Path(name).name == "config.yaml":
        tree = _as_it_ran(tree)
    if "base" in tree:
        tree = _merged(_read(tree.pop("base"), (*above, str(name))), tree)
    return tree


def _yaml(name: str | os.PathLike[str]) -> dict[str, Any]:
    path = Path(name)
    if path.suffix in (".yaml", ".yml"):
        if not path.is_file():
            raise HoldfastError(f"no recipe at {path}")
        return plain_yaml.read_mapping(path, f"recipe {path}")
    if str(name) in recipe_names():
        file = resources.files("holdfast.training") / "recipes" / f"{name}.yaml"
        settings: dict[str, Any] = plain_yaml.parse(file.read_text(encoding="utf-8"), str(name))
        return settings
    known = ", ".join(recipe_names())
    raise HoldfastError(f"no recipe {str(name)!r}; give a YAML file or one of {known}")


def _as_it_ran(tree: dict[str, Any]) -> dict[str, Any]:
    """Say of a run that was trained before images could be cropped how its images were resized."""
    data = tree.get("data")
    # A run's own record has every setting of its time, as no recipe has.
    if not isinstance(data, dict) or not {"size", "limit", "image_column"} <= data.keys():
        return tree
    if "fit" not in data and data["size"] is not None:
        return {**tree, "data": {**data, "fit": "squash"}}
    return tree


def _merged(base: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    merged = copy.deepcopy(base)
    for key, value in over.items():
        old = merged.get(key)
        # Another class has other arguments: its settings replace the old ones as a whole.
        other = isinstance(value, dict) and "class_path" in value
        # A schedule, with numbers for keys, is one value.
        other = other or (isinstance(value, dict) and any(isinstance(k, int) for k in value))
        if isinstance(old, dict) and isinstance(value, dict) and not other:
            merged[key] = _merged(old, value)
        else:
            merged[key] = value
    return merged


_DEPTH = 50
"""Of dotted keys, as of files."""


def _set(tree: dict[str, Any], dotted: str, value: Any) -> None:
    node: dict[str, Any] = tree
    *path, last = dotted.split(".")
    if len(path) > _DEPTH:
        raise HoldfastError(f"{dotted[:80]}…: no setting is nested so deep")
    if not path and isinstance(value, plain_yaml.Unread) and value.lstrip().startswith("{"):
        value = plain_yaml.parse(value, dotted)  # a whole part
    for key in path:
        node = _arguments(node, key)
        child = node.setdefault(key, {})
        if isinstance(child, plain_yaml.Unread):
            child = node[key] = plain_yaml.parse(child, dotted)
        if not isinstance(child, dict):
            raise HoldfastError(f"{dotted}: {key} is {child!r}, which has no settings of its own")
        node = child
    _arguments(node, last)[last] = value


def _arguments(node: dict[str, Any], key: str) -> dict[str, Any]:
    if "class_path" in node and key not in ("class_path", "init_args"):
        arguments = node.setdefault("init_args", {})
        if not isinstance(arguments, dict):
            raise HoldfastError(f"{key}: init_args are {arguments!r}, which is no mapping")
        return arguments
    return node
