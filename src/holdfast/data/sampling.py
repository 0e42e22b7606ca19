"""Which images: those held out for validation, and repeated ones where a class has few."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Integer
from torch import Tensor

from holdfast.contracts import InputError

__all__ = ["balanced", "held_out"]


def held_out(labels: Integer[Tensor, " n"], count: int | float, seed: int) -> Bool[Tensor, " n"]:
    """Draw images to hold out, spread over the classes as all images are.

    Parameters
    ----------
    labels : Tensor
        The class of each image ``(N,)``.
    count : int or float
        How many, from 1 to N − 1; or which share of them, above 0 and below 1.
    seed : int
        Seeds the draw; torch's global generator is left alone.

    Returns
    -------
    Tensor
        Which are held out ``(N,)``, bool. Each class has its share, up to one image.

    Raises
    ------
    InputError
        If none would be held out or none left.

    Examples
    --------
    >>> labels = torch.tensor([0, 1] * 50)
    >>> held = held_out(labels, 0.1, seed=0)
    >>> labels[held].bincount()
    tensor([5, 5])
    """
    total = len(labels)
    wanted = round(count * total) if isinstance(count, float) else count
    if not 1 <= wanted < total:
        expected = f"at least 1 and fewer than the {total} images there are"
        raise InputError("ImageData.validation", f"{count}, which is {wanted} images", expected)
    generator = torch.Generator().manual_seed(seed)
    shuffled = torch.randperm(total, generator=generator)
    by_class = shuffled[labels[shuffled].argsort(stable=True)]
    # In rows sorted by class, every (N / wanted)-th is held out: so each class gets its share.
    places = (torch.arange(wanted, dtype=torch.float64) + 0.5) * (total / wanted)
    held = torch.zeros(total, dtype=torch.bool)
    held[by_class[places.long()]] = True
    return held


def balanced(labels: Integer[Tensor, " n"], count: int, seed: int) -> Integer[Tensor, " m"]:
    """Repeat the images of each class until it has ``count``.

    Parameters
    ----------
    labels : Tensor
        The class of each image ``(N,)``.
    count : int
        How many images a class; one that has more keeps them all, and one that has none stays
        empty.
    seed : int
        Seeds which images are repeated once more than others; torch's global generator is left
        alone.

    Returns
    -------
    Tensor
        The images ``(M,)``, each as often as it comes: first all, then the repeated ones.

    Examples
    --------
    >>> labels = torch.tensor([0, 0, 0, 1])
    >>> labels[balanced(labels, 3, seed=0)]
    tensor([0, 0, 0, 1, 1, 1])
    """
    generator = torch.Generator().manual_seed(seed)
    parts = [torch.arange(len(labels))]
    for label in labels.unique().tolist():
        own = (labels == label).nonzero().flatten()
        missing = max(0, count - len(own))
        own = own[torch.randperm(len(own), generator=generator)]
        parts.append(own.repeat(missing // len(own) + 1)[:missing])
    return torch.cat(parts)
