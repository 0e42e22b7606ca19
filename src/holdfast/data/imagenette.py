"""ImageNette in its folders, with the boxes that ILSVRC publishes beside them as XML."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from xml.etree import ElementTree

from holdfast.contracts import HoldfastError
from holdfast.data.images import image_header
from holdfast.data.importing import BrokenError, Found, Layout, check_inside

__all__ = ["imagenette"]

_CLASSES = {
    "n01440764": "tench",
    "n02102040": "English springer",
    "n02979186": "cassette player",
    "n03000684": "chain saw",
    "n03028079": "church",
    "n03394916": "French horn",
    "n03417042": "garbage truck",
    "n03425413": "gas pump",
    "n03445777": "golf ball",
    "n03888257": "parachute",
}
_SPLITS = {"train": "train", "val": "test"}
_IMAGES = (".jpeg", ".jpg", ".png")
_XML_BYTES = 200_000
_ANNOTATIONS = ("Annotations/CLS-LOC", "CLS-LOC", "Annotations", "")
"""Where ILSVRC's archives have ``train/`` and ``val/``, below the folder that is named."""


def imagenette(src: Path, boxes: Path | None = None) -> Layout:
    """Lay out ``train/WNID/*.JPEG`` and ``val/WNID/*.JPEG``; "val" becomes "test".

    Parameters
    ----------
    src : Path
        The folder of the unpacked archive, or the one above it.
    boxes : Path, optional
        The folder of ILSVRC's annotations, as unpacked; by default ``src``, if it has any.

    Raises
    ------
    HoldfastError
        If there is no such folder of images, or annotations are named and there are none.
    """
    root = _images_of(src)
    wnids = sorted({folder.name for split in _SPLITS for folder in (root / split).glob("n[0-9]*")})
    numbers = {wnid: number for number, wnid in enumerate(wnids)}
    index = _annotations(boxes or src, wnids)
    if boxes is not None and not index:
        expected = "annotations, files such as train/WNID/WNID_1.xml, of any of its classes"
        raise HoldfastError(f"{boxes} holds no {expected}")

    def find(image: Path, split: str) -> Found:
        wnid = image.parent.name
        place = f"{image}"
        annotation = index.get(image.stem)
        if annotation is None:
            return Found(split, place, image, numbers[wnid])
        check_inside(image, src)
        box = _box(annotation, boxes or src, wnid, _size(image))
        return Found(split, place, image, numbers[wnid], box, str(annotation))

    def images() -> Iterator[Callable[[], Found]]:
        for folder, split in _SPLITS.items():
            for wnid in wnids:
                for image in sorted((root / folder / wnid).glob("*")):
                    if image.suffix.lower() in _IMAGES:
                        yield partial(find, image, split)

    names = tuple(_CLASSES.get(wnid, wnid) for wnid in wnids)
    return Layout(names, images(), boxes=bool(index))


def _images_of(src: Path) -> Path:
    candidates = [src, *(src / f"imagenette2{size}" for size in ("", "-320", "-160"))]
    for root in candidates:
        if (root / "train").is_dir() and (root / "val").is_dir():
            return root
    raise HoldfastError(f"{src / 'train'} and {src / 'val'} are missing, the folders of images")


def _annotations(folder: Path, wnids: Sequence[str]) -> dict[str, Path]:
    """Find annotations by the name of their image: ``train/WNID/*.xml`` and ``val/*.xml``."""
    patterns = ["val/*.xml", *(f"{w}/*.xml" for w in wnids), *(f"train/{w}/*.xml" for w in wnids)]
    for below in _ANNOTATIONS:
        found = [file for pattern in patterns for file in sorted((folder / below).glob(pattern))]
        if found:
            return {file.stem: file for file in found}
    return {}


def _size(image: Path) -> tuple[int, int]:
    """Read the width and height of an image."""
    try:
        (height, width), _ = image_header({"bytes": None, "path": str(image)}, 0)
    except HoldfastError as error:
        raise BrokenError(f"{image} cannot be read: {error.__cause__}") from error
    return width, height


def _box(
    file: Path, root: Path, wnid: str, size: tuple[int, int]
) -> tuple[float, float, float, float]:
    """Return the largest box of the class, in pixels of the image.

    Annotations count pixels of the photograph as ILSVRC has it; ImageNette also comes smaller.
    """
    annotation = _parsed(file, root)
    scale = []
    for side, name in zip(size, ("width", "height"), strict=True):
        annotated = _number(annotation, f"size/{name}", file)
        if annotated <= 0:
            raise BrokenError(f"{file}: size/{name} is {annotated:g}")
        scale.append(side / annotated)
    if abs(scale[0] / scale[1] - 1) > 1.5 / min(size):  # sides are rounded to whole pixels
        raise BrokenError(
            f"{file}: it is of an image of other proportions than {size[0]}×{size[1]}"
        )
    found = []
    for item in annotation.findall("object"):
        if (item.findtext("name") or "").strip() == wnid:
            corners = (_number(item, f"bndbox/{n}", file) for n in ("xmin", "ymin", "xmax", "ymax"))
            x0, y0, x1, y1 = corners
            found.append((x0 * scale[0], y0 * scale[1], x1 * scale[0], y1 * scale[1]))
    if not found:
        raise BrokenError(f"{file}: no object of class {wnid}")
    return max(found, key=lambda box: max(0.0, box[2] - box[0]) * max(0.0, box[3] - box[1]))


class _NoDoctype(ElementTree.TreeBuilder):
    """Builds a tree, and stops where a document begins to declare entities of its own."""

    def doctype(self, *_: object) -> None:
        raise ValueError("a document type, which annotations do not have")


def _parsed(file: Path, root: Path) -> ElementTree.Element:
    """Read a small XML file that declares and fetches nothing."""
    try:
        check_inside(file, root)
        if file.stat().st_size > _XML_BYTES:
            raise BrokenError(
                f"{file} has {file.stat().st_size:,} bytes, more than annotations have"
            )
        parser = ElementTree.XMLParser(target=_NoDoctype())
        parser.feed(file.read_bytes())
        annotation: ElementTree.Element = parser.close()
    except (ElementTree.ParseError, ValueError, LookupError) as error:
        raise BrokenError(f"{file} cannot be read: {error}") from error
    except OSError as error:
        raise BrokenError(f"{file} cannot be read: {error.strerror}") from error
    if annotation.tag != "annotation":
        raise BrokenError(f"{file}: expected an annotation, got {annotation.tag[:100]!r}")
    return annotation


def _number(element: ElementTree.Element, path: str, file: Path) -> float:
    text = (element.findtext(path) or "").strip()
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise BrokenError(f"{file}: expected a number as {path}, got {text[:100]!r}")
    return number
