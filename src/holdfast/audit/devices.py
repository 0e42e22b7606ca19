"""An audit shared among the GPUs of one machine, or of several."""

from __future__ import annotations

import copy
import dataclasses
import os
import pickle
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import timedelta
from multiprocessing import get_context, parent_process
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import torch
from rich.progress import Progress
from torch import distributed, nn

from holdfast.audit.battery import Audit
from holdfast.contracts import HoldfastError, InputError
from holdfast.data import ImageDataset

__all__ = ["audit_on"]


def audit_on(
    devices: int,
    audit: Audit,
    load_model: Callable[[], nn.Module],
    load_data: Callable[[], ImageDataset],
    out: str | Path,
    *,
    progress: bool = True,
) -> pa.Table:
    """Run an audit with one process a GPU, or with several processes where there is none.

    The processes take the shards in turn, and the records are those of a single process. What has
    been stopped, or killed, goes on where it was, on as many devices as you like. Each process has
    as many threads as the caller, since the last bit of a large sum can hang on their number; on
    processors set ``OMP_NUM_THREADS=1`` first, so that the processes do not crowd each other out.

    Under ``torchrun`` no processes are started: each that ``torchrun`` has started calls this
    function and takes its share, on any number of machines that see the same folder.

    Parameters
    ----------
    devices : int
        How many processes. Under ``torchrun`` its own number counts, and this one does not.
    audit : Audit
        What is examined.
    load_model, load_data : callable
        Return the model and the data set. Every process calls them, so they must be importable:
        ``partial(load, "runs/art")`` and ``partial(ImageData("digits").load, "test")``, say, with
        ``functools.partial``; but no lambda.
    out : str or Path
        The folder for records, settings and gallery.
    progress : bool
        Show one progress bar for all processes.

    Returns
    -------
    pyarrow.Table
        All records; under ``torchrun`` the process of rank 0 returns them, and each other one the
        records of its own shards.

    Raises
    ------
    InputError
        If ``devices`` is below 1 or above the number of GPUs, or something cannot be sent to
        another process.
    HoldfastError
        If a process fails: the other ones are stopped, and if it was with an error of Holdfast's
        own, this very error is raised.

    Examples
    --------
    >>> import tempfile
    >>> from functools import partial
    >>> from holdfast.adversarial import PGD
    >>> from holdfast.data import ImageData
    >>> from holdfast.models import Architecture
    >>> model = Architecture("mnist_cnn", classes=10, size=16).build
    >>> data = partial(ImageData("digits", limit=20).load, "test")
    >>> audit = Audit({"pgd": PGD(eps=0.1, step_size=0.05, steps=3)}, manipulations={})
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     records = audit_on(1, audit, model, data, folder, progress=False)
    >>> len(set(records["index"].to_pylist()))
    20
    """
    out = Path(out)
    if "RANK" in os.environ and "WORLD_SIZE" in os.environ:
        return _as_one_of_many(audit, load_model, load_data, out, progress)
    _check(devices)
    given = {"audit": audit, "load_model": load_model, "load_data": load_data}
    sent = [_pickled(*item) for item in given.items()] if devices > 1 else []
    data = load_data()
    if devices > 1:
        with _bar(audit, data, out, progress):
            _share(devices, sent, out)
    device = _device(0)
    model, audit = load_model().to(device), _placed(audit, device)
    # What several processes leave to be done is the gallery.
    return audit.finish(model, data, out) if sent else audit(model, data, out, progress=progress)


def _check(devices: int) -> None:
    if devices < 1:
        raise InputError("devices", devices, "at least 1")
    gpus, threads, cores = torch.cuda.device_count(), torch.get_num_threads(), os.cpu_count() or 1
    if gpus and devices > gpus:
        raise InputError("devices", devices, f"at most {gpus}, the number of GPUs here")
    if not gpus and devices > 1 and threads > 1 and devices * threads > cores:
        warnings.warn(
            f"{devices} processes with {threads} threads each get in each other's way on {cores} "
            "processors; OMP_NUM_THREADS=1 prevents that",
            stacklevel=3,
        )


def _pickled(argument: str, value: object) -> bytes:
    # Plain pickle: PyTorch's own between processes would need shared memory for each tensor.
    try:
        return pickle.dumps(value)
    except (pickle.PicklingError, AttributeError, TypeError) as error:
        expected = f"what can be sent to another process ({error})"
        raise InputError(argument, value, expected) from error


def _device(number: int) -> torch.device:
    return torch.device("cuda", number) if torch.cuda.device_count() else torch.device("cpu")


def _placed(audit: Audit, device: torch.device) -> Audit:
    """Bring the models in the audit's own parts, such as a reference, to the device."""
    if device.type == "cpu":
        return audit
    audit = copy.deepcopy(audit)  # the caller's stay where they are
    _move(audit, device)
    return audit


def _move(part: object, device: torch.device) -> None:
    if isinstance(part, nn.Module):
        part.to(device)
    elif dataclasses.is_dataclass(part):
        for field in dataclasses.fields(part):
            _move(getattr(part, field.name), device)
    elif isinstance(part, Mapping | Sequence) and not isinstance(part, str):
        for inner in part.values() if isinstance(part, Mapping) else part:
            _move(inner, device)


# --- processes of our own ------------------------------------------------------------------------


def _share(devices: int, sent: list[bytes], out: Path) -> None:
    """Start a process a device and wait until all shards are done, or one process has failed."""
    context = get_context("spawn")  # CUDA does not outlive a fork
    heard, told = context.Pipe(duplex=False)
    given = (devices, torch.get_num_threads(), sent, out, told)
    workers: list[BaseProcess] = [
        context.Process(target=_work, args=(rank, *given)) for rank in range(devices)
    ]
    try:
        for worker in workers:
            worker.start()
        running = dict(enumerate(workers))
        while running:
            wait([worker.sentinel for worker in running.values()])
            for rank, worker in list(running.items()):
                if worker.exitcode is not None:
                    del running[rank]
                if worker.exitcode:
                    raise _failure(rank, devices, worker.exitcode, heard)
    finally:
        # After Ctrl-C too, nobody works on behind the caller's back.
        for worker in workers:
            if worker.is_alive():
                worker.kill()
        for worker in workers:
            if worker.pid is not None:
                worker.join()


def _work(
    rank: int, world: int, threads: int, sent: list[bytes], out: Path, told: Connection
) -> None:
    """Do one process's share of the shards."""
    threading.Thread(target=_end_with_the_parent, daemon=True).start()
    torch.set_num_threads(threads)
    datasets.disable_progress_bars()  # one bar at a time is enough
    try:
        audit, load_model, load_data = map(pickle.loads, sent)
        device = _device(rank)
        model, audit = load_model().to(device), _placed(audit, device)
        audit(model, load_data(), out, progress=False, rank=rank, world=world)
    except HoldfastError as error:
        told.send(error)
        raise SystemExit(2) from None
    except KeyboardInterrupt:  # the parent has it too, and says so
        raise SystemExit(130) from None


def _end_with_the_parent() -> None:
    """Leave when the parent is gone, which nobody can tell us if it was killed."""
    parent = parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def _failure(rank: int, world: int, status: int, heard: Connection) -> HoldfastError:
    if heard.poll():
        error = heard.recv()
        assert isinstance(error, HoldfastError)
        return error
    how = f"was ended by signal {-status}" if status < 0 else "failed, as it says above"
    return HoldfastError(
        f"process {rank} of {world} {how}; the others were stopped. Finished shards are kept, and "
        "the same call goes on from there"
    )


# --- processes of torchrun -----------------------------------------------------------------------

_PATIENCE = timedelta(days=30)
"""How long a process that is done waits for the others; one that dies is noticed at once."""

_FOLDER_LAG = 120.0
"""Seconds after which a network folder surely shows what another machine has written."""


def _as_one_of_many(
    audit: Audit,
    load_model: Callable[[], nn.Module],
    load_data: Callable[[], ImageDataset],
    out: Path,
    progress: bool,
) -> pa.Table:
    rank, world = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    device = _device(int(os.environ.get("LOCAL_RANK", rank)))
    model, audit = load_model().to(device), _placed(audit, device)
    data = load_data()
    ours = not distributed.is_initialized()
    if ours:
        distributed.init_process_group("gloo")
    try:
        everybody: Any = distributed.new_group(backend="gloo", timeout=_PATIENCE)
        with _bar(audit, data, out, progress and rank == 0):
            records = audit(model, data, out, progress=False, rank=rank, world=world)
            try:
                distributed.barrier(everybody)
            except RuntimeError as error:
                raise HoldfastError("another process of this audit has failed") from error
        if rank != 0:
            return records
        _wait_for_parts(out, _shards(audit, data))
        return audit.finish(model, data, out)
    finally:
        if ours:
            distributed.destroy_process_group()


def _wait_for_parts(out: Path, count: int) -> None:
    latest = time.monotonic() + _FOLDER_LAG
    while _finished(out) < count and time.monotonic() < latest:
        time.sleep(1.0)


# --- progress ------------------------------------------------------------------------------------


@contextmanager
def _bar(audit: Audit, data: ImageDataset, out: Path, shown: bool) -> Iterator[None]:
    """Show how many shards are there, whoever has written them."""
    if not shown:
        yield
        return
    # The time left is judged by the last hour: a shard may take minutes.
    with Progress(speed_estimate_period=3600.0) as bar:
        task = bar.add_task(
            f"Auditing {data.name}", total=_shards(audit, data), completed=_finished(out)
        )
        over = threading.Event()

        def watch() -> None:
            while not over.wait(0.5):
                bar.update(task, completed=_finished(out))

        watcher = threading.Thread(target=watch, daemon=True)
        watcher.start()
        try:
            yield
        finally:
            over.set()
            watcher.join()
            bar.update(task, completed=_finished(out))


def _shards(audit: Audit, data: ImageDataset) -> int:
    return -(-len(data) // audit.shard)


def _finished(out: Path) -> int:
    return sum(1 for _ in out.glob("part-*.parquet"))
