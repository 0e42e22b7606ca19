"""Which column of a table holds the images, labels, boxes and masks, and what stands in them."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any, Literal

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from jaxtyping import Bool, Float
from PIL import Image
from torch import Tensor
from torchvision.ops import box_convert

from holdfast.contracts import InputError

__all__ = [
    "MASKS",
    "PARQUET",
    "SALIENCY",
    "BoxFormat",
    "encoded_images",
    "find_column",
    "find_planes",
    "given",
    "is_plane_of_numbers",
    "read_boxes",
]

_IMAGES = ("image", "img")
_LABELS = ("label", "labels", "fine_label")
BoxFormat = Literal["xyxy", "xywh", "cxcywh"]
"""What the four numbers of a box are, as torchvision spells it."""
_FORMATS = {
    "xyxy": "x0, y0, x1, y1",
    "xywh": "x, y, width, height",
    "cxcywh": "the centre's x and y, width, height",
}

PARQUET = "parquet"
"""The ``builder_name`` of a table that was read from local Parquet."""

_BOXES = ("bbox", "boxes", "box")
MASKS = ("mask", "masks")
SALIENCY = ("saliency",)


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

    Lists of lists of whole numbers from 0 to 255 (H, W), or (H, W, 3), become images as well.

    Raises
    ------
    InputError
        If what the column holds are no images, or only the names of their files.

    Examples
    --------
    >>> table = datasets.Dataset.from_dict({"img": [b"..."], "label": [0]})
    >>> encoded_images(table, "img")[0]
    {'img': {'bytes': b'...', 'path': None}}
    """
    kind = table.data.column(column).type
    if _is_list(getattr(kind, "storage_type", kind)):  # of arrays of a fixed shape
        return _as_png(table, column)
    try:
        chosen = table.select_columns([column]).cast_column(column, datasets.Image(decode=False))
    except (pa.ArrowException, TypeError, ValueError) as error:
        came = f"{column!r} of type {table.features[column]}"
        raise InputError("ImageData.image_column", came, "a column of encoded images") from error
    if table.info.builder_name == PARQUET:
        _check_contents(chosen.data.column(column), column)
    return chosen


def read_boxes(
    table: datasets.Dataset, box_format: BoxFormat = "xyxy"
) -> Float[Tensor, "n 4"] | None:
    """Return the box of each row; none at all if the table has no column of boxes, or an empty one.

    Parameters
    ----------
    table : datasets.Dataset
        Where to look.
    box_format : {"xyxy", "xywh", "cxcywh"}
        What the four numbers are, in pixels: two corners; a corner, width and height; or the
        centre, width and height.

    Returns
    -------
    Tensor
        x0, y0, x1, y1 ``(N, 4)`` in pixels; NaN for a row that has no box (null).

    Raises
    ------
    InputError
        If a box is not four finite numbers, or ends before it begins; if all are shares of the
        image rather than pixels.

    Examples
    --------
    >>> read_boxes(datasets.Dataset.from_dict({"bbox": [[0, 4, 8, 9]]}))
    tensor([[0., 4., 8., 9.]])
    >>> read_boxes(datasets.Dataset.from_dict({"bbox": [[5, 4, 8, 9]]}), "xywh")
    tensor([[ 5.,  4., 13., 13.]])
    """
    for name in _BOXES:
        if name in table.column_names:
            values = table.data.column(name)
            if _is_list_of_numbers(values.type):
                boxes = _four_each(name, values)
                return None if boxes.isnan().all() else _corners(name, boxes, box_format)
    return None


def find_planes(table: datasets.Dataset, names: Sequence[str]) -> str | None:
    """Return the first column of these names that has a value for each pixel, or none.

    That is a column of images, or of lists of lists of numbers, with at least one that is not null.

    Examples
    --------
    >>> table = datasets.Dataset.from_dict({"mask": [[[0, 1], [1, 1]]], "saliency": ["none"]})
    >>> find_planes(table, MASKS), find_planes(table, SALIENCY)
    ('mask', None)
    """
    for name in names:
        if name in table.column_names and (not len(table) or given(table, name).any()):
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


def given(table: datasets.Dataset, column: str) -> Bool[np.ndarray, " n"]:
    """Tell which rows of a column hold something: no null, and no image without content.

    Examples
    --------
    >>> given(datasets.Dataset.from_dict({"mask": [None, [[0, 1]]]}), "mask")
    array([False,  True])
    """
    values = table.data.column(column)
    names = [n for n in ("bytes", "path") if pa.types.is_struct(values.type)]
    fields = [pc.struct_field(values, n) for n in names if values.type.get_field_index(n) >= 0]
    return np.any([pc.is_valid(field).to_numpy() for field in fields or [values]], axis=0)


def _is_list_of_numbers(kind: pa.DataType) -> bool:
    if not _is_list(kind):
        return False
    value = kind.value_type
    return pa.types.is_floating(value) or pa.types.is_integer(value) or pa.types.is_boolean(value)


def _is_list(kind: pa.DataType) -> bool:
    lists = (pa.types.is_list, pa.types.is_large_list, pa.types.is_fixed_size_list)
    return any(is_list(kind) for is_list in lists)


def _four_each(name: str, values: pa.ChunkedArray) -> Tensor:
    boxes = values.to_pylist()
    for row, box in enumerate(boxes):
        if box is None:
            boxes[row] = [np.nan] * 4
        elif len(box) != 4 or not all(x is not None and abs(x) < np.inf for x in box):
            raise InputError(name, f"{box} in row {row}", "four finite numbers, or null")
    return torch.tensor(boxes, dtype=torch.float32).view(-1, 4)


def _corners(name: str, boxes: Tensor, box_format: BoxFormat) -> Tensor:
    known = boxes[~boxes.isnan().any(1)]
    if len(known) and 0 < known.max() <= 1 and known.min() >= 0:
        first = int((~boxes.isnan().any(1)).nonzero()[0])
        came = f"{_written(boxes[first])} in row {first}, and none above 1"
        raise InputError(name, came, "pixels, not shares of the image")
    corners = box_convert(boxes, box_format, "xyxy")
    wrong = (corners[:, 2:] < corners[:, :2]).any(1).nonzero().flatten().tolist()
    if wrong:
        expected = f"{_FORMATS[box_format]}, none below 0 wide or high; --data.box_format says what"
        raise InputError(name, f"{_written(boxes[wrong[0]])} in row {wrong[0]}", expected)
    return corners


def _written(box: Tensor) -> str:
    return ", ".join(f"{x:g}" for x in box.tolist())


def _check_contents(column: pa.ChunkedArray, name: str) -> None:
    """Refuse the mere name of a file: a table that was sent must not choose what is read here."""
    named = pc.and_(
        pc.is_null(pc.struct_field(column, "bytes")), pc.is_valid(pc.struct_field(column, "path"))
    )
    for row in np.flatnonzero(named.to_numpy())[:1].tolist():
        came = f"only the name of a file, {column[row].as_py()['path']!r}, in row {row}"
        raise InputError(f"column {name!r}", came, "the content of image files in the Parquet")


def _as_png(table: datasets.Dataset, column: str) -> datasets.Dataset:
    """Encode images that are lists of numbers."""
    encoded = []
    for row, value in enumerate(table.data.column(column)):
        buffer = io.BytesIO()
        Image.fromarray(_pixels(value.as_py(), column, row)).save(buffer, "PNG", compress_level=1)
        encoded.append({"bytes": buffer.getvalue(), "path": None})
    features = datasets.Features({column: datasets.Image(decode=False)})
    return datasets.Dataset.from_dict({column: encoded}, features)


def _pixels(value: Any, column: str, row: int) -> np.ndarray:
    expected = "whole numbers from 0 to 255 in H × W or H × W × 3, or encoded images"
    try:
        pixels = np.asarray(value)
    except ValueError:
        pixels = np.empty(0)
    if pixels.ndim not in (2, 3) or pixels.size == 0 or pixels.shape[2:] not in ((), (1,), (3,)):
        came = f"a list of shape {pixels.shape}" if pixels.size else "no array"
        raise InputError(f"column {column!r}", f"{came} in row {row}", expected)
    if pixels.dtype.kind not in "iu" or pixels.min() < 0 or pixels.max() > 255:
        kind = {"f": "fractions", "b": "true and false"}.get(pixels.dtype.kind, "")
        came = kind or f"numbers from {pixels.min()} to {pixels.max()}"
        raise InputError(f"column {column!r}", f"{came} in row {row}", expected)
    return (
        pixels.astype(np.uint8).squeeze(2) if pixels.shape[2:] == (1,) else pixels.astype(np.uint8)
    )
