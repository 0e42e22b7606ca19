"""The words of a command: a verb's own options, and settings at dotted keys."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Sequence
from typing import Any

from jsonargparse import ArgumentParser, Namespace

from holdfast import plain_yaml
from holdfast.cli.known import add_settings, check_known
from holdfast.errors import HoldfastError

__all__ = ["as_written", "make_parser", "split"]


def make_parser(verb: str, function: Callable[..., None], example: str = "") -> ArgumentParser:
    """Make the parser of a verb's own options, described by the verb's docstring."""
    about = function.__doc__ or ""
    if example:
        about += (
            " Any setting can be changed at its dotted key, numbers may be fractions such as 8/255:"
            f" {example}"
        )
    parser = ArgumentParser(prog=f"holdfast {verb}", description=about, exit_on_error=False)
    # Unlike the default, its own message says which option was meant.
    parser.allow_abbrev = False
    return parser


def split(
    parser: ArgumentParser, arguments: list[str], groups: tuple[str, ...] = ()
) -> tuple[Namespace, dict[str, Any]] | None:
    """Tell a verb's own options from settings at dotted keys; None after printing the help."""
    if {"-h", "--help"} & set(arguments):
        for group in groups:
            add_settings(parser, group)
        parser.print_help()
        return None
    known = {option for action in parser._actions for option in action.option_strings}
    own: list[str] = []
    settings: dict[str, Any] = {}
    rest = iter(arguments)
    for token in rest:
        name, equals, value = token.partition("=")
        if not name.startswith("--") or name in known:
            own.append(token)
            continue
        if name == "--set":
            name, equals, value = (value if equals else next(rest, "")).partition("=")
        key = name.removeprefix("--")
        if not key:
            raise HoldfastError(f"{parser.prog} has no option {name or '--set'}")
        if not groups or "." not in key:
            check_known(parser.prog, known, [key], groups)  # it may lack a value, too
        if not equals:
            value = next(rest, "")
            if not value or value.startswith("--"):
                raise HoldfastError(f"{name} needs a value")
        settings[key] = plain_yaml.Unread(value)
    check_known(parser.prog, known, settings, groups)
    return parser.parse_args(own), settings


def as_written(message: str, arguments: Sequence[str]) -> str:
    """Name the setting that a message begins with as the user wrote it on the command line.

    Examples
    --------
    >>> as_written("ImageData.size: expected an integer, got 'x'", ["train", "--data.size", "x"])
    "--data.size: expected an integer, got 'x'"
    >>> as_written("ImageData.size: expected an integer, got 'x'", ["train", "mine.yaml"])
    "data.size: expected an integer, got 'x'"
    """
    words = {token.partition("=")[0] for token in arguments if token.startswith("--")}
    words |= {f"--{word.partition('=')[0]}" for word in _after("--set", arguments)}
    named = re.match(r"(\w+)((?:\.[^\s:,.]+)*)", message)
    if named is None:
        return message
    kind, rest = named.groups()
    key = f"{_KINDS.get(kind, kind)}{rest}" if rest else kind
    key = key.removeprefix("Recipe.").removeprefix("recipe.")
    written = key if f"--{key}" not in words else f"--{key}"
    above = [f"--{'.'.join(key.split('.')[:n])}" for n in range(1, key.count(".") + 1)]
    if written == key and words & set(above):
        written = f"--{key}"  # within a mapping that stands on the command line
    return written + message[named.end() :]


_KINDS = {
    "ImageData": "data",
    "Architecture": "model",
    "OptimizerSettings": "optimizer",
    "Audit": "audit",
    "ROAR": "roar",
}
"""Where the settings of a class stand."""


def _after(option: str, arguments: Sequence[str]) -> list[str]:
    return [b for a, b in itertools.pairwise(arguments) if a == option]
