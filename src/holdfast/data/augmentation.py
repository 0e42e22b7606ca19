"""Random changes of training images, which boxes, masks and saliency go along with."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torchvision import tv_tensors
from torchvision.transforms import v2

from holdfast.contracts import InputError, check_positive, checked

__all__ = ["Augmentation"]


@dataclass(frozen=True)
@checked
class Augmentation:
    """Random changes, drawn anew each time an image is taken; all are off by default.

    They come in the order below. Images are resampled bilinearly, masks and saliency by the nearest
    pixel, and what comes in from outside the image is black, background, without saliency. A box
    becomes the smallest upright one around what became of it, cut at the border of the image; one
    whose object has left the image is empty. Size and values in [0, 1] stay.

    Parameters
    ----------
    crop : int
        Put so many black pixels around the image and crop it to its size again, anywhere.
    flip : bool
        Mirror left and right, every other time.
    rotation : float
        Turn by at most so many degrees, either way.
    translation : float
        Shift by at most this share of the side, along each axis and either way.
    projection : float
        Look at the image from an angle: the corners move inwards by at most this share of half the
        side.
    colour_jitter : float
        Scale brightness, contrast and saturation by factors that differ from 1 by at most so much.

    Raises
    ------
    InputError
        If a setting is out of range.

    Examples
    --------
    >>> augment = Augmentation(flip=True, crop=4)
    >>> sample = {"images": torch.rand(3, 32, 32), "boxes": torch.tensor([4.0, 4.0, 20.0, 28.0])}
    >>> {name: values.shape for name, values in augment(sample).items()}
    {'images': torch.Size([3, 32, 32]), 'boxes': torch.Size([4])}
    """

    crop: int = 0
    flip: bool = False
    rotation: float = 0.0
    translation: float = 0.0
    projection: float = 0.0
    colour_jitter: float = 0.0

    def __post_init__(self) -> None:
        check_positive(
            self, "crop", "rotation", "translation", "projection", "colour_jitter", zero=True
        )
        for name in ("translation", "projection", "colour_jitter"):
            if getattr(self, name) > 1:
                expected = "a number from 0 to 1"
                raise InputError(f"Augmentation.{name}", getattr(self, name), expected)
        if self.rotation > 180:
            raise InputError("Augmentation.rotation", self.rotation, "at most 180 degrees")

    def __call__(self, sample: dict[str, Tensor]) -> dict[str, Tensor]:
        """Change a sample: ``images (C, H, W)`` and, where it has them, the rest along with it.

        Parameters
        ----------
        sample : dict of Tensor
            ``images`` in [0, 1]; ``boxes (4,)``, ``masks (H, W)`` and ``saliency (H, W)`` are
            changed along, and all else stays. Draws are from torch's global generator.
        """
        height, width = sample["images"].shape[-2:]
        wrapped: dict[str, Tensor] = {}
        for name, values in sample.items():
            if name == "images":
                wrapped[name] = tv_tensors.Image(values)
            elif values.isnan().any():  # the image has none
                continue
            elif name == "boxes":
                wrapped[name] = tv_tensors.BoundingBoxes(
                    values[None], format="XYXY", canvas_size=(height, width)
                )
            elif name in ("masks", "saliency"):
                wrapped[name] = tv_tensors.Mask(values)
        for transform in self._transforms(height, width):
            wrapped = transform(wrapped)
        changed = {name: values.as_subclass(torch.Tensor) for name, values in wrapped.items()}
        if "boxes" in changed:
            limit = torch.tensor([width, height, width, height])
            changed["boxes"] = changed["boxes"][0].clamp_min(0).minimum(limit)
        return {**sample, **changed}

    def _transforms(self, height: int, width: int) -> list[nn.Module]:
        smooth = v2.InterpolationMode.BILINEAR
        transforms: list[nn.Module] = []
        if self.crop:
            transforms.append(v2.RandomCrop((height, width), padding=self.crop))
        if self.flip:
            transforms.append(v2.RandomHorizontalFlip())
        if self.rotation or self.translation:
            shift = (self.translation, self.translation)
            transforms.append(v2.RandomAffine(self.rotation, shift, interpolation=smooth))
        if self.projection:
            transforms.append(v2.RandomPerspective(self.projection, p=1.0, interpolation=smooth))
        if self.colour_jitter:
            amount = self.colour_jitter
            transforms.append(v2.ColorJitter(amount, amount, amount))
        return transforms
