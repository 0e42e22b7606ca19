"""Which options there are at dotted keys, read from the source of the classes that have them.

Importing these would import torch, which takes seconds.
"""

from __future__ import annotations

import ast
import difflib
from argparse import SUPPRESS
from collections.abc import Iterable, Sequence
from pathlib import Path

import docstring_parser
from jsonargparse import ArgumentParser

import holdfast
from holdfast.errors import HoldfastError

__all__ = ["add_settings", "check_known"]

_GROUPS = {
    "data": ("data/source.py", "ImageData"),
    "model": ("models/build.py", "Architecture"),
    "optimizer": ("training/recipe.py", "OptimizerSettings"),
    "audit": ("audit/battery.py", "Audit"),
    "roar": ("audit/roar.py", "ROAR"),
    "trainer": ("training/trainer.py", "Trainer"),
}


def add_settings(parser: ArgumentParser, group: str) -> None:
    """Add a group's settings to a parser whose help is shown."""
    found = _class(*_GROUPS[group])
    about = {
        parameter.arg_name: " ".join((parameter.description or "").split())
        for parameter in docstring_parser.parse(ast.get_docstring(found) or "").params
    }
    for field, node in _annotated(found).items():
        told = f"{about.get(field, '')} (type: {ast.unparse(node.annotation)})"
        default = SUPPRESS  # not shown
        if isinstance(node.value, ast.Constant | ast.Tuple):
            default = ast.unparse(node.value)
        parser.add_argument(
            f"--{group}.{field}",
            metavar=field.upper(),
            default=default,
            help=told.strip().replace("%", "%%"),
        )


def check_known(
    command: str, own: Iterable[str], keys: Iterable[str], groups: Sequence[str]
) -> None:
    """Refuse settings that a command does not have, and name what it has.

    Parameters
    ----------
    command : str
        As the user writes it: ``holdfast train``.
    own : iterable of str
        The command's own options, for one that was meant.
    keys : iterable of str
        The dotted keys that were given.
    groups : sequence of str
        The groups of settings that the command takes: ``data``, ``optimizer`` and so on.

    Examples
    --------
    >>> check_known("holdfast audit", ["--battery"], ["batery"], ["data", "audit"])
    Traceback (most recent call last):
        ...
    holdfast.contracts.HoldfastError: holdfast audit has no option --batery; did you mean \
--battery? It has settings --data.…, --audit.…
    """
    # What takes an optimizer takes all of a recipe.
    recipe = _fields("training/recipe.py", "Recipe") if "optimizer" in groups else []
    top = list(dict.fromkeys([*groups, *recipe]))
    for key in keys:
        group, dot, setting = key.partition(".")
        if group not in top:
            dotted = [name for name in top if name in groups or name in ("objective", "trainer")]
            has = f"It has settings {', '.join(f'--{name}.…' for name in dotted)}" if top else ""
            raise _unknown(command, key, [*own, *(f"--{name}" for name in top)], has)
        if dot and group in _GROUPS:
            fields = _fields(*_GROUPS[group])
            if setting.partition(".")[0] not in fields:
                options = [f"--{group}.{field}" for field in fields]
                raise _unknown(command, key, options, f"There are {', '.join(options)}")


def _unknown(command: str, key: str, options: Iterable[str], has: str) -> HoldfastError:
    # What all of a group share makes no two settings alike.
    names = {option.rpartition(".")[2].removeprefix("--"): option for option in options}
    close = difflib.get_close_matches(key.rpartition(".")[2], list(names), 1, cutoff=0.7)
    close = [names[name] for name in close]
    meant = f"; did you mean {close[0]}?" if close else "." if has else ""
    return HoldfastError(f"{command} has no option --{key}{meant} {has}".rstrip())


def _fields(file: str, name: str) -> list[str]:
    return list(_annotated(_class(file, name)))


def _class(file: str, name: str) -> ast.ClassDef:
    """Read a class's source, without importing what it imports."""
    source = (Path(holdfast.__file__).parent / file).read_text(encoding="utf-8")
    (found,) = (
        node
        for node in ast.parse(source).body
        if isinstance(node, ast.ClassDef) and node.name == name
    )
    return found


def _annotated(found: ast.ClassDef) -> dict[str, ast.AnnAssign]:
    nodes = [node for node in found.body if isinstance(node, ast.AnnAssign)]
    return {node.target.id: node for node in nodes if isinstance(node.target, ast.Name)}
