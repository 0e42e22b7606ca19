"""The mass-centre attack: pull the map's centre of mass away."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Integer
from torch import Tensor, nn

from holdfast.adversarial import LinfBall
from holdfast.contracts import Attribution, Outcome, check_positive, checked, generators
from holdfast.manipulation.descent import Loss, check_settings, descend
from holdfast.manipulation.judge import Judge
from holdfast.metrics import mass_centre, pixel_scores

__all__ = ["MassCentre", "centre_distance", "mass_centre_loss", "nudged"]


@dataclass(frozen=True)
@checked
class MassCentre:
    """Iterative feature importance attack, mass-centre variant, in an ℓ∞ ball, label kept.

    Each step ascends the distance between the centre of mass of the pixel scores and where it was,
    through the softplus surrogate. Of all images on the way that keep the label, the one whose map
    has the lowest Kendall τ with the original map comes back.

    Parameters
    ----------
    attribution : Attribution
        The explanation under attack. It must be differentiable.
    eps : float
        Radius ε of the ℓ∞ ball, in pixel units on [0, 1].
    step_size : float
        Length α of a step.
    steps : int
        Number of steps.
    beta : float
        Sharpness of the softplus surrogate.
    momentum : float
        How much of the last step's direction remains in the next.
    margin : float
        Where the label's lead in logits falls below this share of what it was, a step leads back up
        instead of down the loss.
    path_samples : int, optional
        Estimate maps that average over many inputs from so many, drawn anew each step; see `TopK`.
    judge_every : int
        Judge the map after every so many steps, and after the last. 1 as published.
    seed : int
        Draws of an image depend on this and on the image's content alone.
    chunk : int, optional
        How many images to take at a time; by default chosen from their size and the path's length.

    Raises
    ------
    InputError
        If a setting is out of range, or ``path_samples`` is given for an attribution that has
        nothing to sample.

    Notes
    -----
    A distance of zero has no direction to grow in, so the walk begins at a random point within one
    step of the image.

    References
    ----------
    Ghorbani et al., Interpretation of Neural Networks Is Fragile (AAAI 2019).

    Examples
    --------
    >>> from holdfast.attributions import Gradient
    >>> model = nn.Sequential(nn.Flatten(), nn.Linear(64, 16), nn.ReLU(), nn.Linear(16, 2))
    >>> images = torch.rand(2, 1, 8, 8)
    >>> manipulate = MassCentre(Gradient(), eps=0.1, step_size=0.02, steps=5)
    >>> outcome = manipulate(model, images, model(images).argmax(1))
    >>> bool((outcome.similarity <= 1).all())
    True
    """

    attribution: Attribution
    eps: float
    step_size: float
    steps: int
    beta: float = 50.0
    momentum: float = 0.0
    margin: float = 0.0
    path_samples: int | None = None
    judge_every: int = 1
    seed: int = 0
    chunk: int | None = None

    def __post_init__(self) -> None:
        check_positive(self, "beta")
        check_settings(self)

    def __call__(
        self,
        model: nn.Module,
        images: Float[Tensor, "n c h w"],
        labels: Integer[Tensor, " n"],
    ) -> Outcome:
        """Manipulate the map of each image's label; the model runs in eval mode."""

        def prepare(judge: Judge, _: slice) -> Loss:
            return mass_centre_loss(judge)

        return descend(
            self,
            model,
            images,
            labels,
            prepare,
            beta=self.beta,
            start=lambda some: nudged(some, self.step_size, self.seed),
        )


def mass_centre_loss(judge: Judge) -> Loss:
    """Prepare minus the distance from the centres of mass of the maps that a judge knows."""
    shape = judge.images.shape[-2], judge.images.shape[-1]
    before = mass_centre(judge.scores, shape)
    return lambda maps, x, step: -centre_distance(before, pixel_scores(maps), shape)


def centre_distance(
    before: Float[Tensor, "n 2"], scores: Float[Tensor, "n p"], shape: tuple[int, int]
) -> Float[Tensor, " n"]:
    """Return how far the centre of mass of scores is from where it was, in pixels.

    Examples
    --------
    >>> scores = torch.tensor([[0.0, 1.0]])
    >>> centre_distance(torch.tensor([[0.0, 0.0]]), scores, shape=(1, 2))
    tensor([1.])
    """
    finite = torch.isfinite(scores).all(1, keepdim=True)
    moved = mass_centre(torch.where(finite, scores, 0), shape) - before
    return moved.square().sum(1).clamp_min(torch.finfo(moved.dtype).tiny).sqrt()


def nudged(images: Float[Tensor, "n c h w"], size: float, seed: int) -> Float[Tensor, "n c h w"]:
    """Move each pixel by up to ``size`` up or down, as drawn from the image's own dice.

    Examples
    --------
    >>> bool((nudged(torch.rand(1, 1, 2, 2), size=0.0, seed=0) >= 0).all())
    True
    """
    return LinfBall(size).start(images, generators(images, seed))
