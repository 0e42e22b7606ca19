"""What a training shows while it runs."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import lightning
from lightning.pytorch.callbacks import Callback
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

__all__ = ["ProgressBar", "quiet_lightning"]


class ProgressBar(Callback):
    """One bar for the whole training, with the terms of the loss."""

    def __init__(self, title: str) -> None:
        terms = TextColumn("{task.fields[terms]}")
        columns = (BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(), terms)
        self.bar = Progress(TextColumn("{task.description}"), *columns)
        self.title = title

    def on_train_start(self, trainer: lightning.Trainer, _: lightning.LightningModule) -> None:
        """Show the bar."""
        steps = trainer.estimated_stepping_batches
        total = None if steps == float("inf") else int(steps)
        self.task = self.bar.add_task(self.title, total=total, terms="")
        if trainer.is_global_zero:
            self.bar.start()

    def on_train_batch_end(self, trainer: lightning.Trainer, *_: Any) -> None:
        """Move it."""
        terms = trainer.progress_bar_metrics.items()
        text = "  ".join(f"{name} {value:.3f}" for name, value in terms)
        self.bar.update(self.task, completed=trainer.global_step, terms=text)

    def on_train_end(self, *_: Any) -> None:
        """Leave it as it is."""
        self.bar.stop()

    def on_exception(self, *_: Any) -> None:
        """Leave it as it is."""
        self.bar.stop()


@contextmanager
def quiet_lightning() -> Iterator[None]:
    """Keep Lightning's notes on hardware, workers and logging folders off the screen."""
    loggers = [logging.getLogger(f"lightning.{name}") for name in ("pytorch", "fabric")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module="lightning")
            warnings.filterwarnings("ignore", message=".*isinstance\\(treespec, LeafSpec\\).*")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
