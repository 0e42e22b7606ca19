"""The sets of allowed perturbations: ℓ∞ and ℓ2 balls of radius ε around each image, cut to [0, 1].

Both offer the same three steps of projected gradient ascent: ``start`` at random, ``step`` along
the steepest direction of the norm, ``project`` back.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from holdfast.contracts import InputError, check_precision, checked

__all__ = ["L2Ball", "LinfBall", "Norm", "ball"]

Norm = Literal["linf", "l2"]


@dataclass(frozen=True)
@checked
class LinfBall:
    """All images in [0, 1] that differ from the given one by at most ``eps`` in every pixel.

    Parameters
    ----------
    eps : float
        Radius ε, in pixel units on [0, 1].

    Examples
    --------
    >>> image = torch.tensor([[[[0.1, 0.5]]]])
    >>> LinfBall(eps=0.25).project(image + 1.0, image)
    tensor([[[[0.3500, 0.7500]]]])
    """

    eps: float

    def start(
        self, images: Float[Tensor, "n c h w"], generators: list[torch.Generator] | None = None
    ) -> Float[Tensor, "n c h w"]:
        """Draw a point of the ball around each image, uniformly; one generator an image."""
        check_precision(images)
        noise = _draw(torch.rand, images, generators) * 2 - 1
        return (images + self.eps * noise).clamp(0, 1)

    def step(self, gradient: Float[Tensor, "n c h w"], size: float) -> Float[Tensor, "n c h w"]:
        """Go ``size`` along the sign of the gradient; nowhere where it is no finite number."""
        return size * gradient.nan_to_num(0, 0, 0).sign()

    def project(
        self, perturbed: Float[Tensor, "n c h w"], images: Float[Tensor, "n c h w"]
    ) -> Float[Tensor, "n c h w"]:
        """Return the point of the ball nearest to each perturbed image."""
        check_precision(images)
        low = (images - self.eps).clamp_min(0)
        high = (images + self.eps).clamp_max(1)
        return torch.minimum(torch.maximum(perturbed, low), high)


@dataclass(frozen=True)
@checked
class L2Ball:
    """All images in [0, 1] at a Euclidean distance of at most ``eps`` from the given one.

    Parameters
    ----------
    eps : float
        Radius ε, in pixel units on [0, 1], over all pixels and channels together.

    Examples
    --------
    >>> image = torch.full((1, 1, 1, 2), 0.5)
    >>> L2Ball(eps=0.5).project(image + torch.tensor([0.3, 0.4]), image)
    tensor([[[[0.8000, 0.9000]]]])
    """

    eps: float

    def start(
        self, images: Float[Tensor, "n c h w"], generators: list[torch.Generator] | None = None
    ) -> Float[Tensor, "n c h w"]:
        """Draw a point of the ball around each image, uniformly; one generator an image."""
        check_precision(images)
        direction = _unit(_draw(torch.randn, images, generators))
        size = images[0].numel()
        radius = _draw(torch.rand, images[:, :1, :1, :1], generators) ** (1 / size)
        return (images + self.eps * radius * direction).clamp(0, 1)

    def step(self, gradient: Float[Tensor, "n c h w"], size: float) -> Float[Tensor, "n c h w"]:
        """Go ``size`` along the gradient's direction; nowhere where it is 0 or no number."""
        return size * _unit(gradient.nan_to_num(0, 0, 0))

    def project(
        self, perturbed: Float[Tensor, "n c h w"], images: Float[Tensor, "n c h w"]
    ) -> Float[Tensor, "n c h w"]:
        """Shrink each perturbation to length ε, then clip to [0, 1], which only shortens it."""
        check_precision(images)
        delta = perturbed - images
        length = delta.flatten(1).norm(dim=1).view(-1, 1, 1, 1)
        delta = delta * (self.eps / length.clamp_min(self.eps)) if self.eps > 0 else delta * 0
        return (images + delta).clamp(0, 1)


def ball(norm: Norm, eps: float) -> LinfBall | L2Ball:
    """Return the ball of radius ``eps`` in the norm of that name, ``"linf"`` or ``"l2"``.

    Raises
    ------
    InputError
        For any other norm, or an ``eps`` below 0.

    Examples
    --------
    >>> ball("l2", 0.5)
    L2Ball(eps=0.5)
    """
    if not eps >= 0:
        raise InputError("eps", eps, "a number of at least 0")
    if norm == "linf":
        return LinfBall(eps)
    if norm == "l2":
        return L2Ball(eps)
    raise InputError("norm", repr(norm), "'linf' or 'l2'")


def _unit(x: Tensor) -> Tensor:
    length = x.flatten(1).norm(dim=1).view(-1, 1, 1, 1)
    return torch.where(length > 0, x / length.clamp_min(torch.finfo(x.dtype).tiny), 0)


def _draw(
    sample: Callable[..., Tensor],
    like: Tensor,
    generators: list[torch.Generator] | None,
) -> Tensor:
    if generators is None:
        return sample(like.shape, dtype=like.dtype, device=like.device)
    # Drawn in float32 on the CPU, so that an image gets the same noise on every device.
    drawn = [sample(like.shape[1:], generator=rng, dtype=torch.float32) for rng in generators]
    return torch.stack(drawn).to(like)
