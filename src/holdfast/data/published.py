"""The tables and arrays of published data sets, each looked at before it is read."""

from __future__ import annotations

import csv
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy.io import loadmat

from holdfast.contracts import HoldfastError
from holdfast.data.importing import BrokenError, check_inside

__all__ = ["Row", "array", "columns", "complete", "matrices", "rows"]

_TABLE_BYTES = 200_000_000


@dataclass(frozen=True)
class Row:
    """A row of a table of text, and where it stands."""

    place: str
    values: tuple[str, ...]

    def take(self, count: int) -> tuple[str, ...]:
        """Return the values, if there are so many."""
        if len(self.values) != count:
            shown = " ".join(self.values)[:200]
            raise BrokenError(f"{self.place}: expected {count} values, got {shown!r}")
        return self.values

    def numbers(self, values: tuple[str, ...]) -> tuple[float, ...]:
        """Read some of the values as finite numbers."""
        try:
            numbers = tuple(float(value) for value in values)
        except ValueError:
            numbers = (math.nan,)
        if not all(map(math.isfinite, numbers)):
            raise BrokenError(f"{self.place}: expected numbers, got {' '.join(values)[:200]!r}")
        return numbers


def rows(src: Path, file: Path, separator: str | None = None) -> list[Row]:
    """Read a table of text without a header, less its empty rows."""
    lines = _text(src, file).splitlines()
    return [
        Row(f"{file}, row {number}", tuple(line.strip().split(separator)))
        for number, line in enumerate(lines, 1)
        if line.strip()
    ]


def columns(src: Path, file: Path, columns: tuple[str, ...]) -> list[Row]:
    """Read these columns of a table with a header and semicolons."""
    try:
        table = csv.DictReader(_text(src, file).splitlines(), delimiter=";")
        missing = [name for name in columns if name not in (table.fieldnames or ())]
        if missing:
            there = ", ".join(table.fieldnames or ()) or "none"
            raise HoldfastError(f"{file}: no column {', '.join(missing)}; its columns are {there}")
        return [
            Row(f"{file}, row {number}", tuple(row[n] for n in columns if row[n] is not None))
            for number, row in enumerate(table, 2)
        ]
    except csv.Error as error:
        raise HoldfastError(f"{file} cannot be read: {error}") from error


def complete(src: Path, file: Path, count: int) -> list[Any]:
    """Read a table of which no row may be skipped: the classes after it would change number."""
    try:
        return [row.take(count) for row in rows(src, file)]
    except BrokenError as fault:
        raise HoldfastError(str(fault)) from fault


def matrices(src: Path, file: Path) -> dict[str, Any]:
    """Read the variables of a file of Matlab."""
    _check_file(src, file)
    try:
        return loadmat(file)
    except Exception as error:  # a broken file makes scipy fail in any way at all
        raise HoldfastError(f"{file} cannot be read: {error}") from error


def array(src: Path, file: Path) -> np.ndarray:
    """Read an array as its file has it, nothing pickled; it stays on disk."""
    _check_file(src, file)
    try:
        array = np.load(file, mmap_mode="r")
        if not isinstance(array, np.ndarray):
            raise ValueError("it holds several arrays")
        return array
    except Exception as error:  # a broken file makes NumPy fail in any way at all
        raise HoldfastError(f"{file} cannot be read: {error}") from error


def _text(src: Path, file: Path) -> str:
    _check_file(src, file)
    try:
        return file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise HoldfastError(f"{file} cannot be read: {error}") from error


def _check_file(src: Path, file: Path) -> None:
    """Refuse a table that is missing, no regular file, outside of the source or far too long."""
    check_inside(file, src)
    if not file.is_file():
        raise HoldfastError(f"{file} is missing")
    if file.suffix in (".txt", ".csv") and file.stat().st_size > _TABLE_BYTES:
        raise HoldfastError(f"{file} has {file.stat().st_size:,} bytes, more than tables have")
