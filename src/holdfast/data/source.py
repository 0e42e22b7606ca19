"""Where data is: one name or path, and what to make of it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

import datasets
import torch
from datasets.data_files import EmptyDatasetError
from datasets.exceptions import DataFilesNotFoundError
from torch import Tensor

from holdfast.contracts import HoldfastError, InputError, check_positive
from holdfast.data.augmentation import Augmentation
from holdfast.data.columns import (
    MASKS,
    SALIENCY,
    class_names,
    encoded_images,
    find_column,
    find_planes,
    read_boxes,
    read_labels,
)
from holdfast.data.dataset import ImageDataset
from holdfast.data.digits import digits
from holdfast.data.images import EncodedImages
from holdfast.data.planes import DecodedPlanes, EncodedPlanes
from holdfast.data.sampling import balanced, held_out

__all__ = ["ImageData", "Split"]

Split = Literal["train", "validation", "test"]
"""Which images: to train on, held out of those, or to test on."""

_DIGITS_SIZE = 16
_KEPT_IN_MEMORY = 2**30
"""Data sets of at most so many bytes, decoded, are decoded once and kept."""


@dataclass(frozen=True)
class ImageData:
    """Labelled images: which, and at what size.

    Parameters
    ----------
    path : str
        "digits" for scikit-learn's handwritten digits, which need no network; a folder of images,
        ``train/<class>/1.png`` and ``test/<class>/2.png``; a folder of Parquet files,
        ``train.parquet`` and ``test.parquet``; one Parquet file, which is a "train" split; or the
        name of a data set on the Hugging Face hub. A local folder or file goes before the hub.
    config : str, optional
        Which configuration of a data set that has several.
    train_split : str
        What the data set calls the split to train on.
    test_split : str
        What the data set calls the split to test on.
    image_column : str, optional
        The column of images. By default the one of that type, or else ``image`` or ``img``.
    label_column : str, optional
        The column of labels, integers from 0 or names. By default the one of type ``ClassLabel``,
        or else ``label``, ``labels`` or ``fine_label``.
    size : int, optional
        Side in pixels of the square that every image is resized to, bilinear and antialiased. By
        default images stay as they are, and must be of one size; digits become 16×16.
    channels : {1, 3}, optional
        Grey or colour. By default as the first image; grey ones among colour are then taken too.
    limit : int, optional
        At most so many images of each split, drawn at random; a larger limit draws the same ones
        and more.
    validation : int or float, optional
        How many images of the split to train on, or which share of them, are held out as the split
        "validation". They are drawn at random, evenly over the classes.
    balance : int, optional
        Repeat the images of each class to train on until there are so many; classes that have more
        keep them all. With an augmentation the repeated images differ.
    augmentation : Augmentation, optional
        Random changes of the images to train on.
    seed : int
        Seeds the draws of ``limit``, ``validation`` and ``balance``.

    Notes
    -----
    A column ``bbox``, ``boxes`` or ``box`` of four numbers becomes the batch's ``boxes``. A column
    ``mask`` or ``masks`` becomes ``masks``: black and white images, or lists of lists of 0 and 1.
    A column ``saliency`` of grey images, from 0 to 1, or of lists of lists of numbers becomes
    ``saliency``. Both are resized with their images; a row may lack them. Pixels are read as 8 bits
    a channel. What the ``datasets`` library caches stands where it keeps it,
    ``$HF_HOME`` or ``~/.cache/huggingface``.

    Examples
    --------
    >>> ImageData("digits", limit=100).load("train")
    ImageDataset(digits: 100 images 1×16×16, 10 classes)
    """

    path: str = "digits"
    config: str | None = None
    train_split: str = "train"
    test_split: str = "test"
    image_column: str | None = None
    label_column: str | None = None
    size: int | None = None
    channels: Literal[1, 3] | None = None
    limit: int | None = None
    seed: int = 0
    validation: int | float | None = None
    balance: int | None = None
    augmentation: Augmentation | None = None

    def __post_init__(self) -> None:
        optional = ("size", "limit", "validation", "balance")
        check_positive(self, *(name for name in optional if getattr(self, name) is not None))
        if isinstance(self.validation, float) and self.validation >= 1:
            expected = "a share below 1 or a whole number of images"
            raise InputError("ImageData.validation", self.validation, expected)
        if self.channels not in (None, 1, 3):
            raise InputError("ImageData.channels", self.channels, "1, 3 or None")

    def load(self, split: Split) -> ImageDataset:
        """Open a split. Up to a gigabyte of pixels is decoded at once and kept in memory.

        Parameters
        ----------
        split : {"train", "validation", "test"}
            Which: the one called ``train_split``, less what is held out of it; that; or the one
            called ``test_split``. Only the first is balanced and augmented.

        Raises
        ------
        InputError
            If there is nothing at ``path``, or no such split or column; if labels are missing or
            outside the classes; if images differ in size and ``size`` is not given; if
            ``validation`` is not given and asked for, or leaves nothing to train on.
        HoldfastError
            If the data cannot be loaded, or an image cannot be read; names it.

        Examples
        --------
        >>> data = ImageData("digits").load("test")
        >>> len(data), data.shape, data.classes[:3]
        (500, (1, 16, 16), ('0', '1', '2'))
        """
        tables = self._open()
        table = self._choose(tables, split)
        image_column = find_column(table, "image_column", self.image_column, self.path)
        label_column = find_column(table, "label_column", self.label_column, self.path)
        others = [
            other
            for name, other in tables.items()
            if name in (self.train_split, self.test_split) and label_column in other.column_names
        ]
        classes = class_names([table, *others], label_column)
        labels = read_labels(table, label_column, classes)
        for row in ((labels < 0) | (labels >= len(classes))).nonzero()[:1].flatten().tolist():
            expected = f"classes from 0 to {len(classes) - 1}"
            raise InputError("labels", f"{labels[row]} in row {row}", expected)
        boxes = read_boxes(table)

        rows = self._rows(split, labels)
        size = _DIGITS_SIZE if self.path == "digits" and self.size is None else self.size
        images = EncodedImages.of(
            encoded_images(table, image_column), image_column, rows, size, self.channels
        )
        fits = len(rows) * math.prod(images.shape) <= _KEPT_IN_MEMORY
        labels = labels[rows]
        training = split == "train"
        return ImageDataset(
            Path(self.path).expanduser().resolve().name.removesuffix(".parquet"),
            classes,
            images.decode_all() if fits else images,
            labels,
            None if boxes is None else boxes[rows],
            _planes(table, MASKS, "mask", images),
            _planes(table, SALIENCY, "saliency", images),
            self.augmentation if training else None,
            balanced(labels, self.balance, self.seed) if training and self.balance else None,
        )

    def _open(self) -> dict[str, datasets.Dataset]:
        if self.path == "digits":
            return digits()
        place = Path(self.path).expanduser()
        if place.is_file() and place.suffix != ".parquet":
            raise InputError("ImageData.path", repr(self.path), "a Parquet file, *.parquet")
        if not place.exists() and _must_be_local(self.path):
            raise InputError("ImageData.path", repr(self.path), "a folder or file that exists")
        try:
            if place.is_file():
                return dict(datasets.load_dataset("parquet", data_files=str(place)))
            name = str(place) if place.exists() else self.path
            return dict(datasets.load_dataset(name, self.config))
        except (EmptyDatasetError, DataFilesNotFoundError) as error:
            expected = "a folder of images or of Parquet files"
            raise InputError("ImageData.path", repr(self.path), expected) from error
        except Exception as error:  # the hub, the network and the disk fail in any way at all
            where = "" if place.exists() else " (no folder here, so sought on the Hugging Face hub)"
            reason = str(error.__cause__ or error).partition("\n")[0]
            raise HoldfastError(f"{self.path!r}{where} cannot be loaded: {reason}") from error

    def _choose(self, tables: dict[str, datasets.Dataset], split: str) -> datasets.Dataset:
        if split not in get_args(Split):
            raise InputError("split", repr(split), "'train', 'validation' or 'test'")
        if split == "validation" and self.validation is None:
            raise InputError("ImageData.validation", None, "how many images to hold out")
        which = "test_split" if split == "test" else "train_split"
        name = getattr(self, which)
        if name not in tables:
            expected = f"a split of {self.path}, which has {', '.join(tables)}"
            raise InputError(f"ImageData.{which}", repr(name), expected)
        if len(tables[name]) == 0:
            raise HoldfastError(f"split {name!r} of {self.path} has no images")
        return tables[name]

    def _rows(self, split: str, labels: Tensor) -> list[int]:
        rows = torch.arange(len(labels))
        if self.validation is not None and split != "test":
            held = held_out(labels, self.validation, self.seed)
            rows = rows[held if split == "validation" else ~held]
        if self.limit is None or self.limit >= len(rows):
            return rows.tolist()
        generator = torch.Generator().manual_seed(self.seed)
        return rows[torch.randperm(len(rows), generator=generator)[: self.limit]].tolist()


def _planes(
    table: datasets.Dataset,
    names: tuple[str, ...],
    kind: Literal["mask", "saliency"],
    images: EncodedImages,
) -> DecodedPlanes | EncodedPlanes | None:
    column = find_planes(table, names)
    if column is None:
        return None
    _, height, width = images.shape
    planes = EncodedPlanes(table, column, images.rows, (height, width), kind)
    fits = 4 * len(images) * height * width <= _KEPT_IN_MEMORY  # 4 bytes a pixel
    return planes.decode_all() if fits else planes


def _must_be_local(path: str) -> bool:
    """Tell what no name on the hub looks like: those are ``name`` or ``owner/name``."""
    return path.startswith((".", "/", "~")) or path.count("/") > 1 or path.endswith(".parquet")
