"""The ``holdfast`` command. Thin: the packages below do it.

Imports stand inside the verbs: torch and Lightning take seconds, and ``--help`` should not.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterator, Sequence
from importlib import import_module
from typing import Any

import holdfast
from holdfast.cli.messages import message_of, one_line, warnings_as_lines
from holdfast.errors import HoldfastError

__all__ = ["main"]

_WRONG, _INTERRUPTED, _PIPE_CLOSED, _TERMINATED = 2, 130, 141, 143


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line.

    Whatever goes wrong ends in one line on stderr; ``--debug``, or ``HOLDFAST_DEBUG=1`` in the
    environment, shows Python's traceback before it.

    Returns
    -------
    int
        The exit status: 0; 2 if something is wrong, after one line that says what; 130 or 143 if
        the command was interrupted or terminated; 141 if nobody reads its output any more.

    Examples
    --------
    >>> main(["--version"])
    holdfast 0.1.0
    0
    """
    given = list(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in given or os.environ.get("HOLDFAST_DEBUG", "0") not in ("", "0")
    given = [argument for argument in given if argument != "--debug"]
    _prepare_streams()
    signals: list[int] = []
    try:
        with warnings_as_lines(), _terminable(signals):
            _run(given or ["--help"])
            sys.stdout.flush()
    except KeyboardInterrupt:
        _tell("holdfast: stopped")
        return _INTERRUPTED
    except SystemExit as ended:
        if ended.code == _TERMINATED:
            _tell("holdfast: terminated")
        return ended.code if isinstance(ended.code, int) else _WRONG if ended.code else 0
    except Exception as error:
        if signals:  # what is ended in the midst of an import makes of it what it likes
            _tell("holdfast: terminated")
            return _TERMINATED
        unread = isinstance(error, BrokenPipeError) and _nobody_reads()
        _drop(sys.stdout)
        if unread:
            return _PIPE_CLOSED
        if debug:
            traceback.print_exc()
        from holdfast.cli.options import as_written

        _tell(f"holdfast: error: {as_written(message_of(error), given)}")
        return _WRONG
    return 0


def _run(given: list[str]) -> None:
    if given[0] in ("-h", "--help"):
        print(_overview())
    elif given[0] == "--version":
        print(f"holdfast {holdfast.__version__}")
    elif given[0] in _VERBS:
        _verb(given[0])(given[1:])
    else:
        raise HoldfastError(f"no command {given[0]!r}; there are {', '.join(_VERBS)}")


def _overview() -> str:
    lines = ["usage: holdfast COMMAND …", "", (holdfast.__doc__ or "").strip(), ""]
    lines += [f"  {name:9} {(_verb(name).__doc__ or '').partition(chr(10))[0]}" for name in _VERBS]
    return "\n".join(
        [*lines, "", "holdfast COMMAND --help tells more. --debug shows where an error is from."]
    )


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
    "reproduce": ("reproduce", "reproduce"),
    "release": ("release", "release"),
    "data": ("data", "data"),
    "list": ("catalogue", "catalogue"),
}


# --- streams and signals -------------------------------------------------------------------------


def _prepare_streams() -> None:
    """Have streams that take every character, and take them at all where a shell has closed them.

    The next file that is opened would get the number of a closed stdout, and what is printed.
    """
    for name in ("stdin", "stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, open(os.devnull, "r" if name == "stdin" else "w"))  # noqa: SIM115
        elif name == "stdout" and hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")


@contextlib.contextmanager
def _terminable(received: list[int]) -> Iterator[None]:
    """End on SIGTERM as on an interrupt: what is being written is cleaned away."""

    def end(number: int, _: object) -> None:
        received.append(number)
        raise SystemExit(_TERMINATED)

    ours = threading.current_thread() is threading.main_thread() and (
        signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    )
    if ours:
        signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        if ours:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _nobody_reads() -> bool:
    """Whether stdout is a pipe that its reader, say ``head``, has closed."""
    if not hasattr(select, "poll"):
        return True
    poll = select.poll()
    with contextlib.suppress(OSError, ValueError):
        poll.register(sys.stdout.fileno(), 0)
    return any(event & select.POLLERR for _, event in poll.poll(0))


def _drop(stream: Any) -> None:
    """Drop what cannot be written: Python would try it again at its end."""
    try:
        stream.flush()
    except (OSError, ValueError):
        with contextlib.suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def _tell(line: str) -> None:
    with contextlib.suppress(OSError, ValueError):
        print(one_line(line), file=sys.stderr)
    _drop(sys.stderr)
