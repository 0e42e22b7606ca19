"""The top-k attack: push importance out of the pixels that mattered most."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from holdfast.adversarial import LinfBall, slope
from holdfast.attributions import (
    IntegratedGradients,
    expand_baseline,
    integrate,
    path_points,
)
from holdfast.contracts import (
    Attribution,
    InputError,
    Outcome,
    check_images,
    check_labels,
    check_positive,
    chunks,
    default_chunk,
    generators,
)
from holdfast.metrics import kendall_tau, pixel_scores
from holdfast.models import evaluating, softplus

__all__ = ["TopK"]


@dataclass(frozen=True)
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
    path_samples : int, optional
        Estimate the gradient of Integrated Gradients from so many random points of the path, one in
        each equal piece, drawn anew each step, instead of from all of them: unbiased and far
        cheaper. Maps are always judged in full.
    judge_every : int
        Judge the map after every so many steps, and after the last. 1 as published.
    seed : int
        Draws of an image depend on this and on the image's content alone.
    chunk : int, optional
        How many images to take at a time; by default chosen from their size and the path's length.

    Raises
    ------
    InputError
        If a setting is out of range, or ``path_samples`` is given for an attribution that is no
        `IntegratedGradients`.

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
    path_samples: int | None = None
    judge_every: int = 1
    seed: int = 0
    chunk: int | None = None

    def __post_init__(self) -> None:
        check_positive(self, "k", "step_size", "steps", "beta", "judge_every")
        check_positive(self, "eps", zero=True)
        if self.path_samples is None:
            return
        check_positive(self, "path_samples")
        if not isinstance(self.attribution, IntegratedGradients):
            name = type(self.attribution).__name__
            raise InputError("TopK.path_samples", f"attribution {name}", "IntegratedGradients")

    def __call__(
        self,
        model: nn.Module,
        images: Float[Tensor, "n c h w"],
        labels: Int[Tensor, " n"],
    ) -> Outcome:
        """Manipulate the map of each image's label; the model runs in eval mode.

        An image that the model does not assign to its label can only come back as it was, with
        ``preserved`` false.
        """
        check_images(images)
        check_labels(labels, len(images))
        if self.k > images.shape[-2] * images.shape[-1]:
            pixels = images.shape[-2] * images.shape[-1]
            raise InputError("TopK.k", self.k, f"at most the number of pixels, {pixels}")
        path: Any = self.path_samples or getattr(self.attribution, "steps", 1)
        size = self.chunk or default_chunk(images, copies=path)
        with evaluating(model):
            found = [
                self._attack(model, images[part].detach(), labels[part])
                for part in chunks(len(images), size)
            ]
        perturbed, similarity, preserved = (torch.cat(parts) for parts in zip(*found, strict=True))
        return Outcome(perturbed, similarity, preserved)

    def _attack(
        self, model: nn.Module, images: Tensor, labels: Tensor
    ) -> tuple[Float[Tensor, "n c h w"], Float[Tensor, " n"], Bool[Tensor, " n"]]:
        around = LinfBall(self.eps)
        original = pixel_scores(self.attribution(model, images, labels))
        top = torch.zeros_like(original).scatter_(1, original.topk(self.k).indices, 1)
        surrogate = self._surrogate(images)

        x, best = images, images.clone()
        similarity = torch.ones(len(images), dtype=original.dtype, device=images.device)
        preserved = torch.zeros(len(images), dtype=torch.bool, device=images.device)
        for step in range(1, self.steps + 1):
            with torch.enable_grad(), softplus(self.beta):
                x = x.detach().requires_grad_(True)
                scores = pixel_scores(surrogate(model, _GRAIN + (1 - 2 * _GRAIN) * x, labels, step))
                share = (scores * top).sum(1) / scores.sum(1).clamp_min(_TINY)
                gradient = slope(-share, x)
            x = around.project(x.detach() + around.step(gradient, self.step_size), images)
            if step % self.judge_every and step < self.steps:
                continue
            with torch.no_grad():
                kept = model(x).argmax(1) == labels
            scores = pixel_scores(self.attribution(model, x, labels))
            tau = kendall_tau(original, scores).to(similarity)
            worse = kept & (~preserved | (tau < similarity))
            best = torch.where(worse[:, None, None, None], x, best)
            similarity = torch.where(worse, tau, similarity)
            preserved = preserved | kept
        return best, similarity, preserved

    def _surrogate(self, images: Tensor) -> Callable[[nn.Module, Tensor, Tensor, int], Tensor]:
        """Return the map that a step differentiates: the attribution, or its cheap estimate."""
        if self.path_samples is None:
            return lambda model, x, labels, _: self.attribution(model, x, labels, create_graph=True)
        samples = self.path_samples
        method = self.attribution
        assert isinstance(method, IntegratedGradients)
        shape = (self.steps, samples)
        drawn = [torch.rand(shape, generator=own) for own in generators(images, self.seed)]
        jitter = torch.stack(drawn).to(images)
        left, weights = path_points("left", samples, images)
        baselines = expand_baseline(method.baseline, images)

        def estimate(model: nn.Module, x: Tensor, labels: Tensor, step: int) -> Tensor:
            positions = left + jitter[:, step - 1] / samples
            return integrate(
                model,
                x,
                baselines,
                labels,
                positions,
                weights,
                output=method.output,
                create_graph=True,
            )

        return estimate


_TINY = 1e-12
_GRAIN = 1e-3
