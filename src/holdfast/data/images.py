"""Pictures as 8-bit pixels: in memory if they fit, else decoded whenever they are asked for.

Both kinds offer the same ``read(indices)``, and give the same pixels.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from io import BytesIO
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import torch
from jaxtyping import Integer, UInt8
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from holdfast.contracts import HoldfastError, InputError, chunks
from holdfast.data.framing import Framing

__all__ = ["DecodedImages", "EncodedImages", "image_header", "open_image", "read_files"]

_GREY = {"1", "L", "LA", "La", "I", "I;16", "I;16B", "I;16L"}
_FORMATS = (
    "AVIF",
    "BMP",
    "DIB",
    "GIF",
    "ICO",
    "JPEG",
    "JPEG2000",
    "MPO",
    "PNG",
    "PPM",
    "TIFF",
    "WEBP",
)
_LYING = (5, 6, 7, 8)
"""The orientations, as cameras write them, that height and width change places by."""
_LARGE = 96 * 96
"""From so many pixels on, decoding one image outweighs what threads cost."""


@dataclass(frozen=True, eq=False)
class DecodedImages:
    """Images that stand in memory, decoded.

    Parameters
    ----------
    pixels : Tensor
        All images, 8 bits a channel, ``(N, C, H, W)``.
    sizes : Tensor
        Height and width that each had before it was resized ``(N, 2)``.
    framing : Framing, optional
        How they were resized and cropped, for boxes to follow. By default they were squashed.

    Examples
    --------
    >>> pixels = torch.arange(2).view(2, 1, 1, 1).to(torch.uint8)
    >>> DecodedImages(pixels, sizes=torch.ones(2, 2, dtype=torch.long)).read([1])[0]
    tensor([[[[1]]]], dtype=torch.uint8)
    """

    pixels: UInt8[Tensor, "n c h w"]
    sizes: Integer[Tensor, "n 2"]
    framing: Framing | None = None

    def __len__(self) -> int:
        return len(self.pixels)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Channels, height and width of every image."""
        _, channels, height, width = self.pixels.shape
        return channels, height, width

    def read(
        self, indices: Sequence[int]
    ) -> tuple[UInt8[Tensor, "n c h w"], Integer[Tensor, "n 2"]]:
        """Return the pixels of these images and the sizes they had before they were resized."""
        chosen = torch.as_tensor(indices, dtype=torch.long)
        return self.pixels[chosen], self.sizes[chosen]


@dataclass(frozen=True, eq=False)
class EncodedImages:
    """Images that are decoded when they are read; `EncodedImages.of` makes one.

    Parameters
    ----------
    table : datasets.Dataset
        What holds the encoded images.
    column : str
        Which of its columns, cast to ``datasets.Image(decode=False)``.
    rows : list of int
        The rows of the table that count, in the order in which they are numbered here.
    shape : tuple of int
        Channels (1 or 3), height and width of every image read.
    framing : Framing or None
        How images of another size are resized and cropped; if none, they are refused.
    to_grey : bool
        Where ``shape`` has one channel, turn colour to grey, rather than refuse it.

    Examples
    --------
    >>> from holdfast.data.digits import digits
    >>> table = digits()["test"].cast_column("image", datasets.Image(decode=False))
    >>> images = EncodedImages.of(table, "image", rows=[0, 1, 2], framing=Framing((16, 16)))
    >>> len(images), images.shape
    (3, (1, 16, 16))
    """

    table: Any
    column: str
    rows: list[int]
    shape: tuple[int, int, int]
    framing: Framing | None
    to_grey: bool

    @classmethod
    def of(
        cls,
        table: datasets.Dataset,
        column: str,
        rows: list[int],
        framing: Framing | None = None,
        channels: int | None = None,
    ) -> EncodedImages:
        """Take the shape from the first image, as far as ``framing`` and ``channels`` do not say.

        Raises
        ------
        HoldfastError
            If the first image cannot be read.
        """
        first = open_image(table[rows[0]][column], rows[0])
        height, width = (first.height, first.width) if framing is None else framing.size
        shape = (channels or (1 if first.mode in _GREY else 3), height, width)
        return cls(table, column, rows, shape, framing, channels is not None)

    def __len__(self) -> int:
        return len(self.rows)

    def read(
        self, indices: Sequence[int]
    ) -> tuple[UInt8[Tensor, "n c h w"], Integer[Tensor, "n 2"]]:
        """Return the pixels of these images and the sizes they had before they were resized.

        Raises
        ------
        HoldfastError
            If an image cannot be read; names its row, and its file if it has one.
        InputError
            If an image has another size than the first, or is in colour where the first is grey,
            and nobody said what to do.
        """
        rows = [self.rows[index] for index in indices]
        pixels = np.empty((len(rows), *self.shape), dtype=np.uint8)
        sizes = np.empty((len(rows), 2), dtype=np.int64)
        for place, (image, size) in enumerate(self._decode(rows)):
            pixels[place], sizes[place] = image, size
        return torch.from_numpy(pixels), torch.from_numpy(sizes)

    def decode_all(self) -> DecodedImages:
        """Read every image, once."""
        pixels = torch.empty(len(self.rows), *self.shape, dtype=torch.uint8)
        sizes = torch.empty(len(self.rows), 2, dtype=torch.long)
        for part in chunks(len(self.rows), 256):
            pixels[part], sizes[part] = self.read(range(part.start, part.stop))
        return DecodedImages(pixels, sizes, self.framing)

    def _decode(self, rows: list[int]) -> Iterable[tuple[np.ndarray, tuple[int, int]]]:
        encoded = self.table[rows][self.column] if rows else []
        threads = torch.get_num_threads()
        if threads == 1 or len(rows) == 1 or self.shape[1] * self.shape[2] < _LARGE:
            return map(self._pixels, encoded, rows)
        with ThreadPoolExecutor(threads) as pool:
            return list(pool.map(self._pixels, encoded, rows))

    def _pixels(
        self, encoded: dict[str, Any] | None, row: int
    ) -> tuple[np.ndarray, tuple[int, int]]:
        image = open_image(encoded, row)
        channels, height, width = self.shape
        size = (image.height, image.width)
        if channels == 1 and image.mode not in _GREY and not self.to_grey:
            raise InputError(
                "ImageData.channels",
                f"None, and {_place(encoded, row)} in colour after a grey first image",
                "1 or 3 where grey and colour are mixed",
            )
        if size != (height, width) and self.framing is None:
            raise InputError(
                "ImageData.size",
                f"None, and {_place(encoded, row)} of {size} after one of {(height, width)} pixels",
                "a size to bring all images to",
            )
        mode = "L" if channels == 1 else "RGB"
        if image.mode != mode:
            image = image.convert(mode)
        if self.framing is not None:
            image = self.framing.image(image)
        return np.asarray(image).reshape(height, width, channels).transpose(2, 0, 1), size


def read_files(
    files: Sequence[str | Path], framing: Framing | None = None, channels: int | None = None
) -> UInt8[Tensor, "n c h w"]:
    """Read image files as the images of a data set are read.

    Parameters
    ----------
    files : sequence of str or Path
        At least one; they come in this order.
    framing : Framing, optional
        How they are resized and cropped. By default they stay as they are and must be of one size.
    channels : {1, 3}, optional
        Grey or colour. By default as the first.

    Raises
    ------
    HoldfastError
        If there are none, or one cannot be read; names it.
    InputError
        If sizes or colours differ and nobody said what to do.

    Examples
    --------
    >>> import tempfile
    >>> file = Path(tempfile.mkdtemp()) / "black.png"
    >>> Image.new("L", (9, 8)).save(file)
    >>> read_files([file], Framing((4, 4))).shape
    torch.Size([1, 1, 4, 4])
    """
    if not files:
        raise InputError("files", "none", "at least one image file")
    entries = [{"bytes": None, "path": str(Path(file).expanduser())} for file in files]
    features = datasets.Features(image=datasets.Image(decode=False))
    table = datasets.Dataset.from_dict({"image": entries}, features)
    rows = list(range(len(files)))
    return EncodedImages.of(table, "image", rows, framing, channels).read(rows)[0]


def open_image(encoded: dict[str, Any] | None, row: int, noun: str = "image") -> Image.Image:
    """Decode an image, turned upright, with 8 bits a channel and what is transparent on white.

    Of a file with several, that is the first one.

    Parameters
    ----------
    encoded : dict
        Its ``bytes``, or else the ``path`` of its file.
    row : int
        Its row in the table, for the error.
    noun : str
        What it is, for the error.

    Raises
    ------
    HoldfastError
        If there is none, or it cannot be read; names the row, and the file if there is one.

    Examples
    --------
    >>> open_image({"bytes": b"no image", "path": "1.png"}, row=7)  # doctest: +ELLIPSIS
    Traceback (most recent call last):
        ...
    holdfast.contracts.HoldfastError: image 7 (1.png) cannot be read: ...
    """
    with _opened(encoded, row, noun) as image:
        image.load()
        if image.getexif().get(ExifTags.Base.Orientation, 1) != 1:
            image = ImageOps.exif_transpose(image)
        return _eight_bits(_on_white(image) if noun == "image" else image)


def image_header(encoded: dict[str, Any] | None, row: int) -> tuple[tuple[int, int], str]:
    """Read the head of an image: height and width, and "grey", "colour" or "transparent".

    Raises
    ------
    HoldfastError
        If there is none, or it cannot be read; names the row, and the file if there is one.

    Examples
    --------
    >>> buffer = BytesIO()
    >>> Image.new("RGB", (9, 8)).save(buffer, "PNG")
    >>> image_header({"bytes": buffer.getvalue(), "path": None}, row=0)
    ((8, 9), 'colour')
    """
    with _opened(encoded, row) as image:
        height, width = image.height, image.width
        if image.getexif().get(ExifTags.Base.Orientation, 1) in _LYING:
            height, width = width, height
        grey = "grey" if image.mode in _GREY else "colour"
        return (height, width), "transparent" if image.has_transparency_data else grey


@contextmanager
def _opened(encoded: dict[str, Any] | None, row: int, noun: str = "image") -> Iterator[Image.Image]:
    """Open an image for the block, and name it in whatever goes wrong there."""
    if not encoded or (encoded["bytes"] is None and not encoded["path"]):
        raise HoldfastError(f"row {row} of the {noun}s is empty")
    try:
        with _identified(encoded) as image:
            yield image
    except Exception as error:  # a broken file makes Pillow fail in any way at all
        raise HoldfastError(f"{_place(encoded, row, noun)} cannot be read: {error}") from error


def _identified(encoded: dict[str, Any]) -> Image.Image:
    content, path = encoded["bytes"], encoded["path"]
    if content is None and not os.path.isfile(path):
        raise ValueError("there is no such file")  # nor a pipe, which would never end
    try:
        return Image.open(path if content is None else BytesIO(content), formats=_formats())
    except UnidentifiedImageError:
        raise ValueError("it is of no format that is read") from None


@cache
def _formats() -> tuple[str, ...]:
    """List what is read of all that Pillow can: others run programs, such as Ghostscript."""
    Image.init()
    return tuple(name for name in _FORMATS if name in Image.OPEN)


def _on_white(image: Image.Image) -> Image.Image:
    """Lay what is transparent on white; a grey image stays grey."""
    if not image.has_transparency_data or image.mode.startswith("I"):
        return image
    colour = image.convert("RGBA")
    white = Image.new("RGBA", image.size, "white")
    laid = Image.alpha_composite(white, colour)
    return laid.convert("L" if image.mode in _GREY else "RGB")


def _eight_bits(image: Image.Image) -> Image.Image:
    """Scale 16 bits a pixel to 8, which Pillow would cut off at white instead."""
    if image.mode == "F":
        raise ValueError("floating-point pixels, whose white nobody knows")
    if not image.mode.startswith("I"):
        return image
    scaled = np.asarray(image).astype(np.float64).clip(0, 65535) / 257
    return Image.fromarray(scaled.round().astype(np.uint8))


def _place(encoded: dict[str, Any] | None, row: int, noun: str = "image") -> str:
    path = encoded and encoded["path"]
    return f"{noun} {row} ({path})" if path else f"{noun} {row}"
