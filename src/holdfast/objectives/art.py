"""Attributional robustness training (ART): gradients that look like the image."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from holdfast.adversarial import PGD
from holdfast.attributions import select_output
from holdfast.contracts import Batch, InputError, check_images, check_labels, check_positive
from holdfast.models import Normalized, Standardized, evaluating, softplus, statistics_kept

__all__ = ["ART", "Anchor", "Channels", "alignment_loss"]

Anchor = Literal["normalized", "pixels"]
Channels = Literal["each", "mean"]


@dataclass(frozen=True)
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

    Notes
    -----
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

    def __post_init__(self) -> None:
        check_positive(self, "weight", zero=True)
        check_positive(self, "beta")

    def __call__(self, model: nn.Module, batch: Batch) -> dict[str, Tensor]:
        """Return ``{"loss", "cross_entropy", "alignment"}``."""
        images, labels = batch["images"], batch["labels"]
        check_images(images)
        check_labels(labels, len(images))

        def alignment(x: Tensor) -> Tensor:
            return alignment_loss(
                model, x, labels, beta=self.beta, anchor=self.anchor, channels=self.channels
            )

        with evaluating(model):
            perturbed = self.attack.maximize(alignment, images)
        cross_entropy = F.cross_entropy(model(perturbed), labels)
        with statistics_kept(model):
            aligned = alignment(perturbed).mean()
        return {
            "loss": cross_entropy + self.weight * aligned,
            "cross_entropy": cross_entropy,
            "alignment": aligned,
        }


def alignment_loss(
    model: nn.Module,
    images: Float[Tensor, "n c h w"],
    labels: Int[Tensor, " n"],
    *,
    beta: float = 50.0,
    anchor: Anchor = "normalized",
    channels: Channels = "each",
) -> Float[Tensor, " n"]:
    """L_attr, ART's soft-margin triplet loss on the cosine between image and gradient.

    ``log(1 + exp(−(d(g^{i*}, x) − d(g^y, x))))``, with ``d(g, x) = 1 − ⟨g, x⟩ / (‖g‖‖x‖)``, y the
    true class and i* the strongest other one. A gradient of zero has distance 1.

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
    with torch.enable_grad(), softplus(beta):
        x = images if images.requires_grad else images.detach().requires_grad_(True)
        seen, classify = _anchor(model, x, anchor)
        logits = classify(seen)
        positive = select_output(logits, labels)
        others = logits.scatter(1, labels[:, None], float("-inf"))
        negative = others.max(1).values
        (toward,) = torch.autograd.grad(positive.sum(), seen, create_graph=True)
        (away,) = torch.autograd.grad(negative.sum(), seen, create_graph=True)
    margin = _distance(away, seen, channels) - _distance(toward, seen, channels)
    return F.softplus(-margin)


def _anchor(model: nn.Module, images: Tensor, anchor: Anchor) -> tuple[Tensor, nn.Module]:
    """Split the model into what it is aligned with and the classifier that takes it."""
    if anchor == "pixels":
        return images, model
    if anchor != "normalized":
        raise InputError("anchor", repr(anchor), "'normalized' or 'pixels'")
    if isinstance(model, Normalized | Standardized):
        return model.normalize(images), model.module
    return images, model


def _distance(gradient: Tensor, image: Tensor, channels: Channels) -> Float[Tensor, " n"]:
    if channels == "mean":
        gradient, image = gradient.mean(1), image.mean(1)
    elif channels != "each":
        raise InputError("channels", repr(channels), "'each' or 'mean'")
    gradient, image = gradient.flatten(1), image.flatten(1)
    # Squares below the smallest normal number would make the norm's derivative infinite.
    tiny = torch.finfo(gradient.dtype).tiny
    norms = gradient.square().sum(1).clamp_min(tiny) * image.square().sum(1).clamp_min(tiny)
    return 1 - (gradient * image).sum(1) / norms.clamp_min(tiny).sqrt()
