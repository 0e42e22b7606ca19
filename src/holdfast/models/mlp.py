"""A plain network of dense layers, for small images."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from torch import nn

from holdfast.contracts import InputError

__all__ = ["mlp"]


def mlp(
    classes: int = 10,
    in_channels: int = 1,
    size: int = 28,
    hidden: Sequence[int] = (256, 256),
) -> nn.Module:
    """Build a multilayer perceptron: dense layers with ReLU between them.

    Parameters
    ----------
    classes : int
        Number of classes.
    in_channels : int
        Channels of the images.
    size : int
        Height and width of the images in pixels.
    hidden : sequence of int
        Units of the hidden layers, from the image on.

    Returns
    -------
    nn.Module
        From images ``(N, in_channels, size, size)`` to logits ``(N, classes)``.

    Raises
    ------
    InputError
        If a layer has no units.

    Examples
    --------
    >>> import torch
    >>> mlp(size=16, hidden=[32])(torch.rand(2, 1, 16, 16)).shape
    torch.Size([2, 10])
    """
    widths = [in_channels * size**2, *hidden]
    if min(widths) < 1:
        raise InputError("hidden", list(hidden), "layers of at least one unit")
    layers: list[nn.Module] = [nn.Flatten()]
    for before, after in pairwise(widths):
        layers += [nn.Linear(before, after), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(widths[-1], classes))
