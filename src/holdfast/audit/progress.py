"""How far a long work is and how long it will take: a bar in a terminal, and lines in a file."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskProgressColumn, TextColumn

__all__ = ["progress", "time_left"]

EVERY = 60.0
"""Seconds between two lines, where there is no terminal."""
POLL = 0.5
"""Seconds between two looks at what is done."""


@contextmanager
def progress(
    task: str, total: int, unit: str, done: Callable[[], int], *, shown: bool = True
) -> Iterator[None]:
    """Show how much is done and how much time is left, while the block works.

    In a terminal it is a bar. Elsewhere a line is printed when the first piece is done, then one a
    minute at most, and one in the end.

    Parameters
    ----------
    task : str
        What is done.
    total : int
        How many pieces.
    unit : str
        What the pieces are called.
    done : callable
        Returns how many pieces are done, whoever has done them; it is asked twice a second. The
        time left is judged by those that are done after the first question.
    shown : bool
        Whether to show anything.

    Examples
    --------
    >>> finished = []
    >>> with progress("Counting", 3, "sheep", lambda: len(finished)):
    ...     finished += [1, 2, 3]
    Counting: 3 of 3 sheep
    """
    if not shown or total == 0:
        yield
        return
    begun, before = time.monotonic(), done()
    with (_bar if sys.stdout.isatty() else _lines)(task, total, unit) as show:
        over = threading.Event()

        def look() -> None:
            now = done()
            show(now, time_left(now - before, total - now, time.monotonic() - begun))

        def watch() -> None:
            while not over.wait(POLL):
                look()

        look()
        watcher = threading.Thread(target=watch, daemon=True)
        watcher.start()
        try:
            yield
        finally:
            over.set()
            watcher.join()
            look()


def time_left(done: int, left: int, seconds: float) -> str:
    """Say how long what is left takes, when so much was done in so many seconds.

    Examples
    --------
    >>> time_left(3, 37, 60.0), time_left(2, 10, 3.0), time_left(1, 100, 600.0)
    ('about 12 min left', 'about 15 s left', 'about 16.7 h left')
    >>> time_left(0, 4, 9.0)
    ''
    """
    if done <= 0 or left <= 0:
        return ""
    rest = seconds * left / done
    if rest < 90:
        return f"about {rest:.0f} s left"
    return f"about {rest / 60:.0f} min left" if rest < 5400 else f"about {rest / 3600:.1f} h left"


@contextmanager
def _bar(task: str, total: int, unit: str) -> Iterator[Callable[[int, str], None]]:
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        MofNCompleteColumn(),
        TextColumn(f"{unit}  {{task.fields[left]}}"),
    )
    with Progress(*columns, console=Console()) as bar:
        shown = bar.add_task(task, total=total, left="")
        yield lambda done, left: bar.update(shown, completed=done, left=left)


@contextmanager
def _lines(task: str, total: int, unit: str) -> Iterator[Callable[[int, str], None]]:
    said, when, timed = 0, -EVERY, False

    def say(done: int, left: str) -> None:
        nonlocal said, when, timed
        due = time.monotonic() - when >= EVERY or done == total or (left and not timed)
        if done > said and due:
            print(f"{task}: {done} of {total} {unit}{left and f', {left}'}", flush=True)
            said, when, timed = done, time.monotonic(), bool(left)

    yield say
