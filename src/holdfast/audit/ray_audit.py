"""An audit shared out by Ray: shards are tasks, and one process alone writes into the folder."""

from __future__ import annotations

import pickle
import platform
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import pyarrow as pa
import torch
from torch import nn

from holdfast.audit.battery import Audit
from holdfast.audit.devices import local_device, pickled, placed
from holdfast.audit.ray_engine import check_asked, import_ray, share_out
from holdfast.audit.running import Running
from holdfast.contracts import HoldfastError
from holdfast.data import ImageDataset
from holdfast.data.digests import digests_of
from holdfast.files import locked

__all__ = ["audit_on_ray"]


def audit_on_ray(
    audit: Audit,
    load_model: Callable[[], nn.Module],
    load_data: Callable[[], ImageDataset],
    out: str | Path,
    *,
    address: str | None = None,
    gpus: float | None = None,
    retries: int = 3,
    progress: bool = True,
) -> pa.Table:
    """Run an audit with Ray: a shard is a task, and whoever is free takes the next one.

    The records are those of a single process. Every machine loads model and data itself, and so has
    to find them at the same place, or on the hub; what it finds comes back through Ray, and this
    process alone writes into the folder. A shard whose machine is lost is begun anew on another.

    Parameters
    ----------
    audit, load_model, load_data, out, progress
        As for `holdfast.audit.audit_on`.
    address : str, optional
        The cluster, as ``first:6379`` or ``auto``; by default ``RAY_ADDRESS`` of the environment,
        or else this machine alone, where Ray is started and ended.
    gpus : float, optional
        How many GPUs a task takes, perhaps a fraction. By default 1 where the cluster has any.
        Without GPUs it takes as many processors as this process has threads.
    retries : int
        How often a shard is begun anew when its process or machine is lost.

    Returns
    -------
    pyarrow.Table
        All records.

    Raises
    ------
    InputError
        If something cannot be sent to another process, or a number is negative.
    HoldfastError
        If Ray is not installed, its cluster not there or without a machine that can take a task,
        or a task fails. What is done stays, and the same call goes on from there.

    Examples
    --------
    >>> from functools import partial
    >>> from holdfast.data import ImageData
    >>> from holdfast.training import load
    >>> model, data = partial(load, "runs/art"), partial(ImageData("digits").load, "test")
    >>> audit_on_ray(Audit(), model, data, "runs/art/audit", gpus=-1.0)
    Traceback (most recent call last):
        ...
    holdfast.contracts.InputError: gpus: expected at least 0, got -1.0
    """
    check_asked(gpus, retries)
    import_ray(address)
    out = Path(out)
    given = {"audit": audit, "load_model": load_model, "load_data": load_data}
    sent = tuple(pickled(*item) for item in given.items())
    device = local_device(0)
    running = Running(placed(audit, device), load_model().to(device), load_data(), out)
    with locked(out):
        running.begin()
        missing = running.missing()
        with running.shown(progress):
            work = _Shards(sent, (out / "settings.yaml").read_bytes())
            for number, files in share_out(
                work, missing, "shard", address=address, gpus=gpus, retries=retries
            ):
                running.take(number, files)
        return running.finish(progress)


@dataclass(frozen=True)
class _Shards:
    """Audits shards; loads model and data when it audits the first."""

    sent: tuple[bytes, ...]
    settings: bytes

    def __call__(self, number: int) -> dict[str, bytes]:
        """Return the files that a shard comes to, by name."""
        with tempfile.TemporaryDirectory() as folder:
            out = Path(folder)
            (out / "settings.yaml").write_bytes(self.settings)
            running = Running(*self._loaded[:3], out, self._loaded[3])
            try:
                running.claim()
            except HoldfastError as error:
                here = platform.node()
                raise HoldfastError(f"{here} has not the same model and data ({error})") from error
            running.share(number, running.count)
            kept = [*out.glob("candidates-*"), *out.glob("part-*")]
            return {file.name: file.read_bytes() for file in kept}

    @cached_property
    def _loaded(self) -> tuple[Audit, nn.Module, ImageDataset, dict[str, str]]:
        audit, load_model, load_data = map(pickle.loads, self.sent)
        device = local_device(0) if import_ray().get_gpu_ids() else torch.device("cpu")
        data = load_data()
        return placed(audit, device), load_model().to(device), data, digests_of(data)
