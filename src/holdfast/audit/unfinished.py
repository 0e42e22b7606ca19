"""What is done of a shard that is not finished: kept, so that a kill does not cost an hour."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from holdfast.audit.sealed import read_sealed, write_sealed
from holdfast.parts import DamagedError

__all__ = ["Finding", "Record", "Unfinished"]

EVERY = 20.0
"""Seconds of work that may be lost, besides the check that is being made."""


@dataclass(frozen=True)
class Record:
    """One measure of one check, of the images at these places of the shard."""

    check: str
    measure: str
    places: Tensor
    values: Tensor


@dataclass
class Finding:
    """What was found of a shard so far.

    Attributes
    ----------
    stages : int
        How many checks have been made, in the order of the battery.
    records : list of Record
        What they measured.
    outcomes : dict of str to Tensor
        What attacks on explanations left, for the gallery: ``CHECK|images``, ``CHECK|maps`` and
        ``CHECK|before``, one for each image at the places ``attacked``.
    """

    stages: int = 0
    records: list[Record] = field(default_factory=list)
    outcomes: dict[str, Tensor] = field(default_factory=dict)


class Unfinished:
    """The files that hold what is done of one shard.

    Parameters
    ----------
    out : Path
        The folder of the audit.
    number : int
        The shard.
    audit : str
        The digest of the settings.
    """

    def __init__(self, out: Path, number: int, audit: str) -> None:
        self._out, self._number, self._audit = out, number, audit
        self._files = self._records = self._outcomes = 0
        self._saved = time.monotonic()

    def restore(self) -> Finding:
        """Return what is there, and bring the generators to where they were then."""
        finding, states = Finding(), None
        while (file := self._file(self._files)).exists():
            try:
                held = read_sealed(file, self._seal(self._files))
                kept = json.loads(bytes(held["about"].tolist()))
            except (DamagedError, KeyError, ValueError):
                break  # what was found after it cannot be gone on with
            for place, (check, measure) in enumerate(kept["records"]):
                both = held[f"record|{place}|places"], held[f"record|{place}|values"]
                finding.records.append(Record(check, measure, *both))
            for name in kept["outcomes"]:
                finding.outcomes[name] = held[f"outcome|{name}"]
            finding.stages = kept["stages"]
            states = held
            self._files += 1
        self._mark(finding)
        if states is not None:
            _set_generators(states)
        return finding

    def save(self, finding: Finding) -> None:
        """Keep what has been found since the last time, if that is long ago."""
        if time.monotonic() - self._saved < EVERY:
            return
        records = finding.records[self._records :]
        outcomes = dict(list(finding.outcomes.items())[self._outcomes :])
        about: dict[str, Any] = {
            "stages": finding.stages,
            "records": [(record.check, record.measure) for record in records],
            "outcomes": list(outcomes),
        }
        tensors = {
            "about": torch.tensor(list(json.dumps(about).encode()), dtype=torch.uint8),
            **{f"record|{place}|places": record.places for place, record in enumerate(records)},
            **{f"record|{place}|values": record.values for place, record in enumerate(records)},
            **{f"outcome|{name}": tensor for name, tensor in outcomes.items()},
            **_generators(),
        }
        write_sealed(self._file(self._files), tensors, self._seal(self._files))
        self._files += 1
        self._mark(finding)

    def remove(self) -> None:
        """Remove the files: the shard is finished."""
        for file in self._out.glob(f"unfinished-{self._number:05d}-*.safetensors"):
            file.unlink(missing_ok=True)

    def _mark(self, finding: Finding) -> None:
        self._records, self._outcomes = len(finding.records), len(finding.outcomes)
        self._saved = time.monotonic()

    def _file(self, place: int) -> Path:
        return self._out / f"unfinished-{self._number:05d}-{place:03d}.safetensors"

    def _seal(self, place: int) -> str:
        return f"{self._audit} unfinished {self._number} {place}"


def _generators() -> dict[str, Tensor]:
    """Return the states of torch's generators; NumPy's and Python's are seeded for each check."""
    states = {"generator": torch.get_rng_state()}
    if torch.cuda.is_initialized():
        cuda = enumerate(torch.cuda.get_rng_state_all())
        states |= {f"generator|{device}": state for device, state in cuda}
    return states


def _set_generators(states: dict[str, Tensor]) -> None:
    torch.set_rng_state(states["generator"])
    if torch.cuda.is_available():
        for device in range(torch.cuda.device_count()):
            if f"generator|{device}" in states:
                torch.cuda.set_rng_state(states[f"generator|{device}"], device)
