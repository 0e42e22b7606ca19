"""Where data is: one name or path, and what to make of it."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, get_args

import datasets
import torch
from jaxtyping import Float
from torch import Tensor

from holdfast.contracts import HoldfastError, InputError, check_positive, checked
from holdfast.data.augmentation import Augmentation
from holdfast.data.columns import (
    MASKS,
    SALIENCY,
    BoxFormat,
    encoded_images,
    find_column,
    find_planes,
    given,
    read_boxes,
)
from holdfast.data.dataset import ImageDataset
from holdfast.data.folders import split_of
from holdfast.data.framing import Fit, Framing
from holdfast.data.images import EncodedImages, read_files
from holdfast.data.labels import class_names, class_synonyms, is_text, read_labels
from holdfast.data.planes import DecodedPlanes, EncodedPlanes
from holdfast.data.sampling import balanced, held_out
from holdfast.data.tables import FOLDER, is_unlabelled, open_tables
from holdfast.preprocessing import Interpolation, Preprocessing

__all__ = ["ImageData", "Split", "as_expected"]

Split = Literal["train", "validation", "test"]
"""Which images: to train on, held out of those, or to test on."""

_DIGITS_SIZE = 16
_LOOKED_AT = 8
"""So many images tell whether they were cropped before."""
_KEPT_IN_MEMORY = 2**30
"""Data sets of at most so many bytes, decoded, are decoded once and kept."""


@dataclass(frozen=True)
@checked
class ImageData:
    """Labelled images: which, and at what size.

    Parameters
    ----------
    path : str
        "digits" for scikit-learn's handwritten digits, which need no network; a folder of images,
        ``train/<class>/1.png`` and ``test/<class>/2.png``; a folder of Parquet files,
        ``train.parquet`` and ``test.parquet``; one Parquet file, which is a "train" split; or the
        name of a data set on the Hugging Face hub, where there is no such folder or file. What
        folders may look like, and in which order classes come, is stated in ``docs/data.md``.
    config : str, optional
        Which configuration of a data set that has several: on the disk, which sub-folder.
    train_split : str
        What the data set calls the split to train on.
    test_split : str
        What the data set calls the split to test on.
    image_column : str, optional
        The column of images. By default the one of that type, or else ``image`` or ``img``.
    label_column : str, optional
        The column of labels, integers from 0 or names. By default the one of type ``ClassLabel``,
        or else ``label``, ``labels`` or ``fine_label``.
    size : int or tuple of int, optional
        Side in pixels of the square, or height and width, that every image is brought to. By
        default images stay as they are, and must be of one size; digits become 16×16.
    resize : int or tuple of int, optional
        What images are resized to before their centre of ``size`` is cut out: the short side, or
        height and width that they are to cover; if squashed, both sides. By default as ``size``
        needs.
    fit : {"crop", "squash"}, optional
        Whether images keep their proportions and lose their margins, as models of photographs
        expect, or are squashed. By default "crop".
    interpolation : str, optional
        How they are resized: "nearest", "bilinear" (the default), "bicubic", "lanczos", "box" or
        "hamming", as Pillow does, which averages pixels where an image shrinks.
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
    mapping : str, optional
        Which class is which logit of a model that is not trained on this data: a file, or "index"
        where labels are the places of logits, or "imagenet" where the logits are those of
        ImageNet's 1,000 classes in the usual order. By default classes are matched by name or by
        WordNet id; see `match_classes`.
    box_format : {"xyxy", "xywh", "cxcywh"}
        What the four numbers of a box are, in pixels, as torchvision spells it: two corners, x0,
        y0, x1, y1; a corner, width and height; or the centre, width and height.
    seed : int
        Seeds the draws of ``limit``, ``validation`` and ``balance``.

    Notes
    -----
    A column ``bbox``, ``boxes`` or ``box`` of four numbers becomes the batch's ``boxes``. A column
    ``mask`` or ``masks`` becomes ``masks``: black and white images, or lists of lists of 0 and 1.
    A column ``saliency`` of grey images, from 0 to 1, or of lists of lists of numbers becomes
    ``saliency``. All are resized and cropped with their images. A row may lack any of them (null);
    a column in which all rows do counts as not there. Pixels are read as 8 bits a channel, what is
    transparent on white. Local data is read anew each time; Parquet that does not fit in memory is
    decompressed to where the ``datasets`` library keeps its files, ``$HF_HOME`` or
    ``~/.cache/huggingface``.

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
    size: int | tuple[int, int] | None = None
    channels: Literal[1, 3] | None = None
    limit: int | None = None
    seed: int = 0
    validation: int | float | None = None
    balance: int | None = None
    augmentation: Augmentation | None = None
    resize: int | tuple[int, int] | None = None
    fit: Fit | None = None
    interpolation: Interpolation | None = None
    mapping: str | None = None
    box_format: BoxFormat = "xyxy"

    def __post_init__(self) -> None:
        self._framing(
            1 if self.size is None else self.size
        )  # refuses what is wrong with size, resize and so on
        optional = ("limit", "validation", "balance")
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
        tables = self.tables()
        table = tables[self._choose(tables, split)]
        image_column = find_column(table, "image_column", self.image_column, self.path)
        label_column = self._label_column(table)
        used = self.used(tables).values()
        classes = class_names([t for t in used if label_column in t.column_names], label_column)
        if len(classes) < 2:
            came = f"{self.path!r}, whose images are all of class {', '.join(map(repr, classes))}"
            raise InputError("ImageData.path", came, "images of at least two classes")
        labels = read_labels(table, label_column, classes)
        boxes = read_boxes(table, self.box_format)

        rows = self._rows(split, labels)
        framing = self._framing(self.size or (_DIGITS_SIZE if self.path == "digits" else None))
        images = EncodedImages.of(
            encoded_images(table, image_column), image_column, rows, framing, self.channels
        )
        _check_framed(images, self.path)
        fits = len(rows) * math.prod(images.shape) <= _KEPT_IN_MEMORY
        labels = labels[rows]
        training = split == "train"
        return ImageDataset(
            Path(self.path).expanduser().resolve().name.removesuffix(".parquet"),
            classes,
            images.decode_all() if fits else images,
            labels,
            None if boxes is None or boxes[rows].isnan().all() else boxes[rows],
            _planes(table, MASKS, "mask", images),
            _planes(table, SALIENCY, "saliency", images),
            self.augmentation if training else None,
            balanced(labels, self.balance, self.seed) if training and self.balance else None,
            class_synonyms(table, label_column, classes),
            self.mapping,
            _says_order(table, label_column),
        )

    def read(self, files: Sequence[str | Path]) -> Float[Tensor, "n c h w"]:
        """Read image files as the images of the data are read, whatever ``path`` is.

        Raises
        ------
        InputError
            If there are none, or they differ in size and ``size`` is not given.
        HoldfastError
            If one cannot be read; names it.

        Examples
        --------
        >>> import tempfile
        >>> file = Path(tempfile.mkdtemp()) / "wide.png"
        >>> from PIL import Image
        >>> Image.new("L", (40, 30), color=255).save(file)
        >>> ImageData(size=16, channels=3).read([file]).shape
        torch.Size([1, 3, 16, 16])
        """
        return read_files(files, self._framing(self.size), self.channels).float() / 255

    def _framing(self, size: int | tuple[int, int] | None) -> Framing | None:
        if size is None:
            if self.resize is not None:
                expected = "the size to cut out, as resize is given"
                raise InputError("ImageData.size", None, expected)
            return None
        sides = size if isinstance(size, list | tuple) else (size, size)
        return Framing(sides, self.resize, self.fit or "crop", self.interpolation or "bilinear")

    def _label_column(self, table: datasets.Dataset) -> str:
        if is_unlabelled(table):
            image = table.data.column("image")[0]["path"].as_py()
            came = f"{image!r}, which lies in no folder of a class"
            expected = "images in folders of their classes, which are their labels"
            raise InputError("ImageData.path", came, expected)
        return find_column(table, "label_column", self.label_column, self.path)

    def tables(self) -> dict[str, datasets.Dataset]:
        """Open all splits, those called ``train_split`` and ``test_split`` among them.

        Raises
        ------
        InputError
            If there is nothing at ``path``, or it is no data set.
        HoldfastError
            If the data cannot be read.

        Examples
        --------
        >>> list(ImageData("digits").tables())
        ['train', 'test']
        """
        return open_tables(self.path, self.config, (self.train_split, self.test_split))

    def _choose(self, tables: dict[str, datasets.Dataset], split: str) -> str:
        """Find the name that a split has among the tables."""
        if split not in get_args(Split):
            raise InputError("split", repr(split), "'train', 'validation' or 'test'")
        if split == "validation" and self.validation is None:
            raise InputError("ImageData.validation", None, "how many images to hold out")
        which = "test_split" if split == "test" else "train_split"
        wanted = getattr(self, which)
        name = self._name(tables, wanted)
        if name is None:
            expected = f"a split of {self.path}, which has {', '.join(tables)}"
            raise InputError(f"ImageData.{which}", repr(wanted), expected)
        if len(tables[name]) == 0:
            raise HoldfastError(f"split {name!r} of {self.path} has no images")
        return name

    def used(self, tables: dict[str, datasets.Dataset]) -> dict[str, datasets.Dataset]:
        """Choose the splits that classes are taken from: the one to train on, the one to test on.

        Examples
        --------
        >>> data = ImageData("digits", test_split="other")
        >>> list(data.used(data.tables()))
        ['train']
        """
        wanted = (self._name(tables, split) for split in (self.train_split, self.test_split))
        return {name: tables[name] for name in wanted if name is not None}

    def _name(self, tables: dict[str, datasets.Dataset], split: str) -> str | None:
        """Find a split by its own name, or by another for the same."""
        return next((name for name in (split, split_of(split)) if name in tables), None)

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
    if column is None or not given(table, column)[images.rows].any():
        return None
    _, height, width = images.shape
    framing = images.framing or Framing((height, width), fit="squash")
    planes = EncodedPlanes(table, column, images.rows, framing, kind)
    fits = 4 * len(images) * height * width <= _KEPT_IN_MEMORY  # 4 bytes a pixel
    return planes.decode_all() if fits else planes


def _says_order(table: datasets.Dataset, label_column: str) -> bool:
    """Tell whether classes stand in an order of the data's own, rather than of the alphabet."""
    sorted_folders = table.info.builder_name == FOLDER
    return not (sorted_folders or is_text(table.data.column(label_column).type))


def as_expected(data: ImageData, preprocessing: Preprocessing) -> ImageData:
    """Bring images to what a model expects, as far as the data itself does not say.

    Parameters
    ----------
    data : ImageData
        What it sets of ``size``, ``resize``, ``fit``, ``interpolation`` and ``channels`` stays.
    preprocessing : Preprocessing
        What the model's own configuration says. What it resizes to is taken only along with its
        size and its fit.

    Examples
    --------
    >>> expected = Preprocessing(size=(224, 224), resize=256, interpolation="bicubic")
    >>> data = as_expected(ImageData("FOLDER"), expected)
    >>> data.size, data.resize, data.fit, data.interpolation
    ((224, 224), 256, 'crop', 'bicubic')
    >>> as_expected(ImageData("FOLDER", resize=224), expected).resize  # they were cropped before
    224
    """
    framing = Framing(preprocessing.size, preprocessing.resize, preprocessing.mode)
    filled = replace(
        data,
        size=framing.size if data.size is None else data.size,
        fit=data.fit or framing.fit,
        interpolation=data.interpolation or preprocessing.interpolation,
        channels=data.channels or preprocessing.channels,  # type: ignore[arg-type]
    )
    size = (filled.size, filled.size) if isinstance(filled.size, int) else filled.size
    same = (size, filled.fit) == (framing.size, framing.fit)
    return replace(filled, resize=framing.resize) if same and data.resize is None else filled


def _check_framed(images: EncodedImages, path: str) -> None:
    """Warn where images that look as if they had been cropped before are cropped again."""
    framing = images.framing
    if framing is None or framing.resized(*framing.size) == framing.size:
        return
    _, sizes = images.read(range(min(len(images), _LOOKED_AT)))
    if (sizes == torch.tensor(framing.size)).all():
        height, width = framing.size
        warnings.warn(
            f"the images of {path} are {height}×{width} already, and are resized and cropped once "
            f"more; if that was done to them before, resize={min(framing.size)} takes them as they "
            "are",
            stacklevel=3,
        )
