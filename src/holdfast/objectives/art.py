"""Attributional robustness training (ART): gradients that look like the image."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float, Integer
from torch import Tensor, nn
from torch.nn import functional as F

from holdfast.adversarial import PGD
from holdfast.attributions import select_output
from holdfast.contracts import Batch, InputError, check_positive, checked
from holdfast.models import (
    Anchor,
    at_anchor,
    classify,
    differentiate,
    double_backward,
    evaluating,
    softplus,
    statistics_kept,
)
from holdfast.objectives.checks import classification_loss, classification_losses, images_and_labels

__all__ = [
    "ART",
    "Anchor",
    "Channels",
    "Negative",
    "alignment_loss",
    "class_gradient",
    "cosine_distance",
    "per_image",
]

Channels = Literal["each", "mean"]
Negative = Literal["argmax", "argmin"]


@dataclass(frozen=True)
@checked
class ART:
    """Attributional robustness training by spatial alignment of image and input gradient.

    ``ℓ(x̃, y) + λ L_attr(x̃, y)``, where x̃ ascends ``L_attr`` within an ℓ∞ ball. The soft-margin
    triplet loss ``L_attr`` (see `alignment_loss`) draws the gradient of the true class's logit
    towards the image and pushes that of the strongest other class away; it runs through the
    softplus surrogate, the cross-entropy through the model as it is.

    Parameters
    ----------
    weight : float
        λ.
    beta : float
        Sharpness of the softplus surrogate.
    attack : PGD
        How x̃ ascends ``L_attr``: ball, steps and start.
    anchor : {"normalized", "pixels"}
        What the gradients are aligned with, and taken with respect to: the model's normalized
        input, or the pixels.
    channels : {"each", "mean"}
        Compare all channels, or, as published for large images, the channel means.
    negative : {"argmax", "argmin"}
        Which other class is pushed away: the strongest or the weakest.
    attack_cross_entropy : float
        Coefficient of the cross-entropy in what x̃ ascends. With 1, x̃ ascends ``L_attr + ℓ``, which
        joins ART with adversarial training.
    attack_top : int, optional
        Compare only so many values of each image in what x̃ ascends: those where the gradient of
        the true class, through the model as it is, was largest at the start. By default all.
    aligned : {"perturbed", "both"}
        Whose gradients ``L_attr`` aligns in the loss: those of x̃, as published; or those of x and
        of x̃, where each of the two images is compared with the one of both gradients of the true
        class that is farther from it, and the one of the other class that is nearer.

    Notes
    -----
    The published variants: table 5's other negative class is ``negative="argmin"``, its equations 2
    and 4 are `GradientStability` and `InputAlignment`; appendix C's perturbation is
    ``attack_cross_entropy=1.0``.

    The authors' public code for CIFAR-10 differs from the paper: ``attack_top=1000``,
    ``aligned="both"`` and steps of 5/255. It attacks in train mode, with gradients with respect to
    the pixels.

    The inner attack runs the model in eval mode, the loss in the mode it is in. Batch-norm's
    running statistics follow the pass of the cross-entropy only: in evaluation the model runs with
    ReLU, not with its surrogate.

    References
    ----------
    Attributional Robustness Training using Input-Gradient Spatial Alignment (ECCV 2020),
    equations 5 and 6, algorithm 1.

    Examples
    --------
    >>> model = nn.Sequential(nn.Flatten(), nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))
    >>> batch = {"images": torch.rand(2, 1, 2, 2), "labels": torch.tensor([0, 2])}
    >>> terms = ART(weight=0.5)(model, batch)
    >>> sorted(terms)
    ['alignment', 'cross_entropy', 'loss']
    """

    weight: float = 0.5
    beta: float = 50.0
    attack: PGD = PGD(eps=8 / 255, step_size=1.5 / 255, steps=3)
    anchor: Anchor = "normalized"
    channels: Channels = "each"
    negative: Negative = "argmax"
    attack_cross_entropy: float = 0.0
    attack_top: int | None = None
    aligned: Literal["perturbed", "both"] = "perturbed"

    def __post_init__(self) -> None:
        check_positive(self, "weight", "attack_cross_entropy", zero=True)
        check_positive(self, "beta", *(() if self.attack_top is None else ("attack_top",)))

    def __call__(self, model: nn.Module, batch: Batch) -> dict[str, Tensor]:
        """Return ``{"loss", "cross_entropy", "alignment"}``."""
        images, labels = images_and_labels(batch)

        def rows(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor, Tensor]:
            settings = self.beta, self.anchor, self.channels, self.negative
            return _rows(model, x, y, *settings)

        with evaluating(model):
            start = self.attack.start(images)
            top = self._top(model, start, labels)

            def ascended(x: Tensor) -> Tensor:
                compared = rows(x, labels)
                value = _triplet(*(row if top is None else row.gather(1, top) for row in compared))
                if not self.attack_cross_entropy:
                    return value
                losses = classification_losses(classify(model, x), labels)
                return value + self.attack_cross_entropy * losses

            perturbed = self.attack.maximize(ascended, images, start)
        cross_entropy = classification_loss(classify(model, perturbed), labels)
        with statistics_kept(model):
            if self.aligned == "both":
                both = rows(torch.cat([images, perturbed]), torch.cat([labels, labels]))
                alignment = _hardest_triplet(*both).mean()
            else:
                alignment = _triplet(*rows(perturbed, labels)).mean()
        return {
            "loss": cross_entropy + self.weight * alignment,
            "cross_entropy": cross_entropy,
            "alignment": alignment,
        }

    def _top(self, model: nn.Module, start: Tensor, labels: Tensor) -> Tensor | None:
        """Find the values of each image that the attack compares, ``(N, attack_top)``."""
        if self.attack_top is None:
            return None
        with torch.enable_grad():
            seen, inner = at_anchor(model, start.detach().requires_grad_(True), self.anchor)
            own = select_output(classify(inner, seen), labels)
            sizes = per_image(differentiate(own.sum(), seen), self.channels).abs()
        if self.attack_top > sizes.shape[1]:
            expected = f"at most {sizes.shape[1]}, the values of an image"
            raise InputError("ART.attack_top", self.attack_top, expected)
        return sizes.topk(self.attack_top, dim=1).indices


def alignment_loss(
    model: nn.Module,
    images: Float[Tensor, "n c h w"],
    labels: Integer[Tensor, " n"],
    *,
    beta: float = 50.0,
    anchor: Anchor = "normalized",
    channels: Channels = "each",
    negative: Negative = "argmax",
) -> Float[Tensor, " n"]:
    """L_attr, ART's soft-margin triplet loss on the cosine between image and gradient.

    ``log(1 + exp(−(d(g^{i*}, x) − d(g^y, x))))``, with ``d(g, x) = 1 − ⟨g, x⟩ / (‖g‖‖x‖)``, y the
    true class and i* the strongest other one, or the weakest. A gradient of zero has distance 1.

    Returns
    -------
    Tensor
        One value an image, ``(N,)``, differentiable with respect to images and weights.

    References
    ----------
    Attributional Robustness Training (ECCV 2020), equation 5.

    Examples
    --------
    >>> model = nn.Sequential(nn.Flatten(), nn.Linear(2, 2, bias=False))
    >>> _ = nn.init.constant_(model[1].weight, 1.0)  # the same gradient for both classes
    >>> loss = alignment_loss(model, torch.rand(1, 1, 1, 2), torch.tensor([0]))
    >>> bool(loss.isclose(torch.tensor(2.0).log()))
    True
    """
    return _triplet(*_rows(model, images, labels, beta, anchor, channels, negative))


def _rows(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    beta: float,
    anchor: Anchor,
    channels: Channels,
    negative: Negative,
) -> tuple[Float[Tensor, "n p"], Float[Tensor, "n p"], Float[Tensor, "n p"]]:
    """Return the images and the gradients of the true and of the other class, a row each."""
    with torch.enable_grad():
        seen, logits = _ask(model, images, beta, anchor)
        positive = select_output(logits, labels)
        rival = _rival(logits, labels, negative)
        toward = differentiate(positive.sum(), seen, create_graph=True)
        away = differentiate(rival.sum(), seen, create_graph=True)
    image, own, other = (per_image(x, channels) for x in (seen, toward, away))
    return image, own, other


def _triplet(image: Tensor, own: Tensor, other: Tensor) -> Float[Tensor, " n"]:
    return F.softplus(-(cosine_distance(other, image) - cosine_distance(own, image)))


def _hardest_triplet(image: Tensor, own: Tensor, other: Tensor) -> Float[Tensor, " n"]:
    """Compare each image of two halves with the worse of its own gradients and its twin's."""
    half = len(image) // 2
    near, far = (
        (cosine_distance(row, image), cosine_distance(row.roll(half, 0), image))
        for row in (other, own)
    )
    return F.softplus(-(torch.minimum(*near) - torch.maximum(*far)))


def class_gradient(
    model: nn.Module,
    images: Float[Tensor, "n c h w"],
    labels: Integer[Tensor, " n"],
    *,
    beta: float = 50.0,
    anchor: Anchor = "normalized",
) -> tuple[Float[Tensor, "n c h w"], Float[Tensor, "n c h w"]]:
    """Return g^y through the softplus surrogate, and what it was taken with respect to.

    Both can be differentiated with respect to images and weights.

    Examples
    --------
    >>> model = nn.Sequential(nn.Flatten(), nn.Linear(2, 2, bias=False))
    >>> gradient, seen = class_gradient(model, torch.rand(1, 1, 1, 2), torch.tensor([0]))
    >>> torch.equal(gradient.flatten(), model[1].weight[0])
    True
    """
    with torch.enable_grad():
        seen, logits = _ask(model, images, beta, anchor)
        positive = select_output(logits, labels)
        gradient = differentiate(positive.sum(), seen, create_graph=True)
    return gradient, seen


def per_image(x: Float[Tensor, "n c h w"], channels: Channels) -> Float[Tensor, "n p"]:
    """Lay each image out as one row: all its channels, or their mean.

    Examples
    --------
    >>> per_image(torch.tensor([1.0, 3.0]).view(1, 2, 1, 1), "mean")
    tensor([[2.]])
    """
    if channels == "mean":
        x = x.mean(1)
    elif channels != "each":
        raise InputError("channels", repr(channels), "'each' or 'mean'")
    return x.flatten(1)


def cosine_distance(
    gradient: Float[Tensor, "n p"], image: Float[Tensor, "n p"]
) -> Float[Tensor, " n"]:
    """Return ``1 − ⟨g, x⟩ / (‖g‖₂ ‖x‖₂)`` row by row; 1 where one of them is zero.

    Examples
    --------
    >>> cosine_distance(torch.tensor([[3.0, 4.0]]), torch.tensor([[1.0, 0.0]]))
    tensor([0.4000])
    """
    # Squares below the smallest normal number would make the norm's derivative infinite.
    tiny = torch.finfo(gradient.dtype).tiny
    norms = gradient.square().sum(1).clamp_min(tiny) * image.square().sum(1).clamp_min(tiny)
    return 1 - (gradient * image).sum(1) / norms.clamp_min(tiny).sqrt()


def _ask(model: nn.Module, images: Tensor, beta: float, anchor: Anchor) -> tuple[Tensor, Tensor]:
    """Return what the gradients are aligned with, and the surrogate's logits made of it."""
    x = images if images.requires_grad else images.detach().requires_grad_(True)
    with softplus(beta), double_backward():
        seen, inner = at_anchor(model, x, anchor)
        return seen, classify(inner, seen)


def _rival(logits: Tensor, labels: Tensor, negative: Negative) -> Float[Tensor, " n"]:
    """Pick the logit of the strongest or the weakest class other than the label."""
    if negative == "argmax":
        return logits.scatter(1, labels[:, None], float("-inf")).max(1).values
    if negative == "argmin":
        return logits.scatter(1, labels[:, None], float("inf")).min(1).values
    raise InputError("negative", repr(negative), "'argmax' or 'argmin'")
