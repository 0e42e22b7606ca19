"""What ART was measured against: two other losses of input gradients in its place."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from holdfast.adversarial import PGD
from holdfast.adversarial.slope import linked
from holdfast.contracts import Batch, InputError, check_positive, checked
from holdfast.models import classify, evaluating, statistics_kept
from holdfast.objectives.art import Anchor, Channels, class_gradient, cosine_distance, per_image
from holdfast.objectives.checks import classification_loss, images_and_labels

__all__ = ["GradientStability", "InputAlignment"]


@dataclass(frozen=True)
@checked
class GradientStability:
    """The cross-entropy, and how much the gradient of the true class changes nearby.

    ``ℓ(x̃, y) + λ ‖g^y(x̃) − g^y(x)‖₂``, where x̃ ascends the change within a ball around x.
    Gradients run through the softplus surrogate, the cross-entropy through the model as it is.

    Parameters
    ----------
    weight : float
        λ.
    beta : float
        Sharpness of the softplus surrogate.
    attack : PGD
        How x̃ ascends: ball, steps and start. The start must be random: at x itself the change has
        no slope.
    anchor : {"normalized", "pixels"}
        What the gradient is taken with respect to: the model's normalized input, or the pixels.
    channels : {"each", "mean"}
        Compare all channels, or their means.

    References
    ----------
    Attributional Robustness Training (ECCV 2020), equation 2 and table 5.

    Examples
    --------
    >>> model = nn.Sequential(nn.Flatten(), nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))
    >>> batch = {"images": torch.rand(2, 1, 2, 2), "labels": torch.tensor([0, 2])}
    >>> sorted(GradientStability()(model, batch))
    ['change', 'cross_entropy', 'loss']
    """

    weight: float = 0.5
    beta: float = 50.0
    attack: PGD = PGD(eps=8 / 255, step_size=1.5 / 255, steps=3)
    anchor: Anchor = "normalized"
    channels: Channels = "each"

    def __post_init__(self) -> None:
        check_positive(self, "weight", zero=True)
        check_positive(self, "beta")

    def __call__(self, model: nn.Module, batch: Batch) -> dict[str, Tensor]:
        """Return ``{"loss", "cross_entropy", "change"}``."""
        images, labels = images_and_labels(batch)

        def gradient(x: Tensor, y: Tensor) -> Tensor:
            found, _ = class_gradient(model, x, y, beta=self.beta, anchor=self.anchor)
            return per_image(found, self.channels)

        with evaluating(model):
            before = gradient(images, labels).detach()
            perturbed = self.attack.maximize(
                lambda x: linked(_length(gradient(x, labels) - before), x), images
            )
        cross_entropy = classification_loss(classify(model, perturbed), labels)
        with statistics_kept(model):
            # One pass, so that batch-norm in train mode sees both ends as one batch.
            ends = gradient(torch.cat([images, perturbed]), torch.cat([labels, labels]))
            before, after = ends.chunk(2)
            change = _length(after - before).mean()
        return {
            "loss": cross_entropy + self.weight * change,
            "cross_entropy": cross_entropy,
            "change": change,
        }


@dataclass(frozen=True)
@checked
class InputAlignment:
    """The cross-entropy, and how far the gradient of the true class is from the image.

    ``ℓ(x̃, y) + λ d(g^y(x̃), x̃)``, where x̃ ascends d within a ball around x: ART without the other
    class. Gradients run through the softplus surrogate, the cross-entropy through the model as it
    is.

    Parameters
    ----------
    weight : float
        λ.
    distance : {"cosine", "l2"}
        d: one minus the cosine, or the ℓ2 norm of the difference.
    beta : float
        Sharpness of the softplus surrogate.
    attack : PGD
        How x̃ ascends: ball, steps and start.
    anchor : {"normalized", "pixels"}
        What the gradient is compared with, and taken with respect to: the model's normalized input,
        or the pixels.
    channels : {"each", "mean"}
        Compare all channels, or their means.

    References
    ----------
    Attributional Robustness Training (ECCV 2020), equation 4 and table 5.

    Examples
    --------
    >>> model = nn.Sequential(nn.Flatten(), nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))
    >>> batch = {"images": torch.rand(2, 1, 2, 2), "labels": torch.tensor([0, 2])}
    >>> sorted(InputAlignment(distance="cosine")(model, batch))
    ['alignment', 'cross_entropy', 'loss']
    """

    weight: float = 0.5
    distance: Literal["cosine", "l2"] = "cosine"
    beta: float = 50.0
    attack: PGD = PGD(eps=8 / 255, step_size=1.5 / 255, steps=3)
    anchor: Anchor = "normalized"
    channels: Channels = "each"

    def __post_init__(self) -> None:
        check_positive(self, "weight", zero=True)
        check_positive(self, "beta")
        if self.distance not in ("cosine", "l2"):
            raise InputError("InputAlignment.distance", repr(self.distance), "'cosine' or 'l2'")

    def __call__(self, model: nn.Module, batch: Batch) -> dict[str, Tensor]:
        """Return ``{"loss", "cross_entropy", "alignment"}``."""
        images, labels = images_and_labels(batch)

        def alignment(x: Tensor) -> Tensor:
            found, seen = class_gradient(model, x, labels, beta=self.beta, anchor=self.anchor)
            gradient, image = per_image(found, self.channels), per_image(seen, self.channels)
            if self.distance == "cosine":
                return cosine_distance(gradient, image)
            return _length(gradient - image)

        with evaluating(model):
            perturbed = self.attack.maximize(alignment, images)
        cross_entropy = classification_loss(classify(model, perturbed), labels)
        with statistics_kept(model):
            aligned = alignment(perturbed).mean()
        return {
            "loss": cross_entropy + self.weight * aligned,
            "cross_entropy": cross_entropy,
            "alignment": aligned,
        }


def _length(rows: Tensor) -> Float[Tensor, " n"]:
    # Without the floor, the root's derivative at 0 would be infinite.
    return rows.square().sum(1).clamp_min(torch.finfo(rows.dtype).tiny).sqrt()
