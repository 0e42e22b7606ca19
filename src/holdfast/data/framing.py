"""How photographs of any size come to the size that a model takes, and boxes and masks with them.

The arithmetic is that of torchvision's ``Resize`` and ``CenterCrop``, to the pixel.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import torch
from jaxtyping import Float, Integer
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from holdfast.contracts import InputError
from holdfast.preprocessing import Interpolation

__all__ = ["Fit", "Framing"]

Fit = Literal["crop", "squash"]
"""Whether an image keeps its proportions and loses its margins, or the other way round."""


@dataclass(frozen=True)
class Framing:
    """Resize, then cut out the centre.

    An image that is of the right size before either step goes through it untouched.

    Parameters
    ----------
    size : tuple of int
        Height and width of what is cut out.
    resize : int or tuple of int, optional
        What an image is resized to before. With "crop", an int is its short side, and two are the
        height and width that it is to cover, as closely as its proportions allow; with "squash",
        they are both of its sides. By default as ``size`` needs.
    fit : {"crop", "squash"}
        Whether an image keeps its proportions.
    interpolation : str
        Pillow's name of the interpolation; it averages pixels where an image shrinks.

    Raises
    ------
    InputError
        If a side is below 1 or a word unknown.

    Notes
    -----
    Where the crop is larger than the resized image, black is put around it, and background around
    its mask. Half a pixel is rounded to the even one: the crop begins at ``round(rest / 2)``.

    Examples
    --------
    >>> framing = Framing((224, 224), resize=256)
    >>> framing.resized(375, 500), framing.begin(256, 341)
    ((256, 341), (16, 58))
    >>> framing.image(Image.new("RGB", (500, 375))).size
    (224, 224)
    >>> framing.boxes(torch.tensor([[0.0, 0.0, 250.0, 375.0]]), torch.tensor([[375, 500]]))
    tensor([[  0.0000,   0.0000, 112.5000, 224.0000]])
    """

    size: tuple[int, int]
    resize: int | tuple[int, int] | None = None
    fit: Fit = "crop"
    interpolation: Interpolation = "bilinear"

    def __post_init__(self) -> None:
        for name in ("size", "resize"):
            sides = getattr(self, name)
            pair = tuple(sides) if isinstance(sides, list | tuple) else (sides, sides)
            whole = all(isinstance(side, int) and side >= 1 for side in pair)
            if sides is not None and (len(pair) != 2 or not whole):
                expected = "a side or height and width, of at least one pixel"
                raise InputError(f"ImageData.{name}", sides, expected)
        if self.fit not in get_args(Fit):
            raise InputError("ImageData.fit", repr(self.fit), "'crop' or 'squash'")
        if self.interpolation not in get_args(Interpolation):
            expected = f"one of {', '.join(get_args(Interpolation))}"
            raise InputError("ImageData.interpolation", repr(self.interpolation), expected)

    def resized(self, height: int, width: int) -> tuple[int, int]:
        """Return the height and width that an image has before its centre is cut out."""
        wanted = self.size if self.resize is None else self.resize
        if self.fit == "squash":
            return _pair(wanted)
        if not isinstance(wanted, int) and wanted[0] == wanted[1]:
            wanted = wanted[0]
        if isinstance(wanted, int):
            short = min(height, width)
            # The long side is rounded down, as torchvision and transformers do.
            return (
                wanted if height == short else int(wanted * height / width),
                wanted if width == short else int(wanted * width / height),
            )
        ratio = min(height / wanted[0], width / wanted[1])
        # As timm does for crops that are no squares, which rounds to the nearest.
        return round(height / ratio), round(width / ratio)

    def begin(self, height: int, width: int) -> tuple[int, int]:
        """Return where in a resized image the crop begins: row and column, below 0 if outside."""
        return _begin(height, self.size[0]), _begin(width, self.size[1])

    def image(self, image: Image.Image) -> Image.Image:
        """Resize and crop an image of 8 bits a channel."""
        height, width = self.resized(image.height, image.width)
        if (height, width) != (image.height, image.width):
            method = Image.Resampling[self.interpolation.upper()]
            image = image.resize((width, height), method)
        if (height, width) == self.size:
            return image
        top, left = self.begin(height, width)
        return image.crop((left, top, left + self.size[1], top + self.size[0]))

    def plane(self, plane: Float[Tensor, "h0 w0"]) -> Float[Tensor, "h w"]:
        """Resize and crop a value for each pixel: bilinear and antialiased, 0 around it."""
        height, width = self.resized(*plane.shape)
        if (height, width) != tuple(plane.shape):
            stacked = plane[None, None]
            plane = F.interpolate(stacked, (height, width), mode="bilinear", antialias=True)[0, 0]
        top, left = self.begin(height, width)
        # Padding by less than nothing crops.
        below, right = self.size[0] + top - height, self.size[1] + left - width
        return F.pad(plane, (-left, right, -top, below))

    def boxes(
        self, boxes: Float[Tensor, "n 4"], sizes: Integer[Tensor, "n 2"]
    ) -> Float[Tensor, "n 4"]:
        """Move boxes along with their images.

        Parameters
        ----------
        boxes : Tensor
            x0, y0, x1, y1 in pixels of each original ``(N, 4)``.
        sizes : Tensor
            Height and width of each original ``(N, 2)``.

        Returns
        -------
        Tensor
            In pixels of the framed images ``(N, 4)``. What a crop cuts off an image, it cuts off
            its box: one that lies in the margin is empty, and begins and ends at the border.
        """
        if not len(boxes):
            return boxes
        resized = torch.tensor([self.resized(*size) for size in sizes.tolist()])
        begin = torch.tensor([self.begin(*size) for size in resized.tolist()])
        # Rows and columns of sizes are y and x; of boxes, x and y.
        moved = boxes * (resized / sizes)[:, [1, 0, 1, 0]] - begin[:, [1, 0, 1, 0]]
        limit = torch.tensor([self.size[1], self.size[0]] * 2)
        uncut = (resized == torch.tensor(self.size)).all(1, keepdim=True)
        return torch.where(uncut, moved, moved.clamp_min(0).minimum(limit))


def _pair(sides: int | tuple[int, int]) -> tuple[int, int]:
    return (sides, sides) if isinstance(sides, int) else (sides[0], sides[1])


def _begin(side: int, crop: int) -> int:
    return -((crop - side) // 2) if crop > side else round((side - crop) / 2)
