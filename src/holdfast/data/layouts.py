"""The layouts in which data sets are published, read into the one format of Holdfast.

Nothing is downloaded: what is read is the unpacked official archive.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np

from holdfast.contracts import HoldfastError, InputError
from holdfast.data.imagenette import imagenette
from holdfast.data.images import open_image
from holdfast.data.importing import (
    BrokenError,
    Found,
    Imported,
    Layout,
    check_inside,
    write_layout,
)
from holdfast.data.published import Row, array, columns, complete, matrices, rows

__all__ = ["LAYOUTS", "import_layout"]


def import_layout(
    name: str,
    src: str | Path,
    dst: str | Path,
    skip_broken: bool = False,
    boxes: str | Path | None = None,
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
        - ``gtsrb-tracks``: the same with a tenth of the tracks of each class, rounded up, as
          "validation", which makes the papers' 34,799, 4,410 and 12,630 images. A track is thirty
          pictures of one sign. Which tracks they took is not published; here every tenth.
        - ``flower-17``: Oxford 17 category flowers, with masks of those images that have one if
          ``trimaps/`` lies beside ``jpg/``. The first split of ``datasplits.mat``: "train",
          "validation" and "test".
        - ``flower-17-72-8``: the same split as in the papers, 72 images of each class to train on
          and 8 to test on, 1,224 and 136. Which ones is drawn as in the public code of Robust
          Attribution Regularization, where the file system lists files in the order of their names.
        - ``imagenette``: ImageNette in its folders ``train/`` and ``val/``, which becomes "test",
          with the boxes of ILSVRC's annotations (XML) for those images that have one: the largest
          of the class.
        - ``cifar-10-c``: CIFAR-10-C; ``dst/fog/3`` is then a data set with one split, "test", for
          corruption "fog" at severity 3.

    src : str or Path
        The folder with the unpacked archive.
    dst : str or Path
        The folder to write to: ``train.parquet``, ``test.parquet`` and so on.
    skip_broken : bool
        Leave out what is broken, and say so, rather than stop at it.
    boxes : str or Path, optional
        For ``imagenette`` alone: the folder of ILSVRC's annotations, which has ``train/WNID/*.xml``
        and ``val/*.xml``. By default they are looked for in ``src``.

    Returns
    -------
    Imported
        How many images each file holds, and what was skipped.

    Raises
    ------
    InputError
        If there is no such layout or folder, or ``boxes`` are named for another layout.
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
    src, dst = _folder(src, "src"), _folder(dst, "dst")
    if not src.is_dir():
        raise InputError("src", repr(str(src)), "a folder that exists")
    read = LAYOUTS[name]
    if boxes is not None:
        if name != "imagenette":
            raise InputError("boxes", repr(str(boxes)), "none: this layout has its own")
        boxes = _folder(boxes, "boxes")
        if not boxes.is_dir():
            raise InputError("boxes", repr(str(boxes)), "a folder that exists")
        read = partial(imagenette, boxes=boxes)
    try:
        layout = read(src)
        return write_layout(replace(layout, root=src), dst, skip_broken)
    except BrokenError as fault:  # in a table that no image may be skipped for
        raise HoldfastError(str(fault)) from fault


def _folder(path: str | Path, argument: str) -> Path:
    try:
        folder = Path(path).expanduser()
        folder.is_dir()
    except (OSError, RuntimeError) as error:  # a name too long; the home of nobody
        reason = error.strerror if isinstance(error, OSError) else error
        raise InputError(argument, f"{str(path)[:100]!r} ({reason})", "a folder") from error
    if "\0" in str(folder):
        raise InputError(argument, repr(str(path)), "a folder")
    return folder


def _cub(src: Path) -> Layout:
    root = _root(src, "images.txt", "CUB_200_2011")
    classes = dict(complete(src, root / "classes.txt", 2))
    labels, boxes, training = (
        {row.values[0]: row for row in rows(src, root / f"{name}.txt")}
        for name in ("image_class_labels", "bounding_boxes", "train_test_split")
    )
    numbers = {key: number for number, key in enumerate(classes)}
    masks = root / "segmentations"

    def find(row: Row) -> Found:
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
        if Path(name).parts[:1] != (classes[own],):
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
            masks / f"{Path(name).with_suffix('.png')}" if masks.is_dir() else None,
        )

    names = tuple(name.partition(".")[2].replace("_", " ") or name for name in classes.values())
    images = [partial(find, row) for row in rows(src, root / "images.txt")]
    return Layout(names, images, boxes=True, masks=masks.is_dir())


def _tiny_imagenet(src: Path) -> Layout:
    root = _root(src, "wnids.txt", "tiny-imagenet-200")
    wordnet = [key for (key,) in complete(src, root / "wnids.txt", 1)]
    numbers = {key: number for number, key in enumerate(wordnet)}
    glosses = {row.values[0]: row.values[-1] for row in rows(src, root / "words.txt", "\t")}
    names = [glosses.get(key, key).partition(",")[0] for key in wordnet]
    unique = tuple(
        f"{name} ({key})" if names.count(name) > 1 else name
        for name, key in zip(names, wordnet, strict=True)
    )

    def find(row: Row, split: str, folder: Path, key: str | None) -> Found:
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
            for row in rows(src, folder / f"{key}_boxes.txt", "\t"):
                yield partial(find, row, "train", folder, key)
        for row in rows(src, root / "val" / "val_annotations.txt", "\t"):
            yield partial(find, row, "test", root / "val", None)

    return Layout(unique, images(), boxes=True)


_TEST_TRUTH = "GT-final_test.csv"
_GTSRB_COLUMNS = ("Filename", "Roi.X1", "Roi.Y1", "Roi.X2", "Roi.Y2", "ClassId")


_TRACKS = 10
"""One track in so many is held out."""


def _gtsrb(src: Path, tracks: bool = False) -> Layout:
    root = _root(src, "Final_Training", "GTSRB")
    test = root / "Final_Test" / "Images"
    folders = sorted((root / "Final_Training" / "Images").glob("[0-9]*"))
    truths = [path for path in (test, test.parent, root, src) if (path / _TEST_TRUTH).is_file()]
    if not truths:
        raise HoldfastError(f"{test / _TEST_TRUTH} is missing, the labels of the test images")

    def find(row: Row, split: str, folder: Path) -> Found:
        name, *rest = row.take(len(_GTSRB_COLUMNS))
        x0, y0, x1, y1, label = row.numbers(tuple(rest))
        if split == "train" and folder.name != f"{label:05.0f}":
            raise BrokenError(f"{row.place}: class {label:g} in folder {folder.name}")
        if split == "train" and tracks and _track(name, row) % _TRACKS == 0:
            split = "validation"
        return Found(split, row.place, folder / name, _whole(label, row), (x0, y0, x1, y1))

    def images() -> Iterator[Callable[[], Found]]:
        for folder in folders:
            for row in columns(src, folder / f"GT-{folder.name}.csv", _GTSRB_COLUMNS):
                yield partial(find, row, "train", folder)
        for row in columns(src, truths[0] / _TEST_TRUTH, _GTSRB_COLUMNS):
            yield partial(find, row, "test", test)

    return Layout(tuple(str(number) for number in range(43)), images(), boxes=True)


def _track(name: str, row: Row) -> int:
    """Return the number of the track that an image is of: ``00003_00012.ppm`` is of track 3."""
    track, _, picture = name.partition("_")
    if not (track.isdecimal() and picture):
        raise BrokenError(f"{row.place}: expected TRACK_PICTURE.ppm, got {name[:100]!r}")
    return int(track)


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
    splits = matrices(src, _one_of(root / "datasplits.mat", root / "jpg" / "datasplits.mat"))
    images = []
    for key, split in (("trn1", "train"), ("val1", "validation"), ("tst1", "test")):
        if key not in splits:
            raise HoldfastError(f"{root / 'datasplits.mat'}: no variable {key}")
        entries = np.asarray(splits[key])
        if (
            entries.dtype.kind not in "iuf"
            or not (np.isfinite(entries) & (entries == np.floor(entries))).all()
        ):
            raise HoldfastError(f"{root / 'datasplits.mat'}: {key} holds more than whole numbers")
        for row, number in enumerate(entries.ravel().tolist(), 1):
            place = f"{root / 'datasplits.mat'}, {key}, entry {row}"
            images.append(partial(_found_flower, src, root, int(number), split, place))
    return Layout(_FLOWERS, images, masks=(root / "trimaps").is_dir())


_FLOWERS_TO_TRAIN_ON = 72
_FLOWERS_SEED = 4557077
"""Of the public code of Robust Attribution Regularization."""


def _flower_72_8(src: Path) -> Layout:
    root = _root(src, "jpg", "17flowers")
    # Class folders 0, 1, 10, 11, … as text is sorted, and their images as they are numbered.
    folders = sorted(range(len(_FLOWERS)), key=str)
    listed = [_FLOWERS_A_CLASS * k + n for k in folders for n in range(1, _FLOWERS_A_CLASS + 1)]
    seen: Counter[int] = Counter()
    images = []
    for place in np.random.RandomState(_FLOWERS_SEED).permutation(len(listed)).tolist():
        number = listed[place]
        label = (number - 1) // _FLOWERS_A_CLASS
        seen[label] += 1
        split = "train" if seen[label] <= _FLOWERS_TO_TRAIN_ON else "test"
        images.append(partial(_found_flower, src, root, number, split, f"image {number}"))
    return Layout(_FLOWERS, images, masks=(root / "trimaps").is_dir())


def _found_flower(src: Path, root: Path, number: int, split: str, place: str) -> Found:
    total = _FLOWERS_A_CLASS * len(_FLOWERS)
    if not 1 <= number <= total:
        raise BrokenError(f"{place}: image {number} is none of 1 to {total}")
    name = f"image_{number:04d}"
    trimap = root / "trimaps" / f"{name}.png"
    mask = _flower_mask(src, trimap) if trimap.is_file() else None
    label = (number - 1) // _FLOWERS_A_CLASS
    return Found(split, place, root / "jpg" / f"{name}.jpg", label, mask=mask)


def _flower_mask(src: Path, trimap: Path) -> np.ndarray:
    check_inside(trimap, src)
    try:
        picture = open_image({"bytes": None, "path": str(trimap)}, 0, "trimap")
    except HoldfastError as error:
        raise BrokenError(f"{trimap} cannot be read: {error.__cause__}") from error
    colours = np.asarray(picture.convert("RGB"))
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
    labels = array(src, root / "labels.npy")
    whole = labels.dtype.kind in "iu"
    if not whole or labels.ndim != 1 or len(labels) == 0 or len(labels) % _SEVERITIES:
        expected = "one label an image, for five severities"
        came = f"{labels.dtype} of shape {labels.shape}"
        raise HoldfastError(f"{root / 'labels.npy'}: expected {expected}, got {came}")
    files = sorted(path for path in root.glob("*.npy") if path.name != "labels.npy")

    def find(pixels: np.ndarray, row: int, corruption: str, place: str) -> Found:
        severity = row // (len(labels) // _SEVERITIES) + 1
        split = f"{corruption}/{severity}/test"
        return Found(split, place, np.asarray(pixels[row]), int(labels[row]))

    def images() -> Iterator[Callable[[], Found]]:
        for file in files:
            pixels = array(src, file)
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
    "gtsrb-tracks": partial(_gtsrb, tracks=True),
    "flower-17": _flower,
    "flower-17-72-8": _flower_72_8,
    "imagenette": imagenette,
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


def _of(row: Row, key: str, table: dict[str, Row], name: str) -> Row:
    if key not in table:
        raise BrokenError(f"{row.place}: image {key} has no row in {name}")
    return table[key]


def _whole(number: float, row: Row) -> int:
    if number != int(number):
        raise BrokenError(f"{row.place}: expected a class, got {number:g}")
    return int(number)
