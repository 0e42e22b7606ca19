"""A file that says which class of a data set is which logit of a model."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

from holdfast.contracts import InputError

__all__ = ["read_mapping"]

_EXPECTED = (
    "'index', 'imagenet', or a JSON, CSV or text file of classes and their logits, or of the names "
    "of logits in order"
)


def read_mapping(file: str | Path) -> dict[str, int | str] | tuple[str, ...]:
    r"""Read a mapping, or the names of the logits in their order.

    Parameters
    ----------
    file : str or Path
        ``*.json``: an object, from classes to the places or names of logits or from places to
        names, or a list of names. ``*.csv`` or ``*.tsv``: two columns of the same, with or without
        a row of titles, or one column of names. Any other: a name a line.

    Raises
    ------
    InputError
        If there is no such file, or it holds something else.

    Examples
    --------
    >>> import tempfile
    >>> file = Path(tempfile.mkdtemp()) / "classes.csv"
    >>> file.write_text("class,index\ncat,281\n")
    20
    >>> read_mapping(file)
    {'cat': 281}
    """
    path = Path(file).expanduser()
    try:
        text = path.read_text(encoding="utf-8-sig")
        kind = path.suffix.lower()
        if kind == ".json":
            return _from_json(json.loads(text))
        if kind in (".csv", ".tsv"):
            return _from_rows(list(csv.reader(text.splitlines(), delimiter=",\t"[kind == ".tsv"])))
    except (OSError, ValueError, csv.Error) as error:
        reason = str(error).replace("\n", " ")
        raise InputError("mapping", f"{str(file)!r} ({reason})", _EXPECTED) from error
    return _names([line.strip() for line in text.splitlines()])


def _from_json(content: Any) -> dict[str, int | str] | tuple[str, ...]:
    if isinstance(content, list) and all(isinstance(name, str) for name in content):
        return _names(content)
    plain = isinstance(content, dict) and all(
        isinstance(value, str) or type(value) is int for value in content.values()
    )
    if not plain or not content:
        raise ValueError("neither a list of names nor an object of places or names")
    return dict(content)


def _from_rows(rows: list[list[str]]) -> dict[str, int | str] | tuple[str, ...]:
    rows = [[cell.strip() for cell in row] for row in rows if any(row)]
    width = len(rows[0]) if rows else 0
    if width not in (1, 2) or any(len(row) != width for row in rows):
        raise ValueError("not one or two columns")
    if width == 1:
        return _names([row[0] for row in rows])
    # Titles are words above numbers.
    for column in (0, 1):
        numbers = [row[column].isdecimal() for row in rows]
        if len(rows) > 1 and all(numbers[1:]) and not numbers[0]:
            rows = rows[1:]
            break
    found: dict[str, int | str] = {}
    for name, value in rows:
        if name in found:
            raise ValueError(f"{name!r} twice")
        found[name] = int(value) if value.isdecimal() else value
    return found


def _names(lines: list[str]) -> tuple[str, ...]:
    while lines and not lines[-1]:
        lines = lines[:-1]
    if not lines or "" in lines:
        raise InputError("mapping", "an empty name" if lines else "an empty file", _EXPECTED)
    return tuple(lines)
