"""Recipes: everything that one training run is made of, as YAML.

A recipe names its parts by class, as Lightning does::

    objective:
      class_path: holdfast.objectives.ART
      init_args: {weight: 0.5, attack: {eps: 8/255, step_size: 1.5/255, steps: 3}}

The types of all values come from the signatures of those classes. Classes of Holdfast may be named
without their module (``class_path: ART``); a user's own class works by its import path.
"""

from __future__ import annotations

import copy
import dataclasses
import inspect
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

import yaml
from jsonargparse import ArgumentError, ArgumentParser
from jsonargparse.util import import_object

from holdfast import adversarial, attributions, manipulation, objectives
from holdfast.contracts import (
    Attack,
    Attribution,
    HoldfastError,
    InputError,
    Manipulation,
    Objective,
    check_positive,
)
from holdfast.data import ImageData
from holdfast.models import Architecture

__all__ = ["OptimizerSettings", "Recipe", "build", "load_recipe", "read_recipe", "recipe_names"]


@dataclass(frozen=True)
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

    def rate_at(self, count: int) -> float:
        """Return the learning rate from epoch or step ``count`` on."""
        begun = [start for start in self.schedule if start <= count]
        return self.schedule[max(begun)] if begun else self.lr


@dataclass(frozen=True)
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
    root = resources.files("holdfast.training") / "recipes"
    return sorted(
        f"{folder.name}/{file.name.removesuffix('.yaml')}"
        for folder in root.iterdir()
        for file in folder.iterdir()
        if file.name.endswith(".yaml")
    )


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
    tree = _yaml(name)
    if "base" in tree:
        tree = _merged(read_recipe(tree.pop("base")), tree)
    for key, value in (overrides or {}).items():
        _set(tree, key, value)
    return tree


def load_recipe(name: str | Path, overrides: Mapping[str, Any] | None = None) -> Recipe:
    """Read a recipe and build its parts.

    Examples
    --------
    >>> load_recipe("digits/natural").objective
    Natural()
    """
    return build(Recipe, read_recipe(name, overrides))


def build(kind: type[Any], settings: Mapping[str, Any]) -> Any:
    """Make a ``kind`` from plain settings, all values checked against its signature.

    Numbers may be written as fractions (``8/255``).

    Parameters
    ----------
    kind : type
        A class with typed arguments.
    settings : mapping
        Its arguments; parts that are classes themselves as ``{class_path, init_args}``.

    Raises
    ------
    HoldfastError
        If an argument is unknown, missing or of the wrong type.

    Examples
    --------
    >>> build(adversarial.PGD, {"eps": "8/255", "step_size": 0.01, "steps": 10}).eps
    0.03137254901960784
    """
    parameters = inspect.signature(kind).parameters
    unknown = [name for name in settings if name not in parameters]
    if unknown:
        has = f"it has {', '.join(parameters)}" if parameters else "it has none"
        raise HoldfastError(f"{kind.__name__} has no setting {', '.join(unknown)}; {has}")
    required = [name for name, p in parameters.items() if p.default is inspect.Parameter.empty]
    missing = [name for name in required if name not in settings]
    if missing:
        raise HoldfastError(f"{kind.__name__} needs {', '.join(missing)}")
    hints = get_type_hints(kind if dataclasses.is_dataclass(kind) else kind.__init__)
    return kind(
        **{
            name: _value(f"{kind.__name__}.{name}", hints.get(name, Any), value)
            for name, value in _with_fractions(settings).items()
        }
    )


def to_settings(part: Any) -> Any:
    """Turn a built part back into plain settings, the inverse of `build`."""
    if dataclasses.is_dataclass(part) and not isinstance(part, type):
        fields = {f.name: to_settings(getattr(part, f.name)) for f in dataclasses.fields(part)}
        kind = type(part)
        if isinstance(part, ImageData | Architecture | OptimizerSettings | Recipe):
            return fields
        return {"class_path": f"{kind.__module__}.{kind.__qualname__}", "init_args": fields}
    if isinstance(part, Mapping):
        return {key: to_settings(value) for key, value in part.items()}
    if isinstance(part, tuple | list):
        return [to_settings(value) for value in part]
    return part


# --- values by their types -----------------------------------------------------------------------

_ROOMS = (adversarial, attributions, manipulation, objectives)
_PROTOCOLS = (Attack, Attribution, Manipulation, Objective)


def _value(name: str, hint: Any, value: Any) -> Any:
    """Turn a plain value into what the signature asks for."""
    if hint in _PROTOCOLS:
        return _method(name, hint, value)
    if dataclasses.is_dataclass(hint) and isinstance(hint, type):
        if isinstance(value, hint):
            return value
        if not isinstance(value, Mapping):
            raise InputError(name, repr(value), f"the settings of {hint.__name__}")
        if "class_path" in value:
            return _method(name, hint, value)
        return build(hint, value)
    if get_origin(hint) is dict and get_args(hint)[1] in _PROTOCOLS:
        if not isinstance(value, Mapping):
            raise InputError(name, repr(value), "a mapping of names to classes")
        return {key: _value(f"{name}.{key}", get_args(hint)[1], one) for key, one in value.items()}
    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument("--value", type=hint)
    try:
        return parser.parse_object({"value": value}).value
    except ArgumentError as error:
        raise InputError(name, repr(value), _spelled(hint)) from error


def _method(name: str, kind: Any, settings: Any) -> Any:
    """Build what is named by its class: ``{class_path, init_args}``."""
    if isinstance(settings, str):
        settings = {"class_path": settings}
    if not isinstance(settings, Mapping):
        if _called_with(settings) == _called_with(kind):
            return settings
        raise InputError(name, repr(settings), "class_path and init_args")
    if "class_path" not in settings or set(settings) - {"class_path", "init_args"}:
        raise InputError(name, ", ".join(map(str, settings)), "class_path and init_args")
    made = _find(settings["class_path"], name, kind)
    if _called_with(made) != _called_with(kind):
        expected = f"a class called with ({', '.join(_called_with(kind))})"
        came = f"{settings['class_path']}, called with ({', '.join(_called_with(made))})"
        raise InputError(name, came, expected)
    return build(made, settings.get("init_args") or {})


def _called_with(method: Any) -> list[str]:
    """Name the positional arguments of a method's call, by which the four shapes are told apart."""
    call = getattr(method, "__call__", None)  # noqa: B004 - the signature is what is wanted
    if not (inspect.isfunction(call) or inspect.ismethod(call)):
        return []
    parameters = inspect.signature(call).parameters.values()
    return [p.name for p in parameters if p.kind is p.POSITIONAL_OR_KEYWORD and p.name != "self"]


def _find(path: Any, name: str, kind: Any) -> type[Any]:
    """Find a class by its import path, or one of Holdfast by its name alone.

    A name may stand in two rooms, for an attack and an objective, say: the one that is called like
    ``kind`` is meant.
    """
    named = [getattr(room, path) for room in _ROOMS if path in room.__all__]
    classes: list[type[Any]] = [found for found in named if isinstance(found, type)]
    if classes:
        fitting = (found for found in classes if _called_with(found) == _called_with(kind))
        return next(fitting, classes[0])
    try:
        imported = import_object(path)
    except Exception as error:  # a user's module can fail in any way while it is imported
        raise InputError(name, f"class_path {path!r} ({error})", "the name of a class") from error
    if not isinstance(imported, type):
        raise InputError(name, f"class_path {path!r}", "the name of a class")
    return imported


def _spelled(hint: Any) -> str:
    if get_origin(hint) is Literal:
        return " or ".join(map(repr, get_args(hint)))
    return hint.__name__ if isinstance(hint, type) else str(hint).replace("typing.", "")


# --- plain mappings ------------------------------------------------------------------------------

_FRACTION = re.compile(r"\s*(-?\d+(?:\.\d+)?)\s*/\s*(\d+(?:\.\d+)?)\s*")


def _yaml(name: str | Path) -> dict[str, Any]:
    path = Path(name)
    if path.suffix in (".yaml", ".yml"):
        if not path.is_file():
            raise HoldfastError(f"no recipe at {path}")
        text = path.read_text(encoding="utf-8")
    elif str(name) in recipe_names():
        file = resources.files("holdfast.training") / "recipes" / f"{name}.yaml"
        text = file.read_text(encoding="utf-8")
    else:
        known = ", ".join(recipe_names())
        raise HoldfastError(f"no recipe {str(name)!r}; give a YAML file or one of {known}")
    try:
        tree = yaml.safe_load(text)
    except yaml.YAMLError as error:
        reason = str(error).replace("\n", " ")
        raise HoldfastError(f"recipe {name} is no valid YAML: {reason}") from error
    if not isinstance(tree, dict):
        raise HoldfastError(f"recipe {name} holds no mapping of settings")
    return tree


def _merged(base: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    merged = copy.deepcopy(base)
    for key, value in over.items():
        old = merged.get(key)
        # Another class has other arguments: its settings replace the old ones as a whole.
        other = isinstance(value, dict) and "class_path" in value
        if isinstance(old, dict) and isinstance(value, dict) and not other:
            merged[key] = _merged(old, value)
        else:
            merged[key] = value
    return merged


def _set(tree: dict[str, Any], dotted: str, value: Any) -> None:
    node: dict[str, Any] = tree
    *path, last = dotted.split(".")
    for key in path:
        node = _arguments(node, key)
        child = node.setdefault(key, {})
        if not isinstance(child, dict):
            raise HoldfastError(f"{dotted}: {key} is {child!r}, which has no settings of its own")
        node = child
    _arguments(node, last)[last] = value


def _arguments(node: dict[str, Any], key: str) -> dict[str, Any]:
    if "class_path" in node and key not in ("class_path", "init_args"):
        arguments: dict[str, Any] = node.setdefault("init_args", {})
        return arguments
    return node


def _with_fractions(tree: Any) -> Any:
    if isinstance(tree, Mapping):
        return {key: _with_fractions(value) for key, value in tree.items()}
    if isinstance(tree, list | tuple):
        return [_with_fractions(value) for value in tree]
    if isinstance(tree, str) and (match := _FRACTION.fullmatch(tree)):
        numerator, denominator = map(float, match.groups())
        if denominator == 0:
            raise HoldfastError(f"{tree!r} divides by zero")
        return numerator / denominator
    return tree
