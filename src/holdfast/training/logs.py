"""The figures of a training as it goes: ``metrics.csv``, and TensorBoard's logs."""

from __future__ import annotations

import csv
import importlib.util
import time
import warnings
from argparse import Namespace
from pathlib import Path
from typing import Any

from lightning.fabric.utilities.rank_zero import rank_zero_only
from lightning.pytorch.loggers import Logger, TensorBoardLogger

from holdfast.files import whole

__all__ = ["MetricsFile", "tensorboard"]


class MetricsFile(Logger):
    """A CSV file with a row for each time that figures were logged.

    As Lightning's ``CSVLogger`` writes it, but whole each time, and to be gone on with: rows that
    were written after a checkpoint are dropped when training goes on from it.

    Parameters
    ----------
    file : Path
        Where to.

    Examples
    --------
    >>> import tempfile
    >>> file = Path(tempfile.mkdtemp()) / "metrics.csv"
    >>> metrics = MetricsFile(file)
    >>> for step in range(3):
    ...     metrics.log_metrics({"loss": 0.5**step}, step)
    >>> metrics.finalize("success")
    >>> later = MetricsFile(file)
    >>> later.go_on_after(2)
    >>> [row["step"] for row in later.rows]
    ['0', '1']
    """

    name, version = "", ""

    def __init__(self, file: Path) -> None:
        super().__init__()
        self.file = file
        self.rows: list[dict[str, Any]] = []
        self._unwritten = False
        self._written = 0.0

    @property
    def save_dir(self) -> str:
        """The folder of the file."""
        return str(self.file.parent)

    def go_on_after(self, count: int) -> None:
        """Keep so many rows of the file that is there."""
        if self.file.exists():
            with self.file.open(encoding="utf-8", newline="") as opened:
                # What was not logged in a row is written as nothing, and stays so.
                self.rows = list(csv.DictReader(opened))[:count]
        if len(self.rows) < count:
            warnings.warn(
                f"{self.file} has {len(self.rows)} rows of the {count} that were written until the "
                "checkpoint; those missing are lost",
                stacklevel=2,
            )

    @rank_zero_only
    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        """Add a row."""
        self.rows.append({**metrics, "step": step})
        self._unwritten = True

    def log_hyperparams(self, params: dict[str, Any] | Namespace, *_: Any, **__: Any) -> None:
        """Leave them to ``config.yaml``."""

    @rank_zero_only
    def save(self) -> None:
        """Write the file, where that was not done a moment ago."""
        if time.monotonic() - self._written > 1:
            self.finalize("running")

    @rank_zero_only
    def finalize(self, status: str) -> None:
        """Write the file if a row has come since."""
        if not self._unwritten:
            return
        columns = sorted({name for row in self.rows for name in row})
        with whole(self.file) as unfinished, unfinished.open("w", newline="") as opened:
            writer = csv.DictWriter(opened, columns)
            writer.writeheader()
            writer.writerows(self.rows)
        self._unwritten, self._written = False, time.monotonic()


def tensorboard(out: Path, first_step: int) -> list[Logger]:
    """Return a logger for TensorBoard where it is installed.

    What an earlier start has logged from ``first_step`` on, TensorBoard forgets.
    """
    if not any(importlib.util.find_spec(name) for name in ("tensorboard", "tensorboardX")):
        return []
    return [TensorBoardLogger(out, name="", version="tensorboard", purge_step=first_step)]
