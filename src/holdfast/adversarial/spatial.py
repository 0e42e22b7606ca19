"""The worst rotation and shift of each image: an attack that no ball of noise contains."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product

import torch
from jaxtyping import Float, Integer
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.transforms import InterpolationMode
from torchvision.transforms.functional import affine

from holdfast.adversarial.accuracy import right
from holdfast.contracts import (
    InputError,
    check_images,
    check_labels,
    check_positive,
    checked,
    chunks,
    default_chunk,
)
from holdfast.models import classify, evaluating

__all__ = ["Spatial"]


@dataclass(frozen=True)
@checked
class Spatial:
    """Try a grid of rotations and shifts on each image, and keep the worst.

    An image that is turned and moved together with what is beyond its edge, black, and resampled
    bilinearly. The whole grid is ``angles · shifts²`` images, and so many runs of the model. It
    always holds the image itself.

    Parameters
    ----------
    angle : float
        The largest rotation, in degrees, either way.
    shift : float
        The largest shift, as a share of the image's height and width, in all four directions.
    angles : int
        Number of rotations from ``-angle`` to ``angle``; odd, so that 0 is among them.
    shifts : int
        Number of shifts in each of the two directions; odd.
    chunk : int, optional
        How many images to take at a time; by default chosen from their size.

    Raises
    ------
    InputError
        If a setting is out of range, or a number of grid points is even.

    Notes
    -----
    The worst is, among the grid points that the model gets wrong, or among all where there is none,
    the one with the highest cross-entropy.

    References
    ----------
    Engstrom et al., Exploring the Landscape of Spatial Robustness (ICML 2019). The defaults are its
    grid: 30 degrees, 10 % of the image, 31 rotations, 5 × 5 shifts.

    Examples
    --------
    >>> model = nn.Sequential(nn.Flatten(), nn.Linear(64, 2))
    >>> images, labels = torch.rand(3, 1, 8, 8), torch.tensor([0, 1, 0])
    >>> turned = Spatial(angles=5, shifts=3)(model, images, labels)
    >>> turned.shape
    torch.Size([3, 1, 8, 8])
    >>> bool((Spatial(angles=1, shifts=1)(model, images, labels) == images).all())
    True
    """

    angle: float = 30.0
    shift: float = 0.1
    angles: int = 31
    shifts: int = 5
    chunk: int | None = None

    def __post_init__(self) -> None:
        check_positive(self, "angle", "shift", zero=True)
        for name, limit in (("angle", 180), ("shift", 1)):
            if getattr(self, name) > limit:
                raise InputError(f"Spatial.{name}", getattr(self, name), f"at most {limit}")
        for name in ("angles", "shifts"):
            count = getattr(self, name)
            if count < 1 or count % 2 == 0:
                raise InputError(f"Spatial.{name}", count, "an odd number of at least 1")

    def __call__(
        self,
        model: nn.Module,
        images: Float[Tensor, "n c h w"],
        labels: Integer[Tensor, " n"],
    ) -> Float[Tensor, "n c h w"]:
        """Turn and shift each image to the model's disadvantage; the model runs in eval mode.

        Returns the worst of each image's grid, ``(N, C, H, W)`` in [0, 1].
        """
        check_images(images)
        check_labels(labels, len(images))
        images, labels = images.detach(), labels.to(images.device, torch.long)
        with evaluating(model), torch.no_grad():
            return torch.cat(
                [
                    self._worst(model, images[part], labels[part])
                    for part in chunks(len(images), self.chunk or default_chunk(images))
                ]
            )

    def _worst(self, model: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
        worst = images
        wrong, loss = _judge(model, images, labels)
        for angle, down, across in self._grid():
            if angle == down == across == 0:
                continue  # the image itself, where resampling would only add rounding
            shift = [across * images.shape[-1], down * images.shape[-2]]
            moved = affine(
                images,
                angle=angle,
                translate=shift,  # type: ignore[arg-type, unused-ignore]
                scale=1.0,
                shear=[0.0, 0.0],
                interpolation=InterpolationMode.BILINEAR,
            ).clamp(0, 1)
            now_wrong, now_loss = _judge(model, moved, labels)
            worse = (now_wrong & ~wrong) | ((now_wrong == wrong) & (now_loss > loss))
            worst = torch.where(worse[:, None, None, None], moved, worst)
            wrong, loss = wrong | now_wrong, torch.where(worse, now_loss, loss)
        return worst

    def _grid(self) -> Iterator[tuple[float, float, float]]:
        shifts = _symmetric(self.shift, self.shifts)
        return product(_symmetric(self.angle, self.angles), shifts, shifts)


def _symmetric(limit: float, count: int) -> list[float]:
    """Spread an odd number of values from ``-limit`` to ``limit``, exactly 0 in the middle."""
    half = count // 2
    return [limit * step / max(half, 1) for step in range(-half, half + 1)]


def _judge(model: nn.Module, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    logits = classify(model, images)
    wrong = ~right(logits, labels)
    return wrong, F.cross_entropy(logits, labels, reduction="none")
