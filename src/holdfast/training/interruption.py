"""Ctrl-C and SIGTERM end a training between two steps."""

from __future__ import annotations

import signal
import threading
from types import TracebackType
from typing import Any

from lightning.pytorch.callbacks import Callback

__all__ = ["Interruption", "Stop"]


class Stop(BaseException):
    """Ends training; Lightning would turn a KeyboardInterrupt into an exit."""


class Interruption(Callback):
    """Take note of Ctrl-C and SIGTERM while the block runs, and end the block by them.

    In the middle of a step, weights and optimizer could be those of different steps. So whoever
    trains looks at `asked` between two of them, and raises `Stop`. A second signal does not wait.

    Attributes
    ----------
    asked : int
        The signal that came; 0 for none.

    Raises
    ------
    KeyboardInterrupt
        At the end of the block, after Ctrl-C.
    SystemExit
        At the end of the block, after SIGTERM, with status 143, as of a process that it killed.
    """

    def __init__(self) -> None:
        self.asked = 0

    def __enter__(self) -> Interruption:
        # Elsewhere Python lets nobody handle signals.
        self.handles = threading.current_thread() is threading.main_thread()
        if self.handles:
            numbers = (signal.SIGINT, signal.SIGTERM)
            self.before = {number: signal.signal(number, self._ask) for number in numbers}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, _: BaseException | None, __: TracebackType | None
    ) -> None:
        if self.handles:
            for number, handler in self.before.items():
                signal.signal(number, handler)
        if self.asked and (kind is None or issubclass(kind, (Stop, KeyboardInterrupt, SystemExit))):
            if self.asked == signal.SIGTERM:
                raise SystemExit(128 + signal.SIGTERM) from None
            raise KeyboardInterrupt from None

    def _ask(self, number: int, _: Any) -> None:
        if self.asked:
            raise KeyboardInterrupt  # which Lightning passes on to the processes that it started
        self.asked = number

    def on_train_start(self, *_: Any) -> None:
        """Handle SIGTERM from here on."""
        # Lightning has put a handler of its own before this one; it would end training elsewhere.
        if self.handles:
            signal.signal(signal.SIGTERM, self._ask)
