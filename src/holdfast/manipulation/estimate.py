"""What a step of a manipulation differentiates: the map itself, or a cheap estimate of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from jaxtyping import Float, Integer
from torch import Tensor, nn

from holdfast.attributions import (
    BoundaryIntegratedGradients,
    GradientSHAP,
    IntegratedGradients,
    Rule,
    SmoothGrad,
    expand_baseline,
    integrate,
    path_points,
)
from holdfast.attributions.boundary import baselines_of
from holdfast.contracts import Attribution, InputError, generators, same_draws

__all__ = ["Estimate", "check_samples", "differentiable", "path_length"]

Estimate = Callable[[Tensor, int], Tensor]
"""From images ``(N, C, H, W)`` and the number of the step to maps that can be differentiated."""

SAMPLED = (IntegratedGradients, BoundaryIntegratedGradients, SmoothGrad, GradientSHAP)


def differentiable(
    attribution: Attribution,
    model: nn.Module,
    images: Float[Tensor, "n c h w"],
    labels: Integer[Tensor, " n"],
    *,
    samples: int | None = None,
    steps: int = 1,
    seed: int = 0,
) -> Estimate:
    """Prepare the maps that the steps of a manipulation differentiate.

    Parameters
    ----------
    attribution : Attribution
        The explanation under attack.
    model : Module
        The classifier; it runs in the mode it is in.
    images, labels : Tensor
        The original images and the classes that are explained.
    samples : int, optional
        For attributions that average over many inputs, estimate them from so many: of the path of
        (boundary) Integrated Gradients one random point in each equal piece, of SmoothGrad and
        GradientSHAP fewer draws; drawn anew each step, and unbiased. By default the whole map.
    steps : int
        How many steps there will be, numbered from 0.
    seed : int
        What is drawn for an image depends on this and on its content alone.

    Returns
    -------
    callable
        From images and step to maps ``(N, C, H, W)``.

    Notes
    -----
    The boundary point of `BoundaryIntegratedGradients` is searched for once, around the original
    image, and then held fixed. Judges search anew. Whole maps of random attributions have the draws
    of the original image, as those that the judge compares.

    Examples
    --------
    >>> model = nn.Sequential(nn.Flatten(), nn.Linear(4, 2))
    >>> images, labels = torch.rand(3, 1, 2, 2), torch.tensor([0, 1, 1])
    >>> maps = differentiable(IntegratedGradients(), model, images, labels, samples=3)(images, 0)
    >>> torch.allclose(maps[1].flatten(), images[1].flatten() * model[1].weight[1], atol=1e-6)
    True
    """
    if isinstance(attribution, BoundaryIntegratedGradients):
        baselines, _ = baselines_of(attribution.search, model, images)
        rule: Rule = "trapezoid"
    elif isinstance(attribution, IntegratedGradients) and samples is not None:
        baselines = expand_baseline(attribution.baseline, images)
        rule = attribution.rule
    else:
        method: Any = attribution

        def whole(x: Tensor, step: int) -> Tensor:
            few = method
            if samples is not None and isinstance(method, SmoothGrad | GradientSHAP):
                anew = method.seed + 1 + seed * steps + step
                few = replace(method, samples=min(samples, method.samples), seed=anew)
            with same_draws(images, x):
                maps: Tensor = few(model, x, labels, create_graph=True)
            return maps

        return whole

    if samples is None:
        positions, weights = path_points(rule, attribution.steps, images)
        drawn = positions.expand(steps, *positions.shape)
    else:
        left, weights = path_points("left", samples, images)
        shape = (steps, samples)
        dice = [
            torch.rand(shape, generator=own, dtype=torch.float32)
            for own in generators(images, seed)
        ]
        drawn = left + torch.stack(dice, 1).to(images) / samples
    output = attribution.output

    def along_the_path(x: Tensor, step: int) -> Tensor:
        return integrate(
            model, x, baselines, labels, drawn[step], weights, output=output, create_graph=True
        )

    return along_the_path


def check_samples(owner: Any) -> None:
    """Refuse ``path_samples`` for an attribution that has nothing to sample."""
    if owner.path_samples is not None and not isinstance(owner.attribution, SAMPLED):
        came = f"attribution {type(owner.attribution).__name__}"
        expected = ", ".join(kind.__name__ for kind in SAMPLED)
        raise InputError(f"{type(owner).__name__}.path_samples", came, expected)


def path_length(attribution: Attribution) -> int:
    """Say how many inputs the model sees for the map of one image."""
    length: int = getattr(attribution, "steps", getattr(attribution, "samples", 1))
    return length
