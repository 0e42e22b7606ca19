"""SmoothGrad at the boundary of the smoothed classifier."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Integer
from torch import Tensor, nn

from holdfast.adversarial import Boundary, BoundaryPipeline, BoundarySearch, SmoothedPGD
from holdfast.attributions.boundary import warn_of_lost
from holdfast.attributions.sampled import mean_gradient
from holdfast.attributions.target import resolve_targets
from holdfast.contracts import Output, check_images, check_positive, checked, default_chunk
from holdfast.models import classify, evaluating

__all__ = ["BoundarySmoothGrad"]


@dataclass(frozen=True)
@checked
class BoundarySmoothGrad:
    """BSG: SmoothGrad at a point where the smoothed classifier gives another class.

    The noise is drawn once and is the same for every image, for the search and for the map
    ``(1/m) Σ ∇f_c(x′ + ε_k)``. Where no boundary was found, SmoothGrad where the search ended.
    Noisy copies are not clipped to [0, 1].

    Parameters
    ----------
    search : SmoothedPGD, BoundarySearch or BoundaryPipeline
        How x′ is found. `SmoothedPGD`, the default, is the published way: PGD on gradients summed
        over the noisy copies, until nearly none of them keeps the class. The others search for the
        nearest point of another class of the classifier whose logits are the mean over the copies;
        `BoundarySearch` finds points that are much nearer, and that are on the boundary.
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
        size of the images. `BoundarySearch` and `BoundaryPipeline` take all copies of an image at
        once; without a ``chunk`` of their own, so many images at a time that those fit.

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

    search: SmoothedPGD | BoundarySearch | BoundaryPipeline = SmoothedPGD()
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
        warn_of_lost(self, found, "SmoothGrad at the image")
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
        with evaluating(model):
            targets = resolve_targets(model, images, targets, self.chunk)
            boundary = self.boundary(model, images)
            maps = self.smooth_gradient(model, boundary.points, targets, create_graph=create_graph)
        return maps, boundary.found

    def boundary(self, model: nn.Module, images: Float[Tensor, "n c h w"]) -> Boundary:
        """Search for the boundary of the smoothed classifier around each image."""
        check_images(images)
        noise = self._noise(images)
        if isinstance(self.search, SmoothedPGD):
            chunk = self.search.chunk or self.chunk
            return dataclasses.replace(self.search, chunk=chunk)(model, images, noise)
        restarts = self.search.restarts if isinstance(self.search, BoundarySearch) else 1
        size = self.chunk or default_chunk(images)
        few = self.search.chunk or max(1, size // (self.samples * max(1, restarts)))
        return dataclasses.replace(self.search, chunk=few)(_Smoothed(model, noise), images)

    def smooth_gradient(
        self,
        model: nn.Module,
        points: Float[Tensor, "n c h w"],
        targets: Integer[Tensor, " n"],
        *,
        create_graph: bool = False,
    ) -> Float[Tensor, "n c h w"]:
        """Return SmoothGrad at the given points, with the noise that all images share."""
        noise = self._noise(points)

        def draw(some: slice, few: slice) -> tuple[Tensor, None]:
            return points[some, None] + noise[few], None

        with evaluating(model):
            return mean_gradient(self, draw, model, points, targets, create_graph)

    def _noise(self, images: Tensor) -> Tensor:
        rng = torch.Generator().manual_seed(self.seed)
        drawn = torch.randn(self.samples, *images.shape[1:], generator=rng, dtype=torch.float32)
        return self.noise * drawn.to(images)


class _Smoothed(nn.Module):
    """The classifier whose logits are the mean over noisy copies, the same noise for all images."""

    def __init__(self, model: nn.Module, noise: Tensor) -> None:
        super().__init__()
        self.model, self.noise = model, noise

    def forward(self, images: Tensor) -> Tensor:
        copies = (images[:, None] + self.noise).flatten(0, 1)
        logits = classify(self.model, copies)
        return logits.view(len(images), len(self.noise), -1).mean(1)
