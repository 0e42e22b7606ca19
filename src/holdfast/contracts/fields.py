"""Checks of hyper-parameters: a method that exists has sensible settings of the right types."""

from __future__ import annotations

import inspect
import math
import numbers
import operator
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from functools import cache
from types import NoneType, UnionType
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

import numpy as np
from torch import Tensor

from holdfast.contracts.protocols import Attack, Attribution, Check, Manipulation, Objective
from holdfast.errors import InputError

__all__ = ["PROTOCOLS", "called_with", "check_positive", "checked", "fits", "settled", "spelled"]

Kind = TypeVar("Kind", bound=type[Any])


def checked(kind: Kind) -> Kind:
    """Check the fields of a dataclass against their annotations whenever one is made.

    Stands below ``@dataclass``, and acts before the class's own ``__post_init__``. Numbers of NumPy
    and tensors without dimensions become Python's own where nothing is lost, lists become tuples; a
    ``bool`` is no number, and what is not finite is none either. A field ``seed`` is one of NumPy's
    and Lightning's, from 0 to 2³² − 1.

    Raises
    ------
    InputError
        On making one, if a value is not of its field's type.

    Examples
    --------
    >>> from dataclasses import dataclass
    >>> @dataclass(frozen=True)
    ... @checked
    ... class Blur:
    ...     width: float
    >>> Blur(np.float32(0.5))
    Blur(width=0.5)
    >>> Blur("wide")
    Traceback (most recent call last):
        ...
    holdfast.contracts.InputError: Blur.width: expected a finite number, got 'wide'
    """
    inner = getattr(kind, "__post_init__", None)

    def post_init(self: Any) -> None:
        for name, read in _readers(type(self)):  # type: ignore[arg-type]
            value = getattr(self, name)
            try:
                own = read(value, f"{type(self).__name__}.{name}")
            except InputError as error:
                if inner is not None:
                    _own_words(inner, self, error)
                raise
            if own is not value:
                object.__setattr__(self, name, own)
        if inner is not None:
            inner(self)

    kind.__post_init__ = post_init
    return kind


def _own_words(check: Callable[[Any], None], owner: Any, error: InputError) -> None:
    """Raise what the class itself says of the same field: it knows better what is expected."""
    try:
        check(owner)
    except InputError as own:
        if own.argument == error.argument:
            raise own from None
    except Exception:  # values of wrong types may fail in any way
        return


def settled(hint: Any, value: Any, name: str) -> Any:
    """Return a value as its type hint asks for it, a NumPy number as Python's own, say.

    Raises
    ------
    InputError
        If it is of another type; the error calls it ``name``.

    Examples
    --------
    >>> settled(tuple[int, ...], [1, np.int64(2)], "sizes")
    (1, 2)
    """
    return _reader(hint)(value, name)


def check_positive(owner: object, *fields: str, zero: bool = False) -> None:
    """Refuse a hyper-parameter of ``owner`` that is not above 0 (with ``zero``, not at least 0).

    Called from ``__post_init__``, so that a method that exists has sensible settings.
    """
    for name in fields:
        value = getattr(owner, name)
        if not (value > 0 or (zero and value == 0)):
            expected = "a number of at least 0" if zero else "a number above 0"
            raise InputError(f"{type(owner).__name__}.{name}", value, expected)


def spelled(hint: Any) -> str:
    """Say in words what a type hint asks for.

    Examples
    --------
    >>> spelled(Literal["l2", "linf"]), spelled(tuple[int, int] | None)
    ("'l2' or 'linf'", '2 values, each an integer, or None')
    """
    origin, kinds = get_origin(hint), get_args(hint)
    if hint in _WORDS:
        return _WORDS[hint]
    if origin is Literal:
        return " or ".join(map(repr, kinds))
    if origin in (Union, UnionType):
        wanted = [spelled(kind) for kind in kinds if kind is not NoneType]
        none = [", or None" if "," in wanted[-1] else "or None"] if NoneType in kinds else []
        return " ".join([" or ".join(wanted), *none]).replace(" ,", ",")
    if origin is tuple:
        count = "values" if kinds[-1] is ... else f"{len(kinds)} values"
        return f"{count}, each {spelled(kinds[0])}"
    if origin is list:
        return f"values, each {spelled(kinds[0])}"
    if isinstance(origin, type) and issubclass(origin, Mapping):
        of = "" if kinds[1] is Any else f", each value {spelled(kinds[1])}"
        return f"a mapping{of}"
    if origin is type:
        return "a class"
    kind = getattr(hint, "array_type", hint)
    word = getattr(kind, "__name__", str(kind))
    return f"{'an' if word[0] in 'AEIOUaeiou' else 'a'} {word}"


def called_with(method: Any) -> list[str]:
    """Name the positional arguments of a method's call, by which the protocols are told apart.

    Examples
    --------
    >>> called_with(Objective)
    ['model', 'batch']
    """
    call = getattr(method, "__call__", None) if isinstance(method, type) else method  # noqa: B004
    try:
        parameters = inspect.signature(call).parameters.values()  # type: ignore[arg-type]
    except (TypeError, ValueError):  # what is not written in Python may say nothing
        return []
    return [p.name for p in parameters if p.kind is p.POSITIONAL_OR_KEYWORD and p.name != "self"]


def fits(method: Any, protocol: Any) -> bool:
    """Tell whether a method, or its class, is called as a protocol says.

    It has as many arguments, of whatever names, but none by the name of another protocol's.

    Examples
    --------
    >>> fits(lambda net, x, y: x, Attack), fits(lambda model, batch: {}, Attack)
    (True, False)
    """
    if not callable(method):
        return False
    wanted, has = called_with(protocol), called_with(method)
    if not has:  # says nothing, or takes *args
        return not isinstance(method, type)
    return len(has) >= len(wanted) and all(
        own == theirs or own not in _ARGUMENTS for own, theirs in zip(has, wanted, strict=False)
    )


# --- a reader for each type ----------------------------------------------------------------------

Reader = Callable[[Any, str], Any]
"""Returns a value as its type has it; raises an `InputError` by a name."""

PROTOCOLS = (Attack, Attribution, Check, Manipulation, Objective)
_ARGUMENTS = {name for protocol in PROTOCOLS for name in called_with(protocol)}
_SEEDS = 2**32

_WORDS: dict[Any, str] = {
    bool: "True or False",
    int: "an integer",
    float: "a finite number",
    str: "text",
    NoneType: "None",
    **{
        protocol: f"what is called with ({', '.join(called_with(protocol))})"
        for protocol in PROTOCOLS
    },
}


@cache
def _readers(kind: type[Any]) -> tuple[tuple[str, Reader], ...]:
    try:
        hints = get_type_hints(kind)
    except NameError:  # a user's own class may name what is imported for type checkers alone
        return ()
    return tuple(
        (f.name, _seed(_reader(hints[f.name])) if f.name == "seed" else _reader(hints[f.name]))
        for f in fields(kind)
        if f.init
    )


@cache
def _reader(hint: Any) -> Reader:
    """Make the reader of a type."""
    origin, kinds = get_origin(hint), get_args(hint)
    if hint is Any or isinstance(hint, TypeVar):
        return lambda value, name: value
    if hint in _PLAIN:
        return _PLAIN[hint]
    if hint in PROTOCOLS:
        return _method(hint)
    if origin is Literal:
        return _literal(hint)
    if origin in (Union, UnionType):
        return _union(hint)
    if origin in (tuple, list):
        return _sequence(hint)
    if isinstance(origin, type) and issubclass(origin, Mapping):
        return _mapping(hint, _reader(kinds[0]), _reader(kinds[1]))
    if isinstance(origin, type) and issubclass(origin, Callable):  # type: ignore[arg-type]
        return _instance(hint, callable)
    if origin is type:
        return _instance(hint, lambda value: isinstance(value, type))
    kind = getattr(hint, "array_type", hint)
    return _instance(hint, lambda value: isinstance(value, kind))


def _refuse(name: str, value: Any, hint: Any) -> InputError:
    came = repr(value)
    return InputError(name, came if len(came) <= 200 else f"{came[:200]}…", spelled(hint))


def _bool(value: Any, name: str) -> bool:
    if type(value) is bool:
        return value
    if isinstance(value, np.bool_):
        return bool(value)
    raise _refuse(name, value, bool)


def _int(value: Any, name: str) -> int:
    if type(value) is not int:
        kind = getattr(value, "dtype", None)
        if isinstance(value, bool) or str(kind) in ("bool", "torch.bool"):
            raise _refuse(name, value, int)
        try:
            value = operator.index(value)
        except (TypeError, ValueError, RuntimeError):
            raise _refuse(name, value, int) from None
    if not -(2**63) <= value < 2**63:
        raise InputError(name, _short(value), "an integer that fits into 64 bits")
    return value


def _float(value: Any, name: str) -> float:
    if type(value) is not float:
        if isinstance(value, Tensor | np.ndarray) and value.ndim == 0:
            value = value.item()
        if isinstance(value, bool | np.bool_) or not isinstance(value, numbers.Real):
            raise _refuse(name, value, float)
        try:
            value = float(value)
        except OverflowError:
            raise InputError(name, _short(value), "a finite number") from None
    if not math.isfinite(value):
        raise _refuse(name, value, float)
    return value


def _short(value: Any) -> str:
    return f"one of {value.bit_length()} bits" if isinstance(value, int) else "a greater one"


def _str(value: Any, name: str) -> str:
    if type(value) is str:
        return value
    path = os.fspath(value) if isinstance(value, os.PathLike) else value
    if not isinstance(path, str):
        raise _refuse(name, value, str)
    return str(path)


def _none(value: Any, name: str) -> None:
    if value is not None:
        raise _refuse(name, value, NoneType)


_PLAIN: dict[Any, Reader] = {bool: _bool, int: _int, float: _float, str: _str, NoneType: _none}


def _seed(read: Reader) -> Reader:
    def seed(value: Any, name: str) -> Any:
        own = read(value, name)
        if own is not None and not 0 <= own < _SEEDS:
            raise InputError(name, own, f"a seed from 0 to {_SEEDS - 1}")
        return own

    return seed


def _literal(hint: Any) -> Reader:
    options = {(type(option), option): option for option in get_args(hint)}

    def literal(value: Any, name: str) -> Any:
        own = value.item() if isinstance(value, np.generic) else value
        try:
            return options[type(own), own]
        except (KeyError, TypeError):
            raise _refuse(name, value, hint) from None

    return literal


def _union(hint: Any) -> Reader:
    kinds = get_args(hint)
    exact = {kind for kind in kinds if kind in _PLAIN}
    readers = [_reader(kind) for kind in kinds]

    def union(value: Any, name: str) -> Any:
        if type(value) in exact:  # 1 stays an int where a float would do, too
            return _PLAIN[type(value)](value, name)
        for read in readers:
            try:
                return read(value, name)
            except InputError:
                continue
        raise _refuse(name, value, hint)

    return union


def _sequence(hint: Any) -> Reader:
    origin, kinds = get_origin(hint), get_args(hint)
    alike = origin is list or kinds[-1] is ...
    readers = [_reader(kind) for kind in kinds if kind is not ...]

    def sequence(value: Any, name: str) -> Any:
        plain = isinstance(value, Sequence) and not isinstance(value, str | bytes)
        if not plain or not (alike or len(value) == len(readers)):
            raise _refuse(name, value, hint)
        each = readers * len(value) if alike else readers
        return origin(read(item, name) for read, item in zip(each, value, strict=True))

    return sequence


def _mapping(hint: Any, key: Reader, item: Reader) -> Reader:
    def mapping(value: Any, name: str) -> Any:
        if not isinstance(value, Mapping):
            raise _refuse(name, value, hint)
        own = {key(k, f"a key of {name}"): item(v, f"{name}.{k}") for k, v in value.items()}
        same = all(
            a is b
            for pair in zip(own.items(), value.items(), strict=True)
            for a, b in zip(*pair, strict=True)
        )
        return value if same else own

    return mapping


def _method(protocol: Any) -> Reader:
    def method(value: Any, name: str) -> Any:
        if isinstance(value, type) or not (isinstance(value, protocol) and fits(value, protocol)):
            raise _refuse(name, value, protocol)
        return value

    return method


def _instance(hint: Any, is_one: Callable[[Any], bool]) -> Reader:
    def instance(value: Any, name: str) -> Any:
        if not is_one(value):
            raise _refuse(name, value, hint)
        return value

    return instance
