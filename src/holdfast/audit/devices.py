"""An audit shared among the GPUs of one machine, or of several."""

from __future__ import annotations

import copy
import dataclasses
import logging
import os
import pickle
import threading
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from multiprocessing import get_context, parent_process
from multiprocessing.queues import SimpleQueue
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import torch
from torch import distributed, nn
from torch.multiprocessing.spawn import (
    ProcessExitedException,
    ProcessRaisedException,
    start_processes,
)

from holdfast.audit.battery import Audit
from holdfast.audit.running import Running
from holdfast.contracts import HoldfastError, InputError
from holdfast.data import ImageDataset
from holdfast.files import locked
from holdfast.parts import part_file

__all__ = ["audit_on"]

# What it says of stopping processes is said in the error.
logging.getLogger("torch.multiprocessing.spawn").setLevel(logging.ERROR)


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
        Show one progress bar for all processes; where there is no terminal, a line now and then.

    Returns
    -------
    pyarrow.Table
        All records; under ``torchrun`` the process of rank 0 returns them, and each other one the
        records of its own shards.

    Raises
    ------
    InputError
        If ``devices`` is below 1, above the number of GPUs or, where there is none, above four
        times the number of processors; or something cannot be sent to another process.
    HoldfastError
        If a process fails: the other ones are stopped, and if it was with an error of Holdfast's
        own, this very error is raised. If another audit works in the folder.

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
    sent = [pickled(*item) for item in given.items()] if devices > 1 else []
    data, device = load_data(), local_device(0)
    running = Running(placed(audit, device), load_model().to(device), data, out)
    devices = min(devices, running.count)
    with locked(out):
        running.begin()
        with running.shown(progress):
            if devices > 1:
                _share(devices, sent, out, running.digests)
            else:
                running.share()
        return running.finish(progress)


def _check(devices: int) -> None:
    if devices < 1:
        raise InputError("devices", devices, "at least 1")
    gpus, threads, cores = torch.cuda.device_count(), torch.get_num_threads(), os.cpu_count() or 1
    if gpus and devices > gpus:
        raise InputError("devices", devices, f"at most {gpus}, the number of GPUs here")
    if not gpus and devices > 4 * cores:
        expected = f"at most {4 * cores}, four times the number of processors here"
        raise InputError("devices", devices, expected)
    if not gpus and devices > 1 and threads > 1 and devices * threads > cores:
        warnings.warn(
            f"{devices} processes with {threads} threads each get in each other's way on {cores} "
            "processors; OMP_NUM_THREADS=1 prevents that",
            stacklevel=3,
        )


def pickled(argument: str, value: object) -> bytes:
    """Pickle what is sent to another process of ours."""
    # Plain pickle: PyTorch's own between processes would need shared memory for each tensor.
    try:
        return pickle.dumps(value)
    except (pickle.PicklingError, AttributeError, TypeError) as error:
        expected = f"what can be sent to another process ({error})"
        raise InputError(argument, value, expected) from error


def local_device(number: int) -> torch.device:
    """Return the GPU of this number, or the processor where there is none."""
    return torch.device("cuda", number) if torch.cuda.device_count() else torch.device("cpu")


def placed(audit: Audit, device: torch.device) -> Audit:
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


def _share(devices: int, sent: list[bytes], out: Path, digests: Mapping[str, str]) -> None:
    """Start a process a device and wait until all shards are done, or one process has failed."""
    told: SimpleQueue[HoldfastError] = get_context("spawn").SimpleQueue()
    given = (devices, torch.get_num_threads(), sent, out, digests, told)
    # CUDA does not outlive a fork.
    context = start_processes(_work, given, devices, False, daemon=True, start_method="spawn")
    try:
        while not context.join():
            pass
    except ProcessExitedException as error:
        if not told.empty():
            raise told.get() from None
        how = f"signal {-error.exit_code}" if error.exit_code < 0 else f"status {error.exit_code}"
        raise _failure(f"{error.error_index} of {devices} was ended by {how}") from None
    except ProcessRaisedException as error:
        reason = str(error).rstrip().splitlines()[-1]
        raise _failure(f"{error.error_index} of {devices} failed ({reason})") from error
    finally:
        # After Ctrl-C too, nobody works on behind the caller's back.
        for worker in context.processes:
            worker.kill()
            worker.join()


def _work(
    rank: int,
    world: int,
    threads: int,
    sent: list[bytes],
    out: Path,
    digests: Mapping[str, str],
    told: SimpleQueue[HoldfastError],
) -> None:
    """Do one process's share of the shards."""
    threading.Thread(target=_end_with_the_parent, daemon=True).start()
    torch.set_num_threads(threads)
    datasets.disable_progress_bars()  # one bar at a time is enough
    try:
        audit, load_model, load_data = map(pickle.loads, sent)
        device = local_device(rank)
        model = load_model().to(device)
        running = Running(placed(audit, device), model, load_data(), out, digests)
        running.claim()
        running.share(rank, world)
    except HoldfastError as error:
        told.put(error)
        raise SystemExit(2) from None


def _end_with_the_parent() -> None:
    """Leave when the parent is gone, which nobody can tell us if it was killed."""
    parent = parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def _failure(what: str) -> HoldfastError:
    return HoldfastError(
        f"process {what}; the others were stopped. Finished shards are kept, and the same call "
        "goes on from there"
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
    device = local_device(int(os.environ.get("LOCAL_RANK", rank)))
    running = Running(placed(audit, device), load_model().to(device), load_data(), out)
    ours = not distributed.is_initialized()
    if ours:
        distributed.init_process_group("gloo")
    try:
        everybody: Any = distributed.new_group(backend="gloo", timeout=_PATIENCE)
        with locked(out):  # the first of them holds it for all
            if rank == 0:
                running.begin()
            _meet(everybody)
            if rank != 0:
                _wait_for(out, ["settings.yaml"])
                running.claim()
            with running.shown(progress and rank == 0):
                records = running.share(rank, world)
                _meet(everybody)
            if rank != 0:
                return records
            _wait_for(out, [part_file(out, number).name for number in range(running.count)])
            return running.finish(progress)
    finally:
        if ours:
            distributed.destroy_process_group()


def _meet(everybody: Any) -> None:
    try:
        distributed.barrier(everybody)
    except RuntimeError as error:
        raise HoldfastError("another process of this audit has failed") from error


def _wait_for(out: Path, names: list[str]) -> None:
    latest = time.monotonic() + _FOLDER_LAG
    while not all((out / name).exists() for name in names) and time.monotonic() < latest:
        time.sleep(1.0)
