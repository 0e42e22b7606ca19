"""Which classes a data set has, in which order, and which of them each row is."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from jaxtyping import Integer
from torch import Tensor

from holdfast.contracts import InputError

__all__ = ["class_names", "class_synonyms", "in_order", "is_text", "read_labels"]

_NAMES = ("wnid", "wordnet_id", "synset", "class_name", "label_name", "class", "category", "name")
_MOST_CLASSES = 100_000
"""Labels of so much and more are numbers of something else."""


def in_order(names: Iterable[str]) -> tuple[str, ...]:
    """Bring the names of classes in order, for folders and for columns of text alike.

    By value if all are whole numbers; else by the alphabet, character by character as Python does,
    so that upper case comes before lower.

    Examples
    --------
    >>> in_order(["10", "9", "011"]), in_order(["b", "a", "B", "10", "9"])
    (('9', '10', '011'), ('10', '9', 'B', 'a', 'b'))
    """
    found = sorted(names)
    return tuple(sorted(found, key=int) if all(map(str.isdecimal, found)) else found)


def class_names(tables: Sequence[datasets.Dataset], column: str) -> tuple[str, ...]:
    """Return the name of each class.

    Those that the type of the column says, and last those that only a later split says; else the
    names that occur, as `in_order` has them; else "0", "1" and so on to the largest label.

    Parameters
    ----------
    tables : sequence of datasets.Dataset
        The splits, those to train on first: a class may be missing in one of them.
    column : str
        The column of labels, the same in each.

    Raises
    ------
    InputError
        If the splits have labels of different kinds, or a name is empty, or a label so large that
        it numbers no classes.

    Examples
    --------
    >>> class_names([datasets.Dataset.from_dict({"label": [2, 0]})], "label")
    ('0', '1', '2')
    >>> class_names([datasets.Dataset.from_dict({"label": ["dog", "cat"]})], "label")
    ('cat', 'dog')
    """
    declared: dict[str, None] = {}  # an ordered set
    for table in tables:
        declared |= dict.fromkeys(_declared(table, column))
    kinds = [table.data.column(column).type for table in tables]
    written: set[str] = set()
    for table, kind in zip(tables, kinds, strict=True):
        if is_text(kind):
            written |= set(pc.unique(table.data.column(column)).to_pylist()) - {None}
    if any(not name.strip() for name in written):
        raise InputError("labels", "an empty name", "the name of a class in each row")
    if declared:
        return (*declared, *in_order(written - set(declared)))
    if written:
        if not all(map(is_text, kinds)):
            came = " and ".join(sorted(set(map(str, kinds))))
            raise InputError("labels", f"{came} in the splits", "names in all of them, or numbers")
        return in_order(written)
    largest = max(
        (int(_integers(table, column).max()) for table in tables if len(table)), default=0
    )
    if largest >= _MOST_CLASSES:
        expected = f"classes from 0 on and below {_MOST_CLASSES:,}, or names of classes"
        raise InputError("labels", largest, expected)
    return tuple(str(label) for label in range(largest + 1))


def read_labels(
    table: datasets.Dataset, column: str, classes: Sequence[str]
) -> Integer[Tensor, " n"]:
    """Return the class of each row.

    Parameters
    ----------
    table : datasets.Dataset
        Where to look.
    column : str
        The column of labels: integers from 0, or names.
    classes : sequence of str
        The classes, as `class_names` has them. Where the column's own type names its classes in
        another order, labels follow the names.

    Raises
    ------
    InputError
        If a label is missing or is of no class, or they are neither integers nor names.

    Examples
    --------
    >>> read_labels(datasets.Dataset.from_dict({"label": [2, 0]}), "label", "012")
    tensor([2, 0])
    >>> read_labels(datasets.Dataset.from_dict({"label": ["dog"]}), "label", ("cat", "dog"))
    tensor([1])
    """
    names = table.data.column(column)
    if is_text(names.type):
        values = pc.index_in(names, pa.array(classes, names.type))
        missing = _first_row(values.is_null())
        if missing is not None:
            came, expected = names[missing].as_py(), f"one of {', '.join(classes)}"
            if came is None:
                raise InputError("labels", f"none in row {missing}", "one class a row")
            raise InputError("labels", f"{came!r} in row {missing}", expected)
        return torch.from_numpy(values.to_numpy().astype(np.int64))
    labels = _integers(table, column)
    own = _declared(table, column) or classes
    wrong = _first_row(pa.array((labels < 0) | (labels >= len(own))))
    if wrong is not None:
        expected = f"classes from 0 to {len(own) - 1}"
        raise InputError("labels", f"{labels[wrong]} in row {wrong}", expected)
    if tuple(own) != tuple(classes):
        labels = np.array([classes.index(name) for name in own])[labels]
    return torch.from_numpy(labels)


def class_synonyms(
    table: datasets.Dataset, column: str, classes: Sequence[str]
) -> tuple[tuple[str, ...], ...]:
    """Return what other columns call each class, such as ``wnid`` and ``name``.

    A column counts if it holds text and one for each label.

    Parameters
    ----------
    table : datasets.Dataset
        Where to look.
    column : str
        The column of labels.
    classes : sequence of str
        The classes.

    Examples
    --------
    >>> columns = {"label": [2, 0, 2], "name": ["kite", "cock", "kite"], "file": ["a", "b", "c"]}
    >>> class_synonyms(datasets.Dataset.from_dict(columns), "label", ("0", "1", "2"))
    (('cock',), (), ('kite',))
    """
    labels = read_labels(table, column, classes).numpy()
    found: list[list[str]] = [[] for _ in classes]
    for name in _NAMES:
        if name == column or name not in table.column_names:
            continue
        values = table.data.column(name)
        if not is_text(values.type):
            continue
        pairs = pa.table({"label": labels, "name": values}).group_by(["label", "name"])
        rows = [row for row in pairs.aggregate([]).to_pylist() if row["name"]]
        if len({row["label"] for row in rows}) == len(rows):
            for row in rows:
                found[row["label"]].append(row["name"])
    return tuple(map(tuple, found))


def is_text(kind: pa.DataType) -> bool:
    """Tell whether values of this type are text.

    Examples
    --------
    >>> is_text(pa.string())
    True
    """
    return pa.types.is_string(kind) or pa.types.is_large_string(kind)


def _integers(table: datasets.Dataset, column: str) -> np.ndarray:
    values = table.data.column(column)
    if not pa.types.is_integer(values.type):
        expected = "a column of integers or names, one class a row"
        raise InputError("ImageData.label_column", f"{column!r} of type {values.type}", expected)
    missing = _first_row(values.is_null())
    if missing is not None:
        raise InputError("labels", f"none in row {missing}", "one class a row")
    labels = values.to_numpy()
    if labels.dtype == np.uint64:  # what is beyond the 63 bits is beyond all classes, too
        labels = labels.clip(max=np.uint64(2**63 - 1))
    return labels.astype(np.int64)


def _declared(table: datasets.Dataset, column: str) -> tuple[str, ...]:
    feature: Any = table.features[column]
    return tuple(feature.names) if isinstance(feature, datasets.ClassLabel) else ()


def _first_row(true: pa.ChunkedArray | pa.Array) -> int | None:
    return next(iter(np.flatnonzero(np.asarray(true))[:1].tolist()), None)
