"""Attributions that average gradients over random draws around each image."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float, Integer
from torch import Tensor, nn

from holdfast.attributions.baseline import same_settings
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

__all__ = ["GradientSHAP", "SmoothGrad"]


@dataclass(frozen=True)
@checked
class SmoothGrad:
    """The mean gradient over noisy copies of the image.

    ``(1/m) Σ ∂f(x + ε_k)/∂x`` with Gaussian ε_k, signed. It is, up to chance, the gradient of the
    classifier smoothed by that noise. As published, the noisy copies are not clipped to [0, 1].

    Parameters
    ----------
    samples : int
        Number m of noisy copies.
    noise : float
        Standard deviation of the noise, in pixel units on [0, 1]. Where papers give a percentage p,
        it is p % of an image's own range: ``noise = p / 100 * (max - min)``, which for an image
        that reaches from black to white is ``p / 100``. Published choices are 10 to 20 %.
    seed : int
        The noise of an image depends on this and on the image's content alone.
    output : {"logit", "probability", "log_probability", "loss"}
        What is differentiated.
    chunk : int, optional
        How many inputs (images times copies) the model sees at a time; by default chosen from the
        size of the images.

    References
    ----------
    Smilkov et al., SmoothGrad: removing noise by adding noise (2017).

    Examples
    --------
    >>> model = nn.Sequential(nn.Flatten(), nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
    >>> images = torch.rand(2, 1, 2, 2)
    >>> maps = SmoothGrad(samples=10)(model, images)
    >>> torch.allclose(SmoothGrad(samples=10)(model, images[1:]), maps[1:])
    True
    """

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
        check_images(images)
        dice = generators(images, self.seed)

        def draw(some: slice, few: slice) -> tuple[Tensor, None]:
            noise = _normal(images, dice[some], few.stop - few.start)
            return images[some, None] + self.noise * noise, None

        with evaluating(model):
            return mean_gradient(self, draw, model, images, targets, create_graph)


@dataclass(frozen=True)
@checked
class GradientSHAP:
    """Expected gradients: Integrated Gradients from random baselines at random points of the path.

    ``(1/m) Σ (x̃_k − b_k) · ∂f(b_k + t_k (x̃_k − b_k))/∂x`` with t_k uniform in [0, 1], b_k one of
    the baselines, and x̃_k the image under Gaussian noise. As m grows, the map sums to the mean of
    ``f(x̃) − f(b)``.

    Parameters
    ----------
    samples : int
        Number m of draws.
    noise : float
        Standard deviation of the noise on the image, in pixel units on [0, 1].
    baselines : tuple of float, or Tensor
        What the baselines are drawn from: constant images of these values (by default black and
        white), or images ``(B, C, H, W)``, a sample of the training data for example.
    seed : int
        The draws for an image depend on this and on the image's content alone.
    output : {"logit", "probability", "log_probability", "loss"}
        What is differentiated.
    chunk : int, optional
        How many inputs (images times draws) the model sees at a time; by default chosen from the
        size of the images.

    References
    ----------
    Lundberg and Lee, A Unified Approach to Interpreting Model Predictions (NeurIPS 2017); Erion et
    al., Improving performance of deep learning models with axiomatic attribution priors and
    expected gradients (2021).

    Examples
    --------
    >>> model = nn.Sequential(nn.Flatten(), nn.Linear(4, 2, bias=False))
    >>> images = torch.rand(2, 1, 2, 2)
    >>> maps = GradientSHAP(samples=5, baselines=(0.0,))(model, images, torch.tensor([1, 1]))
    >>> torch.allclose(maps.flatten(1).sum(1), model(images)[:, 1])
    True
    """

    samples: int = 50
    noise: float = 0.0
    baselines: tuple[float, ...] | Tensor = field(default=(0.0, 1.0), hash=False)
    seed: int = 0
    output: Output = "logit"
    chunk: int | None = None

    def __post_init__(self) -> None:
        check_positive(self, "samples")
        check_positive(self, "noise", zero=True)
        if isinstance(self.baselines, Tensor):
            check_images(self.baselines, "GradientSHAP.baselines")
        elif not (self.baselines and all(0 <= value <= 1 for value in self.baselines)):
            expected = "at least one value in [0, 1]"
            raise InputError("GradientSHAP.baselines", self.baselines, expected)

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
        baselines = self._baselines(images)
        dice = generators(images, self.seed)

        def draw(some: slice, few: slice) -> tuple[Tensor, Tensor]:
            choice, place, noise = self._draws(images, dice[some], few.stop - few.start)
            start = baselines[choice.to(baselines.device)]
            way = images[some, None] + noise - start
            return start + place * way, way

        with evaluating(model):
            return mean_gradient(self, draw, model, images, targets, create_graph)

    def _draws(
        self, images: Tensor, dice: list[torch.Generator], count: int
    ) -> tuple[Tensor, Tensor, Tensor | float]:
        """Draw baselines, points of the path and noise, all of one draw before the next."""
        draws = len(dice), count
        choice = torch.empty(draws, dtype=torch.long)
        place = torch.empty(*draws, 1, 1, 1, dtype=torch.float32)
        noise = torch.empty(*draws, *images.shape[1:], dtype=torch.float32) if self.noise else None
        for n, die in enumerate(dice):
            for k in range(count):
                choice[n, k].random_(len(self.baselines), generator=die)
                place[n, k].uniform_(generator=die)
                if noise is not None:
                    noise[n, k].normal_(std=self.noise, generator=die)
        return choice, place.to(images), 0.0 if noise is None else noise.to(images)

    def _baselines(self, images: Tensor) -> Tensor:
        if not isinstance(self.baselines, Tensor):
            values = torch.tensor(self.baselines).to(images)
            return values[:, None, None, None].expand(-1, *images.shape[1:])
        if self.baselines.shape[1:] != images.shape[1:]:
            expected = f"images of shape {tuple(images.shape[1:])}"
            came = f"shape {tuple(self.baselines.shape[1:])}"
            raise InputError("GradientSHAP.baselines", came, expected)
        return self.baselines.to(images)


@runtime_checkable
class _Sampling(Protocol):
    @property
    def samples(self) -> int: ...
    @property
    def output(self) -> Output: ...
    @property
    def chunk(self) -> int | None: ...


def mean_gradient(
    method: _Sampling,
    draw: Callable[[slice, slice], tuple[Tensor, Tensor | None]],
    model: nn.Module,
    images: Tensor,
    targets: Tensor | None,
    create_graph: bool,
) -> Tensor:
    """Average the gradients at the points drawn, each times its factor if it has one.

    ``draw`` gives those of some images and a few of their samples, which it is asked for in order.
    """
    size = method.chunk or default_chunk(images)
    targets = resolve_targets(model, images, targets, size)
    maps = []
    for some in chunks(len(images), max(1, size // method.samples)):
        total = torch.zeros_like(images[some])
        for few in chunks(method.samples, size):
            points, factors = draw(some, few)
            gradients = input_gradient(
                model,
                points.flatten(0, 1),
                targets[some].repeat_interleave(points.shape[1]),
                output=method.output,
                create_graph=create_graph,
            ).view_as(points)
            total = total + (gradients if factors is None else gradients * factors).sum(1)
        maps.append(total / method.samples)
    return torch.cat(maps) if create_graph else torch.cat(maps).detach()


def _normal(images: Tensor, dice: list[torch.Generator], count: int) -> Tensor:
    """Draw standard normal noise, ``count`` times for each image, from the image's own dice."""
    noise = torch.empty(len(dice), count, *images.shape[1:], dtype=torch.float32)
    for own, die in zip(noise, dice, strict=True):
        for copy in own:
            # One copy at a time, so that chunks do not change which numbers come.
            copy.normal_(generator=die)
    return noise.to(images)
