"""What share of images a classifier gets right, as they are and under an attack."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Integer
from torch import Tensor, nn

from holdfast.contracts import (
    Attack,
    InputError,
    check_images,
    check_labels,
    chunks,
    default_chunk,
)
from holdfast.models import classify, evaluating

__all__ = ["accuracy", "check_logits", "correct", "right"]


def accuracy(
    model: nn.Module,
    images: Float[Tensor, "n c h w"],
    labels: Integer[Tensor, " n"],
    attack: Attack | None = None,
    chunk: int | None = None,
) -> float:
    """Return the share of images to which the model gives their label, after an attack.

    The mean of `correct`, which takes the same arguments and answers image by image.

    Parameters
    ----------
    model : nn.Module
        The classifier; it runs in eval mode.
    images : Tensor
        The images, ``(N, C, H, W)`` in [0, 1].
    labels : Tensor
        The class of each image, ``(N,)``.
    attack : Attack, optional
        What is done to the images first; by default nothing.
    chunk : int, optional
        How many images the model judges at a time; by default chosen from their size. The attack
        has its own.

    Returns
    -------
    float
        The accuracy, from 0 to 1.

    Raises
    ------
    InputError
        If images or labels are not what they must be.

    Examples
    --------
    >>> from holdfast.adversarial import FGSM
    >>> model = nn.Sequential(nn.Flatten(), nn.Linear(1, 2))
    >>> model[1].weight.data = torch.tensor([[0.0], [1.0]])
    >>> model[1].bias.data = torch.tensor([0.5, 0.0])
    >>> images, labels = torch.tensor([0.1, 0.45, 0.55, 0.9]).view(4, 1, 1, 1), torch.arange(4) // 2
    >>> accuracy(model, images, labels)
    1.0
    >>> accuracy(model, images, labels, FGSM(eps=0.1))
    0.5
    """
    return correct(model, images, labels, attack, chunk).double().mean().item()


def correct(
    model: nn.Module,
    images: Float[Tensor, "n c h w"],
    labels: Integer[Tensor, " n"],
    attack: Attack | None = None,
    chunk: int | None = None,
) -> Bool[Tensor, " n"]:
    """Tell for each image whether the model gives it its label, after an attack.

    To count an image as robust only if it withstands several attacks, combine their answers by
    ``&``.

    Parameters
    ----------
    model, images, labels, attack, chunk
        As for `accuracy`.

    Returns
    -------
    Tensor
        Whether each image is classified as its label, ``(N,)``, bool. Where the model answers with
        NaN it is not.

    Raises
    ------
    InputError
        If images or labels are not what they must be.

    Examples
    --------
    >>> model = nn.Flatten()  # the brighter of two pixels
    >>> correct(model, torch.tensor([[[[0.2, 0.7]]]]), torch.tensor([1]))
    tensor([True])
    """
    check_images(images)
    check_labels(labels, len(images))
    if attack is not None:
        images = attack(model, images, labels)
    labels = labels.to(images.device, torch.long)
    with evaluating(model), torch.no_grad():
        return torch.cat(
            [
                right(classify(model, images[part]), labels[part])
                for part in chunks(len(images), chunk or default_chunk(images))
            ]
        )


def right(logits: Float[Tensor, "n k"], labels: Integer[Tensor, " n"]) -> Bool[Tensor, " n"]:
    """Tell whether the label has the highest logit; it has not where a logit is NaN.

    Raises
    ------
    InputError
        As `check_logits` does.

    Examples
    --------
    >>> right(torch.tensor([[1.0, 2.0], [1.0, torch.nan]]), torch.tensor([1, 1]))
    tensor([ True, False])
    """
    check_logits(logits, labels)
    return (logits.argmax(1) == labels) & ~logits.isnan().any(1)


def check_logits(logits: Tensor, labels: Tensor, classes: int = 2) -> None:
    """Refuse a model's answer that is no logits ``(N, K)`` of the labels.

    Raises
    ------
    InputError
        If there are fewer than ``classes`` classes, or a label is out of their range.

    Examples
    --------
    >>> check_logits(torch.zeros(1, 1), torch.tensor([0]))  # doctest: +ELLIPSIS
    Traceback (most recent call last):
        ...
    holdfast.contracts.InputError: model: expected logits (N, K) of at least 2 classes, got ...
    """
    if logits.ndim != 2 or logits.shape[1] < classes:
        came = f"an output of shape {tuple(logits.shape)}"
        raise InputError("model", came, f"logits (N, K) of at least {classes} classes")
    check_labels(labels, len(logits), logits.shape[1])
