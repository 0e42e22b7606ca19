"""The published constants of each severity, and which of them an image gets."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TypeVar

from jaxtyping import Float
from torch import Tensor

__all__ = ["published"]

T = TypeVar("T")


def published(
    images: Float[Tensor, "n c h w"], table: Mapping[int, Sequence[T]], severity: int
) -> tuple[T, float]:
    """Choose the constants of a severity by the images' shorter side.

    The constants are published for 32 pixels (CIFAR-10-C), 64 (Tiny ImageNet-C) and 224
    (ImageNet-C). An image gets those whose side is nearest to its own in ratio: CIFAR's up to 45
    pixels, Tiny ImageNet's up to 119, ImageNet's above.

    Parameters
    ----------
    images : Tensor
        The images ``(N, C, H, W)``.
    table : mapping
        For each published side the constants of the five severities.
    severity : int
        From 1 to 5.

    Returns
    -------
    tuple
        The constants, and by how much to scale those that are lengths in pixels: the side over the
        published one. Below 32 pixels it is 1, for CIFAR's lengths are a pixel or two already.

    Examples
    --------
    >>> import torch
    >>> table = {32: "abcde", 64: "fghij", 224: "klmno"}
    >>> published(torch.rand(1, 3, 32, 32), table, severity=1)
    ('a', 1.0)
    >>> published(torch.rand(1, 3, 112, 200), table, severity=5)
    ('j', 1.75)
    """
    side = min(images.shape[-2:])
    nearest = min(table, key=lambda known: abs(math.log(side / known)))
    scale = max(side, min(table)) / nearest
    return table[nearest][severity - 1], scale
