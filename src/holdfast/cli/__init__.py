"""The ``holdfast`` command: train, explain, audit, report, a demonstration. Thin: the rooms do it.

Imports stand inside the verbs: torch and Lightning take seconds, and ``--help`` should not.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from importlib import import_module

from jsonargparse import ArgumentError

import holdfast
from holdfast.errors import HoldfastError

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line.

    Returns
    -------
    int
        The exit status: 0, or 2 if something that was given is wrong, after one line that says
        what.

    Examples
    --------
    >>> main(["--version"])
    holdfast 0.1.0
    0
    """
    given = list(sys.argv[1:] if arguments is None else arguments) or ["--help"]
    try:
        if given[0] in ("-h", "--help"):
            print(_overview())
        elif given[0] == "--version":
            print(f"holdfast {holdfast.__version__}")
        elif given[0] in _VERBS:
            _verb(given[0])(given[1:])
        else:
            raise HoldfastError(f"no command {given[0]!r}; there are {', '.join(_VERBS)}")
    except (HoldfastError, ArgumentError) as error:
        print(f"holdfast: error: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("holdfast: stopped", file=sys.stderr)
        return 130
    return 0


def _overview() -> str:
    lines = ["usage: holdfast COMMAND …", "", (holdfast.__doc__ or "").strip(), ""]
    lines += [f"  {name:8} {(_verb(name).__doc__ or '').partition(chr(10))[0]}" for name in _VERBS]
    return "\n".join([*lines, "", "holdfast COMMAND --help tells more."])


def _verb(name: str) -> Callable[[list[str]], None]:
    module, function = _VERBS[name]
    verb: Callable[[list[str]], None] = getattr(import_module(f"holdfast.cli.{module}"), function)
    return verb


_VERBS = {
    "demo": ("demo", "demo"),
    "train": ("train", "train"),
    "explain": ("explain", "explain"),
    "audit": ("audit", "audit"),
    "roar": ("roar", "roar"),
    "report": ("report", "report"),
    "data": ("data", "data"),
    "list": ("catalogue", "catalogue"),
}
