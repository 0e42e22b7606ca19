"""Natural training: the cross-entropy of the images as they are."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn
from torch.nn import functional as F

from holdfast.contracts import Batch

__all__ = ["Natural"]


@dataclass(frozen=True)
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
        return {"loss": F.cross_entropy(model(batch["images"]), batch["labels"])}
