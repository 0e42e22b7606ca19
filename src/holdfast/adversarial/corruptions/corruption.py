"""The common corruptions, fifteen and four more: one function, and the same as an attack."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from jaxtyping import Float, Integer
from torch import Tensor, nn

from holdfast.adversarial.corruptions.blur import (
    defocus_blur,
    gaussian_blur,
    glass_blur,
    motion_blur,
    zoom_blur,
)
from holdfast.adversarial.corruptions.digital import (
    contrast,
    elastic_transform,
    jpeg_compression,
    pixelate,
    saturate,
)
from holdfast.adversarial.corruptions.draws import Draws
from holdfast.adversarial.corruptions.noise import (
    gaussian_noise,
    impulse_noise,
    shot_noise,
    speckle_noise,
)
from holdfast.adversarial.corruptions.spatter import spatter
from holdfast.adversarial.corruptions.weather import brightness, fog, frost, snow
from holdfast.contracts import InputError, check_images, check_labels, checked

__all__ = [
    "CORRUPTIONS",
    "ECCV2020_CORRUPTIONS",
    "EXTRA_CORRUPTIONS",
    "Corruption",
    "CorruptionName",
    "corrupt",
]

CorruptionName = Literal[
    "gaussian_noise",
    "shot_noise",
    "impulse_noise",
    "defocus_blur",
    "glass_blur",
    "motion_blur",
    "zoom_blur",
    "snow",
    "frost",
    "fog",
    "brightness",
    "contrast",
    "elastic_transform",
    "pixelate",
    "jpeg_compression",
    "speckle_noise",
    "gaussian_blur",
    "spatter",
    "saturate",
]
"""What a corruption may be called."""

CORRUPTIONS: tuple[CorruptionName, ...] = get_args(CorruptionName)[:15]
"""The names of the fifteen of the benchmark, in the order of the paper."""

EXTRA_CORRUPTIONS: tuple[CorruptionName, ...] = get_args(CorruptionName)[15:]
"""The names of the four that are published beside them, for choosing hyper-parameters."""

ECCV2020_CORRUPTIONS: tuple[CorruptionName, ...] = (
    *(name for name in CORRUPTIONS if name != "frost"),
    "speckle_noise",
)
"""The fifteen of table 3 of ECCV 2020, in its order: with speckle noise, and without frost."""

_FUNCTIONS: dict[CorruptionName, Callable[[Tensor, int, Draws], Tensor]] = {
    "gaussian_noise": gaussian_noise,
    "shot_noise": shot_noise,
    "impulse_noise": impulse_noise,
    "defocus_blur": defocus_blur,
    "glass_blur": glass_blur,
    "motion_blur": motion_blur,
    "zoom_blur": zoom_blur,
    "snow": snow,
    "frost": frost,
    "fog": fog,
    "brightness": brightness,
    "contrast": contrast,
    "elastic_transform": elastic_transform,
    "pixelate": pixelate,
    "jpeg_compression": jpeg_compression,
    "speckle_noise": speckle_noise,
    "gaussian_blur": gaussian_blur,
    "spatter": spatter,
    "saturate": saturate,
}


@dataclass(frozen=True)
@checked
class Corruption:
    """A common corruption of each image: what may befall it without any adversary.

    Parameters
    ----------
    name : str
        One of `CORRUPTIONS` or `EXTRA_CORRUPTIONS`.
    severity : int
        From 1 to 5.
    seed : int, optional
        Draw what is random for an image from this seed and the image's content alone, the same in
        any batch. By default it comes from torch's global generator.

    Raises
    ------
    InputError
        If there is no such corruption or severity.

    See Also
    --------
    corrupt : The same as a plain function, with notes on how it is done.

    Examples
    --------
    >>> images, labels = torch.rand(2, 3, 32, 32), torch.tensor([0, 1])
    >>> Corruption("fog", severity=3, seed=0)(nn.Flatten(), images, labels).shape
    torch.Size([2, 3, 32, 32])
    """

    name: CorruptionName
    severity: int
    seed: int | None = None

    def __post_init__(self) -> None:
        _check(self.name, self.severity, "Corruption.")

    def __call__(
        self,
        model: nn.Module,
        images: Float[Tensor, "n c h w"],
        labels: Integer[Tensor, " n"],
    ) -> Float[Tensor, "n c h w"]:
        """Corrupt each image, ``(N, C, H, W)`` in [0, 1]; the model is not asked."""
        check_images(images)
        check_labels(labels, len(images))
        return corrupt(images, self.name, self.severity, seed=self.seed)


def corrupt(
    images: Float[Tensor, "n c h w"],
    name: CorruptionName,
    severity: int,
    *,
    seed: int | None = None,
) -> Float[Tensor, "n c h w"]:
    """Corrupt images as ImageNet-C, Tiny ImageNet-C and CIFAR-10-C are.

    Parameters
    ----------
    images : Tensor
        The images ``(N, C, H, W)`` in [0, 1], of any size. Three channels are red, green and blue;
        otherwise each is treated as grey, and ``saturate``, which knows only colours, does nothing.
    name : str
        One of `CORRUPTIONS` or `EXTRA_CORRUPTIONS`.
    severity : int
        From 1 to 5.
    seed : int, optional
        Draw what is random for an image from this seed and the image's content alone, the same in
        any batch. By default it comes from torch's global generator.

    Returns
    -------
    Tensor
        The corrupted images, ``(N, C, H, W)`` in [0, 1]; no gradient flows.

    Raises
    ------
    InputError
        If the images are no batch in [0, 1], or there is no such corruption or severity.

    Notes
    -----
    The constants are the published ones for images with a shorter side of 32, 64 and 224 pixels.
    Others get those nearest in ratio: CIFAR's up to 45 pixels, Tiny ImageNet's up to 119,
    ImageNet's above; lengths in pixels grow with the side, but are not made less than CIFAR's.
    Only ``pixelate`` keeps its share of the resolution.

    Values are not rounded to 256 levels, but in JPEG files and the drops of spatter. Frost is drawn
    rather than photographed, and zooming is about the exact centre.

    With a seed, an image gets the same noise at every severity.

    References
    ----------
    Hendrycks and Dietterich, Benchmarking Neural Network Robustness to Common Corruptions and
    Perturbations (ICLR 2019).

    Examples
    --------
    >>> images = torch.rand(2, 3, 32, 32)
    >>> blurred = corrupt(images, "defocus_blur", severity=5)
    >>> bool(blurred.std() < images.std())
    True
    >>> corrupt(images, "defocus_blur", severity=6)
    Traceback (most recent call last):
        ...
    holdfast.contracts.InputError: severity: expected a whole number from 1 to 5, got 6
    """
    check_images(images)
    _check(name, severity)
    # Half precision would lose small lengths and chances on the way.
    exact = images.detach().clamp(0, 1).to(torch.promote_types(images.dtype, torch.float32))
    corrupted = _FUNCTIONS[name](exact, severity, Draws(exact, seed))
    return corrupted.clamp(0, 1).to(images.dtype)


def _check(name: str, severity: int, owner: str = "") -> None:
    if name not in _FUNCTIONS:
        raise InputError(f"{owner}name", repr(name), f"one of {', '.join(_FUNCTIONS)}")
    if severity not in range(1, 6):
        raise InputError(f"{owner}severity", severity, "a whole number from 1 to 5")
