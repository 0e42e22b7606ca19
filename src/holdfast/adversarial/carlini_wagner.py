"""The attack of Carlini and Wagner: the smallest change, by a penalty on the margin."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float, Integer
from torch import Tensor, nn

from holdfast.adversarial.accuracy import correct
from holdfast.adversarial.margin import margin
from holdfast.adversarial.slope import directionless, slope, warn_if_stuck
from holdfast.contracts import check_positive, check_precision, checked, chunks, default_chunk
from holdfast.models import classify, evaluating

__all__ = ["CarliniWagner"]


@dataclass(frozen=True)
@checked
class CarliniWagner:
    """Carlini and Wagner's ℓ2 attack: Adam on distance and margin, the weight of both searched.

    It minimizes ``‖x̃ − x‖₂² + c · max(margin(x̃), −confidence)``. The margin is the label's logit
    less the highest other. The images are ``x̃ = (1 + tanh w) / 2`` with w free, so that they stay
    in [0, 1]; c is found for each image by bisection, growing tenfold until a first adversarial
    image is found. There is no ε: the attack changes as much as it needs and tells by that how
    robust the model is.

    Parameters
    ----------
    confidence : float
        By how much the logit of another class must exceed the label's.
    searches : int
        Number of values of c, each a descent of its own.
    steps : int
        Number of steps of a descent.
    step_size : float
        Adam's learning rate, for w.
    weight : float
        The first c.
    chunk : int, optional
        How many images to take at a time; by default chosen from their size.

    Raises
    ------
    InputError
        If a setting is out of range.

    Notes
    -----
    What comes back is the adversarial image nearest to the original that any descent passed. An
    image that the model gets wrong from the start, or always right, comes back as it was. Nothing
    is drawn at random, and images of a batch do not depend on each other, up to rounding.
    `BoundarySearch` finds nearer points in less time; this is here as the yardstick that results
    are published with.

    References
    ----------
    Carlini and Wagner, Towards Evaluating the Robustness of Neural Networks (IEEE S&P 2017),
    section V, the ℓ2 attack.

    Examples
    --------
    >>> model = nn.Flatten()  # the brighter of two pixels
    >>> image = torch.tensor([[[[0.75, 0.25]]]])
    >>> nearest = CarliniWagner()(model, image, torch.tensor([0]))
    >>> [round(value, 2) for value in nearest.flatten().tolist()]
    [0.5, 0.5]
    """

    confidence: float = 0.0
    searches: int = 6
    steps: int = 200
    step_size: float = 0.05
    weight: float = 1.0
    chunk: int | None = None

    def __post_init__(self) -> None:
        check_positive(self, "searches", "steps", "step_size", "weight")
        check_positive(self, "confidence", zero=True)

    def __call__(
        self,
        model: nn.Module,
        images: Float[Tensor, "n c h w"],
        labels: Integer[Tensor, " n"],
    ) -> Float[Tensor, "n c h w"]:
        """Find an image of another class near each image; the model runs in eval mode.

        Returns the attacked images, ``(N, C, H, W)`` in [0, 1]. Warns where most steps had no
        direction.
        """
        attacked, stuck = self.with_stuck(model, images, labels)
        warn_if_stuck(self, stuck)
        return attacked

    def with_stuck(
        self,
        model: nn.Module,
        images: Float[Tensor, "n c h w"],
        labels: Integer[Tensor, " n"],
    ) -> tuple[Float[Tensor, "n c h w"], Float[Tensor, " n"]]:
        """Return the attacked images, and the share of steps without direction; no warning.

        The share ``(N,)`` is NaN where no step was needed.
        """
        check_precision(images)
        here = correct(model, images, labels).nonzero().flatten()
        attacked, labels = images.detach().clone(), labels.to(images.device, torch.long)
        stuck = torch.full_like(images[:, 0, 0, 0], torch.nan)
        with evaluating(model):
            for part in chunks(len(here), self.chunk or default_chunk(images)):
                some = here[part]
                attacked[some], stuck[some] = self._search(model, attacked[some], labels[some])
        return attacked, stuck

    def _search(self, model: nn.Module, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        found = _Found(images)
        weights = torch.full_like(found.distances, self.weight)
        low, high = torch.zeros_like(weights), torch.full_like(weights, math.inf)
        for _ in range(self.searches):
            reached = self._descend(model, images, labels, weights, found)
            low = torch.where(reached, low, weights)
            high = torch.where(reached, weights, high)
            weights = torch.where(high.isfinite(), (low + high) / 2, 10 * weights)
        return found.images, found.stuck / (self.searches * self.steps)

    def _descend(
        self, model: nn.Module, images: Tensor, labels: Tensor, weights: Tensor, found: _Found
    ) -> Tensor:
        """Take the steps for one c an image; tell which of them passed an adversarial image."""
        inside = images.clamp(_GRAIN, 1 - _GRAIN)
        w = torch.atanh(2 * inside - 1)
        adam = torch.optim.Adam([w], lr=self.step_size)
        reached = torch.zeros_like(labels, dtype=torch.bool)
        for _ in range(self.steps):
            with torch.enable_grad():
                x = (1 + w.requires_grad_(True).tanh()) / 2
                distance = (x - images).flatten(1).square().sum(1)
                over = margin(classify(model, x), labels)
                penalty = weights * (over + self.confidence).clamp_min(0)
                uphill = slope(penalty, x)
                (chain,) = torch.autograd.grad(distance.sum() + (uphill * x).sum(), w)
                w.grad = chain.nan_to_num(0, 0, 0)
            found.stuck += directionless(uphill) & (penalty > 0)
            reached |= found.add(x.detach(), distance.detach(), over.detach() < -self.confidence)
            adam.step()
        return reached


class _Found:
    """The nearest adversarial image so far, image by image; at first the image itself."""

    def __init__(self, images: Tensor) -> None:
        self.images = images.clone()
        self.distances = images.new_full((len(images),), math.inf)
        self.stuck = torch.zeros_like(self.distances)

    def add(self, images: Tensor, distances: Tensor, adversarial: Tensor) -> Tensor:
        nearer = adversarial & (distances < self.distances)
        self.images = torch.where(nearer[:, None, None, None], images, self.images)
        self.distances = torch.where(nearer, distances, self.distances)
        return adversarial


_GRAIN = 1e-4
"""How far inside [0, 1] a descent begins: at the limits themselves tanh has no slope."""
