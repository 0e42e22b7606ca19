"""Work shared out by Ray, on this machine or on a cluster: whoever is free takes the next piece."""

from __future__ import annotations

import contextlib
import os
import pickle
import platform
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any, TypeVar

import datasets
import pyarrow as pa
import torch
from torch import nn

import holdfast
from holdfast.audit.battery import Audit
from holdfast.audit.devices import local_device, pickled, placed
from holdfast.audit.running import Running
from holdfast.contracts import HoldfastError, InputError
from holdfast.data import ImageDataset
from holdfast.data.digests import digests_of
from holdfast.files import locked

__all__ = ["audit_on_ray", "share_out"]

Item = TypeVar("Item")

_PATIENCE = 10.0
"""Seconds without news after which it is asked whether any machine is left."""


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
    holdfast.errors.InputError: gpus: expected at least 0, got -1.0
    """
    _check(gpus, retries)
    _imported(address)
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


def share_out(
    work: Callable[[Item], Any],
    items: Sequence[Item],
    what: str = "piece",
    *,
    address: str | None = None,
    gpus: float | None = None,
    retries: int = 3,
) -> Iterator[tuple[Item, Any]]:
    """Give items to the processes of a Ray cluster; yield each with its result as soon as it ends.

    Parameters
    ----------
    work : callable
        Called with one item, in another process, in a folder of the same name as the current one.
    items : sequence
        What can be sent there, as ``work`` can.
    what : str
        What an item is called where one fails.
    address, gpus, retries
        As for `audit_on_ray`.

    Raises
    ------
    InputError, HoldfastError
        As `audit_on_ray` does. An error of Holdfast's own that ``work`` raises is raised here.
    """
    _check(gpus, retries)
    ray = _imported(address)
    if not items:
        return
    here = os.getcwd()
    like_this = here, here in sys.path or "" in sys.path, torch.get_num_threads()
    sent = pickle.dumps((*like_this, holdfast.__version__, pickled("work", work)))
    with _connected(ray, address):
        nodes = ray.nodes()
        if gpus is None:
            gpus = float(any(node["Resources"].get("GPU") for node in nodes))
        needed = {"CPU": 1.0 if gpus else float(torch.get_num_threads()), "GPU": gpus}
        _refuse_if_nowhere(nodes, needed)
        task = ray.remote(_do).options(
            num_cpus=needed["CPU"],
            num_gpus=gpus,
            max_retries=retries,
            scheduling_strategy="SPREAD",
        )
        shared = ray.put(sent)
        waiting = {task.remote(shared, item): item for item in items}
        try:
            while waiting:
                done, _ = ray.wait(list(waiting), timeout=_PATIENCE)
                if not done:
                    _refuse_if_nowhere(ray.nodes(), needed)
                for reference in done:
                    item = waiting.pop(reference)
                    yield item, _result(ray, reference, f"{what} {item}")
        finally:
            for reference in waiting:
                ray.cancel(reference, force=True)


def _check(gpus: float | None, retries: int) -> None:
    for name, value in (("gpus", gpus), ("retries", retries)):
        if value is not None and not value >= 0:
            raise InputError(name, value, "at least 0")


def _imported(address: str | None = None) -> Any:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # it would call home
    if _address(address) == "local":
        # On every system, what is started here listens to this machine alone. It is read on import.
        os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")
    try:
        import ray
    except ImportError as error:
        raise HoldfastError("ray is not installed: pip install 'holdfast[ray]'") from error
    return ray


def _address(given: str | None) -> str:
    return given or os.environ.get("RAY_ADDRESS") or "local"


@contextlib.contextmanager
def _connected(ray: Any, address: str | None) -> Iterator[None]:
    """Connect to the cluster, or be one; leave alone what the caller has connected."""
    if ray.is_initialized():
        yield
        return
    address = _address(address)
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    # Ray puts the current folder on its processes' path: an empty one brings no strange modules.
    with tempfile.TemporaryDirectory() as empty:
        try:
            with contextlib.chdir(empty):
                ray.init(
                    address,
                    log_to_driver=False,
                    logging_level="ERROR",
                    include_dashboard=False if address == "local" else None,
                )
        except (OSError, RuntimeError, ValueError, AssertionError) as error:
            reason = (str(error).strip() or type(error).__name__).splitlines()[0]
            raise HoldfastError(f"Ray cannot be reached at {address} ({reason})") from error
        finally:
            with contextlib.suppress(ValueError):  # not the main thread
                for number, handler in handlers.items():
                    signal.signal(number, handler)
        try:
            yield
        finally:
            ray.shutdown()


def _refuse_if_nowhere(nodes: Sequence[dict[str, Any]], needed: dict[str, float]) -> None:
    there = [node["Resources"] for node in nodes if node["Alive"]]
    if not any(all(node.get(name, 0) >= least for name, least in needed.items()) for node in there):
        wanted = " and ".join(f"{least:g} {name}" for name, least in needed.items() if least)
        raise HoldfastError(
            f"no machine of the Ray cluster has {wanted}, which a task takes; OMP_NUM_THREADS "
            "here says how many processors a task takes, and --gpus how many GPUs"
        )


def _result(ray: Any, reference: Any, name: str) -> Any:
    kept = "what is done is kept, and the same call goes on from there"
    try:
        return ray.get(reference)
    except ray.exceptions.RayTaskError as error:
        if isinstance(error.cause, HoldfastError):
            raise error.cause from None
        reason = f"{type(error.cause).__name__}: {error.cause}"
        raise HoldfastError(f"{name} failed ({reason}); {kept}") from error
    except ray.exceptions.RayError as error:
        reason = str(error).strip().splitlines()[0]
        raise HoldfastError(f"{name} was lost ({reason}); {kept}") from error


# --- in the processes of the cluster --------------------------------------------------------------


def _do(sent: bytes, item: Any) -> Any:
    return _prepared(sent)(item)


@lru_cache(maxsize=1)
def _prepared(sent: bytes) -> Callable[[Any], Any]:
    """Make this process like the one that asks, once; return what is done to each item."""
    folder, imports, threads, version, work = pickle.loads(sent)
    here = platform.node()
    if holdfast.__version__ != version:
        raise HoldfastError(f"{here} has Holdfast {holdfast.__version__}, and not {version}")
    try:
        os.chdir(folder)
    except OSError as error:
        raise HoldfastError(f"{here} has no folder {folder} ({error.strerror})") from error
    if imports:
        sys.path.append(folder)
    for name in list(os.environ):
        # Ray may have been started by srun or torchrun, but a task is a whole and no rank.
        if name.startswith("SLURM_") or name in ("RANK", "LOCAL_RANK", "NODE_RANK", "WORLD_SIZE"):
            del os.environ[name]
    torch.set_num_threads(threads)
    datasets.disable_progress_bars()
    return pickle.loads(work)


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
        device = local_device(0) if _imported().get_gpu_ids() else torch.device("cpu")
        data = load_data()
        return placed(audit, device), load_model().to(device), data, digests_of(data)
