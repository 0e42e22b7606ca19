"""Plain settings, as YAML holds them, and the parts that are made of them.

`build` makes a part of its settings, checked against the types in its signature; `to_settings`
writes a part down again. A part that is named by its class stands as ``{class_path, init_args}``,
a trained model as the folder of its run.
"""

from __future__ import annotations

import dataclasses
import inspect
import os
import pkgutil
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from functools import partial
from types import NoneType, UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints

from torch import Tensor, nn

from holdfast import adversarial, attributions, manipulation, objectives, plain_yaml
from holdfast.contracts import HoldfastError, InputError
from holdfast.contracts.fields import PROTOCOLS, called_with, fits, settled, spelled
from holdfast.data import Augmentation
from holdfast.training.code import code_digest, tensor_digest
from holdfast.training.saving import load_saved

__all__ = ["build", "from_a_run", "to_settings"]

_trusted: ContextVar[bool | None] = ContextVar("trusted", default=None)


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


def build(kind: type[Any], settings: Mapping[str, Any], at: str | None = None) -> Any:
    """Make a ``kind`` from plain settings, all values checked against its signature.

    Numbers may be written as fractions (``8/255``).

    Parameters
    ----------
    kind : type
        A class with typed arguments.
    settings : mapping
        Its arguments; parts that are classes themselves as ``{class_path, init_args}``.
    at : str, optional
        The dotted key at which these settings stand, for errors; by default the class's name.

    Raises
    ------
    HoldfastError
        If an argument is unknown, missing or of the wrong type.

    Examples
    --------
    >>> build(adversarial.PGD, {"eps": "8/255", "step_size": 0.01, "steps": 10}).eps
    0.03137254901960784
    """
    at = kind.__name__ if at is None else at
    settings = _mapping(settings, at, kind)
    parameters = inspect.signature(kind).parameters
    unknown = [str(name) for name in settings if name not in parameters]
    if unknown:
        has = f"it has {', '.join(parameters)}" if parameters else "it has none"
        where = "" if at in ("", kind.__name__) else f"{at}.{unknown[0]}: "
        raise HoldfastError(f"{where}{kind.__name__} has no setting {', '.join(unknown)}; {has}")
    required = [name for name, p in parameters.items() if p.default is inspect.Parameter.empty]
    missing = [name for name in required if name not in settings]
    if missing:
        where = "" if at in ("", kind.__name__) else f"{at}: "
        raise HoldfastError(f"{where}{kind.__name__} needs {', '.join(missing)}")
    hints = get_type_hints(kind if dataclasses.is_dataclass(kind) else kind.__init__)
    made = {
        name: _made(hints.get(name, Any), value, f"{at}.{name}" if at else name)
        for name, value in settings.items()
    }
    try:
        return kind(**made)
    except InputError as error:  # it knows its class, and we where that stands
        rest = error.argument.removeprefix(f"{kind.__name__}.")
        if rest == error.argument and rest not in parameters:
            raise
        raise InputError(f"{at}.{rest}" if at else rest, error.came, error.expected) from error


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
    >>> to_settings(objectives.UniformNoise(eps=0.1))["init_args"]
    {'eps': 0.1, 'draw': 'corners'}
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
#
# jsonargparse makes such parts, too, but imports what a text names as soon as a class could be
# meant, before anybody can refuse it; and it takes no dataclass for our protocols. So parts are
# found here, and values are checked as the classes themselves check them.

_PACKAGES = (adversarial, attributions, manipulation, objectives)


def _made(hint: Any, value: Any, at: str) -> Any:
    """Make of a plain value what a type hint asks for; ``at`` is where it stands."""
    origin, kinds = get_origin(hint), get_args(hint)
    if isinstance(value, str):
        value = _read(hint, value, at)
    if hint is Any:
        return _any(value, at)
    if value is None and NoneType in kinds:
        return None
    if origin in (Union, UnionType):
        parts = [kind for kind in kinds if kind is not NoneType]
        several = len(parts) > 1 and all(map(dataclasses.is_dataclass, parts))
        if several and isinstance(value, Mapping | str):
            return _one_of(parts, value, at, hint)
        return _made(parts[0], value, at) if len(parts) == 1 else settled(hint, value, at)
    if hint is nn.Module:
        return _model(value, at)
    if hint in PROTOCOLS or dataclasses.is_dataclass(hint):
        return _part(hint, value, at)
    if origin is type and not isinstance(value, type):
        return _imported(value, at)
    if isinstance(origin, type) and issubclass(origin, Mapping) and isinstance(value, Mapping):
        value = {key: _made(kinds[1], one, f"{at}.{key}") for key, one in value.items()}
    elif origin is tuple and isinstance(value, list | tuple):
        each = [kinds[0]] * len(value) if kinds[-1] is ... else kinds
        # Too many or too few are refused below.
        value = tuple(_made(kind, one, at) for kind, one in zip(each, value, strict=False)) or value
    return settled(hint, value, at)


def _any(value: Any, at: str) -> Any:
    if isinstance(value, Mapping):
        return {key: _made(Any, one, f"{at}.{key}") for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_made(Any, one, at) for one in value]
    return value


def _read(hint: Any, text: str, at: str) -> Any:
    """Take text for what its type has in it: text as it is, or YAML, or a fraction."""
    kinds = get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)
    unread = isinstance(text, plain_yaml.Unread)
    if str in kinds or nn.Module in kinds:
        nothing = unread and NoneType in kinds and text in ("", "~", "null")
        return None if nothing else str(text)
    return _fraction(text if hint is Any and not unread else _parsed(text, at), at)


def _parsed(text: str, at: str) -> Any:
    try:
        return plain_yaml.parse(text, at)
    except HoldfastError:
        if isinstance(text, plain_yaml.Unread):
            raise
        return text  # its type says what is wrong


def _mapping(value: Any, at: str, kind: type[Any]) -> Mapping[str, Any]:
    value = _parsed(value, at) if isinstance(value, plain_yaml.Unread) else value
    if not isinstance(value, Mapping):
        raise InputError(at, repr(value), f"the settings of {kind.__name__}")
    return value


def _part(kind: Any, value: Any, at: str) -> Any:
    """Make a part: the one of its kind, or of many what its class names."""
    alone = kind not in PROTOCOLS
    if isinstance(value, str) and not alone:
        value = {"class_path": value}
    if not isinstance(value, Mapping):
        if alone and not isinstance(value, kind):
            raise InputError(at, repr(value), f"the settings of {kind.__name__}")
        return settled(kind, value, at)
    if alone and "class_path" not in value:
        return build(kind, value, at)
    if "class_path" not in value or set(value) - {"class_path", "init_args"}:
        raise InputError(at, ", ".join(map(str, value)), "class_path and init_args")
    made = _find(value["class_path"], at, kind)
    if alone and not issubclass(made, kind):
        raise InputError(at, value["class_path"], spelled(kind))
    if not alone and not fits(made, kind):
        came = f"{value['class_path']}, called with ({', '.join(called_with(made))})"
        raise InputError(at, came, f"a class called with ({', '.join(called_with(kind))})")
    return build(made, value.get("init_args") or {}, at)


def _one_of(kinds: list[Any], value: Any, at: str, hint: Any) -> Any:
    """Make a part of one of several kinds: the one that is named, by default the first."""
    value = {"class_path": value} if isinstance(value, str) else value
    if "class_path" not in value:
        return _part(kinds[0], value, at)
    named = str(value["class_path"]).rpartition(".")[2]
    meant = next((kind for kind in kinds if kind.__name__ == named), None)
    if meant is None:
        raise InputError(at, value["class_path"], spelled(hint))
    return _part(meant, value, at)


def _model(value: Any, at: str) -> nn.Module:
    """Load a trained model by the folder of its run; one that is loaded already stays."""
    if isinstance(value, nn.Module):
        return value
    if not isinstance(value, str | os.PathLike):
        raise InputError(at, repr(value), "the folder of a trained run")
    try:
        return load_saved(value, trust_code=bool(_trusted.get()))
    except InputError as error:
        if error.argument == "trust_code":
            came = f"{value}, which is built by code of its own"
            expected = "a run whose architecture is of Holdfast, torchvision, timm or transformers"
            raise InputError(at, came, expected) from error
        raise InputError(at, error.came, error.expected) from error


def _origin(model: nn.Module) -> str:
    """Say where a model was loaded from."""
    origin = getattr(model, "origin", None)
    if not isinstance(origin, str):
        raise HoldfastError(
            f"settings can name no {type(model).__name__} that is in memory alone: save it with "
            "holdfast.training.save and give what holdfast.load makes of the file"
        )
    return origin


def _find(path: Any, at: str, kind: Any) -> type[Any]:
    """Find a class by its import path, or one of Holdfast by its name alone.

    A name may stand in two packages, for an attack and an objective, say: the one that is called
    like ``kind`` is meant.
    """
    named = [getattr(package, path) for package in _PACKAGES if path in package.__all__]
    classes: list[type[Any]] = [found for found in named if isinstance(found, type)]
    if classes:
        return next((found for found in classes if fits(found, kind)), classes[0])
    return _imported(path, at)


_KNOWN = ("holdfast.", "captum.attr.")
"""Modules whose classes are made without the user's word."""


def _imported(path: Any, at: str) -> type[Any]:
    trusted = _trusted.get() is not False
    if not trusted and not str(path).startswith(_KNOWN):
        raise _untrusted(path, at)
    try:
        if not re.fullmatch(r"[^\W\d]\w*(\.[^\W\d]\w*)+", path):
            raise InputError(at, f"class_path {path!r}", "the name of a class")
        imported = pkgutil.resolve_name(path)
    except InputError:
        raise
    except Exception as error:  # a user's module can fail in any way while it is imported
        raise InputError(at, f"class_path {path!r} ({error})", "the name of a class") from error
    if not isinstance(imported, type):
        raise InputError(at, f"class_path {path!r}", "the name of a class")
    # Our modules import others, whose classes could be reached through them.
    if not trusted and not f"{imported.__module__}.".startswith(("holdfast.", "captum.")):
        raise _untrusted(path, at)
    return imported


def _untrusted(path: Any, at: str) -> InputError:
    expected = f"True, on the command line --trust-code, to import {path} for {at}"
    return InputError("trust_code", False, f"{expected}, and then only if you trust the run")


_FRACTION = re.compile(r"\s*(-?\d+(?:\.\d+)?)\s*/\s*(\d+(?:\.\d+)?)\s*")


def _fraction(value: Any, at: str) -> Any:
    if not (isinstance(value, str) and (match := _FRACTION.fullmatch(value))):
        return value
    numerator, denominator = map(float, match.groups())
    if denominator == 0:
        raise InputError(at, value, "a number; it divides by zero")
    return numerator / denominator
