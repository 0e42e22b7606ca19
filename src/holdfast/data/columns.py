"""Which column of a table holds the images, the labels and the boxes, and what stands in them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
import torch
from jaxtyping import Float, Int
from torch import Tensor

from holdfast.contracts import InputError

__all__ = ["class_names", "encoded_images", "find_column", "read_boxes", "read_labels"]

_IMAGES = ("image", "img")
_LABELS = ("label", "labels", "fine_label")
_BOXES = ("bbox", "boxes", "box")


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
    typed = [name for name, feature in table.features.items() if isinstance(feature, kind)]
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


def read_labels(table: datasets.Dataset, column: str) -> Int[Tensor, " n"]:
    """Return the class of each row.

    Raises
    ------
    InputError
        If a label is missing, or they are no integers.

    Examples
    --------
    >>> read_labels(datasets.Dataset.from_dict({"label": [2, 0]}), "label")
    tensor([2, 0])
    """
    values = table.data.column(column)
    if not pa.types.is_integer(values.type):
        expected = "a column of integers, one class a row"
        raise InputError("ImageData.label_column", f"{column!r} of type {values.type}", expected)
    if values.null_count:
        row = np.flatnonzero(values.is_null().to_numpy())[0]
        raise InputError("labels", f"none in row {row}", "one class a row")
    return torch.from_numpy(values.to_numpy().astype(np.int64))


def class_names(table: datasets.Dataset, column: str, labels: Iterable[Tensor]) -> tuple[str, ...]:
    """Return the name of each class; if there are none, "0", "1" and so on to the largest label.

    Parameters
    ----------
    table : datasets.Dataset
        The table whose type of the column may hold names.
    column : str
        The column of labels.
    labels : iterable of Tensor
        The labels of all splits: a class may be missing in one of them.

    Examples
    --------
    >>> table = datasets.Dataset.from_dict({"label": [2, 0]})
    >>> class_names(table, "label", [read_labels(table, "label")])
    ('0', '1', '2')
    """
    feature: Any = table.features[column]
    if isinstance(feature, datasets.ClassLabel):
        return tuple(feature.names)
    largest = max(int(values.max()) for values in labels if len(values))
    return tuple(str(label) for label in range(largest + 1))


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


def _is_list_of_numbers(kind: pa.DataType) -> bool:
    lists = (pa.types.is_list, pa.types.is_large_list, pa.types.is_fixed_size_list)
    if not any(is_list(kind) for is_list in lists):
        return False
    return pa.types.is_floating(kind.value_type) or pa.types.is_integer(kind.value_type)


def _four_each(name: str, values: pa.ChunkedArray) -> Tensor:
    boxes = values.to_pylist()
    for row, box in enumerate(boxes):
        if box is None or len(box) != 4 or not all(x is not None and abs(x) < np.inf for x in box):
            raise InputError(name, f"{box} in row {row}", "four finite numbers: x0, y0, x1, y1")
    return torch.tensor(boxes, dtype=torch.float32).view(-1, 4)
