"""Enhanced regularizers for attributional robustness: CACR and WACR."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float, Integer
from torch import Tensor, nn

from holdfast.adversarial import PGD
from holdfast.attributions import Rule, integrate, path_points
from holdfast.contracts import Batch, InputError, check_positive, check_same_shape, checked
from holdfast.models import classify, evaluating, statistics_kept
from holdfast.objectives.attribution_regularization import attribution_size
from holdfast.objectives.checks import classification_loss, classification_losses, images_and_labels

__all__ = ["EnhancedRegularization", "attribution_change", "attribution_contrast"]

Change = Literal["difference", "path", "path_less_base"]
Opposed = Literal["signs", "product"]


@dataclass(frozen=True)
@checked
class EnhancedRegularization:
    """Attributions sharp for the true class, even for its rival, and steady nearby: CACR, WACR.

    ``ℓ(x′, y) + λ (c₁ L_CACR + c₂ L_WACR)``, where x′ ascends ``ℓ(x′) + ‖IG^ℓ(x, x′)‖₁`` in a ball
    around x. The class attribution-based contrastive regularizer `attribution_contrast` compares
    the maps of the true class and of the strongest other one at x′; the weighted attribution change
    regularizer `attribution_change` compares those of the true class at x and at x′. The maps are
    Integrated Gradients of softmax probabilities, from a black image.

    Parameters
    ----------
    weight : float
        λ.
    cacr, wacr : float
        c₁ and c₂. A regularizer with coefficient 0 is not computed, and not reported.
    rival : float
        Coefficient of the rival class's term in L_CACR; 0 leaves it out.
    base : bool
        Whether L_WACR weights a change of the same sign by the map before.
    change : {"difference", "path", "path_less_base"}
        What ∇A in L_WACR is. With A = IG(x₀, x) the map before and x₀ a black image, the paper has
        it in three ways, which are not the same:

        - ``"difference"``: ``IG(x₀, x′) − IG(x₀, x)``, equation 8's right side; the change of the
          map, and the default.
        - ``"path"``: ``IG(x, x′)``, equation 8's left side, the map along the way from the one
          image to the other. Its sum over the pixels is that of the first, its pixels are not: it
          is 0 wherever the image does not change.
        - ``"path_less_base"``: ``IG(x, x′) − IG(x₀, x)``, line 16 of algorithm 1. It is −A, not 0,
          where nothing is perturbed, so that it shrinks the map itself.
    opposed : {"signs", "product"}
        Which pixels are in P₁, where the change counts in full: those where the signs of A and ∇A
        differ (the default), or those where ``A ⊙ ∇A`` is negative; the paper says both in one
        sentence. They part where A is 0, as IG is wherever the image is black: by the signs a
        change there counts in full, by the product it is in neither P₁ nor P₂ and counts nothing.
    steps : int
        Points on the path in the loss.
    attack_steps : int
        Points on the path in the inner attack; a fifth or a tenth of ``steps`` as published.
    rule : {"right", "left", "midpoint", "trapezoid", "stratified"}
        Where the points are. ``stratified`` draws them anew each time, so that few do; all maps of
        an image in one loss share the same points.
    attack : PGD
        How x′ ascends: ball, steps and start. The start is random as published.

    Notes
    -----
    The published ablations: tables 4 and 5 are ``wacr=0.0`` and ``cacr=0.0``, tables 6 and 7
    ``wacr=0.7`` and ``cacr=0.7``, figure 6 is ``rival=0.0``, table 10 ``base=False``.

    A pixel is here every component of an image. The inner attack runs the model in eval mode, the
    loss in the mode it is in. Batch-norm's running statistics follow the pass of the cross-entropy
    only.

    References
    ----------
    Enhanced Regularizers for Attributional Robustness (AAAI 2021), equations 4 to 12.

    Examples
    --------
    >>> model = nn.Sequential(nn.Flatten(), nn.Linear(4, 2))
    >>> batch = {"images": torch.rand(3, 1, 2, 2), "labels": torch.tensor([0, 1, 1])}
    >>> sorted(EnhancedRegularization(steps=5, attack_steps=2)(model, batch))
    ['cacr', 'cross_entropy', 'loss', 'wacr']
    """

    weight: float = 1.0
    cacr: float = 1.0
    wacr: float = 1.0
    rival: float = 1.0
    base: bool = True
    change: Change = "difference"
    opposed: Opposed = "signs"
    steps: int = 50
    attack_steps: int = 10
    rule: Rule = "right"
    attack: PGD = PGD(eps=8 / 255, step_size=2 / 255, steps=7)

    def __post_init__(self) -> None:
        check_positive(self, "weight", "cacr", "wacr", "rival", zero=True)
        check_positive(self, "steps", "attack_steps")

    def __call__(self, model: nn.Module, batch: Batch) -> dict[str, Tensor]:
        """Return ``{"loss", "cross_entropy", "cacr", "wacr"}``."""
        images, labels = images_and_labels(batch)

        def ascended(x: Tensor) -> Tensor:
            size = attribution_size(
                model, images, x, labels, steps=self.attack_steps, rule=self.rule
            )
            return classification_losses(classify(model, x), labels) + size

        with evaluating(model):
            perturbed = self.attack.maximize(ascended, images)
        logits = classify(model, perturbed)
        cross_entropy = classification_loss(logits, labels)
        rivals = logits.detach().scatter(1, labels[:, None], -math.inf).argmax(1)
        with statistics_kept(model):
            terms = self._regularizers(model, images, perturbed, labels, rivals)
        loss = cross_entropy
        for name, coefficient in (("cacr", self.cacr), ("wacr", self.wacr)):
            if name in terms:
                loss = loss + self.weight * coefficient * terms[name]
        return {"loss": loss, "cross_entropy": cross_entropy, **terms}

    def _regularizers(
        self,
        model: nn.Module,
        images: Tensor,
        perturbed: Tensor,
        labels: Tensor,
        rivals: Tensor,
    ) -> dict[str, Tensor]:
        if not (self.cacr or self.wacr):
            return {}
        # One draw of points for all maps, so that their differences are not those of the draws.
        positions, weights = path_points(self.rule, self.steps, images)
        black = torch.zeros_like(images)

        def maps(x: Tensor, classes: Tensor, start: Tensor = black) -> Tensor:
            return _probability_maps(model, x, start, classes, positions, weights)

        terms: dict[str, Tensor] = {}
        if self.cacr or (self.wacr and self.change == "difference"):
            own = maps(perturbed, labels)
        if self.cacr:
            other = maps(perturbed, rivals) if self.rival else torch.zeros_like(own)
            terms["cacr"] = attribution_contrast(own, other, rival=self.rival).mean()
        if self.wacr:
            before = maps(images, labels)
            if self.change == "difference":
                change = own - before
            else:
                change = maps(perturbed, labels, images.detach())
                if self.change == "path_less_base":
                    change = change - before
            terms["wacr"] = _weighted(before, change, self.base, self.opposed).mean()
        return terms


def attribution_contrast(
    own: Float[Tensor, "n c h w"], other: Float[Tensor, "n c h w"], *, rival: float = 1.0
) -> Float[Tensor, " n"]:
    """L_CACR, low where the true class's map is sharp and the other one's is even.

    ``KL(U ‖ softmax(other)) − KL(U ‖ softmax(own))``, with U uniform over the components of an
    image, and the first term times ``rival``.

    Parameters
    ----------
    own, other : Tensor
        The maps of the true class and of the strongest other class, ``(N, C, H, W)``.
    rival : float
        Coefficient of the first term.

    Returns
    -------
    Tensor
        ``(N,)``

    References
    ----------
    Enhanced Regularizers for Attributional Robustness (AAAI 2021), equations 4 to 6 and 11.

    Examples
    --------
    >>> even, sharp = torch.zeros(1, 1, 2, 2), torch.tensor([9.0, 0, 0, 0]).view(1, 1, 2, 2)
    >>> attribution_contrast(sharp, even) < 0, attribution_contrast(even, sharp) > 0
    (tensor([True]), tensor([True]))
    """
    check_same_shape(own, other, ("own", "other"))
    return rival * _from_uniform(other) - _from_uniform(own)


def attribution_change(
    before: Float[Tensor, "n c h w"],
    after: Float[Tensor, "n c h w"],
    *,
    base: bool = True,
    opposed: Opposed = "signs",
) -> Float[Tensor, " n"]:
    """L_WACR, low where maps change little; what turns against the map before counts in full.

    With A the map before and Δ the change, it sums up ``|Δ|`` where the signs of A and Δ differ and
    ``|A Δ|`` where they are the same.

    Parameters
    ----------
    before, after : Tensor
        The true class's maps of the image and of the perturbed image, ``(N, C, H, W)``.
    base : bool
        Whether to weight by A at all; without, it is ``|Δ|`` in both places.
    opposed : {"signs", "product"}
        Where the change counts in full: where the signs of A and Δ differ, or where ``A Δ`` is
        negative. By the latter a change counts nothing where A is 0.

    Returns
    -------
    Tensor
        ``(N,)``

    Notes
    -----
    The paper equates the difference of the two maps with the map along the way from one image to
    the other (equation 8), which holds for their sums. This is the difference; the field ``change``
    of `EnhancedRegularization` has all that the paper calls by that name.

    References
    ----------
    Enhanced Regularizers for Attributional Robustness (AAAI 2021), equations 7 to 9.

    Examples
    --------
    >>> before = torch.tensor([0.5, 0.5]).view(1, 1, 1, 2)
    >>> after = torch.tensor([0.7, 0.2]).view(1, 1, 1, 2)
    >>> attribution_change(before, after)  # 0.5 · 0.2 + 0.3
    tensor([0.4000])
    """
    check_same_shape(before, after, ("before", "after"))
    return _weighted(before, after - before, base, opposed)


def _weighted(before: Tensor, change: Tensor, base: bool, opposed: Opposed) -> Float[Tensor, " n"]:
    """Sum up ``|Δ|`` where it turns against the map before, and ``|A Δ|`` where it goes along."""
    cost = change.abs()
    if base:
        cost = torch.where(before.sign() == change.sign(), before.abs() * cost, cost)
    if opposed == "product":
        cost = torch.where(before == 0, 0, cost)
    elif opposed != "signs":
        raise InputError("opposed", repr(opposed), "'signs' or 'product'")
    return cost.flatten(1).sum(1)


def _from_uniform(maps: Tensor) -> Float[Tensor, " n"]:
    """KL(U ‖ softmax(maps)) over the components of each map."""
    flat = maps.flatten(1)
    centred = flat - flat.mean(1, keepdim=True)
    # Maps of probabilities are nearly even. What they diverge by, a logsumexp less log P would
    # round off; log1p of expm1 keeps it. The shift is for maps too large for exp.
    shift = (centred.detach().amax(1) - 20).clamp_min(0)
    return shift + torch.expm1(centred - shift[:, None]).mean(1).log1p()


def _probability_maps(
    model: nn.Module,
    images: Tensor,
    start: Tensor,
    classes: Integer[Tensor, " n"],
    positions: Tensor,
    weights: Tensor,
) -> Float[Tensor, "n c h w"]:
    return integrate(
        model,
        images,
        start,
        classes,
        positions,
        weights,
        output="probability",
        create_graph=True,
        # One pass, so that batch-norm in train mode sees the path as one batch.
        chunk=positions.numel(),
    )
