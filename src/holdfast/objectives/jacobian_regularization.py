"""Jacobian regularization: a loss that changes little with the image."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from holdfast.contracts import Batch, check_positive, checked
from holdfast.models import classify, differentiate, double_backward
from holdfast.objectives.checks import classification_losses, images_and_labels

__all__ = ["JacobianRegularization"]


@dataclass(frozen=True)
@checked
class JacobianRegularization:
    """The cross-entropy and its squared input gradient, ``ℓ(x, y) + λ ‖∇ₓ ℓ(x, y)‖₂²``.

    The norm is over all components of one image, in pixel units; terms are averaged over the batch.

    Parameters
    ----------
    weight : float
        λ.

    References
    ----------
    Ross and Doshi-Velez, Improving the Adversarial Robustness and Interpretability of Deep Neural
    Networks by Regularizing Their Input Gradients (AAAI 2018); a baseline of Generating Deep
    Networks Explanations with Robust Attribution Alignment (ACML 2021), supplement A2.

    Examples
    --------
    >>> model = nn.Sequential(nn.Flatten(), nn.Linear(4, 2))
    >>> batch = {"images": torch.rand(3, 1, 2, 2), "labels": torch.tensor([0, 1, 1])}
    >>> terms = JacobianRegularization(weight=0.5)(model, batch)
    >>> bool(terms["loss"].isclose(terms["cross_entropy"] + 0.5 * terms["jacobian"]))
    True
    """

    weight: float = 0.5

    def __post_init__(self) -> None:
        check_positive(self, "weight", zero=True)

    def __call__(self, model: nn.Module, batch: Batch) -> dict[str, Tensor]:
        """Return ``{"loss", "cross_entropy", "jacobian"}``."""
        images, labels = images_and_labels(batch)
        with torch.enable_grad(), double_backward():
            x = images.detach().requires_grad_(True)
            losses = classification_losses(classify(model, x), labels)
            gradient = differentiate(losses.sum(), x, create_graph=True)
        cross_entropy = losses.mean()
        jacobian = gradient.square().flatten(1).sum(1).mean()
        return {
            "loss": cross_entropy + self.weight * jacobian,
            "cross_entropy": cross_entropy,
            "jacobian": jacobian,
        }
