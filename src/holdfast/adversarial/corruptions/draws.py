"""Random numbers for a batch of images, each image's own."""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from holdfast.contracts import generators

__all__ = ["Draws"]


class Draws:
    """What the corruptions of a batch are drawn from, like the images in type and device.

    Parameters
    ----------
    images : Tensor
        The images ``(N, C, H, W)``.
    seed : int, optional
        Draw what is for an image from this seed and the image's content alone, on the CPU, so that
        it is the same in any batch and on any device. By default all comes from torch's global
        generator.

    Examples
    --------
    >>> images = torch.rand(2, 3, 8, 8)
    >>> Draws(images, seed=0).uniform(8, 8).shape
    torch.Size([2, 8, 8])
    >>> alone, among = (Draws(some, seed=0).normal(4) for some in (images[1:], images))
    >>> bool((alone[0] == among[1]).all())
    True
    """

    def __init__(self, images: Float[Tensor, "n c h w"], seed: int | None = None) -> None:
        self._like = images
        self._own = None if seed is None else generators(images, seed)

    def uniform(self, *shape: int, low: float = 0.0, high: float = 1.0) -> Tensor:
        """Draw numbers uniform in [low, high), ``(N, *shape)``."""
        return low + (high - low) * self._draw(torch.rand, shape)

    def normal(self, *shape: int) -> Tensor:
        """Draw numbers of mean 0 and variance 1, ``(N, *shape)``."""
        return self._draw(torch.randn, shape)

    def poisson(self, rates: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c h w"]:
        """Draw counts, each of the Poisson distribution with its rate."""
        if self._own is None:
            return torch.poisson(rates)
        each = zip(rates.cpu(), self._own, strict=True)
        return torch.stack([torch.poisson(rate, generator=own) for rate, own in each]).to(rates)

    def _draw(self, sample: Callable[..., Tensor], shape: tuple[int, ...]) -> Tensor:
        like = self._like
        if self._own is None:
            return sample(len(like), *shape, dtype=like.dtype, device=like.device)
        drawn = [sample(shape, generator=own, dtype=torch.float32) for own in self._own]
        return torch.stack(drawn).to(like)
