"""The descent that all gradient manipulations share; each of them says only what it descends."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float, Integer
from torch import Tensor, nn

from holdfast.adversarial import LinfBall, slope
from holdfast.adversarial.slope import directionless, linked, warn_if_stuck
from holdfast.contracts import (
    Attribution,
    InputError,
    Outcome,
    SurrogateWarning,
    check_images,
    check_labels,
    check_positive,
    check_precision,
    chunks,
    default_chunk,
)
from holdfast.manipulation.estimate import Estimate, check_samples, differentiable, path_length
from holdfast.manipulation.judge import Judge
from holdfast.models import double_backward, evaluating, softplus, surrogate_fit

__all__ = [
    "Loss",
    "Method",
    "Settings",
    "Walk",
    "attacked",
    "check_settings",
    "descend",
    "joined",
    "off_the_kinks",
    "warn_if_unlike",
]

Loss = Callable[[Tensor, Tensor, int], Tensor]
"""From maps ``(N, C, H, W)``, their images and the step's number to what is descended, ``(N,)``."""


@runtime_checkable
class Method(Protocol):
    """What every manipulation has."""

    @property
    def attribution(self) -> Attribution:
        """The explanation under attack."""
        ...

    @property
    def chunk(self) -> int | None:
        """Images at a time."""
        ...


@runtime_checkable
class Settings(Method, Protocol):
    """The fields of a manipulation that goes down by signed steps in an ℓ∞ ball."""

    @property
    def eps(self) -> float:
        """Radius of the ball."""
        ...

    @property
    def step_size(self) -> float:
        """Length of a step."""
        ...

    @property
    def steps(self) -> int:
        """Number of steps."""
        ...

    @property
    def momentum(self) -> float:
        """How much of the last direction remains."""
        ...

    @property
    def margin(self) -> float:
        """The lead of the label below which steps lead back."""
        ...

    @property
    def path_samples(self) -> int | None:
        """From how many inputs a step estimates the map."""
        ...

    @property
    def judge_every(self) -> int:
        """After how many steps the map is judged."""
        ...

    @property
    def seed(self) -> int:
        """Seeds the draws."""
        ...


def check_settings(method: Settings) -> None:
    """Refuse settings that are out of range."""
    check_positive(method, "step_size", "steps", "judge_every")
    check_positive(method, "eps", "momentum", "margin", zero=True)
    for field in ("momentum", "margin"):
        if not getattr(method, field) < 1:
            raise InputError(f"{type(method).__name__}.{field}", getattr(method, field), "below 1")
    if method.path_samples is not None:
        check_positive(method, "path_samples")
    check_samples(method)


def descend(
    method: Settings,
    model: nn.Module,
    images: Float[Tensor, "n c h w"],
    labels: Integer[Tensor, " n"],
    prepare: Callable[[Judge, slice], Loss],
    *,
    beta: float | Callable[[int], float],
    start: Callable[[Tensor], Tensor] = lambda images: images,
) -> Outcome:
    """Walk down a loss of the maps from each image, and return the best that the judge saw.

    Parameters
    ----------
    method : Settings
        The manipulation whose fields say how to walk.
    model, images, labels
        What it was called with; checked here.
    prepare : callable
        Makes the loss, given a judge who knows the original maps of some of the images, and which
        of the images these are.
    beta : float or callable
        Sharpness of the softplus surrogate; with a callable, at each step, numbered from 0.
    start : callable
        From images to where their walks begin; by default at the images.
    """
    agree: list[Tensor] = []

    def attack(judge: Judge, part: slice) -> None:
        last = beta(method.steps - 1) if callable(beta) else beta
        agree.append(surrogate_fit(judge.model, judge.images, last).agree)
        _descend(method, judge, prepare(judge, part), beta, start(judge.images))

    copies = method.path_samples or path_length(method.attribution)
    outcome = joined(attacked(method, model, images, labels, attack, copies))
    warn_if_stuck(method, outcome.stuck, stacklevel=4)
    warn_if_unlike(method, torch.cat(agree), stacklevel=4)
    return outcome


def attacked(
    method: Method,
    model: nn.Module,
    images: Float[Tensor, "n c h w"],
    labels: Integer[Tensor, " n"],
    attack: Callable[[Judge, slice], None],
    copies: int,
) -> list[Judge]:
    """Check what a manipulation was called with, and let it attack some images after others.

    Parameters
    ----------
    method : Method
        The manipulation.
    model, images, labels
        What it was called with.
    attack : callable
        Shows perturbations to the judge of some of the images; it is also told which these are. The
        model runs in eval mode.
    copies : int
        How many inputs the model sees at once for each image.
    """
    check_images(images)
    check_precision(images)
    check_labels(labels, len(images))
    labels = labels.to(images.device, torch.long)
    judges = []
    with evaluating(model):
        for part in chunks(len(images), method.chunk or default_chunk(images, copies)):
            judge = Judge(method.attribution, model, images[part].detach(), labels[part])
            attack(judge, part)
            judges.append(judge)
    return judges


class Walk:
    """Signed steps down a loss in the ℓ∞ ball around each image, with momentum and label steering.

    Parameters
    ----------
    judge : Judge
        Knows the model, the images and their labels.
    eps : float
        Radius of the ball.
    start : Tensor
        Where to begin, ``(N, C, H, W)``; projected to the ball.
    momentum : float
        How much of the direction of the last step remains in the next; each new gradient counts by
        its direction, scaled to a mean absolute value of 1.
    margin : float
        Where the lead of the label's logit over the others is below this share of what it was at
        the image, a step does not go down the loss, but back up to where the lead is.

    Attributes
    ----------
    x : Tensor
        Where the walks are.

    Notes
    -----
    The judge is told of each step, and where it had no direction: a gradient that is zero, NaN or
    infinite everywhere. A map that does not depend on the image has a gradient of zero.
    """

    def __init__(
        self,
        judge: Judge,
        eps: float,
        start: Float[Tensor, "n c h w"],
        momentum: float = 0.0,
        margin: float = 0.0,
    ) -> None:
        self.judge, self.ball, self.momentum = judge, LinfBall(eps), momentum
        self.x = self.ball.project(start, judge.images)
        self.velocity = torch.zeros_like(self.x)
        self.floor = margin * judge.lead(judge.images).clamp_min(0) if margin else None

    def step(
        self,
        estimate: Estimate,
        loss: Loss,
        number: int,
        size: float | Float[Tensor, "n 1 1 1"],
        beta: float,
    ) -> None:
        """Take the step of that number; ``size`` may differ from image to image."""
        with torch.enable_grad(), double_backward(), softplus(beta):
            x = self.x.detach().requires_grad_(True)
            descended = loss(estimate(off_the_kinks(x), number), x, number)
            downhill = slope(linked(-descended, x), x).nan_to_num(0, 0, 0)
        self.judge.steps += 1
        self.judge.directionless += directionless(downhill)
        if self.floor is not None:
            lost = self.judge.lead(self.x) < self.floor
            downhill = torch.where(lost[:, None, None, None], self._uphill(lost), downhill)
        if self.momentum:
            scale = downhill.abs().mean((1, 2, 3), keepdim=True)
            self.velocity = self.momentum * self.velocity + downhill / torch.where(
                scale > 0, scale, 1
            )
            downhill = self.velocity
        self.x = self.ball.project(self.x + self.ball.step(downhill, 1.0) * size, self.judge.images)

    def _uphill(self, lost: Bool[Tensor, " n"]) -> Tensor:
        """Where the label is lost, the direction in which its lead grows; elsewhere zero."""
        uphill = torch.zeros_like(self.x)
        if lost.any():
            with torch.enable_grad():
                x = self.x[lost].detach().requires_grad_(True)
                uphill[lost] = slope(self.judge.lead(x, lost), x).nan_to_num(0, 0, 0)
        return uphill


def _descend(
    method: Settings,
    judge: Judge,
    loss: Loss,
    beta: float | Callable[[int], float],
    start: Tensor,
) -> None:
    estimate = differentiable(
        method.attribution,
        judge.model,
        judge.images,
        judge.labels,
        samples=method.path_samples,
        steps=method.steps,
        seed=method.seed,
    )
    walk = Walk(judge, method.eps, start, method.momentum, method.margin)
    for step in range(method.steps):
        sharpness = beta(step) if callable(beta) else beta
        walk.step(estimate, loss, step, method.step_size, sharpness)
        if (step + 1) % method.judge_every == 0 or step + 1 == method.steps:
            judge(walk.x)


def warn_if_unlike(method: object, agree: Bool[Tensor, " n"], stacklevel: int = 3) -> None:
    """Warn where the softplus surrogate predicts another class than the model.

    Parameters
    ----------
    method : object
        The manipulation, named by its class.
    agree : Tensor
        Whether both predict the same class, ``(N,)``: `holdfast.models.surrogate_fit`.
    stacklevel : int
        As of `warnings.warn`.

    Examples
    --------
    >>> with warnings.catch_warnings(record=True) as caught:
    ...     warn_if_unlike("any method", torch.tensor([True, False]))
    >>> caught[0].category.__name__
    'SurrogateWarning'
    """
    count = int((~agree).sum())
    if count:
        warnings.warn(
            f"{type(method).__name__}: for {count} of {len(agree)} images the softplus surrogate "
            "predicts another class than the model, so its directions may mislead; compare with "
            "RandomSearch, which needs no surrogate",
            SurrogateWarning,
            stacklevel=stacklevel,
        )


def joined(judges: Iterable[Judge]) -> Outcome:
    """Gather what the judges of all chunks remember."""
    found = [(j.best, j.similarity, j.preserved, j.moved, j.stuck) for j in judges]
    return Outcome(*(torch.cat(parts) for parts in zip(*found, strict=True)))


def off_the_kinks(x: Tensor) -> Tensor:
    """Move images a grain (0.001) away from black and white, where maps have kinks.

    A pixel that equals the baseline of Integrated Gradients has importance 0, where the derivative
    of an absolute value counts as 0, too: such pixels would never be lifted, and on images with few
    other pixels, as of MNIST, an attack would not begin.
    """
    return _GRAIN + (1 - 2 * _GRAIN) * x


_GRAIN = 1e-3
