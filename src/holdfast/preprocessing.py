"""What is done to a photograph before a model sees it, as the model's own configuration says."""

from __future__ import annotations

import math
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Literal, get_args

from PIL import Image

from holdfast.contracts import InputError, checked

__all__ = ["Interpolation", "Preprocessing"]

Interpolation = Literal["nearest", "bilinear", "bicubic", "lanczos", "box", "hamming"]
"""How pixels between pixels are computed, by Pillow's names."""

_LARGEST = 16_384
"""Pixels of a side: more is no image that a model takes, and may be all memory."""


@dataclass(frozen=True)
@checked
class Preprocessing:
    """The way from a photograph to the images that a model takes: resize, crop, normalize.

    The data makes images of ``size`` in [0, 1] by ``mode``, ``resize`` and ``interpolation``;
    ``mean`` and ``std`` are applied inside the model and stand here for the reader.

    Parameters
    ----------
    size : tuple of int
        Height and width in pixels of the images that the model takes.
    resize : int, optional
        What the photograph is resized to before the central ``size`` is cut out: its short side
        where ``mode`` is "crop", each of its sides where it is "squash". Where that is smaller than
        ``size``, black is put around it. None where nothing is cut off but what "crop" must: the
        short side then becomes the longer of ``size``.
    mode : {"crop", "squash"}
        Whether the photograph keeps its proportions, so that a crop is needed, or is squashed.
    interpolation : str
        Pillow's name of the interpolation.
    antialias : bool
        Whether pixels are averaged where the image shrinks, as Pillow does.
    channels : int
        How many channels the model takes.
    mean, std : tuple of float, optional
        Normalization inside the model, a value a channel; None where it has none, or nobody knows.

    Raises
    ------
    InputError
        If a number is below 1 or beyond all images, or a word is unknown.

    Examples
    --------
    >>> print(Preprocessing(size=(224, 224), resize=256))
    short side to 256 (bilinear), centre 224×224
    >>> print(Preprocessing(size=(224, 224), mode="squash", interpolation="bicubic"))
    squashed to 224×224 (bicubic)
    """

    size: tuple[int, int]
    resize: int | None = None
    mode: Literal["crop", "squash"] = "crop"
    interpolation: Interpolation = "bilinear"
    antialias: bool = True
    channels: int = 3
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        sides = f"whole numbers from 1 to {_LARGEST:,}"
        pair = isinstance(self.size, tuple | list) and len(self.size) == 2
        if not pair or not all(map(_is_side, self.size)):
            raise InputError("Preprocessing.size", self.size, f"height and width, {sides}")
        if not _is_side(self.channels):
            raise InputError("Preprocessing.channels", repr(self.channels), sides)
        if self.resize is not None and not _is_side(self.resize):
            raise InputError("Preprocessing.resize", repr(self.resize), f"None, or {sides}")
        for name in ("mean", "std"):
            values = getattr(self, name)
            if values is not None and not _are_finite(values, positive=name == "std"):
                expected = "None, or a finite value a channel; deviations are above 0"
                raise InputError(f"Preprocessing.{name}", values, expected)
        if self.mode not in ("crop", "squash"):
            raise InputError("Preprocessing.mode", repr(self.mode), "'crop' or 'squash'")
        if self.interpolation not in get_args(Interpolation):
            expected = f"one of {', '.join(get_args(Interpolation))}"
            raise InputError("Preprocessing.interpolation", repr(self.interpolation), expected)

    def apply(self, image: Image.Image) -> Image.Image:
        """Resize and crop a photograph, as torchvision's `Resize` and `CenterCrop` do.

        Parameters
        ----------
        image : Image
            Any photograph.

        Returns
        -------
        Image
            One of ``size``, in the mode that it came in.

        Examples
        --------
        >>> Preprocessing(size=(224, 224), resize=256).apply(Image.new("RGB", (500, 375))).size
        (224, 224)
        """
        height, width = self.size
        short = self.resize or max(self.size)
        if self.mode == "squash":
            large = (self.resize, self.resize) if self.resize else (width, height)
        elif image.width <= image.height:
            large = (short, int(short * image.height / image.width))
        else:
            large = (int(short * image.width / image.height), short)
        if image.size != large:
            image = image.resize(large, Image.Resampling[self.interpolation.upper()])
        left, top = _begin(large[0], width), _begin(large[1], height)
        return image.crop((left, top, left + width, top + height))

    def __str__(self) -> str:
        crop = "×".join(map(str, self.size))
        how = self.interpolation if self.antialias else f"{self.interpolation}, not antialiased"
        if self.mode == "squash" and self.resize is None:
            return f"squashed to {crop} ({how})"
        if self.mode == "squash":
            return f"squashed to {self.resize}×{self.resize} ({how}), centre {crop}"
        return f"short side to {self.resize or max(self.size)} ({how}), centre {crop}"


def _is_side(value: object) -> bool:
    whole = isinstance(value, Integral) and not isinstance(value, bool)
    return whole and 1 <= int(value) <= _LARGEST  # type: ignore[call-overload]


def _are_finite(values: object, positive: bool) -> bool:
    return isinstance(values, tuple | list) and all(
        isinstance(v, Real) and math.isfinite(v) and (float(v) > 0 or not positive) for v in values
    )


def _begin(side: int, crop: int) -> int:
    """Return where a crop begins; half a pixel is rounded as torchvision does."""
    return -((crop - side) // 2) if crop > side else round((side - crop) / 2)
