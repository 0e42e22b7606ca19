"""The layouts in which data sets are published, read into the one format of Holdfast.

Nothing is downloaded: what is read is the unpacked official archive.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from scipy.io import loadmat

from holdfast.contracts import HoldfastError, InputError
from holdfast.data.importing import BrokenError, Found, Imported, Layout, write_layout

__all__ = ["LAYOUTS", "import_layout"]


def import_layout(
    name: str, src: str | Path, dst: str | Path, skip_broken: bool = False
) -> Imported:
    """Turn a data set in its official layout into Parquet that `ImageData` opens.

    Parameters
    ----------
    name : str
        Which layout:

        - ``cub-200``: Caltech-UCSD Birds 200-2011, with boxes, and with masks if ``segmentations/``
          lies beside ``images/``. Splits as published.
        - ``tiny-imagenet``: Tiny ImageNet, with boxes. What it calls "val" becomes "test", as the
          labels of its own test images are not public.
        - ``gtsrb``: German Traffic Sign Recognition Benchmark, with boxes.
          ``GT-final_test.csv`` may lie in any of its folders.
        - ``flower-17``: Oxford 17 category flowers, with masks of those images that have one if
          ``trimaps/`` lies beside ``jpg/``. The first split of ``datasplits.mat``: "train",
          "validation" and "test".
        - ``cifar-10-c``: CIFAR-10-C; ``dst/fog/3`` is then a data set with one split, "test", for
          corruption "fog" at severity 3.

    src : str or Path
        The folder with the unpacked archive.
    dst : str or Path
        The folder to write to: ``train.parquet``, ``test.parquet`` and so on.
    skip_broken : bool
        Leave out what is broken, and say so, rather than stop at it.

    Returns
    -------
    Imported
        How many images each file holds, and what was skipped.

    Raises
    ------
    InputError
        If there is no such layout or folder.
    HoldfastError
        If a table is missing or lacks a column; or, unless ``skip_broken``, if an image cannot be
        read, a label is wrong, or a box reaches out of its image by more than a pixel. Names the
        file and the row. Nothing is written then.

    Examples
    --------
    >>> import tempfile
    >>> folder = Path(tempfile.mkdtemp())
    >>> np.save(folder / "labels.npy", np.arange(5))
    >>> np.save(folder / "fog.npy", np.zeros((5, 32, 32, 3), dtype=np.uint8))
    >>> import_layout("cifar-10-c", folder, folder / "parquet").images["fog/3/test"]
    1
    """
    if name not in LAYOUTS:
        raise InputError("layout", repr(name), f"one of {', '.join(LAYOUTS)}")
    src, dst = Path(src).expanduser(), Path(dst).expanduser()
    if not src.is_dir():
        raise InputError("src", repr(str(src)), "a folder that exists")
    return write_layout(LAYOUTS[name](src), dst, skip_broken)


@dataclass(frozen=True)
class _Row:
    """A row of a table of text, and where it stands."""

    place: str
    values: tuple[str, ...]

    def take(self, count: int) -> tuple[str, ...]:
        if len(self.values) != count:
            shown = " ".join(self.values)
            raise BrokenError(f"{self.place}: expected {count} values, got {shown!r}")
        return self.values

    def numbers(self, values: tuple[str, ...]) -> tuple[float, ...]:
        try:
            numbers = tuple(float(value) for value in values)
        except ValueError:
            numbers = (math.nan,)
        if not all(map(math.isfinite, numbers)):
            raise BrokenError(f"{self.place}: expected numbers, got {' '.join(values)!r}")
        return numbers


def _cub(src: Path) -> Layout:
    root = _root(src, "images.txt", "CUB_200_2011")
    classes = dict(_complete(root / "classes.txt", 2))
    labels, boxes, training = (
        {row.values[0]: row for row in _rows(root / f"{name}.txt")}
        for name in ("image_class_labels", "bounding_boxes", "train_test_split")
    )
    numbers = {key: number for number, key in enumerate(classes)}
    masks = root / "segmentations"

    def find(row: _Row) -> Found:
        key, name = row.take(2)
        label, box, split = (
            _of(row, key, table, file)
            for table, file in (
                (labels, "image_class_labels.txt"),
                (boxes, "bounding_boxes.txt"),
                (training, "train_test_split.txt"),
            )
        )
        own = label.take(2)[1]
        if own not in classes:
            raise BrokenError(f"{label.place}: class {own!r} is none of classes.txt")
        if Path(name).parts[0] != classes[own]:
            raise BrokenError(f"{label.place}: class {classes[own]} for {name}")
        if split.take(2)[1] not in ("0", "1"):
            raise BrokenError(f"{split.place}: expected 0 or 1, got {split.values[1]!r}")
        x, y, width, height = box.numbers(box.take(5)[1:])
        return Found(
            "train" if split.values[1] == "1" else "test",
            row.place,
            root / "images" / name,
            numbers[own],
            (x, y, x + width, y + height),
            box.place,
            (masks / name).with_suffix(".png") if masks.is_dir() else None,
        )

    names = tuple(name.partition(".")[2].replace("_", " ") or name for name in classes.values())
    rows = [partial(find, row) for row in _rows(root / "images.txt")]
    return Layout(names, rows, boxes=True, masks=masks.is_dir())


def _tiny_imagenet(src: Path) -> Layout:
    root = _root(src, "wnids.txt", "tiny-imagenet-200")
    wordnet = [key for (key,) in _complete(root / "wnids.txt", 1)]
    numbers = {key: number for number, key in enumerate(wordnet)}
    glosses = {row.values[0]: row.values[-1] for row in _rows(root / "words.txt", "\t")}
    names = [glosses.get(key, key).partition(",")[0] for key in wordnet]
    unique = tuple(
        f"{name} ({key})" if names.count(name) > 1 else name
        for name, key in zip(names, wordnet, strict=True)
    )

    def find(row: _Row, split: str, folder: Path, key: str | None) -> Found:
        name, *rest = row.take(5 if key else 6)
        own = key or rest.pop(0)
        if own not in numbers:
            raise BrokenError(f"{row.place}: class {own!r} is none of wnids.txt")
        # They name the last pixel, where a box of ours ends behind it.
        x0, y0, x1, y1 = row.numbers(tuple(rest))
        box = (x0, y0, x1 + 1, y1 + 1)
        return Found(split, row.place, folder / "images" / name, numbers[own], box)

    def images() -> Iterator[Callable[[], Found]]:
        for key in wordnet:
            folder = root / "train" / key
            for row in _rows(folder / f"{key}_boxes.txt", "\t"):
                yield partial(find, row, "train", folder, key)
        for row in _rows(root / "val" / "val_annotations.txt", "\t"):
            yield partial(find, row, "test", root / "val", None)

    return Layout(unique, images(), boxes=True)


_TEST_TRUTH = "GT-final_test.csv"
_GTSRB_COLUMNS = ("Filename", "Roi.X1", "Roi.Y1", "Roi.X2", "Roi.Y2", "ClassId")


def _gtsrb(src: Path) -> Layout:
    root = _root(src, "Final_Training", "GTSRB")
    test = root / "Final_Test" / "Images"
    folders = sorted((root / "Final_Training" / "Images").glob("[0-9]*"))
    truths = [path for path in (test, test.parent, root, src) if (path / _TEST_TRUTH).is_file()]
    if not truths:
        raise HoldfastError(f"{test / _TEST_TRUTH} is missing, the labels of the test images")

    def find(row: _Row, split: str, folder: Path) -> Found:
        name, *rest = row.take(len(_GTSRB_COLUMNS))
        x0, y0, x1, y1, label = row.numbers(tuple(rest))
        if split == "train" and folder.name != f"{label:05.0f}":
            raise BrokenError(f"{row.place}: class {label:g} in folder {folder.name}")
        return Found(split, row.place, folder / name, _whole(label, row), (x0, y0, x1, y1))

    def images() -> Iterator[Callable[[], Found]]:
        for folder in folders:
            for row in _columns(folder / f"GT-{folder.name}.csv", _GTSRB_COLUMNS):
                yield partial(find, row, "train", folder)
        for row in _columns(truths[0] / _TEST_TRUTH, _GTSRB_COLUMNS):
            yield partial(find, row, "test", test)

    return Layout(tuple(str(number) for number in range(43)), images(), boxes=True)


_FLOWERS = (
    "daffodil",
    "snowdrop",
    "lily of the valley",
    "bluebell",
    "crocus",
    "iris",
    "tigerlily",
    "tulip",
    "fritillary",
    "sunflower",
    "daisy",
    "coltsfoot",
    "dandelion",
    "cowslip",
    "buttercup",
    "windflower",
    "pansy",
)
_FLOWERS_A_CLASS = 80
_FLOWER_IN_TRIMAP = (128, 0, 0)


def _flower(src: Path) -> Layout:
    root = _root(src, "jpg", "17flowers")
    splits = _matrices(_one_of(root / "datasplits.mat", root / "jpg" / "datasplits.mat"))
    trimaps = root / "trimaps"

    def find(number: int, split: str, place: str) -> Found:
        total = _FLOWERS_A_CLASS * len(_FLOWERS)
        if not 1 <= number <= total:
            raise BrokenError(f"{place}: image {number} is none of 1 to {total}")
        name = f"image_{number:04d}"
        trimap = trimaps / f"{name}.png"
        mask = _flower_mask(trimap) if trimap.is_file() else None
        label = (number - 1) // _FLOWERS_A_CLASS
        return Found(split, place, root / "jpg" / f"{name}.jpg", label, mask=mask)

    images = []
    for key, split in (("trn1", "train"), ("val1", "validation"), ("tst1", "test")):
        if key not in splits:
            raise HoldfastError(f"{root / 'datasplits.mat'}: no variable {key}")
        for row, number in enumerate(splits[key].ravel().tolist(), 1):
            place = f"{root / 'datasplits.mat'}, {key}, entry {row}"
            images.append(partial(find, int(number), split, place))
    return Layout(_FLOWERS, images, masks=trimaps.is_dir())


def _flower_mask(trimap: Path) -> np.ndarray:
    try:
        colours = np.asarray(Image.open(trimap).convert("RGB"))
    except Exception as error:  # a broken file makes Pillow fail in any way at all
        raise BrokenError(f"{trimap} cannot be read: {error}") from error
    return (colours == _FLOWER_IN_TRIMAP).all(2).astype(np.uint8) * 255


_CIFAR = (
    "airplane",
    "automobile",
    "bird",
    "cat",
    "deer",
    "dog",
    "frog",
    "horse",
    "ship",
    "truck",
)
_SEVERITIES = 5


def _cifar_c(src: Path) -> Layout:
    root = _root(src, "labels.npy", "CIFAR-10-C")
    labels = _array(root / "labels.npy")
    if labels.ndim != 1 or len(labels) == 0 or len(labels) % _SEVERITIES:
        expected = "one label an image, for five severities"
        raise HoldfastError(f"{root / 'labels.npy'}: expected {expected}, got {labels.shape}")
    files = sorted(path for path in root.glob("*.npy") if path.name != "labels.npy")

    def find(pixels: np.ndarray, row: int, corruption: str, place: str) -> Found:
        severity = row // (len(labels) // _SEVERITIES) + 1
        split = f"{corruption}/{severity}/test"
        return Found(split, place, np.asarray(pixels[row]), int(labels[row]))

    def images() -> Iterator[Callable[[], Found]]:
        for file in files:
            pixels = _array(file)
            if pixels.shape != (len(labels), 32, 32, 3) or pixels.dtype != np.uint8:
                came = f"{pixels.dtype} of shape {pixels.shape}"
                raise HoldfastError(
                    f"{file}: expected uint8 ({len(labels)}, 32, 32, 3), got {came}"
                )
            for row in range(len(labels)):
                yield partial(find, pixels, row, file.stem, f"{file}, row {row}")

    return Layout(_CIFAR, images())


LAYOUTS: dict[str, Callable[[Path], Layout]] = {
    "cub-200": _cub,
    "tiny-imagenet": _tiny_imagenet,
    "gtsrb": _gtsrb,
    "flower-17": _flower,
    "cifar-10-c": _cifar_c,
}
"""The layouts that `import_layout` reads, by name."""


def _root(src: Path, sign: str, folder: str) -> Path:
    """Return the folder that holds ``sign``: this one, or the one that the archive unpacks to."""
    for root in (src, src / folder):
        if (root / sign).exists():
            return root
    raise HoldfastError(f"{src / sign} is missing, by which this layout is known")


def _one_of(*files: Path) -> Path:
    return next((file for file in files if file.is_file()), files[0])


def _rows(file: Path, separator: str | None = None) -> list[_Row]:
    """Read a table of text without a header, less its empty rows."""
    lines = _text(file).splitlines()
    return [
        _Row(f"{file}, row {number}", tuple(line.strip().split(separator)))
        for number, line in enumerate(lines, 1)
        if line.strip()
    ]


def _columns(file: Path, columns: tuple[str, ...]) -> list[_Row]:
    """Read these columns of a table with a header and semicolons."""
    table = csv.DictReader(_text(file).splitlines(), delimiter=";")
    missing = [name for name in columns if name not in (table.fieldnames or ())]
    if missing:
        there = ", ".join(table.fieldnames or ()) or "none"
        raise HoldfastError(f"{file}: no column {', '.join(missing)}; its columns are {there}")
    return [
        _Row(f"{file}, row {number}", tuple(row[name] for name in columns if row[name] is not None))
        for number, row in enumerate(table, 2)
    ]


def _text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise HoldfastError(f"{file} is missing") from None
    except (OSError, UnicodeDecodeError) as error:
        raise HoldfastError(f"{file} cannot be read: {error}") from error


def _complete(file: Path, count: int) -> list[Any]:
    """Read a table of which no row may be skipped: the classes after it would change number."""
    try:
        return [row.take(count) for row in _rows(file)]
    except BrokenError as fault:
        raise HoldfastError(str(fault)) from fault


def _of(row: _Row, key: str, table: dict[str, _Row], name: str) -> _Row:
    if key not in table:
        raise BrokenError(f"{row.place}: image {key} has no row in {name}")
    return table[key]


def _whole(number: float, row: _Row) -> int:
    if number != int(number):
        raise BrokenError(f"{row.place}: expected a class, got {number:g}")
    return int(number)


def _matrices(file: Path) -> dict[str, Any]:
    if not file.is_file():
        raise HoldfastError(f"{file} is missing")
    try:
        return loadmat(file)
    except Exception as error:  # a broken file makes scipy fail in any way at all
        raise HoldfastError(f"{file} cannot be read: {error}") from error


def _array(file: Path) -> np.ndarray:
    try:
        return np.load(file, mmap_mode="r")
    except Exception as error:  # a broken file makes NumPy fail in any way at all
        raise HoldfastError(f"{file} cannot be read: {error}") from error
