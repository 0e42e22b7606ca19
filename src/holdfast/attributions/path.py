"""Attributions that gather gradients along a straight path from a baseline to the image."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, get_args

import torch
from jaxtyping import Float, Integer
from torch import Tensor, nn

from holdfast.attributions.baseline import check_baseline, expand_baseline, same_settings
from holdfast.attributions.gradient import input_gradient
from holdfast.attributions.target import resolve_targets
from holdfast.contracts import (
    InputError,
    Output,
    check_images,
    check_positive,
    checked,
    chunks,
    default_chunk,
    generators,
)
from holdfast.models import evaluating

__all__ = ["IntegratedGradients", "Rule", "integrate", "path_points"]

Rule = Literal["right", "left", "midpoint", "trapezoid", "stratified"]
"""Where the path is sampled. ``stratified`` draws a random point of each of the equal pieces."""


@dataclass(frozen=True)
@checked
class IntegratedGradients:
    """Integrated Gradients: the mean gradient on the way from a baseline, times the way.

    ``IG_j = (x_j − x₀_j) · (1/m) Σ_k ∂f(x₀ + t_k (x − x₀))/∂x_j``. As m grows, the map sums to
    ``f(x) − f(x₀)`` (completeness).

    Parameters
    ----------
    steps : int
        Number m of points on the path.
    rule : {"right", "left", "midpoint", "trapezoid", "stratified"}
        Where the points are; see `path_points`.
    baseline : float or Tensor
        The baseline x₀: the value of every pixel (0.0 is black, the default, and 1.0 white), or an
        image ``(C, H, W)``, or one for each image, ``(N, C, H, W)``, in [0, 1].
    output : {"logit", "probability", "log_probability", "loss"}
        What is differentiated.
    chunk : int, optional
        How many inputs (images times points) the model sees at a time; by default chosen from the
        size of the images.
    seed : int
        The points of the rule ``stratified`` depend on this and on the image's content alone.

    References
    ----------
    Sundararajan et al., Axiomatic Attribution for Deep Networks (ICML 2017); Enhanced Regularizers
    for Attributional Robustness (AAAI 2021).

    Examples
    --------
    >>> model = nn.Sequential(nn.Flatten(), nn.Linear(4, 2, bias=False))
    >>> images = torch.rand(3, 1, 2, 2)
    >>> maps = IntegratedGradients(steps=10)(model, images, torch.tensor([0, 1, 1]))
    >>> torch.allclose(maps.flatten(1).sum(1)[0], model(images)[0, 0])
    True
    """

    steps: int = 50
    rule: Rule = "right"
    baseline: float | Tensor = field(default=0.0, hash=False)
    output: Output = "logit"
    chunk: int | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        check_positive(self, "steps")
        check_baseline(self)

    def __eq__(self, other: object) -> bool:
        return same_settings(self, other)

    def __call__(
        self,
        model: nn.Module,
        images: Float[Tensor, "n c h w"],
        targets: Integer[Tensor, " n"] | None = None,
        *,
        create_graph: bool = False,
    ) -> Float[Tensor, "n c h w"]:
        """Return the map of each image, ``(N, C, H, W)``; the model runs in eval mode."""
        check_images(images)
        positions, weights = path_points(self.rule, self.steps, images, self.seed)
        with evaluating(model):
            return integrate(
                model,
                images,
                expand_baseline(self.baseline, images),
                resolve_targets(model, images, targets, self.chunk),
                positions,
                weights,
                output=self.output,
                create_graph=create_graph,
                chunk=self.chunk,
            )


def integrate(
    model: nn.Module,
    images: Float[Tensor, "n c h w"],
    baselines: Float[Tensor, "n c h w"],
    targets: Integer[Tensor, " n"],
    positions: Float[Tensor, "n p"],
    weights: Float[Tensor, " p"],
    *,
    output: Output = "logit",
    create_graph: bool = False,
    chunk: int | None = None,
) -> Float[Tensor, "n c h w"]:
    """Integrate the gradient along a line, from each image's own baseline, at given points.

    The plain function below every path method; the model runs in the mode it is in.

    Parameters
    ----------
    model : Module
        The classifier.
    images, baselines : Tensor
        Both ends of each path, ``(N, C, H, W)``.
    targets : Tensor
        The class of each image, ``(N,)``.
    positions : Tensor
        Where each path is sampled, ``(N, P)``, 0 the baseline and 1 the image.
    weights : Tensor
        What each sample counts, ``(P,)``.
    output : {"logit", "probability", "log_probability", "loss"}
        What is differentiated.
    create_graph : bool
        Let the result be differentiated with respect to images and weights.
    chunk : int, optional
        How many inputs the model sees at a time.

    Returns
    -------
    Tensor
        The maps, ``(N, C, H, W)``.

    Examples
    --------
    >>> model = nn.Sequential(nn.Flatten(), nn.Linear(1, 2, bias=False))
    >>> image, black = torch.ones(1, 1, 1, 1), torch.zeros(1, 1, 1, 1)
    >>> middle, one = torch.tensor([[0.5]]), torch.ones(1)
    >>> map = integrate(model, image, black, torch.tensor([1]), middle, one)
    >>> bool(map == model[1].weight[1])
    True
    """
    size = chunk or default_chunk(images)
    count = positions.shape[1]
    maps = []
    for some in chunks(len(images), max(1, size // count)):
        way = images[some] - baselines[some]
        mean = torch.zeros_like(way)
        for few in chunks(count, size):
            shares = positions[some, few, None, None, None].to(way)
            points = baselines[some, None] + shares * way[:, None]
            gradients = input_gradient(
                model,
                points.flatten(0, 1),
                targets[some].repeat_interleave(points.shape[1]),
                output=output,
                create_graph=create_graph,
            ).view_as(points)
            mean = mean + torch.einsum("npchw,p->nchw", gradients, weights[few].to(way))
        maps.append(way * mean)
    return torch.cat(maps) if create_graph else torch.cat(maps).detach()


def path_points(
    rule: Rule, steps: int, images: Float[Tensor, "n c h w"], seed: int | None = None
) -> tuple[Float[Tensor, "n p"], Float[Tensor, " p"]]:
    """Place the points of a rule on the path of each image.

    Parameters
    ----------
    rule : {"right", "left", "midpoint", "trapezoid", "stratified"}
        The first three put one point at that place of each of ``steps`` equal pieces.
        ``trapezoid`` spreads the points from end to end and counts both ends half. ``stratified``
        draws one point of each piece uniformly: an unbiased estimate from a few points.
    steps : int
        Number of points.
    images : Tensor
        The images, for their number, type and device.
    seed : int, optional
        Draw the points of ``stratified`` from this seed and the image's content. By default they
        come anew in each call from torch's global generator, as training needs it.

    Returns
    -------
    positions : Tensor
        ``(N, P)`` in [0, 1].
    weights : Tensor
        ``(P,)``, which sum to 1.

    Examples
    --------
    >>> positions, weights = path_points("midpoint", 2, torch.rand(1, 1, 2, 2))
    >>> positions, weights
    (tensor([[0.2500, 0.7500]]), tensor([0.5000, 0.5000]))
    """
    n = len(images)
    edges = torch.arange(steps, dtype=images.dtype, device=images.device)
    weights = torch.full_like(edges, 1 / steps)
    if rule == "right":
        positions = (edges + 1) / steps
    elif rule == "left":
        positions = edges / steps
    elif rule == "midpoint":
        positions = (edges + 0.5) / steps
    elif rule == "trapezoid":
        if steps < 2:
            raise InputError("steps", steps, "at least 2 points for the trapezoid rule")
        positions = edges / (steps - 1)
        weights = torch.full_like(edges, 1 / (steps - 1))
        weights[[0, -1]] /= 2
    elif rule == "stratified":
        if seed is None:
            jitter = torch.rand(n, steps, dtype=images.dtype, device=images.device)
        else:
            drawn = [
                torch.rand(steps, generator=rng, dtype=torch.float32)
                for rng in generators(images, seed)
            ]
            jitter = torch.stack(drawn).to(images)
        return (edges + jitter) / steps, weights
    else:
        raise InputError("rule", repr(rule), f"one of {', '.join(get_args(Rule))}")
    return positions.expand(n, -1), weights
