"""What an image processor of Hugging Face does, in our words, checked on a picture."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from PIL import Image

from holdfast.contracts import HoldfastError
from holdfast.errors import reason
from holdfast.preprocessing import Preprocessing

__all__ = ["Processed", "read_processor"]

_TOLERANCE = 0.01
"""How far, on average and on [0, 1], two ways to resize and cut out may differ by rounding."""


@dataclass(frozen=True)
class Processed:
    """What a processor does.

    Attributes
    ----------
    preprocessing : Preprocessing, optional
        How it makes images; None where it leaves them as they are.
    mean, std : tuple of float, optional
        How it normalizes images in [0, 1]; None where it does not.
    bgr : bool
        Whether it turns the channels around.
    silent : bool
        Whether there is no processor that would say all this.
    """

    preprocessing: Preprocessing | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    bgr: bool = False
    silent: bool = False


def read_processor(processor: Any, channels: int, name: str) -> Processed:
    """Say in our words what a processor does, and see on a picture that it does just that.

    Parameters
    ----------
    processor : object
        An image processor of transformers.
    channels : int
        How many channels the network takes.
    name : str
        What the model is called, for the error.

    Raises
    ------
    HoldfastError
        If the processor does more than to resize, cut out, turn channels around and normalize.
    """
    try:
        said = _said(processor, channels)
        theirs = _theirs(processor, channels)
    except Exception as error:  # a processor of anybody's can fail in any way
        raise _refusal(processor, name, reason(error)) from error
    differences = {
        bgr: _difference(replace(said, bgr=bgr), theirs, channels) for bgr in (False, True)
    }
    bgr = differences[True] < differences[False]
    if not differences[bgr] < _TOLERANCE:
        raise _refusal(processor, name, "its pixels are not those that Holdfast makes")
    return _turned(said) if bgr else said


def _turned(said: Processed) -> Processed:
    """Write mean and deviation, which were in the network's order of channels, as red first."""
    if said.mean is None or said.std is None:
        return replace(said, bgr=True)
    turned: Any = {"mean": said.mean[::-1], "std": said.std[::-1]}
    made = said.preprocessing and replace(said.preprocessing, **turned)
    return replace(said, bgr=True, preprocessing=made, **turned)


def _refusal(processor: Any, name: str, why: str) -> HoldfastError:
    return HoldfastError(
        f"the {type(processor).__name__} of {name} does what Holdfast cannot do ({why}); write a "
        "function that makes a model of images in [0, 1] and name it as package.module:function"
    )


def _said(processor: Any, channels: int) -> Processed:
    """Read the processor's settings; some classes read their own in ways of their own."""
    mean, std = _normalization(processor, channels)
    preprocessing = _preprocessing(processor)
    if preprocessing is not None:
        preprocessing = replace(preprocessing, channels=channels, mean=mean, std=std)
    return Processed(preprocessing, mean, std)


def _normalization(
    processor: Any, channels: int
) -> tuple[tuple[float, ...] | None, tuple[float, ...] | None]:
    """Fold rescaling, offset and normalization into ``(image - mean) / std`` on [0, 1]."""
    scale = 255 * processor.rescale_factor if processor.do_rescale else 255.0
    offset = 1.0 if processor.do_rescale and getattr(processor, "rescale_offset", False) else 0.0
    mean, std = [0.0] * channels, [1.0] * channels
    if processor.do_normalize:
        mean, std = (_column(v, channels) for v in (processor.image_mean, processor.image_std))
    if getattr(processor, "include_top", False):  # EfficientNet's divides once more
        std = [s * t for s, t in zip(std, _column(processor.image_std, channels), strict=True)]
    means = tuple((m + offset) / scale for m in mean)
    stds = tuple(s / scale for s in std)
    plain = set(means) == {0.0} and set(stds) == {1.0}
    return (None, None) if plain else (means, stds)


def _column(value: Any, channels: int) -> list[float]:
    return (
        [float(value)] * channels if isinstance(value, int | float) else [float(v) for v in value]
    )


def _preprocessing(processor: Any) -> Preprocessing | None:
    kind = type(processor).__name__.removesuffix("Pil").removesuffix("Fast")
    interpolation: Any = Image.Resampling(int(processor.resample or 2)).name.lower()
    if not processor.do_resize:
        return None
    size, crop = _sides(processor.size), None
    if getattr(processor, "do_center_crop", False):
        crop = _sides(processor.crop_size)
    if kind == "ConvNextImageProcessor":
        edge = size["shortest_edge"]
        if edge >= 384:
            return Preprocessing((edge, edge), None, "squash", interpolation)
        return Preprocessing((edge, edge), int(edge / processor.crop_pct), "crop", interpolation)
    if "shortest_edge" in size:
        edge = size["shortest_edge"]
        if kind == "PoolFormerImageProcessor" and processor.crop_pct is not None:
            edge = int(edge / processor.crop_pct)
        if kind == "LevitImageProcessor":
            edge = int((256 / 224) * edge)
        if crop is None:
            raise ValueError("images of many shapes")
        return Preprocessing((crop["height"], crop["width"]), edge, "crop", interpolation)
    height, width = size["height"], size["width"]
    if kind == "PoolFormerImageProcessor" and processor.crop_pct is not None and crop is not None:
        edge = int(height / processor.crop_pct)
        return Preprocessing((crop["height"], crop["width"]), edge, "crop", interpolation)
    if crop is None or crop == size:
        return Preprocessing((height, width), None, "squash", interpolation)
    if height != width:
        raise ValueError("a crop from an image that is no square")
    return Preprocessing((crop["height"], crop["width"]), height, "squash", interpolation)


def _sides(size: Any) -> dict[str, int]:
    """Read a size, which may be a number, a mapping or an object of transformers."""
    if isinstance(size, int):
        return {"height": size, "width": size}
    names = ("height", "width", "shortest_edge", "longest_edge")
    read = {
        key: size.get(key) if hasattr(size, "get") else getattr(size, key, None) for key in names
    }
    return {key: int(side) for key, side in read.items() if side is not None}


# --- seen on a picture ---------------------------------------------------------------------------


def _picture(channels: int) -> Image.Image:
    """Draw smooth waves, other ones in each channel, so that pixels tell where they are from."""
    y, x = np.mgrid[0:300, 0:400] / 400
    waves = [np.cos(2 * np.pi * (x * a + y * b)) for a, b in ((1, 0.3), (0.4, 1), (-0.7, 0.8))]
    planes = np.stack(waves, -1) * 100 + 128
    picture = Image.fromarray(planes.astype(np.uint8))
    return picture if channels == 3 else picture.convert("L")


def _theirs(processor: Any, channels: int) -> np.ndarray:
    made = processor(_picture(channels), return_tensors="pt")["pixel_values"]
    return np.asarray(made[0].double())


def _difference(said: Processed, theirs: np.ndarray, channels: int) -> float:
    """Compare what the network would see, on the scale of the images."""
    picture = _picture(channels)
    if said.preprocessing is not None:
        picture = said.preprocessing.apply(picture)
    ours = np.asarray(picture, dtype=np.float64).reshape(picture.height, picture.width, -1)
    ours = ours.transpose(2, 0, 1)[:: -1 if said.bgr else 1] / 255
    if ours.shape != theirs.shape:
        return float("inf")
    std = np.ones(len(ours)) if said.std is None else np.asarray(said.std)
    mean = np.zeros(len(ours)) if said.mean is None else np.asarray(said.mean)
    pixels = theirs * std[:, None, None] + mean[:, None, None]
    # transformers rounds half a pixel down where torchvision rounds it to the even one.
    height, width = ours.shape[1] - 2, ours.shape[2] - 2
    shifted = (
        ours[:, top : top + height, left : left + width] for top in range(3) for left in range(3)
    )
    return float(min(np.abs(one - pixels[:, 1:-1, 1:-1]).mean() for one in shifted))
