"""The ``holdfast`` command: train, explain, audit, report, a demonstration. Thin: the rooms do it.

Imports stand inside the verbs: torch and Lightning take seconds, and ``--help`` should not.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence

from jsonargparse import ArgumentError

import holdfast
from holdfast.cli import verbs
from holdfast.contracts import HoldfastError

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
            _VERBS[given[0]](given[1:])
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
    for name, verb in _VERBS.items():
        lines.append(f"  {name:8} {(verb.__doc__ or '').partition(chr(10))[0]}")
    return "\n".join([*lines, "", "holdfast COMMAND --help tells more."])


_VERBS: dict[str, Callable[[list[str]], None]] = {
    "demo": verbs.demo,
    "train": verbs.train,
    "explain": verbs.explain,
    "audit": verbs.audit,
    "roar": verbs.roar,
    "report": verbs.report,
    "data": verbs.data,
    "list": verbs.catalogue,
}
