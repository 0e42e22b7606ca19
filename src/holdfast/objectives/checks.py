"""What every objective checks: its batch, its labels and its settings."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float, Integer
from torch import Tensor
from torch.nn import functional as F

from holdfast.contracts import Batch, InputError, check_images, check_labels

__all__ = [
    "check_share",
    "classification_loss",
    "classification_losses",
    "entry",
    "images_and_labels",
]


def images_and_labels(batch: Batch) -> tuple[Float[Tensor, "n c h w"], Integer[Tensor, " n"]]:
    """Return the checked images and labels of a batch; images in half precision as float32.

    Raises
    ------
    InputError
        If there are none, the images leave [0, 1], or the labels are not one an image.

    Examples
    --------
    >>> import torch
    >>> images_and_labels({"images": torch.zeros(2, 1, 4, 4), "labels": torch.tensor([1])})
    Traceback (most recent call last):
        ...
    holdfast.contracts.InputError: labels: expected shape (2,), got shape (1,)
    """
    images, labels = entry(batch, "images"), entry(batch, "labels")
    check_images(images)
    check_labels(labels, len(images))
    if torch.finfo(images.dtype).bits < 32:
        # Perturbations need finer steps; a model in half precision gets its own all the same.
        images = images.float()
    return images, labels.to(images.device, torch.long)


def entry(batch: Batch, name: str) -> Any:
    """Return what the batch carries by this name.

    Raises
    ------
    InputError
        If it carries no such thing; the error names what there is.

    Examples
    --------
    >>> import torch
    >>> entry({"images": torch.zeros(1, 1, 4, 4), "labels": torch.tensor([1])}, "masks")
    Traceback (most recent call last):
        ...
    holdfast.contracts.InputError: batch: expected an entry 'masks', got images, labels
    """
    if name not in batch:
        raise InputError("batch", ", ".join(batch) or "an empty one", f"an entry {name!r}")
    return batch[name]  # type: ignore[literal-required] # any of its names


def classification_loss(
    logits: Float[Tensor, "n k"], labels: Integer[Tensor, " n"]
) -> Float[Tensor, ""]:
    """Return the mean cross-entropy of a batch; `classification_losses` has its errors.

    Examples
    --------
    >>> import torch
    >>> classification_loss(torch.zeros(3, 2), torch.tensor([1, 0, 1]))
    tensor(0.6931)
    """
    _check_logits(logits, labels)
    return F.cross_entropy(logits, labels)


def classification_losses(
    logits: Float[Tensor, "n k"], labels: Integer[Tensor, " n"]
) -> Float[Tensor, " n"]:
    """Return the cross-entropy of each image, ``(N,)``.

    Raises
    ------
    InputError
        If the logits are no matrix, or a label is no class of theirs.

    Examples
    --------
    >>> import torch
    >>> classification_losses(torch.zeros(1, 2), torch.tensor([1]))
    tensor([0.6931])
    """
    _check_logits(logits, labels)
    return F.cross_entropy(logits, labels, reduction="none")


def check_share(owner: object, *fields: str) -> None:
    """Refuse a hyper-parameter of ``owner`` that is not in [0, 1]."""
    for field in fields:
        value = getattr(owner, field)
        if not 0 <= value <= 1:
            raise InputError(f"{type(owner).__name__}.{field}", value, "a number in [0, 1]")


def _check_logits(logits: Tensor, labels: Tensor) -> None:
    if logits.ndim != 2:
        raise InputError("model", f"an output of shape {tuple(logits.shape)}", "logits (N, K)")
    check_labels(labels, len(logits), logits.shape[1])
