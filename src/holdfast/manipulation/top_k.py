"""The top-k attack: push importance out of the pixels that mattered most."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Integer
from torch import Tensor, nn

from holdfast.contracts import (
    Attribution,
    InputError,
    Outcome,
    check_images,
    check_positive,
    checked,
)
from holdfast.manipulation.descent import Loss, check_settings, descend
from holdfast.manipulation.judge import Judge
from holdfast.metrics import pixel_scores

__all__ = ["TopK", "share_of", "top_k_loss"]


@dataclass(frozen=True)
@checked
class TopK:
    """Iterative feature importance attack, top-k variant, in an ℓ∞ ball, label kept.

    Let T be the k highest pixel scores of the image's map. Each step descends the share of the
    whole importance that lies in T, through the softplus surrogate. Of all images on the way that
    keep the label, the one whose map (of the unmodified model) has the lowest Kendall τ with the
    original map comes back.

    Parameters
    ----------
    attribution : Attribution
        The explanation under attack. It must be differentiable.
    k : int
        How many of the highest pixels to attack.
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
        Estimate maps that average over many inputs from so many, drawn anew each step, instead of
        from all of them: of the path of (boundary) Integrated Gradients one random point in each
        equal piece, of SmoothGrad and GradientSHAP fewer draws. Unbiased and far cheaper. Maps are
        always judged in full.
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
    The derivative of a step is taken a grain (0.001) away from black and white. A pixel that equals
    the baseline of Integrated Gradients has importance 0, where the derivative of an absolute value
    counts as 0, too: such pixels would never be lifted, and on images with fewer than k other
    pixels, as of MNIST, the attack would not begin.

    References
    ----------
    Ghorbani et al., Interpretation of Neural Networks Is Fragile (AAAI 2019); Attributional
    Robustness Training (ECCV 2020), appendix A.3.5.

    Examples
    --------
    >>> from holdfast.attributions import IntegratedGradients
    >>> model = nn.Sequential(nn.Flatten(), nn.Linear(64, 16), nn.ReLU(), nn.Linear(16, 2))
    >>> images = torch.rand(2, 1, 8, 8)
    >>> labels = model(images).argmax(1)
    >>> manipulate = TopK(IntegratedGradients(steps=10), k=8, eps=0.1, step_size=0.02, steps=5)
    >>> outcome = manipulate(model, images, labels)
    >>> bool((outcome.similarity <= 1).all())
    True
    """

    attribution: Attribution
    k: int
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
        check_positive(self, "k", "beta")
        check_settings(self)

    def __call__(
        self,
        model: nn.Module,
        images: Float[Tensor, "n c h w"],
        labels: Integer[Tensor, " n"],
    ) -> Outcome:
        """Manipulate the map of each image's label; the model runs in eval mode.

        An image that the model does not assign to its label can only come back as it was, with
        ``preserved`` false.
        """
        check_images(images)
        pixels = images.shape[-2] * images.shape[-1]
        if self.k > pixels:
            raise InputError("TopK.k", self.k, f"at most the number of pixels, {pixels}")

        def prepare(judge: Judge, _: slice) -> Loss:
            return top_k_loss(judge, self.k)

        return descend(self, model, images, labels, prepare, beta=self.beta)


def top_k_loss(judge: Judge, k: int) -> Loss:
    """Prepare the share of importance in the k pixels that had most in the maps a judge knows."""
    top = judge.scores.topk(k).indices
    chosen = torch.zeros_like(judge.scores).scatter_(1, top, 1)
    return lambda maps, x, step: share_of(chosen, pixel_scores(maps))


def share_of(chosen: Float[Tensor, "n p"], scores: Float[Tensor, "n p"]) -> Float[Tensor, " n"]:
    """Return the share of all importance that lies in chosen pixels, 0 where there is none.

    Examples
    --------
    >>> share_of(torch.tensor([[1.0, 0.0]]), torch.tensor([[3.0, 1.0]]))
    tensor([0.7500])
    """
    return (scores * chosen).sum(1) / scores.sum(1).clamp_min(_TINY)


_TINY = 1e-12
