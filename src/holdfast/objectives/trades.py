"""TRADES: accuracy on the images as they are, and the same answer nearby."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from holdfast.adversarial import PGD, ball
from holdfast.contracts import Batch, check_positive, checked
from holdfast.models import classify, evaluating, statistics_kept
from holdfast.objectives.checks import classification_loss, images_and_labels

__all__ = ["TRADES"]


@dataclass(frozen=True)
@checked
class TRADES:
    """The cross-entropy of the images, and how far answers move in a ball around them.

    ``ℓ(x, y) + β KL(p(x) ‖ p(x̃))``, where p are the softmax probabilities and x̃ ascends the
    divergence from a start very near to x.

    Parameters
    ----------
    weight : float
        β.
    attack : PGD
        How x̃ ascends: ball and steps. Its own start is not used.
    start : float
        Standard deviation of the Gaussian noise, in pixel units on [0, 1], by which x̃ starts away
        from x, where the divergence has no slope.

    Notes
    -----
    The inner attack runs the model in eval mode, the loss in the mode it is in. Batch-norm's
    running statistics follow the pass of the images as they are.

    References
    ----------
    Zhang et al., Theoretically Principled Trade-off between Robustness and Accuracy (ICML 2019),
    equation 5 and algorithm 1.

    Examples
    --------
    >>> model = nn.Sequential(nn.Flatten(), nn.Linear(4, 2))
    >>> batch = {"images": torch.rand(3, 1, 2, 2), "labels": torch.tensor([0, 1, 1])}
    >>> terms = TRADES(weight=6.0)(model, batch)
    >>> sorted(terms)
    ['cross_entropy', 'divergence', 'loss']
    >>> bool(terms["divergence"] > 0)
    True
    """

    weight: float = 6.0
    attack: PGD = PGD(eps=8 / 255, step_size=2 / 255, steps=10)
    start: float = 0.001

    def __post_init__(self) -> None:
        check_positive(self, "weight", "start", zero=True)

    def __call__(self, model: nn.Module, batch: Batch) -> dict[str, Tensor]:
        """Return ``{"loss", "cross_entropy", "divergence"}``."""
        images, labels = images_and_labels(batch)
        near = images + self.start * torch.randn_like(images)
        start = ball(self.attack.norm, self.attack.eps).project(near, images)
        with evaluating(model):
            with torch.no_grad():
                clean = classify(model, images)
            perturbed = self.attack.maximize(
                lambda x: _divergence(clean, classify(model, x)), images, start
            )
        logits = classify(model, images)
        cross_entropy = classification_loss(logits, labels)
        with statistics_kept(model):
            divergence = _divergence(logits, classify(model, perturbed)).mean()
        return {
            "loss": cross_entropy + self.weight * divergence,
            "cross_entropy": cross_entropy,
            "divergence": divergence,
        }


def _divergence(clean: Tensor, moved: Tensor) -> Float[Tensor, " n"]:
    """KL(p ‖ q) between the softmax probabilities of two sets of logits, image by image."""
    p, q = clean.log_softmax(1), moved.log_softmax(1)
    return F.kl_div(q, p, reduction="none", log_target=True).sum(1)
