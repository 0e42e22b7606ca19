"""Where data is: one name or path, and what to make of it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import datasets
import torch
from datasets.data_files import EmptyDatasetError
from datasets.exceptions import DataFilesNotFoundError

from holdfast.contracts import HoldfastError, InputError, check_positive
from holdfast.data.columns import (
    class_names,
    encoded_images,
    find_column,
    read_boxes,
    read_labels,
)
from holdfast.data.dataset import ImageDataset
from holdfast.data.digits import digits
from holdfast.data.images import EncodedImages

__all__ = ["ImageData"]

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
        The column of labels, integers from 0. By default the one of type ``ClassLabel``, or else
        ``label``, ``labels`` or ``fine_label``.
    size : int, optional
        Side in pixels of the square that every image is resized to, bilinear and antialiased. By
        default images stay as they are, and must be of one size; digits become 16×16.
    channels : {1, 3}, optional
        Grey or colour. By default as the first image; grey ones among colour are then taken too.
    limit : int, optional
        At most so many images of each split, drawn at random; a larger limit draws the same ones
        and more.
    seed : int
        Seeds that draw.

    Notes
    -----
    A column ``bbox``, ``boxes`` or ``box`` of four numbers becomes the batch's ``boxes``. Pixels
    are read as 8 bits a channel. What the ``datasets`` library caches stands where it keeps it,
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

    def __post_init__(self) -> None:
        given = [name for name in ("size", "limit") if getattr(self, name) is not None]
        check_positive(self, *given)
        if self.channels not in (None, 1, 3):
            raise InputError("ImageData.channels", self.channels, "1, 3 or None")

    def load(self, split: Literal["train", "test"]) -> ImageDataset:
        """Open a split. Up to a gigabyte of pixels is decoded at once and kept in memory.

        Parameters
        ----------
        split : {"train", "test"}
            Which: the one called ``train_split`` or ``test_split``.

        Raises
        ------
        InputError
            If there is nothing at ``path``, or no such split or column; if labels are missing or
            outside the classes; if images differ in size and ``size`` is not given.
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
        labels = read_labels(table, label_column)
        others = [
            read_labels(other, label_column)
            for name, other in tables.items()
            if name in (self.train_split, self.test_split) and label_column in other.column_names
        ]
        classes = class_names(table, label_column, others)
        for row in ((labels < 0) | (labels >= len(classes))).nonzero()[:1].flatten().tolist():
            expected = f"classes from 0 to {len(classes) - 1}"
            raise InputError("labels", f"{labels[row]} in row {row}", expected)
        boxes = read_boxes(table)

        rows = self._rows(len(table))
        size = _DIGITS_SIZE if self.path == "digits" and self.size is None else self.size
        images = EncodedImages.of(
            encoded_images(table, image_column), image_column, rows, size, self.channels
        )
        fits = len(rows) * math.prod(images.shape) <= _KEPT_IN_MEMORY
        return ImageDataset(
            Path(self.path).expanduser().resolve().name.removesuffix(".parquet"),
            classes,
            images.decode_all() if fits else images,
            labels[rows],
            None if boxes is None else boxes[rows],
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
        if split not in ("train", "test"):
            raise InputError("split", repr(split), "'train' or 'test'")
        name = self.train_split if split == "train" else self.test_split
        if name not in tables:
            expected = f"a split of {self.path}, which has {', '.join(tables)}"
            raise InputError(f"ImageData.{split}_split", repr(name), expected)
        if len(tables[name]) == 0:
            raise HoldfastError(f"split {name!r} of {self.path} has no images")
        return tables[name]

    def _rows(self, count: int) -> list[int]:
        if self.limit is None or self.limit >= count:
            return list(range(count))
        generator = torch.Generator().manual_seed(self.seed)
        return torch.randperm(count, generator=generator)[: self.limit].tolist()


def _must_be_local(path: str) -> bool:
    """Tell what no name on the hub looks like: those are ``name`` or ``owner/name``."""
    return path.startswith((".", "/", "~")) or path.count("/") > 1 or path.endswith(".parquet")
