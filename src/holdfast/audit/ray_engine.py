"""Work shared out by Ray, on this machine or on a cluster: whoever is free takes the next piece."""

from __future__ import annotations

import contextlib
import os
import pickle
import platform
import signal
import socket
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from importlib.metadata import version
from typing import Any, TypeVar

import datasets
import torch

from holdfast.audit.devices import pickled
from holdfast.contracts import HoldfastError, InputError

__all__ = ["check_asked", "import_ray", "share_out"]

Item = TypeVar("Item")

_PATIENCE = 10.0
"""Seconds without news after which it is asked whether any machine is left."""


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
    address : str, optional
        The cluster, as ``first:6379`` or ``auto``; by default ``RAY_ADDRESS`` of the environment,
        or else this machine alone, where Ray is started and ended.
    gpus : float, optional
        How many GPUs an item takes, perhaps a fraction. By default 1 where the cluster has any.
        Without GPUs it takes as many processors as this process has threads.
    retries : int
        How often an item is begun anew when its process or machine is lost.

    Raises
    ------
    InputError
        If something cannot be sent to another process, or a number is negative.
    HoldfastError
        If Ray is not installed, its cluster not there or without a machine that can take an item,
        or one fails. An error of Holdfast's own that ``work`` raises is raised here.

    Examples
    --------
    >>> list(share_out(abs, [-1], gpus=-0.5))
    Traceback (most recent call last):
        ...
    holdfast.contracts.InputError: gpus: expected at least 0, got -0.5
    """
    check_asked(gpus, retries)
    ray = import_ray(address)
    if not items:
        return
    here = os.getcwd()
    like_this = here, here in sys.path or "" in sys.path, torch.get_num_threads()
    sent = pickle.dumps((*like_this, version("holdfast"), pickled("work", work)))
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
                    yield item, _result(ray, reference, f"{what} {getattr(item, 'name', item)}")
        finally:
            for reference in waiting:
                ray.cancel(reference, force=True)


def check_asked(gpus: float | None, retries: int) -> None:
    """Refuse numbers below 0."""
    for name, value in (("gpus", gpus), ("retries", retries)):
        if value is not None and not value >= 0:
            raise InputError(name, value, "at least 0")


def import_ray(address: str | None = None) -> Any:
    """Import Ray, which takes seconds, such that it is as quiet as the rest of Holdfast."""
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
    _refuse_if_nobody(address)
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


def _refuse_if_nobody(address: str) -> None:
    """Ask for a minute at most, where Ray would for a quarter of an hour."""
    host, colon, port = address.rpartition(":")
    if not colon or "://" in address or not port.isdecimal():
        return
    try:
        socket.create_connection((host, int(port)), timeout=60).close()
    except (OSError, OverflowError) as error:
        raise HoldfastError(f"Ray cannot be reached at {address} ({error})") from error


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
    folder, imports, threads, wanted, work = pickle.loads(sent)
    here = platform.node()
    if version("holdfast") != wanted:
        raise HoldfastError(f"{here} has Holdfast {version('holdfast')}, and not {wanted}")
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
