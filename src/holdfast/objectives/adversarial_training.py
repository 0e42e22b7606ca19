"""Adversarial training: the cross-entropy of attacked images."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from holdfast.adversarial import PGD
from holdfast.contracts import Attack, Batch, checked
from holdfast.models import classify
from holdfast.objectives.checks import classification_loss, images_and_labels

__all__ = ["AdversarialTraining"]


@dataclass(frozen=True)
@checked
class AdversarialTraining:
    """The cross-entropy ℓ(x̃, y) of the images that an attack makes: PGD-n training.

    Parameters
    ----------
    attack : Attack
        Run anew on each batch with the model in eval mode; the loss runs in the mode the model is
        in. The default is PGD-10 at ε = 8/255.

    References
    ----------
    Madry et al., Towards Deep Learning Models Resistant to Adversarial Attacks (ICLR 2018).

    Examples
    --------
    >>> import torch
    >>> model = nn.Sequential(nn.Flatten(), nn.Linear(4, 2))
    >>> batch = {"images": torch.rand(3, 1, 2, 2), "labels": torch.tensor([0, 1, 1])}
    >>> objective = AdversarialTraining(PGD(eps=0.1, step_size=0.02, steps=7))
    >>> sorted(objective(model, batch))
    ['loss']
    """

    attack: Attack = PGD(eps=8 / 255, step_size=2 / 255, steps=10)

    def __call__(self, model: nn.Module, batch: Batch) -> dict[str, Tensor]:
        """Return ``{"loss"}``."""
        images, labels = images_and_labels(batch)
        attacked = self.attack(model, images, labels)
        return {"loss": classification_loss(classify(model, attacked), labels)}
