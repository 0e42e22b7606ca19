"""The models that ROAR retrains: which they are, where they stand, and what is recorded."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from holdfast import plain_yaml
from holdfast.contracts import HoldfastError, InputError
from holdfast.files import whole, whole_folder
from holdfast.records import ROAR, read_roar

__all__ = ["CHANCE", "NOTHING", "Cell", "gather", "is_begun", "ranks_file"]

NOTHING, CHANCE = "none", "random"


@dataclass(frozen=True)
class Cell:
    """One model to train, on what is left of the images."""

    attribution: str
    share: float
    repeat: int

    def __str__(self) -> str:
        removed = f"{100 * self.share:g} % of the pixels removed"
        return f"{self.attribution}, {removed}, repeat {self.repeat}"

    def folder(self, out: Path) -> Path:
        """Say where it is trained."""
        return out / self.attribution / f"{self.share}-{self.repeat}"

    def record(self, out: Path) -> Path:
        """Say where its record stands."""
        return self.folder(out) / "record.parquet"

    def row(self, accuracy: float) -> pa.Table:
        """Make its record."""
        values = [self.attribution, self.share, self.repeat, accuracy]
        columns = {name: [value] for name, value in zip(ROAR.names, values, strict=True)}
        return pa.table(columns, schema=ROAR)

    def copy(self, out: Path, others: Iterable[Path]) -> None:
        """Take from another folder what depends on no map and was trained there the same way."""
        folder = self.folder(out)
        if self.attribution not in (NOTHING, CHANCE) or folder.exists():
            return
        for other in others:
            if self.record(other).exists() and _trained_with(other) == _trained_with(out):
                with whole_folder(folder) as unfinished:
                    shutil.copytree(self.folder(other), unfinished, dirs_exist_ok=True)
                return


def gather(out: Path) -> pa.Table:
    """Bring the records of all cells that are done into one file."""
    begun = plain_yaml.read_mapping(out / "settings.yaml")
    names = [key.removeprefix("attributions.") for key in begun if key.startswith("attributions.")]
    place = {name: number for number, name in enumerate((NOTHING, *names, CHANCE))}
    files = sorted(out.glob("*/*/record.parquet"))
    rows = pa.concat_tables([_read_record(file, place) for file in files])
    rows = pa.Table.from_pylist(
        sorted(rows.to_pylist(), key=lambda r: (place[r["attribution"]], r["share"], r["repeat"])),
        schema=ROAR,
    )
    with whole(out / "roar.parquet") as unfinished:
        pq.write_table(rows, unfinished)
    return rows


def is_begun(folder: Path) -> bool:
    """Whether a cell's training is there to be gone on with; where it was moved, it is not."""
    if not (folder / "config.yaml").exists():
        return False
    kept = (folder / "model.safetensors", *folder.glob("checkpoints/*.ckpt"))
    data = plain_yaml.read_mapping(folder / "config.yaml").get("data")
    here = isinstance(data, dict) and data.get("path") == str(folder / "data")
    return here and any(file.exists() for file in kept)


def ranks_file(out: Path, name: str, split: str, part: slice) -> Path:
    """Say where the ranks of a part of the images stand."""
    return out / name / "ranks" / f"{split}-{part.start:07d}.npy"


def _trained_with(out: Path) -> dict[str, Any]:
    """Say what a model is made of that is trained on images without any map."""
    settings = plain_yaml.read_mapping(out / "settings.yaml")
    apart = ("model", "recipe.audit", "recipe.source")  # of these it does not depend
    return {
        key: value
        for key, value in settings.items()
        if key not in apart and not key.startswith("attributions.")
    }


def _read_record(file: Path, attributions: Mapping[str, int]) -> pa.Table:
    """Read what a cell came to; refuse what is no such record."""
    try:
        record = read_roar(file, "a record")
        (row,) = record.to_pylist()
        sound = row["attribution"] in attributions and 0 <= row["accuracy"] <= 1
        sound = sound and 0 <= row["share"] < 1
    except (InputError, ValueError):
        sound = False
    if not sound:
        remedy = "remove it, and its model is tested again"
        raise HoldfastError(f"{file} is no record of one retrained model; {remedy}")
    return record
