"""Robust attribution regularization (RAR): small Integrated Gradients of the loss nearby."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from jaxtyping import Float, Integer
from torch import Tensor, nn

from holdfast.adversarial import PGD
from holdfast.attributions import Rule, integrate, path_points
from holdfast.contracts import Batch, InputError, check_positive, checked
from holdfast.models import classify, evaluating, statistics_kept
from holdfast.objectives.checks import classification_loss, classification_losses, images_and_labels

__all__ = ["AttributionRegularization", "attribution_size"]


@dataclass(frozen=True)
@checked
class AttributionRegularization:
    """Robust attribution regularization: IG-NORM and IG-SUM-NORM.

    With ``s`` the ℓ1 norm of the Integrated Gradients of the loss along x → x′,

    - IG-NORM minimizes ``ℓ(x) + λ max s(x, x′)``,
    - IG-SUM-NORM minimizes ``max ℓ(x′) + λ s(x, x′)``,

    both over x′ in a ball around x.

    Parameters
    ----------
    weight : float
        λ (β in some papers' IG-SUM-NORM).
    form : {"ig_sum_norm", "ig_norm"}
        Which of the two.
    steps : int
        Points on the path in the loss.
    attack_steps : int
        Points on the path in the inner attack; a fifth or a tenth of ``steps`` as published.
    rule : {"right", "left", "midpoint", "trapezoid", "stratified"}
        Where the points are. ``stratified`` draws them anew each time, so that few do.
    attack : PGD
        How x′ ascends: ball, steps and start. The start must be random: at x itself the gradient
        of s is zero.

    References
    ----------
    Chen et al., Robust Attribution Regularization (NeurIPS 2019), sections 3 and 4; a baseline of
    all later papers.

    Examples
    --------
    >>> import torch
    >>> model = nn.Sequential(nn.Flatten(), nn.Linear(4, 2))
    >>> batch = {"images": torch.rand(3, 1, 2, 2), "labels": torch.tensor([0, 1, 1])}
    >>> terms = AttributionRegularization(weight=0.1, steps=5)(model, batch)
    >>> sorted(terms)
    ['attribution', 'cross_entropy', 'loss']
    """

    weight: float = 0.1
    form: Literal["ig_sum_norm", "ig_norm"] = "ig_sum_norm"
    steps: int = 50
    attack_steps: int = 10
    rule: Rule = "right"
    attack: PGD = PGD(eps=8 / 255, step_size=2 / 255, steps=7)

    def __post_init__(self) -> None:
        check_positive(self, "weight", zero=True)
        check_positive(self, "steps", "attack_steps")
        if self.form not in ("ig_sum_norm", "ig_norm"):
            expected = "'ig_sum_norm' or 'ig_norm'"
            raise InputError("AttributionRegularization.form", repr(self.form), expected)

    def __call__(self, model: nn.Module, batch: Batch) -> dict[str, Tensor]:
        """Return ``{"loss", "cross_entropy", "attribution"}``."""
        images, labels = images_and_labels(batch)

        def ascended(x: Tensor) -> Tensor:
            size = attribution_size(
                model, images, x, labels, steps=self.attack_steps, rule=self.rule
            )
            if self.form == "ig_norm":
                return size
            return classification_losses(classify(model, x), labels) + self.weight * size

        with evaluating(model):
            perturbed = self.attack.maximize(ascended, images)
        seen = images if self.form == "ig_norm" else perturbed
        cross_entropy = classification_loss(classify(model, seen), labels)
        with statistics_kept(model):
            size = attribution_size(
                model, images, perturbed, labels, steps=self.steps, rule=self.rule
            ).mean()
        return {
            "loss": cross_entropy + self.weight * size,
            "cross_entropy": cross_entropy,
            "attribution": size,
        }


def attribution_size(
    model: nn.Module,
    images: Float[Tensor, "n c h w"],
    perturbed: Float[Tensor, "n c h w"],
    labels: Integer[Tensor, " n"],
    *,
    steps: int = 50,
    rule: Rule = "right",
) -> Float[Tensor, " n"]:
    """Sum up ``|IG|`` of the loss along the line from each image to its perturbed version.

    Returns
    -------
    Tensor
        One value an image, ``(N,)``, differentiable with respect to ``perturbed`` and weights.

    Examples
    --------
    >>> import torch
    >>> model = nn.Sequential(nn.Flatten(), nn.Linear(4, 2))
    >>> images = torch.rand(3, 1, 2, 2)
    >>> attribution_size(model, images, images, torch.tensor([0, 1, 1])).tolist()
    [0.0, 0.0, 0.0]
    """
    positions, weights = path_points(rule, steps, images)
    maps = integrate(
        model,
        perturbed,
        images.detach(),
        labels,
        positions,
        weights,
        output="loss",
        create_graph=True,
        # One pass, so that batch-norm in train mode sees the path as one batch.
        chunk=len(images) * steps,
    )
    return maps.abs().flatten(1).sum(1)
