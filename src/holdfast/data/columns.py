"""Which column of a table holds the images, labels, boxes and masks, and what stands in them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from jaxtyping import Float, Integer
from torch import Tensor

from holdfast.contracts import InputError

__all__ = [
    "MASKS",
    "SALIENCY",
    "class_names",
    "class_synonyms",
    "encoded_images",
    "find_column",
    "find_planes",
    "is_plane_of_numbers",
    "is_text",
    "read_boxes",
    "read_labels",
]

_IMAGES = ("image", "img")
_LABELS = ("label", "labels", "fine_label")
_BOXES = ("bbox", "boxes", "box")
MASKS = ("mask", "masks")
SALIENCY = ("saliency",)
_NAMES = ("wnid", "wordnet_id", "synset", "class_name", "label_name", "class", "category", "name")


def find_column(table: datasets.Dataset, argument: str, wanted: str | None, path: str) -> str:
    """Find the column of images or of labels.

    Parameters
    ----------
    table : datasets.Dataset
        Where to look.
    argument : {"image_column", "label_column"}
        Which column: what the user may name it by.
    wanted : str, optional
        The name that the user gave. If none, the column of type ``Image`` or ``ClassLabel`` is
        taken, the one of a usual name if there are several; else one of a usual name and any type.
    path : str
        Where the table is from, for the error.

    Raises
    ------
    InputError
        If there is no such column, or if there are several and none has a usual name.

    Examples
    --------
    >>> table = datasets.Dataset.from_dict({"img": [b""], "label": [0]})
    >>> find_column(table, "image_column", None, path="here")
    'img'
    """
    kind, names = (
        (datasets.Image, _IMAGES) if argument == "image_column" else (datasets.ClassLabel, _LABELS)
    )
    there = f"the columns of {path} are {', '.join(table.column_names)}"
    if wanted is not None:
        if wanted not in table.column_names:
            raise InputError(f"ImageData.{argument}", repr(wanted), f"a column; {there}")
        return wanted
    typed = [
        name
        for name, feature in table.features.items()
        if isinstance(feature, kind) and name not in (*MASKS, *SALIENCY)
    ]
    usual = [name for name in names if name in table.column_names]
    found = [name for name in usual if name in typed][:1] or typed or usual[:1]
    if len(found) != 1:
        fault = "does not say which of several" if found else f"has no {kind.__name__} column"
        expected = f"the name of a column, as {path} {fault}; {there}"
        raise InputError(f"ImageData.{argument}", None, expected)
    return found[0]


def encoded_images(table: datasets.Dataset, column: str) -> datasets.Dataset:
    """Return this column alone, as encoded images, whatever it was declared as.

    Raises
    ------
    InputError
        If what the column holds are no images.

    Examples
    --------
    >>> table = datasets.Dataset.from_dict({"img": [b"..."], "label": [0]})
    >>> encoded_images(table, "img")[0]
    {'img': {'bytes': b'...', 'path': None}}
    """
    try:
        return table.select_columns([column]).cast_column(column, datasets.Image(decode=False))
    except (pa.ArrowException, TypeError, ValueError) as error:
        kind = table.features[column]
        raise InputError(
            "ImageData.image_column", f"{column!r} of type {kind}", "a column of encoded images"
        ) from error


def read_labels(
    table: datasets.Dataset, column: str, classes: Sequence[str] = ()
) -> Integer[Tensor, " n"]:
    """Return the class of each row.

    Parameters
    ----------
    table : datasets.Dataset
        Where to look.
    column : str
        The column of labels: integers from 0, or names.
    classes : sequence of str
        What a name is the name of; integers need none.

    Raises
    ------
    InputError
        If a label is missing or is the name of no class, or they are neither integers nor names.

    Examples
    --------
    >>> read_labels(datasets.Dataset.from_dict({"label": [2, 0]}), "label")
    tensor([2, 0])
    >>> read_labels(datasets.Dataset.from_dict({"label": ["dog"]}), "label", ("cat", "dog"))
    tensor([1])
    """
    values = table.data.column(column)
    if not (pa.types.is_integer(values.type) or is_text(values.type)):
        expected = "a column of integers or names, one class a row"
        raise InputError("ImageData.label_column", f"{column!r} of type {values.type}", expected)
    if values.null_count:
        row = np.flatnonzero(values.is_null().to_numpy())[0]
        raise InputError("labels", f"none in row {row}", "one class a row")
    if is_text(values.type):
        names, values = values, pc.index_in(values, pa.array(classes, values.type))
        if values.null_count:
            row = int(np.flatnonzero(values.is_null().to_numpy())[0])
            expected = f"one of {', '.join(classes)}"
            raise InputError("labels", f"{names[row].as_py()!r} in row {row}", expected)
    return torch.from_numpy(values.to_numpy().astype(np.int64))


def class_names(tables: Sequence[datasets.Dataset], column: str) -> tuple[str, ...]:
    """Return the name of each class.

    Those that the type of the column says; else the names that occur, in alphabetical order, or by
    size if they are numbers; else "0", "1" and so on to the largest label.

    Parameters
    ----------
    tables : sequence of datasets.Dataset
        The splits: a class may be missing in one of them.
    column : str
        The column of labels, the same in each.

    Examples
    --------
    >>> class_names([datasets.Dataset.from_dict({"label": [2, 0]})], "label")
    ('0', '1', '2')
    >>> class_names([datasets.Dataset.from_dict({"label": ["dog", "cat"]})], "label")
    ('cat', 'dog')
    """
    feature: Any = tables[0].features[column]
    if isinstance(feature, datasets.ClassLabel):
        return tuple(feature.names)
    if is_text(tables[0].data.column(column).type):
        found = {name for table in tables for name in table.unique(column)} - {None}
        return tuple(sorted(found, key=int if all(map(str.isdecimal, found)) else None))
    largest = max(int(read_labels(table, column).max()) for table in tables if len(table))
    return tuple(str(label) for label in range(largest + 1))


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


def read_boxes(table: datasets.Dataset) -> Float[Tensor, "n 4"] | None:
    """Return the box of each row, or none if the table has no column of lists of numbers for it.

    Raises
    ------
    InputError
        If a box is not four finite numbers.

    Examples
    --------
    >>> read_boxes(datasets.Dataset.from_dict({"bbox": [[0, 4, 8, 9]]}))
    tensor([[0., 4., 8., 9.]])
    """
    for name in _BOXES:
        if name in table.column_names:
            values = table.data.column(name)
            if _is_list_of_numbers(values.type):
                return _four_each(name, values)
    return None


def find_planes(table: datasets.Dataset, names: Sequence[str]) -> str | None:
    """Return the first column of these names that has a value for each pixel, or none.

    That is a column of images, or of lists of lists of numbers.

    Examples
    --------
    >>> table = datasets.Dataset.from_dict({"mask": [[[0, 1], [1, 1]]], "saliency": ["none"]})
    >>> find_planes(table, MASKS), find_planes(table, SALIENCY)
    ('mask', None)
    """
    for name in names:
        if name in table.column_names:
            feature, kind = table.features[name], table.data.column(name).type
            encoded = pa.types.is_struct(kind) and kind.get_field_index("bytes") >= 0
            if isinstance(feature, datasets.Image) or encoded or pa.types.is_binary(kind):
                return name
            if is_plane_of_numbers(kind):
                return name
    return None


def is_plane_of_numbers(kind: pa.DataType) -> bool:
    """Tell whether values of this type are lists of lists of numbers.

    Examples
    --------
    >>> is_plane_of_numbers(pa.list_(pa.list_(pa.float32())))
    True
    """
    kind = getattr(kind, "storage_type", kind)  # of arrays of a fixed shape
    return _is_list(kind) and _is_list_of_numbers(kind.value_type)


def _is_list_of_numbers(kind: pa.DataType) -> bool:
    if not _is_list(kind):
        return False
    value = kind.value_type
    return pa.types.is_floating(value) or pa.types.is_integer(value) or pa.types.is_boolean(value)


def _is_list(kind: pa.DataType) -> bool:
    lists = (pa.types.is_list, pa.types.is_large_list, pa.types.is_fixed_size_list)
    return any(is_list(kind) for is_list in lists)


def is_text(kind: pa.DataType) -> bool:
    """Tell whether values of this type are text.

    Examples
    --------
    >>> is_text(pa.string())
    True
    """
    return pa.types.is_string(kind) or pa.types.is_large_string(kind)


def _four_each(name: str, values: pa.ChunkedArray) -> Tensor:
    boxes = values.to_pylist()
    for row, box in enumerate(boxes):
        if box is None or len(box) != 4 or not all(x is not None and abs(x) < np.inf for x in box):
            raise InputError(name, f"{box} in row {row}", "four finite numbers: x0, y0, x1, y1")
    return torch.tensor(boxes, dtype=torch.float32).view(-1, 4)
