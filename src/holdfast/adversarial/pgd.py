"""Projected gradient descent, the standard attack and the inner loop of adversarial training."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from holdfast.adversarial.ball import Norm, ball
from holdfast.adversarial.slope import slope
from holdfast.contracts import (
    check_images,
    check_labels,
    check_positive,
    chunks,
    default_chunk,
    generators,
)
from holdfast.models import evaluating

__all__ = ["PGD"]


@dataclass(frozen=True)
class PGD:
    """Projected gradient descent: ascend the cross-entropy within a ball around each image.

    Parameters
    ----------
    eps : float
        Radius ε of the ball, in pixel units on [0, 1].
    step_size : float
        Length of a step, in the same units and norm.
    steps : int
        Number of steps.
    norm : {"linf", "l2"}
        The norm of ball and steps.
    random_start : bool
        Start at a random point of the ball instead of at the image.
    seed : int, optional
        Draw the start of an image from this seed and the image's content alone, the same in any
        batch. By default the start comes from torch's global generator, as training needs it.
    chunk : int, optional
        How many images to take at a time; by default chosen from their size.

    References
    ----------
    Madry et al., Towards Deep Learning Models Resistant to Adversarial Attacks (ICLR 2018).

    Examples
    --------
    >>> from torch import nn
    >>> model = nn.Sequential(nn.Flatten(), nn.Linear(4, 2))
    >>> attack = PGD(eps=8 / 255, step_size=2 / 255, steps=10)
    >>> images, labels = torch.rand(3, 1, 2, 2), torch.tensor([0, 1, 0])
    >>> adversarial = attack(model, images, labels)
    >>> bool((adversarial - images).abs().max() <= 8 / 255 + 1e-6)
    True
    """

    eps: float
    step_size: float
    steps: int
    norm: Norm = "linf"
    random_start: bool = True
    seed: int | None = None
    chunk: int | None = None

    def __post_init__(self) -> None:
        ball(self.norm, self.eps)
        check_positive(self, "step_size", "steps", zero=True)

    def __call__(
        self,
        model: nn.Module,
        images: Float[Tensor, "n c h w"],
        labels: Int[Tensor, " n"],
    ) -> Float[Tensor, "n c h w"]:
        """Attack each image away from its label; the model runs in eval mode.

        Returns the last point of each ascent, ``(N, C, H, W)`` in [0, 1].
        """
        check_images(images)
        check_labels(labels, len(images))
        start = self.start(images)
        attacked = []
        with evaluating(model):
            for part in chunks(len(images), self.chunk or default_chunk(images)):

                def loss(x: Tensor, y: Tensor = labels[part]) -> Tensor:
                    logits = model(x)
                    check_labels(y, len(x), logits.shape[1])
                    return F.cross_entropy(logits, y, reduction="none")

                attacked.append(self.maximize(loss, images[part], start[part]))
        return torch.cat(attacked)

    def start(self, images: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c h w"]:
        """Where the ascent of each image begins."""
        if not self.random_start:
            return images.detach()
        own = None if self.seed is None else generators(images, self.seed)
        return ball(self.norm, self.eps).start(images.detach(), own)

    def maximize(
        self,
        value: Callable[[Tensor], Tensor],
        images: Float[Tensor, "n c h w"],
        start: Float[Tensor, "n c h w"] | None = None,
    ) -> Float[Tensor, "n c h w"]:
        """Ascend any function of the images within the ball: the inner loop of robust training.

        Parameters
        ----------
        value : callable
            From images ``(N, C, H, W)`` to one number an image, ``(N,)``.
        images : Tensor
            The centres of the balls.
        start : Tensor, optional
            Where to begin; by default ``self.start(images)``.

        Returns
        -------
        Tensor
            The last point of each ascent, detached.
        """
        images = images.detach()
        around = ball(self.norm, self.eps)
        x = self.start(images) if start is None else start.detach()
        for _ in range(self.steps):
            with torch.enable_grad():
                x = x.requires_grad_(True)
                gradient = slope(value(x), x)
            x = around.project(x.detach() + around.step(gradient, self.step_size), images)
        return x
