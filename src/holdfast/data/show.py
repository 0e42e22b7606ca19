"""What a data set holds, before anything is trained: in words, and as a sheet of its images."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any

import datasets
import matplotlib
import numpy as np
from jaxtyping import Integer
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from holdfast.contracts import HoldfastError
from holdfast.data.columns import (
    MASKS,
    PARQUET,
    SALIENCY,
    encoded_images,
    find_column,
    find_planes,
    read_boxes,
)
from holdfast.data.framing import Framing
from holdfast.data.images import image_header, open_image
from holdfast.data.labels import class_names, read_labels
from holdfast.data.planes import EncodedPlanes
from holdfast.data.source import ImageData
from holdfast.data.tables import FOLDER, is_unlabelled

__all__ = ["Description", "SplitDescription", "contact_sheet", "describe"]

_NAMED = 5
"""So many sizes and broken images are told one by one."""
_SIDE, _GAP, _MARGIN, _LINE = 80, 4, 190, 26
"""Of the sheet, in pixels: an image, what is between two, the names of classes, a heading."""
_CLASSES, _EACH = 24, 10
"""So many classes of a split are on the sheet, and so many images of each."""
_RED, _GREEN, _INK, _PAPER = (214, 39, 40), (44, 160, 44), (28, 35, 38), (246, 246, 244)


@dataclass(frozen=True)
class SplitDescription:
    """What one split holds.

    Attributes
    ----------
    images : int
        How many.
    per_class : tuple of int
        How many of each class; empty where it has no labels.
    sizes : dict of tuple to int
        How many are of each height and width, most frequent first.
    channels : dict of str to int
        How many are of each kind: "grey", "colour", "transparent".
    boxes, masks, saliency : str or None
        The columns that hold them.
    faults : tuple of str
        What would be refused: broken images, labels that are no classes and so on.
    """

    images: int
    per_class: tuple[int, ...]
    sizes: dict[tuple[int, int], int]
    channels: dict[str, int]
    boxes: str | None
    masks: str | None
    saliency: str | None
    faults: tuple[str, ...]


@dataclass(frozen=True)
class Description:
    """What a data set holds, and how it was read; printed, it is a page of text.

    Attributes
    ----------
    path : str
        Which data set.
    kind : str
        What is there.
    classes : tuple of str
        The classes, in order.
    order : str
        Why they are in this order.
    splits : dict of str to SplitDescription
        Every split by its name, whether it is used or not.
    """

    path: str
    kind: str
    classes: tuple[str, ...]
    order: str
    splits: dict[str, SplitDescription]

    def __str__(self) -> str:
        lines = [f"{self.path}: {self.kind}", ""]
        for name, split in self.splits.items():
            lines += [f"{name}: {split.images:,} images, {_sizes(split.sizes)}"]
            lines += [f"  {_counts(split.channels)}"] if split.channels else []
            extras = {"boxes": split.boxes, "masks": split.masks, "saliency": split.saliency}
            found = [f"{what} in column {column}" for what, column in extras.items() if column]
            missing = [what for what, column in extras.items() if not column]
            lines += [f"  {'; '.join([*found, *(f'no {what}' for what in missing)])}"]
            lines += [f"  not readable: {fault}" for fault in split.faults]
        counted = [name for name, split in self.splits.items() if split.per_class]
        few = " (a classifier needs two)" if len(self.classes) < 2 else ""
        lines += ["", f"{len(self.classes)} classes{few}, {self.order}:"]
        width = max((len(name) for name in self.classes), default=0)
        empty = 0
        for number, name in enumerate(self.classes):
            images = [self.splits[split].per_class[number] for split in counted]
            if any(images):
                counts = ", ".join(f"{s} {n:,}" for s, n in zip(counted, images, strict=True))
                lines.append(f"  {number:>5}  {name:{width}}  {counts}")
            empty += not any(images)
        lines += [f"  {empty:,} of them have no images"] if empty else []
        return "\n".join(lines)


def describe(data: ImageData) -> Description:
    """Say which images a data set has, of which splits and classes, and in which order.

    Of images only the heads are read. What is wrong with single images or splits is told among the
    rest; what is wrong with the whole is an error.

    Parameters
    ----------
    data : ImageData
        Which. Its sizes, limits and so on have no influence.

    Raises
    ------
    InputError
        If there is nothing at its ``path``, or it is no data set.
    HoldfastError
        If the data cannot be read.

    Examples
    --------
    >>> found = describe(ImageData("digits"))
    >>> found.classes[:3], found.splits["train"].per_class[:3], found.splits["test"].sizes
    (('0', '1', '2'), (128, 131, 128), {(8, 8): 500})
    """
    tables, column, classes = _open(data)
    first = next(iter(tables.values()))
    return Description(
        data.path,
        _kind(data, first),
        classes,
        _order(first, column),
        {name: _describe(data, table, column, classes) for name, table in tables.items()},
    )


def contact_sheet(data: ImageData) -> Image.Image:
    """Draw some images of each class of each split, with boxes in red and masks in green.

    Parameters
    ----------
    data : ImageData
        Which; its ``box_format`` and columns count, sizes and limits do not.

    Raises
    ------
    InputError
        If there is nothing at its ``path``, or it is no data set.
    HoldfastError
        If the data cannot be read.

    Examples
    --------
    >>> contact_sheet(ImageData("digits")).size
    (1030, 1732)
    """
    tables, column, classes = _open(data)
    rows: list[tuple[str, list[Image.Image]]] = []
    for name, table in tables.items():
        rows.append((f"{name}: {len(table):,} images", []))
        rows += _rows(data, table, column, classes)
    height = sum(_SIDE + _GAP if images else _LINE for _, images in rows)
    sheet = Image.new("RGB", (_MARGIN + _EACH * (_SIDE + _GAP), height), _PAPER)
    draw, top = ImageDraw.Draw(sheet), 0
    for text, images in rows:
        _write(draw, text, top, _SIDE if images else _LINE)
        for place, image in enumerate(images):
            sheet.paste(image, (_MARGIN + place * (_SIDE + _GAP), top))
        top += _SIDE + _GAP if images else _LINE
    return sheet


def _open(
    data: ImageData,
) -> tuple[dict[str, datasets.Dataset], str | None, tuple[str, ...]]:
    """Open all splits; find the column of labels, if there is any, and the classes."""
    tables = data.tables()
    used = list((data.used(tables) or tables).values())
    if all(is_unlabelled(table) for table in used):
        return tables, None, ()
    labelled = next(table for table in used if not is_unlabelled(table))
    column = find_column(labelled, "label_column", data.label_column, data.path)
    return tables, column, class_names([t for t in used if column in t.column_names], column)


# --- in words -------------------------------------------------------------------------------------


def _describe(
    data: ImageData, table: datasets.Dataset, column: str | None, classes: tuple[str, ...]
) -> SplitDescription:
    faults: list[str] = []
    sizes: Counter[tuple[int, int]] = Counter()
    channels: Counter[str] = Counter()
    broken = 0
    try:
        images = _images(data, table)
        for row, encoded in enumerate(images):
            try:
                size, kind = image_header(encoded, row)
            except HoldfastError as error:
                broken += 1
                faults += [str(error)] * (broken <= _NAMED)
            else:
                sizes[size] += 1
                channels[kind] += 1
        faults += [f"{broken - _NAMED:,} more images"] * (broken > _NAMED)
    except HoldfastError as error:
        faults.append(str(error))
    labels = _labels(table, column, classes, faults)
    counts = () if labels is None else tuple(labels.bincount(minlength=len(classes)).tolist())
    try:
        boxes = read_boxes(table, data.box_format)
    except HoldfastError as error:
        boxes, faults = None, [*faults, str(error)]
    return SplitDescription(
        len(table),
        counts,
        dict(sizes.most_common()),
        dict(channels.most_common()),
        None if boxes is None else next(n for n in ("bbox", "boxes", "box") if n in table.features),
        find_planes(table, MASKS),
        find_planes(table, SALIENCY),
        tuple(faults),
    )


def _images(data: ImageData, table: datasets.Dataset) -> Any:
    column = find_column(table, "image_column", data.image_column, data.path)
    return encoded_images(table, column)[column]


def _labels(
    table: datasets.Dataset, column: str | None, classes: tuple[str, ...], faults: list[str]
) -> Integer[Tensor, " n"] | None:
    if column is None or column not in table.column_names:
        faults.append("labels, as there are none")
        return None
    try:
        return read_labels(table, column, classes)
    except HoldfastError as error:
        faults.append(str(error))
        return None


def _kind(data: ImageData, table: datasets.Dataset) -> str:
    if data.path == "digits":
        return "handwritten digits of scikit-learn"
    if table.info.builder_name == FOLDER:
        return "a folder of images"
    if table.info.builder_name == PARQUET:
        return "Parquet"
    return "a data set on the Hugging Face hub"


def _order(table: datasets.Dataset, column: str | None) -> str:
    if column is None or table.info.builder_name == FOLDER:
        return "in the order of the alphabet, or by value if all are numbers"
    if isinstance(table.features[column], datasets.ClassLabel):
        return "in the order that the table says"
    if table.features[column].dtype in ("string", "large_string"):
        return "in the order of the alphabet, or by value if all are numbers"
    return "which the labels number"


def _sizes(sizes: dict[tuple[int, int], int]) -> str:
    if len(sizes) > _NAMED:
        heights, widths = zip(*sizes, strict=True)
        ranges = f"{min(heights)} to {max(heights)} high, {min(widths)} to {max(widths)} wide"
        return f"{ranges} ({len(sizes):,} sizes)"
    named = [f"{height}×{width}" for height, width in sizes]
    if len(sizes) == 1:
        return f"all {named[0]} (height × width)"
    return ", ".join(f"{count:,} of {n}" for n, count in zip(named, sizes.values(), strict=True))


def _counts(kinds: dict[str, int]) -> str:
    if len(kinds) == 1:
        return f"all {next(iter(kinds))}"
    return ", ".join(f"{count:,} {kind}" for kind, count in kinds.items())


# --- the sheet ------------------------------------------------------------------------------------


def _rows(
    data: ImageData, table: datasets.Dataset, column: str | None, classes: tuple[str, ...]
) -> list[tuple[str, list[Image.Image]]]:
    """Draw the rows of a split, one a class."""
    labels = _labels(table, column, classes, [])
    if labels is None:
        return [("without labels", _thumbnails(data, table, np.arange(len(table))))]
    by_class = {n: (labels == n).nonzero().flatten().numpy() for n in range(len(classes))}
    present = [number for number, rows in by_class.items() if len(rows)]
    drawn = [
        (f"{classes[n]}\n{len(by_class[n]):,}", _thumbnails(data, table, by_class[n]))
        for n in present[:_CLASSES]
    ]
    more = len(present) - _CLASSES
    return [*drawn, (f"and {more:,} classes more", [])] if more > 0 else drawn


def _thumbnails(data: ImageData, table: datasets.Dataset, rows: np.ndarray) -> list[Image.Image]:
    """Draw some of these images, evenly over all; what cannot be read is an empty frame."""
    chosen = rows[
        np.unique(np.linspace(0, len(rows) - 1, min(_EACH, len(rows))).round().astype(int))
    ]
    images = _images(data, table)
    mask_column = find_planes(table, MASKS)
    boxes = read_boxes(table, data.box_format)
    drawn = []
    for row in chosen.tolist():
        frame = Image.new("RGB", (_SIDE, _SIDE), "white")
        drawn.append(frame)
        try:
            image = open_image(images[row], row).convert("RGB")
        except HoldfastError:
            ImageDraw.Draw(frame).line((0, 0, _SIDE, _SIDE), _RED)
            continue
        if mask_column is not None:
            image = _tinted(
                image,
                EncodedPlanes(
                    table,
                    mask_column,
                    [row],
                    Framing((image.height, image.width), fit="squash"),
                    "mask",
                ),
            )
        scale = _SIDE / max(image.size)
        size = [max(1, round(side * scale)) for side in image.size]
        left, top = ((_SIDE - side) // 2 for side in size)
        frame.paste(image.resize((size[0], size[1])), (left, top))
        if boxes is not None and not boxes[row].isnan().any():
            x0, y0, x1, y1 = (boxes[row] * scale).tolist()
            corners = (left + x0, top + y0, left + x1 - 1, top + y1 - 1)
            if corners[0] <= corners[2] and corners[1] <= corners[3]:
                ImageDraw.Draw(frame).rectangle(corners, outline=_RED, width=2)
    return drawn


def _tinted(image: Image.Image, mask: EncodedPlanes) -> Image.Image:
    """Lay green on what a mask holds, half transparent."""
    plane = mask.read([0])[0][0].nan_to_num(0).clamp(0, 1).numpy()
    share = Image.fromarray((plane * 127).round().astype(np.uint8))
    return Image.composite(Image.new("RGB", image.size, _GREEN), image, share)


def _write(draw: ImageDraw.ImageDraw, text: str, top: int, height: int) -> None:
    font = ImageFont.truetype(f"{matplotlib.get_data_path()}/fonts/ttf/DejaVuSans.ttf", 12)
    lines = [line if len(line) <= 26 else f"{line[:25]}…" for line in text.splitlines()]
    draw.text((8, top + height / 2), "\n".join(lines), _INK, font, "lm")
