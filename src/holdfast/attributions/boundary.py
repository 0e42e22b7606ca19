"""Attributions that look at the nearest decision boundary instead of, or besides, the image.

For all of them the boundary is that of the predicted class, whatever class ``targets`` says is
explained; and the boundary point is held fixed when a map is differentiated. Each has a method
``with_found``, which tells for which images a boundary was found; the plain call warns of the
others.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float, Integer
from torch import Tensor, nn

from holdfast.adversarial import BoundaryPipeline, BoundarySearch
from holdfast.attributions.deep_lift import lift_in_parts
from holdfast.attributions.gradient import input_gradient
from holdfast.attributions.path import integrate, path_points
from holdfast.attributions.target import resolve_targets
from holdfast.contracts import (
    InputError,
    Output,
    check_images,
    checked,
    chunks,
    default_chunk,
)
from holdfast.models import evaluating

__all__ = [
    "BoundaryDeepLIFT",
    "BoundaryIntegratedGradients",
    "BoundarySaliency",
    "baselines_of",
    "warn_of_lost",
]


@dataclass(frozen=True)
@checked
class BoundarySaliency:
    """BSM: the gradient of the class score, taken at the nearest point of another class.

    ``∇f_c(x′)``: where that boundary separates a class from a constant score, its normal. Where no
    boundary was found, the gradient at the image, or where a `BoundaryPipeline` ended.

    Parameters
    ----------
    search : BoundarySearch or BoundaryPipeline
        How x′ is found.
    output : {"logit", "probability", "log_probability", "loss"}
        What is differentiated.
    chunk : int, optional
        How many images to take at a time; by default chosen from their size.

    References
    ----------
    Wang et al., Robust Models Are More Interpretable Because Attributions Look Normal (ICLR 2022),
    definition 5.

    Examples
    --------
    >>> model = nn.Sequential(nn.Flatten(), nn.Linear(4, 2))
    >>> images = torch.rand(3, 1, 2, 2)
    >>> maps, found = BoundarySaliency().with_found(model, images, torch.tensor([0, 1, 1]))
    >>> torch.equal(maps[1].flatten(), model[1].weight[1])
    True
    """

    search: BoundarySearch | BoundaryPipeline = BoundarySearch()
    output: Output = "logit"
    chunk: int | None = None

    def __call__(
        self,
        model: nn.Module,
        images: Float[Tensor, "n c h w"],
        targets: Integer[Tensor, " n"] | None = None,
        *,
        create_graph: bool = False,
    ) -> Float[Tensor, "n c h w"]:
        """Return the map of each image, ``(N, C, H, W)``; the model runs in eval mode."""
        maps, found = self.with_found(model, images, targets, create_graph=create_graph)
        warn_of_lost(self, found, "the gradient at the image")
        return maps

    def with_found(
        self,
        model: nn.Module,
        images: Float[Tensor, "n c h w"],
        targets: Integer[Tensor, " n"] | None = None,
        *,
        create_graph: bool = False,
    ) -> tuple[Float[Tensor, "n c h w"], Bool[Tensor, " n"]]:
        """Return the maps, and whether a boundary was found ``(N,)``; without a warning."""
        check_images(images)
        size = self.chunk or default_chunk(images)
        with evaluating(model):
            targets = resolve_targets(model, images, targets, size)
            boundary = self.search(model, images)
            maps = [
                input_gradient(
                    model,
                    boundary.points[part],
                    targets[part],
                    output=self.output,
                    create_graph=create_graph,
                )
                for part in chunks(len(images), size)
            ]
        return torch.cat(maps), boundary.found


@dataclass(frozen=True)
@checked
class BoundaryIntegratedGradients:
    """BIG: Integrated Gradients from the nearest point of another class.

    ``(x − x′) · ∫ ∇f_c`` along the line from x′ to the image: all boundaries that lie around the
    image count, not only the nearest. The map sums to ``f_c(x) − f_c(x′)``. Where no boundary was
    found, the baseline is black, or where a `BoundaryPipeline` ended, as published.

    Parameters
    ----------
    search : BoundarySearch or BoundaryPipeline
        How x′ is found.
    steps : int
        Number of points on the line, for the trapezoid rule.
    output : {"logit", "probability", "log_probability", "loss"}
        What is differentiated.
    chunk : int, optional
        How many inputs (images times points) the model sees at a time; by default chosen from the
        size of the images.

    References
    ----------
    Wang et al., Robust Models Are More Interpretable Because Attributions Look Normal (ICLR 2022),
    definition 6.

    Examples
    --------
    >>> model = nn.Sequential(nn.Flatten(), nn.Linear(4, 2)).double()
    >>> big = BoundaryIntegratedGradients()
    >>> maps, found = big.with_found(model, torch.rand(1, 1, 2, 2).double())
    >>> maps.shape, found.shape
    (torch.Size([1, 1, 2, 2]), torch.Size([1]))
    """

    search: BoundarySearch | BoundaryPipeline = BoundarySearch()
    steps: int = 20
    output: Output = "logit"
    chunk: int | None = None

    def __post_init__(self) -> None:
        if self.steps < 2:
            name = "BoundaryIntegratedGradients.steps"
            raise InputError(name, self.steps, "at least 2 points, both ends of the line")

    def __call__(
        self,
        model: nn.Module,
        images: Float[Tensor, "n c h w"],
        targets: Integer[Tensor, " n"] | None = None,
        *,
        create_graph: bool = False,
    ) -> Float[Tensor, "n c h w"]:
        """Return the map of each image, ``(N, C, H, W)``; the model runs in eval mode."""
        maps, found = self.with_found(model, images, targets, create_graph=create_graph)
        warn_of_lost(self, found, "Integrated Gradients from black")
        return maps

    def with_found(
        self,
        model: nn.Module,
        images: Float[Tensor, "n c h w"],
        targets: Integer[Tensor, " n"] | None = None,
        *,
        create_graph: bool = False,
    ) -> tuple[Float[Tensor, "n c h w"], Bool[Tensor, " n"]]:
        """Return the maps, and whether a boundary was found ``(N,)``; without a warning."""
        check_images(images)
        positions, weights = path_points("trapezoid", self.steps, images)
        with evaluating(model):
            targets = resolve_targets(model, images, targets, self.chunk)
            baselines, found = baselines_of(self.search, model, images)
            maps = integrate(
                model,
                images,
                baselines,
                targets,
                positions,
                weights,
                output=self.output,
                create_graph=create_graph,
                chunk=self.chunk,
            )
        return maps, found


@dataclass(frozen=True)
@checked
class BoundaryDeepLIFT:
    """DeepLIFT from the nearest point of another class.

    The map sums to ``f_c(x) − f_c(x′)``. Where no boundary was found, the baseline is black, or
    where a `BoundaryPipeline` ended.

    Parameters
    ----------
    search : BoundarySearch or BoundaryPipeline
        How x′ is found.
    chunk : int, optional
        How many images to take at a time, each beside its baseline; by default chosen from their
        size.

    References
    ----------
    Wang et al., Robust Models Are More Interpretable Because Attributions Look Normal (ICLR 2022);
    Shrikumar et al., Learning Important Features Through Propagating Activation Differences (ICML
    2017).

    Examples
    --------
    >>> model = nn.Sequential(nn.Flatten(), nn.Linear(4, 2)).double()
    >>> images = torch.rand(1, 1, 2, 2).double()
    >>> maps, found = BoundaryDeepLIFT().with_found(model, images)
    >>> maps.shape, found.shape
    (torch.Size([1, 1, 2, 2]), torch.Size([1]))
    """

    search: BoundarySearch | BoundaryPipeline = BoundarySearch()
    chunk: int | None = None

    def __call__(
        self,
        model: nn.Module,
        images: Float[Tensor, "n c h w"],
        targets: Integer[Tensor, " n"] | None = None,
        *,
        create_graph: bool = False,
    ) -> Float[Tensor, "n c h w"]:
        """Return the map of each image, ``(N, C, H, W)``; the model runs in eval mode."""
        maps, found = self.with_found(model, images, targets, create_graph=create_graph)
        warn_of_lost(self, found, "DeepLIFT from black")
        return maps

    def with_found(
        self,
        model: nn.Module,
        images: Float[Tensor, "n c h w"],
        targets: Integer[Tensor, " n"] | None = None,
        *,
        create_graph: bool = False,
    ) -> tuple[Float[Tensor, "n c h w"], Bool[Tensor, " n"]]:
        """Return the maps, and whether a boundary was found ``(N,)``; without a warning."""
        check_images(images)
        size = self.chunk or default_chunk(images, 2)
        with evaluating(model):
            targets = resolve_targets(model, images, targets, size)
            baselines, found = baselines_of(self.search, model, images)
            maps = lift_in_parts(
                "BoundaryDeepLIFT", model, images, baselines, targets, size, create_graph
            )
        return maps, found


def baselines_of(
    search: BoundarySearch | BoundaryPipeline, model: nn.Module, images: Tensor
) -> tuple[Tensor, Tensor]:
    """Return where the search of each image ended, black where it did not move, and what it found.

    From the image itself nothing could be integrated.
    """
    boundary = search(model, images)
    moved = (boundary.points != images).flatten(1).any(1)
    return torch.where(moved[:, None, None, None], boundary.points, 0), boundary.found


def warn_of_lost(method: Any, found: Tensor, fallback: str) -> None:
    """Warn where no boundary was found, and say what the maps are there."""
    lost = int((~found).sum())
    if lost:
        if not isinstance(method.search, BoundarySearch):
            fallback += ", or taken where the search ended if it left the image"
        warnings.warn(
            f"{type(method).__name__}: no boundary found for {lost} of {len(found)} images; "
            f"their maps are {fallback}",
            stacklevel=3,
        )
