"""Attributions that look at the nearest decision boundary instead of, or besides, the image.

For all of them the boundary is that of the predicted class, whatever class ``targets`` says is
explained; and the boundary point is held fixed when a map is differentiated. Each has a method
``with_found``, which tells for which images a boundary was found; the plain call warns of the
others.
"""

from __future__ import annotations

import dataclasses
import warnings
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Integer
from torch import Tensor, nn

from holdfast.adversarial import BoundarySearch
from holdfast.attributions.deep_lift import lift_in_parts
from holdfast.attributions.gradient import input_gradient
from holdfast.attributions.path import integrate, path_points
from holdfast.attributions.sampled import mean_gradient
from holdfast.attributions.target import resolve_targets
from holdfast.contracts import (
    InputError,
    Output,
    check_images,
    check_positive,
    checked,
    chunks,
    default_chunk,
)
from holdfast.models import classify, evaluating

__all__ = [
    "BoundaryDeepLIFT",
    "BoundaryIntegratedGradients",
    "BoundarySaliency",
    "BoundarySmoothGrad",
]


@dataclass(frozen=True)
@checked
class BoundarySaliency:
    """BSM: the gradient of the class score, taken at the nearest point of another class.

    ``∇f_c(x′)``: where that boundary separates a class from a constant score, its normal. Where no
    boundary was found, the gradient at the image.

    Parameters
    ----------
    search : BoundarySearch
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

    search: BoundarySearch = BoundarySearch()
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
        _warn(self, found, "the gradient at the image")
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
    found, the baseline is black.

    Parameters
    ----------
    search : BoundarySearch
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

    search: BoundarySearch = BoundarySearch()
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
        _warn(self, found, "Integrated Gradients from black")
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
class BoundarySmoothGrad:
    """BSG: SmoothGrad at the nearest point of another class of the smoothed classifier.

    The smoothed classifier answers with the mean logits over noisy copies of the image; the noise
    is drawn once and is the same for every image, for the search and for the map
    ``(1/m) Σ ∇f_c(x′ + ε_k)``. Where no boundary was found, SmoothGrad at the image. Noisy copies
    are not clipped to [0, 1].

    Parameters
    ----------
    search : BoundarySearch
        How x′ is found; by default in half the steps of `BoundarySearch`, which are enough for a
        smoothed boundary and each see all noisy copies. Without a ``chunk``, it takes so many
        images at a time that their noisy copies fit.
    samples : int
        Number m of noisy copies.
    noise : float
        Standard deviation of the noise, in pixel units on [0, 1].
    seed : int
        Draws the noise.
    output : {"logit", "probability", "log_probability", "loss"}
        What is differentiated.
    chunk : int, optional
        How many inputs (images times copies) the model sees at a time; by default chosen from the
        size of the images. The search takes all copies of an image at once.

    References
    ----------
    Wang et al., Robust Models Are More Interpretable Because Attributions Look Normal (ICLR 2022),
    appendix B.5.

    Examples
    --------
    >>> model = nn.Sequential(nn.Flatten(), nn.Linear(4, 2))
    >>> images = torch.rand(2, 1, 2, 2)
    >>> bsg = BoundarySmoothGrad(samples=5)
    >>> maps, found = bsg.with_found(model, images, torch.tensor([0, 1]))
    >>> torch.allclose(maps[1].flatten(), model[1].weight[1])
    True
    """

    search: BoundarySearch = BoundarySearch(steps=10, scout_steps=5, restarts=2, restart_steps=3)
    samples: int = 50
    noise: float = 0.15
    seed: int = 0
    output: Output = "logit"
    chunk: int | None = None

    def __post_init__(self) -> None:
        check_positive(self, "samples")
        check_positive(self, "noise", zero=True)

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
        _warn(self, found, "SmoothGrad at the image")
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
        die = torch.Generator().manual_seed(self.seed)
        drawn = torch.randn(self.samples, *images.shape[1:], generator=die, dtype=torch.float32)
        noise = self.noise * drawn.to(images)
        few = self.search.chunk or max(1, size // (self.samples * max(1, self.search.restarts)))
        with evaluating(model):
            targets = resolve_targets(model, images, targets, size)
            search = dataclasses.replace(self.search, chunk=few)
            boundary = search(_Smoothed(model, noise), images)

            def draw(some: slice, few: slice) -> tuple[Tensor, None]:
                return boundary.points[some, None] + noise[few], None

            maps = mean_gradient(self, draw, model, images, targets, create_graph)
        return maps, boundary.found


@dataclass(frozen=True)
@checked
class BoundaryDeepLIFT:
    """DeepLIFT from the nearest point of another class.

    The map sums to ``f_c(x) − f_c(x′)``. Where no boundary was found, the baseline is black.

    Parameters
    ----------
    search : BoundarySearch
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

    search: BoundarySearch = BoundarySearch()
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
        _warn(self, found, "DeepLIFT from black")
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


class _Smoothed(nn.Module):
    """The classifier whose logits are the mean over noisy copies, the same noise for all images."""

    def __init__(self, model: nn.Module, noise: Tensor) -> None:
        super().__init__()
        self.model, self.noise = model, noise

    def forward(self, images: Tensor) -> Tensor:
        copies = (images[:, None] + self.noise).flatten(0, 1)
        logits = classify(self.model, copies)
        return logits.view(len(images), len(self.noise), -1).mean(1)


def baselines_of(search: BoundarySearch, model: nn.Module, images: Tensor) -> tuple[Tensor, Tensor]:
    """Return the boundary point of each image, black where there is none, and where there is."""
    boundary = search(model, images)
    return torch.where(boundary.found[:, None, None, None], boundary.points, 0), boundary.found


def _warn(method: object, found: Tensor, fallback: str) -> None:
    lost = int((~found).sum())
    if lost:
        warnings.warn(
            f"{type(method).__name__}: no boundary found for {lost} of {len(found)} images; "
            f"their maps are {fallback}",
            stacklevel=3,
        )
