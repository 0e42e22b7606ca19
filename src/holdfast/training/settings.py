"""Plain settings, as YAML holds them, and the parts that are made of them.

`build` makes a part of its settings, checked against the types in its signature; `to_settings`
writes a part down again. A part that is named by its class stands as ``{class_path, init_args}``,
a trained model as the folder of its run.
"""

from __future__ import annotations

import dataclasses
import inspect
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from functools import partial
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from jsonargparse import ArgumentError, ArgumentParser
from jsonargparse.util import import_object
from torch import Tensor, nn

from holdfast import adversarial, attributions, manipulation, objectives
from holdfast.contracts import (
    Attack,
    Attribution,
    Check,
    HoldfastError,
    InputError,
    Manipulation,
    Objective,
)
from holdfast.data import Augmentation
from holdfast.training.code import code_digest, tensor_digest
from holdfast.training.saving import load_saved

__all__ = ["build", "from_a_run", "to_settings"]


_trusted: ContextVar[bool | None] = ContextVar("trusted", default=None)
_KNOWN = ("holdfast.", "captum.attr.")
"""Modules whose classes are made without the user's word."""


@contextmanager
def from_a_run(trust_code: bool | None) -> Iterator[None]:
    """Say whose settings `build` is given in the block.

    Parameters
    ----------
    trust_code : bool or None
        False where they stand in the folder of a run, which may come from anybody: classes of
        Holdfast and Captum alone are imported. True where the user trusts it, None where he wrote
        them himself.

    Examples
    --------
    >>> with from_a_run(trust_code=False):
    ...     build(objectives.UniformNoise, {"eps": "8/255"}).eps
    0.03137254901960784
    """
    token = _trusted.set(trust_code)
    try:
        yield
    finally:
        _trusted.reset(token)


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
    """Turn a built part back into plain settings, the inverse of `build`.

    Classes and functions stand as their import paths; a tensor, say a baseline, as its shape and
    digest, which tell it from others and from which `build` makes none. So do functions that no
    path leads to, lambdas and partial ones: a digest of their code tells them apart.

    Raises
    ------
    HoldfastError
        If a model among the parts was not loaded from a run, so that no path leads back to it, or
        a part is of a kind that settings cannot hold.

    Examples
    --------
    >>> to_settings(objectives.UniformNoise(eps=0.1))
    {'class_path': 'holdfast.objectives.uniform_noise.UniformNoise', 'init_args': {'eps': 0.1}}
    """
    if dataclasses.is_dataclass(part) and not isinstance(part, type):
        fields = {f.name: to_settings(getattr(part, f.name)) for f in dataclasses.fields(part)}
        kind = type(part)
        # What is called is a method, one of many; of all else there is one kind.
        if not callable(part) or isinstance(part, Augmentation):
            return fields
        return {"class_path": f"{kind.__module__}.{kind.__qualname__}", "init_args": fields}
    if isinstance(part, Mapping):
        return {key: to_settings(value) for key, value in part.items()}
    if isinstance(part, tuple | list):
        return [to_settings(value) for value in part]
    if isinstance(part, nn.Module):
        return _origin(part)
    if isinstance(part, partial):
        bound = {"args": part.args, "keywords": part.keywords}
        return {"partial": to_settings(part.func), **to_settings(bound)}
    if isinstance(part, type) or inspect.isroutine(part):
        return _named(part)
    if isinstance(part, Tensor):
        return {"shape": list(part.shape), "sha256": tensor_digest(part)}
    if part is None or isinstance(part, bool | int | float | str):
        return part
    raise HoldfastError(f"settings can hold no {type(part).__name__}; methods are dataclasses")


def _named(part: Any) -> Any:
    """Name a class or function by its import path, and by its code where no path leads to it."""
    path = f"{part.__module__ or type(part.__self__).__module__}.{part.__qualname__}"
    owner = getattr(part, "__self__", None)
    if owner is not None and not inspect.ismodule(owner) and not isinstance(owner, type):
        return {"method": path, "of": to_settings(owner)}
    return {"function": path, "code": code_digest(part)} if "<" in path else path


# --- values by their types -----------------------------------------------------------------------

_ROOMS = (adversarial, attributions, manipulation, objectives)
_PROTOCOLS = (Attack, Attribution, Check, Manipulation, Objective)


def _value(name: str, hint: Any, value: Any) -> Any:
    """Turn a plain value into what the signature asks for."""
    kinds = get_args(hint)
    if get_origin(hint) in (Union, UnionType) and len(kinds) == 2 and NoneType in kinds:
        kind = kinds[kinds.index(NoneType) - 1]
        return None if value is None else _value(name, kind, value)
    if hint is nn.Module:
        return _model(name, value)
    if value is None and hint is not Any and NoneType not in kinds:
        raise InputError(name, None, _spelled(hint))  # jsonargparse would let it pass
    if type(value) is hint and hint in (bool, int, float, str):
        return value
    if hint in _PROTOCOLS:
        return _method(name, hint, value)
    if get_origin(hint) is type:
        return value if isinstance(value, type) else _imported(value, name, repr(value))
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
    if get_origin(hint) is tuple and get_args(hint)[0] in _PROTOCOLS:
        if not isinstance(value, list | tuple):
            raise InputError(name, repr(value), "a list of classes")
        return tuple(_value(name, get_args(hint)[0], one) for one in value)
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
    """Name the positional arguments of a method's call, by which the shapes are told apart."""
    call = getattr(method, "__call__", None)  # noqa: B004 - the signature is what is wanted
    if not (inspect.isfunction(call) or inspect.ismethod(call)):
        return []
    parameters = inspect.signature(call).parameters.values()
    return [p.name for p in parameters if p.kind is p.POSITIONAL_OR_KEYWORD and p.name != "self"]


def _model(name: str, value: Any) -> nn.Module:
    """Load a trained model by the folder of its run; one that is loaded already stays."""
    if isinstance(value, nn.Module):
        return value
    if not isinstance(value, str | os.PathLike):
        raise InputError(name, repr(value), "the folder of a trained run")
    try:
        return load_saved(value, trust_code=bool(_trusted.get()))
    except InputError as error:
        if error.argument == "trust_code":
            came = f"{value}, which is built by code of its own"
            expected = "a run whose architecture is of Holdfast, torchvision, timm or transformers"
            raise InputError(name, came, expected) from error
        raise InputError(name, error.came, error.expected) from error


def _origin(model: nn.Module) -> str:
    """Say where a model was loaded from."""
    origin = getattr(model, "origin", None)
    if not isinstance(origin, str):
        raise HoldfastError(
            f"settings can name no {type(model).__name__} that is in memory alone: save it with "
            "holdfast.training.save and give what holdfast.load makes of the file"
        )
    return origin


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
    return _imported(path, name, f"class_path {path!r}")


def _imported(path: Any, name: str, came: str) -> type[Any]:
    if _trusted.get() is False and not str(path).startswith(_KNOWN):
        expected = f"True, on the command line --trust-code, to import {path} for {name}"
        raise InputError("trust_code", False, f"{expected}, and then only if you trust the run")
    try:
        imported = import_object(path)
    except Exception as error:  # a user's module can fail in any way while it is imported
        raise InputError(name, f"{came} ({error})", "the name of a class") from error
    if not isinstance(imported, type):
        raise InputError(name, came, "the name of a class")
    return imported


def _spelled(hint: Any) -> str:
    if get_origin(hint) is Literal:
        return " or ".join(map(repr, get_args(hint)))
    return hint.__name__ if isinstance(hint, type) else str(hint).replace("typing.", "")


_FRACTION = re.compile(r"\s*(-?\d+(?:\.\d+)?)\s*/\s*(\d+(?:\.\d+)?)\s*")


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
