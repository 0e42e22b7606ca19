"""Training on random perturbations, the control of every training on chosen ones."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from holdfast.contracts import Batch, InputError, check_positive, checked
from holdfast.models import classify
from holdfast.objectives.checks import classification_loss, images_and_labels

__all__ = ["UniformNoise", "random_signs"]


@dataclass(frozen=True)
@checked
class UniformNoise:
    """The cross-entropy of ``clip(x + ε z)``, each component of z drawn at random.

    What remains of `SaliencyTraining` without saliency: its control.

    Parameters
    ----------
    eps : float
        ε, in pixel units on [0, 1].
    draw : {"corners", "uniform"}
        From what each component of z is drawn: −1 or 1, so that x + εz is a corner of the ball, as
        the random part of `SaliencyTraining`'s perturbations is written; or uniformly from [−1, 1],
        as the noise is called. The latter has a third of the former's variance. Which one the
        published rows "Uniform-Noise" are of is not said.

    Raises
    ------
    InputError
        If ``eps`` is below 0 or ``draw`` is another.

    References
    ----------
    On Saliency Maps and Adversarial Robustness (ECML-PKDD 2020), "Uniform-Noise".

    Examples
    --------
    >>> model = nn.Sequential(nn.Flatten(), nn.Linear(4, 2))
    >>> batch = {"images": torch.rand(3, 1, 2, 2), "labels": torch.tensor([0, 1, 1])}
    >>> sorted(UniformNoise(eps=0.1)(model, batch))
    ['loss']
    """

    eps: float = 8 / 255
    draw: Literal["corners", "uniform"] = "corners"

    def __post_init__(self) -> None:
        check_positive(self, "eps", zero=True)
        if self.draw not in ("corners", "uniform"):
            raise InputError("UniformNoise.draw", repr(self.draw), "'corners' or 'uniform'")

    def __call__(self, model: nn.Module, batch: Batch) -> dict[str, Tensor]:
        """Return ``{"loss"}``."""
        images, labels = images_and_labels(batch)
        corners = self.draw == "corners"
        z = random_signs(images) if corners else torch.rand_like(images).mul(2).sub(1)
        noisy = (images + self.eps * z.detach()).clamp(0, 1)
        return {"loss": classification_loss(classify(model, noisy), labels)}


def random_signs(images: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c h w"]:
    """Draw −1 or 1, each as likely, for every component, from torch's global generator.

    Examples
    --------
    >>> random_signs(torch.zeros(1, 1, 8, 8)).unique()
    tensor([-1.,  1.])
    """
    return torch.randint_like(images, 2).mul_(2).sub_(1).detach()
