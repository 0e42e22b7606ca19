"""Natural training: the cross-entropy of the images as they are."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from holdfast.contracts import Batch, checked
from holdfast.models import classify
from holdfast.objectives.checks import classification_loss, images_and_labels

__all__ = ["Natural"]


@dataclass(frozen=True)
@checked
class Natural:
    """The cross-entropy ℓ(x, y), what every other objective is measured against.

    Examples
    --------
    >>> import torch
    >>> model = nn.Sequential(nn.Flatten(), nn.Linear(4, 2))
    >>> batch = {"images": torch.rand(3, 1, 2, 2), "labels": torch.tensor([0, 1, 1])}
    >>> sorted(Natural()(model, batch))
    ['loss']
    """

    def __call__(self, model: nn.Module, batch: Batch) -> dict[str, Tensor]:
        """Return ``{"loss"}``."""
        images, labels = images_and_labels(batch)
        return {"loss": classification_loss(classify(model, images), labels)}
