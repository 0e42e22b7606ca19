"""Checkpoints from which a training ends as it would have without them, bit for bit."""

from __future__ import annotations

import io
import random
import signal
import time
import warnings
import zipfile
from collections.abc import Callable, Iterator
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import lightning
import numpy as np
import torch
from lightning.fabric.plugins import TorchCheckpointIO
from lightning.pytorch.callbacks import Callback
from torch.utils.data import BatchSampler

from holdfast.errors import HoldfastError
from holdfast.files import whole
from holdfast.training.interruption import Interruption, Stop
from holdfast.training.logs import MetricsFile

__all__ = ["Batches", "CheckpointFiles", "Checkpoints", "newest"]

LAST, PREVIOUS = "last.ckpt", "previous.ckpt"
_OURS = "holdfast"
_INTERVAL = 60.0
"""Seconds between two checkpoints in the midst of an epoch, at least."""


def newest(folder: Path) -> tuple[Path, dict[str, Any]] | None:
    """Find and read the last checkpoint in a folder that is whole; None where there is none.

    One that is broken, as by a power cut, is named in a warning, and the one before is taken.

    Raises
    ------
    HoldfastError
        If all are broken.
    """
    broken = []
    for file in (folder / LAST, folder / PREVIOUS):
        if not file.exists():
            continue
        try:
            checkpoint = _read(file)
        except Exception as error:  # damage can show in any way
            broken.append(f"{file.name}: {' '.join(str(error).split())[:100] or repr(error)}")
            continue
        for what in broken:
            name = folder / what.partition(":")[0]
            warnings.warn(f"{name} is broken; training goes on from {file.name}", stacklevel=2)
        return file, checkpoint
    if broken:
        raise HoldfastError(
            f"no checkpoint in {folder} is whole ({'; '.join(broken)}); remove that folder to "
            "begin anew"
        )
    return None


def _read(file: Path) -> dict[str, Any]:
    with zipfile.ZipFile(file) as archive:  # torch does not look at the checksums
        damaged = archive.testzip()
    if damaged is not None:
        raise ValueError(f"{damaged} is damaged")
    checkpoint = torch.load(file, map_location="cpu", weights_only=True)
    needed = {_OURS, "state_dict", "loops", "optimizer_states", "lr_schedulers", "global_step"}
    if not isinstance(checkpoint, dict) or not needed <= checkpoint.keys():
        raise ValueError("it is of another program, or of another version")
    return checkpoint


class CheckpointFiles(TorchCheckpointIO):
    """Write a checkpoint whole, and keep the one before under another name."""

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: Any, storage_options: Any | None = None
    ) -> None:
        """Write a checkpoint."""
        file = Path(path)
        serialized = io.BytesIO()
        torch.save(checkpoint, serialized)
        with whole(file) as unfinished:
            unfinished.write_bytes(serialized.getbuffer())
            if file.exists():
                file.replace(file.with_name(PREVIOUS))


class Batches(BatchSampler):
    """Batches that can begin in the midst of an epoch, and tell between which two training is.

    Attributes
    ----------
    skip : int
        How many batches the next epoch leaves out at its beginning.
    taken : int
        How many batches of the epoch were taken.
    between : callable
        Is called when one batch is done, or none was taken yet, and the next is not made yet: its
        images are not augmented, and figures of the step before are logged.

    Examples
    --------
    >>> batches = Batches(range(6), batch_size=2, drop_last=True)
    >>> batches.skip = 1
    >>> list(batches), list(batches)
    ([[2, 3], [4, 5]], [[0, 1], [2, 3], [4, 5]])
    """

    skip = taken = 0
    between: Callable[[], None] | None = None

    def __iter__(self) -> Iterator[list[int]]:
        batches = islice(super().__iter__(), self.skip, None)
        self.taken, self.skip = self.skip, 0
        for batch in batches:
            if self.between is not None:
                self.between()
            yield batch
            self.taken += 1


class Checkpoints(Callback):
    """Save and restore everything that a training depends on, between two steps.

    A checkpoint is written at the end of each epoch and of training, when a minute has passed since
    the last, and before an interruption ends training.

    Parameters
    ----------
    folder : Path
        Where to: ``last.ckpt`` and ``previous.ckpt``.
    bound : dict
        What training is bound to: ``recipe``, as ``config.yaml`` has it, and digests of the
        ``data``.
    order : Generator
        Draws the order of the images.
    metrics : MetricsFile
        The figures that were logged.
    interruption : Interruption
        Whether somebody wants training to end.
    """

    def __init__(
        self,
        folder: Path,
        bound: dict[str, Any],
        order: torch.Generator,
        metrics: MetricsFile,
        interruption: Interruption,
    ) -> None:
        self.folder, self.bound, self.metrics = folder, bound, metrics
        self.order, self.interruption = order, interruption
        self._before_epoch = order.get_state()
        self._batches = Batches([], batch_size=1, drop_last=False)
        self._skip, self._in_epoch = 0, False
        self._draws: dict[str, Any] | None = None

    # --- when ------------------------------------------------------------------------------------

    def on_train_start(self, trainer: lightning.Trainer, _: lightning.LightningModule) -> None:
        """Begin where the checkpoint was."""
        batches = getattr(trainer.train_dataloader, "batch_sampler", None)
        if isinstance(batches, Batches):
            self._batches = batches
        self._batches.skip = self._skip
        self._batches.between = partial(self._between, trainer)
        self._saved_step, self._saved_at = trainer.global_step, time.monotonic()
        if self._draws is not None:
            _set_draws(self._draws, trainer.strategy.root_device)

    def _between(self, trainer: lightning.Trainer) -> None:
        if self._batches.taken % trainer.accumulate_grad_batches:
            return  # the gradients of half a step are nowhere kept
        asked = trainer.strategy.reduce_boolean_decision(bool(self.interruption.asked), all=False)
        new_epoch = self._batches.taken == 0 and trainer.global_step > self._saved_step
        late = time.monotonic() - self._saved_at > _INTERVAL
        if asked or new_epoch or trainer.strategy.reduce_boolean_decision(late, all=False):
            self._in_epoch = True
            self._save(trainer)
            self._in_epoch = False
        if asked:  # of several processes, perhaps another one
            self.interruption.asked = self.interruption.asked or signal.SIGINT
            raise Stop

    def on_train_epoch_end(self, *_: Any) -> None:
        """Take note of the state from which the next epoch draws its order."""
        self._before_epoch = self.order.get_state()
        self._batches.taken = 0

    def on_train_end(self, trainer: lightning.Trainer, _: lightning.LightningModule) -> None:
        """Save the end, from which longer trainings go on."""
        self._save(trainer)

    def _save(self, trainer: lightning.Trainer) -> None:
        self.metrics.finalize("running")  # all rows that the checkpoint counts are there
        trainer.save_checkpoint(self.folder / LAST)
        self._saved_step, self._saved_at = trainer.global_step, time.monotonic()

    # --- what ------------------------------------------------------------------------------------

    def on_save_checkpoint(
        self,
        trainer: lightning.Trainer,
        _: lightning.LightningModule,
        checkpoint: dict[str, Any],
    ) -> None:
        """Add what Lightning leaves out."""
        draws = _draws(trainer.strategy.root_device)
        of_ranks = [draws]
        if trainer.world_size > 1:
            of_ranks = [{} for _ in range(trainer.world_size)]
            torch.distributed.all_gather_object(of_ranks, draws)
        checkpoint[_OURS] = {
            **self.bound,
            "order": self._before_epoch,
            "taken": self._batches.taken,
            "rows": len(self.metrics.rows),
            "draws": of_ranks,
        }
        fetcher = trainer.fit_loop._data_fetcher
        if self._in_epoch and fetcher and trainer.fit_loop.epoch_loop._should_check_val_fx(fetcher):
            # A validation that was due and is done: Lightning will skip it when training goes on,
            # but count it as a step.
            checkpoint["loops"]["fit_loop"]["epoch_loop.state_dict"]["_batches_that_stepped"] -= 1

    def on_load_checkpoint(
        self,
        trainer: lightning.Trainer,
        _: lightning.LightningModule,
        checkpoint: dict[str, Any],
    ) -> None:
        """Take over what `on_save_checkpoint` added."""
        saved = checkpoint[_OURS]
        if len(saved["draws"]) != trainer.world_size:
            raise HoldfastError(
                f"the checkpoint is of {len(saved['draws'])} processes, and training would go on "
                f"in {trainer.world_size}: it would not end the same"
            )
        self.order.set_state(saved["order"])
        self._before_epoch = saved["order"]
        self._skip = saved["taken"]
        self._draws = saved["draws"][trainer.global_rank]
        self.metrics.go_on_after(saved["rows"])


def _draws(device: torch.device) -> dict[str, Any]:
    """Collect the states of all generators of this process, in types that load unpickled."""
    kind, keys, *rest = np.random.get_state(legacy=True)
    state = {
        "torch": torch.get_rng_state(),
        "numpy": [kind, np.asarray(keys).tolist(), *rest],
        "python": random.getstate(),
    }
    if device.type == "cuda":
        state["cuda"] = torch.cuda.get_rng_state(device)
    return state


def _set_draws(state: dict[str, Any], device: torch.device) -> None:
    torch.set_rng_state(state["torch"])
    kind, keys, *rest = state["numpy"]
    np.random.set_state((kind, np.array(keys, dtype=np.uint32), *rest))
    random.setstate(state["python"])
    if "cuda" in state and device.type == "cuda":
        torch.cuda.set_rng_state(state["cuda"], device)
