"""Projected gradient descent, the standard attack and the inner loop of adversarial training."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float, Integer
from torch import Tensor, nn
from torch.nn import functional as F

from holdfast.adversarial.accuracy import right
from holdfast.adversarial.ball import LinfBall, Norm, ball
from holdfast.adversarial.slope import directionless, slope, warn_if_stuck
from holdfast.contracts import (
    InputError,
    check_images,
    check_labels,
    check_positive,
    checked,
    chunks,
    default_chunk,
    generators,
)
from holdfast.models import classify, evaluating

__all__ = ["PGD", "ascend"]


@dataclass(frozen=True)
@checked
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
    step : {"steepest", "sign"}
        Along which direction: the steepest of the norm, or the sign of the gradient whatever the
        norm, as ACML 2021, supplement B, writes it. In an ℓ2 ball such a step moves every value of
        the image by ``step_size``, and so is ``step_size`` times the root of their number long.
    random_start : bool
        Start at a random point of the ball instead of at the image.
    seed : int, optional
        Draw the start of an image from this seed and the image's content alone, the same in any
        batch. By default the start comes from torch's global generator, as training needs it.
    restarts : int
        Number of ascents of each image, from as many random starts. The first that the model gets
        wrong is kept, else the one with the highest loss; an image that has been fooled is not
        attacked again.
    chunk : int, optional
        How many images to take at a time; by default chosen from their size.

    Raises
    ------
    InputError
        If a setting is out of range, or there are several restarts without a random start.

    References
    ----------
    Madry et al., Towards Deep Learning Models Resistant to Adversarial Attacks (ICLR 2018).
    Generating Deep Networks Explanations with Robust Attribution Alignment (ACML 2021), supplement
    B, for ``step="sign"``.

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
    restarts: int = 1
    chunk: int | None = None
    step: Literal["steepest", "sign"] = "steepest"

    def __post_init__(self) -> None:
        ball(self.norm, self.eps)
        check_positive(self, "step_size", "steps", zero=True)
        check_positive(self, "restarts")
        if self.restarts > 1 and not self.random_start:
            raise InputError("PGD.restarts", self.restarts, "1 where random_start is False")

    def __call__(
        self,
        model: nn.Module,
        images: Float[Tensor, "n c h w"],
        labels: Integer[Tensor, " n"],
    ) -> Float[Tensor, "n c h w"]:
        """Attack each image away from its label; the model runs in eval mode.

        Returns the last point of each ascent, ``(N, C, H, W)`` in [0, 1]. Warns where most
        steps had no direction.
        """
        attacked, stuck = self.with_stuck(model, images, labels)
        warn_if_stuck(self, stuck)
        return attacked

    def with_stuck(
        self,
        model: nn.Module,
        images: Float[Tensor, "n c h w"],
        labels: Integer[Tensor, " n"],
    ) -> tuple[Float[Tensor, "n c h w"], Float[Tensor, " n"]]:
        """Return the attacked images, and the share of steps without direction; no warning.

        Where the share ``(N,)`` is high, an image that the model still gets right is no evidence of
        robustness. It is NaN if no steps were taken.
        """
        check_images(images)
        check_labels(labels, len(images))

        def loss_of(x: Tensor, y: Tensor) -> Tensor:
            logits = classify(model, x)
            check_labels(y, len(x), logits.shape[1])
            return F.cross_entropy(logits, y, reduction="none")

        labels = labels.to(images.device, torch.long)
        dice = self._dice(images)
        with evaluating(model):
            attacked, stuck = ascend(self, loss_of, images, labels, self._start(images, dice))
            runs = torch.ones_like(stuck)
            if self.restarts > 1:
                wrong, loss = self._judge(model, attacked, labels)
            for _ in range(self.restarts - 1):
                left = (~wrong).nonzero().flatten()
                if len(left) == 0:
                    break
                some, own = images[left], labels[left]
                start = self._start(some, dice and [dice[n] for n in left.tolist()])
                again, stuck_again = ascend(self, loss_of, some, own, start)
                stuck[left] += stuck_again
                runs[left] += 1
                now_wrong, now_loss = self._judge(model, again, own)
                better = now_wrong | (now_loss > loss[left])
                attacked[left[better]] = again[better]
                wrong[left[better]], loss[left[better]] = now_wrong[better], now_loss[better]
        return attacked, stuck / runs

    def start(self, images: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c h w"]:
        """Where the first ascent of each image begins."""
        return self._start(images, self._dice(images))

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
            From images ``(N, C, H, W)`` to one number per image, ``(N,)``.
        images : Tensor
            The centres of the balls.
        start : Tensor, optional
            Where to begin; by default ``self.start(images)``.

        Returns
        -------
        Tensor
            The last point of each ascent, detached.

        Raises
        ------
        HoldfastError
            If the values have no gradient with respect to the images.
        """
        images = images.detach()
        return self._climb(value, images, self.start(images) if start is None else start)[0]

    def _climb(
        self, value: Callable[[Tensor], Tensor], images: Tensor, start: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Take the steps; return where they end, and the share of them without direction."""
        around = ball(self.norm, self.eps)
        stepping = around if self.step == "steepest" else LinfBall(self.eps)
        images, x = images.detach(), start.detach()
        stuck = torch.zeros_like(images[:, 0, 0, 0])
        for _ in range(self.steps):
            with torch.enable_grad():
                x = x.requires_grad_(True)
                gradient = slope(value(x), x)
            stuck += directionless(gradient)
            x = around.project(x.detach() + stepping.step(gradient, self.step_size), images)
        return x, stuck / self.steps if self.steps else torch.full_like(stuck, torch.nan)

    def _dice(self, images: Tensor) -> list[torch.Generator] | None:
        return (
            generators(images, self.seed) if self.random_start and self.seed is not None else None
        )

    def _start(self, images: Tensor, dice: list[torch.Generator] | None) -> Tensor:
        images = images.detach()
        return ball(self.norm, self.eps).start(images, dice) if self.random_start else images

    @torch.no_grad()
    def _judge(self, model: nn.Module, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Tell which images the model gets wrong, and the loss of each."""
        wrong, loss = [], []
        for part in chunks(len(images), self.chunk or default_chunk(images)):
            logits = classify(model, images[part])
            wrong.append(~right(logits, labels[part]))
            loss.append(F.cross_entropy(logits, labels[part], reduction="none"))
        return torch.cat(wrong), torch.cat(loss)


def ascend(
    attack: PGD,
    value: Callable[[Tensor, Tensor], Tensor],
    images: Float[Tensor, "n c h w"],
    labels: Integer[Tensor, " n"],
    start: Float[Tensor, "n c h w"],
) -> tuple[Float[Tensor, "n c h w"], Float[Tensor, " n"]]:
    """Maximize a function of images and labels, chunk by chunk.

    Returns the last points, and the share of steps that had no direction, ``(N,)``.

    Examples
    --------
    >>> images, labels = torch.full((2, 1, 1, 2), 0.5), torch.tensor([0, 1])
    >>> attack = PGD(eps=0.25, step_size=0.25, steps=1, random_start=False, chunk=1)
    >>> points, stuck = ascend(attack, lambda x, y: x[:, 0, 0, y].flatten(), images, labels, images)
    >>> points.flatten(1), stuck
    (tensor([[0.7500, 0.5000],
            [0.5000, 0.7500]]), tensor([0., 0.]))
    """
    ascended = []
    for part in chunks(len(images), attack.chunk or default_chunk(images)):

        def own(x: Tensor, y: Tensor = labels[part]) -> Tensor:
            return value(x, y)

        ascended.append(attack._climb(own, images[part], start[part]))
    points, stuck = (torch.cat(parts) for parts in zip(*ascended, strict=True))
    return points, stuck
