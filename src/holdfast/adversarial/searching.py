"""What every search for the decision boundary returns, and how it goes through many images."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Integer
from torch import Tensor, nn

from holdfast.adversarial.slope import warn_if_stuck
from holdfast.contracts import check_images, check_labels, check_precision, chunks, default_chunk
from holdfast.models import evaluating

__all__ = ["Boundary", "searched"]


@dataclass(frozen=True)
class Boundary:
    """The nearest points of another class that a search found, image by image.

    Attributes
    ----------
    points : Tensor
        The points, beyond the boundary, ``(N, C, H, W)`` in [0, 1]. Where none was found, the image
        itself, or the point where a search says that it ends.
    distances : Tensor
        The Euclidean distance of each point from its image, ``(N,)``, in pixel units on [0, 1],
        over all pixels and channels together. Infinite where no point was found.
    labels : Tensor
        The class of each point, ``(N,)``.
    found : Tensor
        Whether a point of another class was found, ``(N,)``, bool.
    """

    points: Float[Tensor, "n c h w"]
    distances: Float[Tensor, " n"]
    labels: Integer[Tensor, " n"]
    found: Bool[Tensor, " n"]


def searched(
    method: object,
    search: Callable[[nn.Module, Tensor, Tensor | None], tuple[Tensor, Tensor, Tensor, Tensor]],
    model: nn.Module,
    images: Float[Tensor, "n c h w"],
    labels: Integer[Tensor, " n"] | None,
    *,
    chunk: int | None = None,
    copies: int = 1,
) -> Boundary:
    """Search around some images at a time; the model runs in eval mode.

    Parameters
    ----------
    method : object
        The method that searches, for its warning where most steps had no direction.
    search : callable
        From model, images and labels (or None) to points, distances, infinite where none was found,
        classes, and the share of steps without a direction.
    model, images, labels
        What the method was called with.
    chunk : int, optional
        How many images to take at a time; by default chosen from their size.
    copies : int
        How many inputs an image is, for that choice.

    Raises
    ------
    InputError
        If images or labels are not what they must be.

    Examples
    --------
    >>> def stay(model, images, labels):
    ...     ones = torch.ones(len(images))
    ...     return images, ones * torch.inf, torch.zeros(len(images), dtype=torch.long), 0 * ones
    >>> searched(stay, stay, nn.Flatten(), torch.rand(3, 1, 1, 2), None, chunk=2).found
    tensor([False, False, False])
    """
    check_images(images)
    check_precision(images)
    if labels is not None:
        check_labels(labels, len(images))
    with evaluating(model):
        parts = [
            search(model, images[part].detach(), None if labels is None else labels[part])
            for part in chunks(len(images), chunk or default_chunk(images, copies))
        ]
    points, distances, classes, stuck = (torch.cat(part) for part in zip(*parts, strict=True))
    warn_if_stuck(method, stuck, stacklevel=4)
    return Boundary(points, distances, classes, distances.isfinite())
