"""Writing images, labels, boxes and masks as Parquet, each looked at before it is written."""

from __future__ import annotations

import io
import os
from collections import Counter
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from holdfast.contracts import HoldfastError
from holdfast.data.images import open_image
from holdfast.files import whole_folder

__all__ = ["BrokenError", "Found", "Imported", "Layout", "check_inside", "write_layout"]

_ROWS_A_GROUP = 256
_BYTES = 500_000_000
"""Of one image: more is none, and may be all memory."""


class BrokenError(Exception):
    """One image is not as it must be; says where and why. It may be skipped."""


@dataclass(frozen=True)
class Found:
    """One image, as far as the tables of a layout tell.

    Attributes
    ----------
    split : str
        The file that it goes to, less the ending: ``train``, ``test``, ``fog/3/test``.
    place : str
        Where the tables name it: file and row.
    image : Path or ndarray
        Its file, or its pixels (H, W, 3).
    label : int
        Its class.
    box : tuple of float, optional
        x0, y0, x1, y1 in pixels, and ``box_place``, where that stands.
    mask : Path or ndarray, optional
        A mask of the object: its file, or its pixels (H, W).
    """

    split: str
    place: str
    image: Path | np.ndarray
    label: int
    box: tuple[float, float, float, float] | None = None
    box_place: str = ""
    mask: Path | np.ndarray | None = None


@dataclass(frozen=True)
class Layout:
    """What a folder in an official layout holds.

    Attributes
    ----------
    classes : tuple of str
        The name of each class.
    images : iterable of callables
        Each gives one `Found`, or raises `BrokenError`.
    boxes, masks : bool
        Whether there are any.
    root : Path, optional
        The folder that no file may lie outside of.
    """

    classes: tuple[str, ...]
    images: Iterable[Callable[[], Found]]
    boxes: bool = False
    masks: bool = False
    root: Path | None = None


@dataclass(frozen=True)
class Imported:
    """What an import has written.

    Attributes
    ----------
    folder : Path
        Where; ``ImageData(str(folder))`` opens it.
    images : dict of str to int
        How many images each file holds, by its name less the ending.
    skipped : list of str
        What was left out, and why.

    Examples
    --------
    >>> print(Imported(Path("birds"), {"train": 5_994, "test": 5_793}, ["images.txt, row 7: …"]))
    birds: train 5,994, test 5,793; 1 broken skipped
    """

    folder: Path
    images: dict[str, int]
    skipped: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        counts = ", ".join(f"{split} {count:,}" for split, count in self.images.items())
        left_out = f"; {len(self.skipped):,} broken skipped" if self.skipped else ""
        return f"{self.folder}: {counts}{left_out}"


def write_layout(layout: Layout, dst: Path, skip_broken: bool) -> Imported:
    """Write every image of a layout to the Parquet file of its split.

    The folder appears when all is done, by one rename. An error leaves nothing behind, and what a
    killed process has left goes with the next import to that folder.

    Raises
    ------
    HoldfastError
        If an image, label, box or mask is not as it must be, and ``skip_broken`` is false; if there
        is something in ``dst`` already, or it cannot be written; if no image is left.

    Examples
    --------
    >>> import tempfile
    >>> grey = Found("train", "row 1", np.full((8, 8, 3), 127, dtype=np.uint8), label=0)
    >>> layout = Layout(("grey",), [lambda: grey])
    >>> write_layout(layout, Path(tempfile.mkdtemp()), skip_broken=False).images
    {'train': 1}
    """
    counts: Counter[str] = Counter()
    skipped = []
    with whole_folder(dst) as unfinished, ExitStack() as files:
        writers: dict[str, _Writer] = {}
        for find in layout.images:
            try:
                found = find()
                row = _checked(found, len(layout.classes), layout.root)
            except BrokenError as fault:
                if not skip_broken:
                    raise HoldfastError(str(fault)) from fault
                skipped.append(str(fault))
                continue
            if found.split not in writers:
                file = _file_of(found.split, unfinished)
                writers[found.split] = files.enter_context(_Writer(file, layout))
            writers[found.split].add(row)
            counts[found.split] += 1
        if not counts:
            reason = f"; {skipped[0]}" if skipped else ""
            raise HoldfastError(f"there is no image to import{reason}")
    return Imported(dst, dict(counts), skipped)


class _Writer:
    """A Parquet file that grows by groups of rows, and knows the types of its columns."""

    def __init__(self, path: Path, layout: Layout) -> None:
        columns: dict[str, Any] = {
            "image": datasets.Image(),
            "label": datasets.ClassLabel(names=list(layout.classes)),
        }
        if layout.boxes:
            columns["bbox"] = datasets.Sequence(datasets.Value("float32"), length=4)
        if layout.masks:
            columns["mask"] = datasets.Image()
        self.columns = list(columns)
        self.schema = datasets.Features(columns).arrow_schema
        self.rows: list[dict[str, Any]] = []
        self.file = pq.ParquetWriter(path, self.schema)

    def add(self, row: dict[str, Any]) -> None:
        self.rows.append({name: row.get(name) for name in self.columns})
        if len(self.rows) >= _ROWS_A_GROUP:
            self.flush()

    def flush(self) -> None:
        if self.rows:
            self.file.write_table(pa.Table.from_pylist(self.rows, schema=self.schema))
            self.rows = []

    def __enter__(self) -> _Writer:
        return self

    def __exit__(self, fault: object, *_: object) -> None:
        try:
            if fault is None:
                self.flush()
        finally:
            self.file.close()


def check_inside(file: Path, root: Path) -> None:
    """Refuse a file that lies outside of a folder, by its name or by a link on its way.

    Raises
    ------
    BrokenError
        Names both.

    Examples
    --------
    >>> check_inside(Path("birds/../../passwd"), Path("birds"))
    Traceback (most recent call last):
        ...
    holdfast.data.importing.BrokenError: birds/../../passwd leads out of birds
    """
    try:
        outside = not Path(os.path.realpath(file)).is_relative_to(os.path.realpath(root))
    except (OSError, ValueError):  # a name with NUL
        outside = True
    if outside or ".." in file.relative_to(root).parts:
        raise BrokenError(f"{file} leads out of {root}")


def _file_of(split: str, folder: Path) -> Path:
    file = folder / f"{split}.parquet"
    if {"", ".", ".."} & set(split.split("/")) or "\0" in split or len(split) > 200:
        raise HoldfastError(f"{split!r} is no name of a split")
    file.parent.mkdir(parents=True, exist_ok=True)
    return file


def _checked(found: Found, classes: int, root: Path | None) -> dict[str, Any]:
    """Look at an image and what belongs to it; return its row of the table."""
    if not 0 <= found.label < classes:
        raise BrokenError(f"{found.place}: class {found.label} is none of 0 to {classes - 1}")
    image, (width, height) = _encoded(found.image, found.place, root)
    row: dict[str, Any] = {"image": image, "label": found.label}
    if found.box is not None:
        row["bbox"] = _inside(found.box, width, height, found.box_place or found.place)
    if found.mask is not None:
        row["mask"], size = _encoded(found.mask, found.place, root)
        if size != (width, height):
            fault = f"a mask of {size[0]}×{size[1]} pixels for an image of {width}×{height}"
            raise BrokenError(f"{found.place}: {fault}")
    return row


def _encoded(
    image: Path | np.ndarray, place: str, root: Path | None
) -> tuple[dict[str, Any], tuple[int, int]]:
    """Return an image as PNG or JPEG bytes, and its width and height; refuse a broken one."""
    if isinstance(image, np.ndarray):
        content, name = _png(Image.fromarray(image)), None
        return {"bytes": content, "path": name}, (image.shape[1], image.shape[0])
    try:
        if root is not None:
            check_inside(image, root)
        if not image.is_file():
            raise BrokenError(f"there is no file {image}")
        if image.stat().st_size > _BYTES:
            raise BrokenError(f"{image} has {image.stat().st_size:,} bytes, more than images have")
        content = image.read_bytes()
    except BrokenError as fault:
        raise BrokenError(f"{place}: {fault}") from fault
    except OSError as error:  # a name too long, a file that is not to be read
        raise BrokenError(f"{place}: {image} cannot be read: {error.strerror}") from error
    try:
        picture = open_image({"bytes": content, "path": None}, 0)
    except HoldfastError as error:
        raise BrokenError(f"{place}: {image} cannot be read: {error.__cause__}") from error
    if image.suffix.lower() not in (".png", ".jpg", ".jpeg"):
        return {"bytes": _png(picture), "path": f"{image.stem}.png"}, picture.size
    return {"bytes": content, "path": image.name}, picture.size


def _png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()


def _inside(
    box: tuple[float, float, float, float], width: int, height: int, place: str
) -> list[float]:
    """Cut a box at the border of its image; refuse one that is empty or more than a pixel off."""
    x0, y0, x1, y1 = box
    shown = f"box {x0:g}, {y0:g}, {x1:g}, {y1:g}"
    if not (x0 < x1 and y0 < y1):  # nor if one is NaN
        raise BrokenError(f"{place}: {shown} holds no pixel")
    if not (x0 >= -1 and y0 >= -1 and x1 <= width + 1 and y1 <= height + 1):
        raise BrokenError(f"{place}: {shown} is not inside its image of {width}×{height} pixels")
    return [max(x0, 0.0), max(y0, 0.0), min(x1, float(width)), min(y1, float(height))]
