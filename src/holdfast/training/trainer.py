"""The settings of a recipe that are Lightning's, and the trainer that is made of them.

Lightning takes many values without a word and fails on them late, in its own language, or hangs. So
what makes sense for a training by a recipe is listed here with its types and bounds, and checked
before anything is written.
"""

from __future__ import annotations

import os
import re
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Literal

import lightning
import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.strategies import StrategyRegistry

from holdfast.contracts import HoldfastError, InputError, checked
from holdfast.training.settings import build

__all__ = ["check_trainer", "in_our_words", "make_trainer"]


def check_trainer(settings: Mapping[str, Any]) -> None:
    """Refuse what Lightning's trainer does not know or cannot do here.

    Parameters
    ----------
    settings : mapping
        Of a recipe, as ``{"max_epochs": 2, "precision": "bf16-mixed"}``.

    Raises
    ------
    HoldfastError
        If a setting is unknown or not to be set, is of a wrong type or out of bounds; there are not
        so many devices or nodes; or nothing says how long to train.

    Examples
    --------
    >>> check_trainer({"max_steps": -3})
    Traceback (most recent call last):
        ...
    holdfast.contracts.InputError: trainer.max_steps: expected a number above 0, or -1 for no \
limit, got -3
    """
    made = build(Trainer, settings, "trainer")
    limited = [name for name in ("max_epochs", "max_steps") if settings.get(name) is not None]
    if not limited and settings.get("max_time") is None:
        raise HoldfastError("trainer: give max_epochs, max_steps or max_time")
    if settings.get("max_time") is None and all(settings[name] == -1 for name in limited):
        raise HoldfastError(f"trainer.{limited[0]}: -1 is no limit, and there is no other one")
    _check_devices(made)
    _check_nodes(made)


def make_trainer(settings: Mapping[str, Any], **ours: Any) -> lightning.Trainer:
    """Make Lightning's trainer; ``ours`` are arguments that no recipe has.

    Raises
    ------
    HoldfastError
        Instead of whatever Lightning raises.
    """
    made = build(Trainer, settings, "trainer")
    given = {name: value for name, value in vars(made).items() if value is not None}
    try:
        return lightning.Trainer(**given, **ours)
    except Exception as error:
        raise _told(error, settings) from error


@contextmanager
def in_our_words(settings: Mapping[str, Any]) -> Iterator[None]:
    """Turn what Lightning itself complains of in the block into one error of ours."""
    try:
        yield
    except HoldfastError:
        raise
    except (TypeError, ValueError, RuntimeError, MisconfigurationException) as error:
        last = traceback.extract_tb(error.__traceback__)[-1].filename.replace(os.sep, "/")
        if "/lightning/" not in last:
            raise
        raise _told(error, settings) from error


def _told(error: Exception, settings: Mapping[str, Any]) -> HoldfastError:
    reason = " ".join(str(error).split()) or type(error).__name__
    named = [name for name in settings if re.search(rf"\b{name}\b", reason)]
    # Or the error speaks of what was asked for, "DeepSpeed" or "transformer_engine", say.
    named += [
        name
        for name, value in settings.items()
        if isinstance(value, str) and value.lower().replace("-", "_") in reason.lower()
    ]
    return HoldfastError(
        f"trainer{'.' + named[0] if named else ''}: Lightning refuses it ({reason})"
    )


# --- what can be set -----------------------------------------------------------------------------

_Precision = Literal[
    64, 32, 16, "64", "32", "16", "bf16", "16-true", "16-mixed", "bf16-true", "bf16-mixed",
    "32-true", "64-true", "transformer-engine", "transformer-engine-float16",
]  # fmt: skip


@dataclass(frozen=True)
@checked
class Trainer:
    """What can be set of `lightning.Trainer`, by the names that it has there."""

    max_epochs: int | None = None
    min_epochs: int | None = None
    max_steps: int | None = None
    min_steps: int | None = None
    max_time: str | dict[str, int] | timedelta | None = None
    limit_train_batches: int | float | None = None
    limit_val_batches: int | float | None = None
    overfit_batches: int | float | None = None
    val_check_interval: int | float | None = None
    check_val_every_n_epoch: int | None = None
    num_sanity_val_steps: int | None = None
    log_every_n_steps: int | None = None
    accumulate_grad_batches: int | None = None
    gradient_clip_val: float | None = None
    gradient_clip_algorithm: Literal["norm", "value"] | None = None
    accelerator: Literal["auto", "cpu", "gpu", "cuda", "mps"] | None = None
    strategy: str | None = None
    devices: int | str | list[int] | None = None
    num_nodes: int | None = None
    precision: _Precision | None = None
    deterministic: bool | Literal["warn"] | None = None
    benchmark: bool | None = None
    detect_anomaly: bool | None = None
    inference_mode: bool | None = None
    use_distributed_sampler: bool | None = None
    sync_batchnorm: bool | None = None
    profiler: Literal["simple", "advanced"] | None = None
    reload_dataloaders_every_n_epochs: int | None = None

    def __post_init__(self) -> None:
        given = {name: value for name, value in vars(self).items() if value is not None}
        for name, value in given.items():
            if name in _UNLIMITED and value < 1 and value != -1:
                raise self._error(name, "a number above 0, or -1 for no limit")
            if name in _LEAST and value < _LEAST[name]:
                raise self._error(name, f"a number of at least {_LEAST[name]}")
            if name in _SHARES and isinstance(value, float) and value > 1:
                raise self._error(name, "a share of at most 1, or a whole number of batches")
            if name in _SOME and value <= 0:
                raise self._error(name, "a number above 0")
        if "strategy" in given and self.strategy not in _strategies():
            raise self._error("strategy", f"one of {', '.join(_strategies())}")
        if not _is_time(self.max_time):
            expected = "days:hours:minutes:seconds, as 00:12:00:00, or as {hours: 12}"
            raise self._error("max_time", expected)

    def _error(self, name: str, expected: str) -> InputError:
        return InputError(f"Trainer.{name}", getattr(self, name), expected)


_UNLIMITED = ("max_epochs", "max_steps")
_SHARES = ("limit_train_batches", "limit_val_batches", "overfit_batches", "val_check_interval")
_SOME = ("limit_train_batches", "val_check_interval")
_LEAST = {
    "accumulate_grad_batches": 1,
    "check_val_every_n_epoch": 1,
    "num_nodes": 1,
    "min_epochs": 0,
    "min_steps": 0,
    "gradient_clip_val": 0,
    "log_every_n_steps": 0,
    "overfit_batches": 0,
    "limit_val_batches": 0,
    "reload_dataloaders_every_n_epochs": 0,
    "num_sanity_val_steps": -1,
}


def _strategies() -> list[str]:
    return ["auto", *StrategyRegistry.available_strategies()]


def _is_time(limit: str | dict[str, int] | timedelta | None) -> bool:
    if isinstance(limit, str):
        return re.fullmatch(r"\d{1,6}:\d\d:\d\d:\d\d", limit) is not None
    if isinstance(limit, dict):
        units = {"weeks", "days", "hours", "minutes", "seconds"}
        least, most = min(limit.values(), default=-1), max(limit.values(), default=0)
        return limit.keys() <= units and least >= 0 and 0 < most < 10**6
    return True


def _check_devices(trainer: Trainer) -> None:
    """See that there are as many devices as are asked for."""
    cuda, mps = torch.cuda.device_count(), torch.backends.mps.is_available()
    wanted = trainer.accelerator or "auto"
    if wanted in ("gpu", "cuda") and not cuda and not (mps and wanted == "gpu"):
        raise InputError("trainer.accelerator", wanted, "one that is here; there is no such GPU")
    if wanted == "mps" and not mps:
        raise InputError("trainer.accelerator", wanted, "one that is here; there is no such GPU")
    if wanted == "auto":
        wanted = "cuda" if cuda else "mps" if mps else "cpu"
    # Of CPUs, each device is a process.
    there = (os.cpu_count() or 1) if wanted == "cpu" else cuda or 1
    asked = trainer.devices
    if asked is None or asked in ("auto", "-1", -1):
        return
    expected = f"at most {there}, as many as there are here"
    if isinstance(asked, str) and re.fullmatch(r"\d{1,9}(,\d{1,9})*", asked):
        places = [int(place) for place in asked.split(",")]
        asked = places[0] if len(places) == 1 else places
    if isinstance(asked, int):
        if not 1 <= asked <= there:
            raise InputError("trainer.devices", trainer.devices, f"a number from 1, {expected}")
    elif isinstance(asked, str) or not asked or len(set(asked)) < len(asked):
        raise InputError("trainer.devices", repr(trainer.devices), "a number, or different places")
    elif not all(0 <= place < there for place in asked):
        raise InputError("trainer.devices", trainer.devices, f"places from 0 on, {expected}")


def _check_nodes(trainer: Trainer) -> None:
    """See that whoever has started this process has started as many nodes: else all would wait."""
    environment = os.environ
    started = 1
    if "SLURM_NNODES" in environment or "SLURM_JOB_NUM_NODES" in environment:
        started = _count(environment.get("SLURM_NNODES") or environment["SLURM_JOB_NUM_NODES"])
    elif "WORLD_SIZE" in environment and "LOCAL_WORLD_SIZE" in environment:
        started = _count(environment["WORLD_SIZE"]) // _count(environment["LOCAL_WORLD_SIZE"])
    if trainer.num_nodes not in (None, started):
        expected = f"{started}, as many as torchrun or SLURM has started"
        raise InputError("trainer.num_nodes", trainer.num_nodes, expected)


def _count(text: str) -> int:
    return max(1, int(text)) if text.isdecimal() else 1
