"""Telling functions and classes apart by what they do, where names do not: lambdas, closures."""

from __future__ import annotations

import dataclasses
import hashlib
import inspect
import sys
import types
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["code_digest", "is_own", "tensor_digest"]

_LIBRARIES = {"holdfast", "torch", "torchvision", "timm", "transformers", "captum", "lightning"}


def is_own(made: Any) -> bool:
    """Tell whether a class or function is the user's own: of no library, and not of Python's.

    Examples
    --------
    >>> is_own(hashlib.sha256)
    False
    """
    name = getattr(made, "__module__", None) or "builtins"
    top = name.partition(".")[0]
    if top in _LIBRARIES or (top in sys.stdlib_module_names and top != "__main__"):
        return False
    file = getattr(sys.modules.get(name), "__file__", None) or ""
    return "site-packages" not in file and "dist-packages" not in file


def code_digest(made: Any) -> str:
    """Hash what a function does, or the methods of a class: its code, with what that refers to.

    Of what the code refers to count defaults, closures, and the plain values, functions and classes
    of the user's own that are global in its module. Comments and formatting do not count.

    Examples
    --------
    >>> code_digest(lambda x: x + 1) == code_digest(lambda x: x + 2)
    False
    >>> power = lambda n: lambda x: x**n
    >>> code_digest(power(2)) == code_digest(power(3))
    False
    """
    digest = hashlib.sha256()
    for said in _said(made, set()):
        digest.update(said.encode("utf-8", "surrogatepass") + b"\0")
    return digest.hexdigest()[:16]


def tensor_digest(tensor: Tensor) -> str:
    """Hash the content of a tensor, whatever its type and place."""
    content = tensor.detach().cpu().contiguous()
    digest = hashlib.sha256(f"{content.dtype} {tuple(content.shape)}".encode())
    if content.numel():
        # As bytes, since NumPy has no bfloat16.
        digest.update(content.flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _said(made: Any, seen: set[int]) -> Iterator[str]:
    """Spell out what something is and does, once."""
    if made is None or isinstance(made, int | float | complex | str | bytes):
        yield repr(made)
    elif isinstance(made, tuple | list):
        yield f"{type(made).__name__} of {len(made)}"
        for one in made:
            yield from _said(one, seen)
    elif isinstance(made, frozenset | set):
        yield f"set {sorted(map(repr, made))}"
    elif isinstance(made, dict):
        yield f"dict of {len(made)}"
        for key, value in made.items():
            yield repr(key)
            yield from _said(value, seen)
    elif isinstance(made, Tensor):
        yield tensor_digest(made)
    elif id(made) in seen:
        yield "again"
    else:
        seen.add(id(made))
        yield f"{type(made).__qualname__} {getattr(made, '__qualname__', '')}"
        if isinstance(made, types.CodeType):
            yield from (made.co_code.hex(), repr(made.co_names), repr(made.co_varnames))
            yield from _said(made.co_consts, seen)
        elif isinstance(made, types.MethodType):
            yield from _said(made.__func__, seen)
            yield from _said(
                vars(made.__self__) if hasattr(made.__self__, "__dict__") else (), seen
            )
        elif isinstance(made, types.FunctionType) and (is_own(made) or "<" in made.__qualname__):
            yield from _of_function(made, seen)
        elif isinstance(made, nn.Module):
            yield from _said(dict(made.state_dict()), seen)
        elif dataclasses.is_dataclass(made) and not isinstance(made, type):
            yield from _said(vars(made), seen)
        elif isinstance(made, type) and is_own(made):
            for base in made.__mro__:
                if is_own(base):
                    for name, value in vars(base).items():
                        yield from _of_member(name, value, seen)


def _of_function(function: types.FunctionType, seen: set[int]) -> Iterator[str]:
    yield from _said(function.__code__, seen)
    yield from _said((function.__defaults__, function.__kwdefaults__), seen)
    for cell in function.__closure__ or ():
        try:
            yield from _said(cell.cell_contents, seen)
        except ValueError:  # not filled yet
            yield "empty"
    for name in sorted(_names(function.__code__)):
        value = function.__globals__.get(name)
        if isinstance(value, bool | int | float | str | types.FunctionType | type | Tensor):
            yield name
            yield from _said(value, seen)


def _of_member(name: str, value: Any, seen: set[int]) -> Iterator[str]:
    if isinstance(value, property):
        value = value.fget
    elif isinstance(value, staticmethod | classmethod):
        value = value.__func__
    value = inspect.unwrap(value) if callable(value) else value
    if name.startswith("__") and name not in ("__call__", "__init__", "__post_init__"):
        return
    yield name
    yield from _said(value, seen)


def _names(code: types.CodeType) -> set[str]:
    inner = (_names(const) for const in code.co_consts if isinstance(const, types.CodeType))
    return set(code.co_names).union(*inner)
