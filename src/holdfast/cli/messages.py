"""What went wrong, in one line: errors of all kinds, and warnings."""

from __future__ import annotations

import os
import sys
import sysconfig
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType

import yaml
from jsonargparse import ArgumentError

import holdfast
from holdfast.errors import HoldfastError

__all__ = ["message_of", "one_line", "warnings_as_lines"]

_LONGEST = 4000
"""Characters of a message: what was given may be a file of megabytes."""


def one_line(text: object) -> str:
    r"""Bring a text into one line that a terminal shows as it is, without control characters.

    Examples
    --------
    >>> one_line("two\nlines, \x1b[2J, \u202e and × ε")
    'two lines, \\x1b[2J, \\u202e and × ε'
    """
    line = " ".join(str(text).split())
    if len(line) > _LONGEST:
        line = f"{line[: _LONGEST // 2]} … {line[-_LONGEST // 2 :]}"
    return "".join(
        c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in line
    )


def message_of(error: Exception) -> str:
    """Say in one line what went wrong and, where it can be told, with which file.

    Examples
    --------
    >>> message_of(HoldfastError("no model"))
    'no model'
    >>> message_of(IsADirectoryError(21, "Is a directory", "runs"))
    'runs: Is a directory'
    """
    name = type(error).__name__
    if isinstance(error, HoldfastError | ArgumentError):
        text = str(error)
    elif isinstance(error, OSError):
        text = _of_the_system(error)
    elif isinstance(error, yaml.YAMLError):
        text = f"what is no valid YAML was given: {error}"
    elif isinstance(error, UnicodeError):
        text = f"text is not in UTF-8: {error}"
    elif isinstance(error, RecursionError):
        text = "what was given is nested too deeply, or refers to itself"
    elif isinstance(error, MemoryError) or _lacks_memory(error):
        text = f"out of memory; smaller images, batches or chunks need less ({error or name})"
    elif place := _in_a_users_code(error.__traceback__):
        text = f"{place}: {name}: {error}"
    else:
        text = (
            f"this is a fault of Holdfast: {name}: {error}; please report it, with the command "
            "that you gave; --debug shows where it is"
        )
    return one_line(text)


@contextmanager
def warnings_as_lines() -> Iterator[None]:
    """Show each warning of the block as one line of ours, without Python's place in the source."""

    def show(message: Warning | str, *_: object, **__: object) -> None:
        if sys.stderr is not None:
            print(f"holdfast: warning: {one_line(message)}", file=sys.stderr, flush=True)

    before, warnings.showwarning = warnings.showwarning, show
    try:
        yield
    finally:
        warnings.showwarning = before


def _of_the_system(error: OSError) -> str:
    files = [
        os.fsdecode(f) for f in (error.filename, error.filename2) if isinstance(f, str | bytes)
    ]
    reason = error.strerror or str(error) or type(error).__name__
    return ": ".join([" and ".join(files), reason] if files else [reason])


def _lacks_memory(error: Exception) -> bool:
    # torch is not imported to ask for its class: it may not have been needed.
    return type(error).__name__ == "OutOfMemoryError" or (
        isinstance(error, RuntimeError) and "can't allocate memory" in str(error)
    )


def _in_a_users_code(traceback: TracebackType | None) -> str:
    """Return the place in a user's own code, his model or objective, that an error comes from."""
    kept = [sysconfig.get_path(kind) for kind in ("stdlib", "platstdlib", "purelib", "platlib")]
    kept.append(str(Path(holdfast.__file__).parent))
    place = ""
    while traceback is not None:
        file = traceback.tb_frame.f_code.co_filename
        if Path(file).is_absolute() and not any(Path(file).is_relative_to(k) for k in kept):
            place = f"{file}, line {traceback.tb_lineno}"
        traceback = traceback.tb_next
    return place
