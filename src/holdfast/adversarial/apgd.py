"""Auto-PGD: projected gradient ascent that chooses its own step size."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float, Integer
from torch import Tensor, nn

from holdfast.adversarial.accuracy import check_logits, right
from holdfast.adversarial.ball import L2Ball, LinfBall, Norm, ball
from holdfast.adversarial.margin import beyond_rounding, margin
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

__all__ = ["APGD"]


@dataclass(frozen=True)
@checked
class APGD:
    """Auto-PGD: projected gradient ascent with momentum that finds its own step size.

    Steps begin at 2ε. At checkpoints, ever denser on the way, the step of an image is halved and
    its ascent goes on from the best point so far, if the loss rose in fewer than three quarters of
    the steps since the last checkpoint, or if neither the step nor the best loss has changed since.

    Parameters
    ----------
    eps : float
        Radius ε of the ball, in pixel units on [0, 1].
    norm : {"linf", "l2"}
        The norm of ball and steps.
    loss : {"ce", "dlr"}
        What is maximized: the cross-entropy, or the difference of logits ratio, which does not
        change with the scale of the logits. The ratio needs at least three classes.
    steps : int
        Number of steps.
    restarts : int
        Number of ascents of each image; an image that has been fooled is not attacked again.
    seed : int
        Random starts of an image depend on this and on the image's content alone.
    chunk : int, optional
        How many images to take at a time; by default chosen from their size.

    Raises
    ------
    InputError
        If a setting is out of range; when called with ``loss="dlr"``, if the model has fewer than
        three classes.
    HoldfastError
        When called, if the logits have no gradient with respect to the images.

    Notes
    -----
    An image is done as soon as the model gets it wrong by more than rounding, and comes back there.
    An image that it gets wrong from the start, or never, comes back as it was.

    The cross-entropy is log(1 + exp h) with h = log Σ_{i≠y} exp f_i − f_y. Since it increases with
    h, an ascent of h takes the same steps; but h has a gradient also where the softmax rounds to 0
    or 1 and the cross-entropy has none.

    References
    ----------
    Croce and Hein, Reliable Evaluation of Adversarial Robustness with an Ensemble of Diverse
    Parameter-Free Attacks (ICML 2020), algorithm 1.

    Examples
    --------
    >>> from holdfast.adversarial import accuracy
    >>> model = nn.Flatten()  # the brightest of four pixels
    >>> images, labels = torch.tensor([[[[0.9, 0.1], [0.1, 0.1]]]]), torch.tensor([0])
    >>> accuracy(model, images, labels, APGD(eps=0.3, loss="dlr"))
    1.0
    >>> accuracy(model, images, labels, APGD(eps=0.5, loss="dlr"))
    0.0
    """

    eps: float
    norm: Norm = "linf"
    loss: Literal["ce", "dlr"] = "ce"
    steps: int = 100
    restarts: int = 1
    seed: int = 0
    chunk: int | None = None

    def __post_init__(self) -> None:
        ball(self.norm, self.eps)
        check_positive(self, "steps", "restarts")
        if self.loss not in ("ce", "dlr"):
            raise InputError("APGD.loss", repr(self.loss), "'ce' or 'dlr'")

    def __call__(
        self,
        model: nn.Module,
        images: Float[Tensor, "n c h w"],
        labels: Integer[Tensor, " n"],
    ) -> Float[Tensor, "n c h w"]:
        """Attack each image away from its label; the model runs in eval mode.

        Returns the attacked images, ``(N, C, H, W)`` in [0, 1]. Warns where most steps had no
        direction.
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

        The share ``(N,)`` is NaN where no step was needed.
        """
        check_images(images)
        check_labels(labels, len(images))
        images, labels = images.detach(), labels.to(images.device, torch.long)
        attacked, stuck = [], []
        with evaluating(model), torch.no_grad():
            for part in chunks(len(images), self.chunk or default_chunk(images)):
                points, share = self._attack(model, images[part], labels[part])
                attacked.append(points)
                stuck.append(share)
        return torch.cat(attacked), torch.cat(stuck)

    def _attack(self, model: nn.Module, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Begin as many ascents of each image as it takes."""
        around, attacked = ball(self.norm, self.eps), images.clone()
        taken, stuck = images.new_zeros(2, len(images), dtype=torch.float32)
        logits = classify(model, images)
        check_logits(logits, labels, classes=3 if self.loss == "dlr" else 2)
        left = right(logits, labels).nonzero().flatten()
        rngs = dict(zip(left.tolist(), generators(images[left], self.seed), strict=True))
        for _ in range(self.restarts):
            if len(left) == 0:
                break
            own = images[left]
            start = around.project(around.start(own, [rngs[n] for n in left.tolist()]), own)
            ascent = _Ascent.begin(left, own, labels[left], start, 2 * self.eps)
            left = self._ascend(model, ascent, attacked, taken, stuck)
        return attacked, (stuck / taken).to(images.dtype)  # 0 / 0 is NaN

    def _ascend(
        self, model: nn.Module, ascent: _Ascent, attacked: Tensor, taken: Tensor, stuck: Tensor
    ) -> Tensor:
        """Maximize the loss, write down what fools the model, and return which images do not."""
        around, checkpoints, last = ball(self.norm, self.eps), _checkpoints(self.steps), 0
        for step in range(self.steps + 1):
            logits, loss, gradient = self._evaluate(model, ascent, final=step == self.steps)
            wrong = ~right(logits, ascent.labels)
            attacked[ascent.place[wrong]] = ascent.x[wrong]
            ascent.note(loss, gradient)
            done = beyond_rounding(logits, ascent.labels)
            if done.any():
                ascent = ascent.only(~done)
            if step == self.steps or len(ascent.place) == 0:
                break
            if step in checkpoints:
                ascent.check(step - last)
                last = step
            taken[ascent.place] += 1
            stuck[ascent.place] += ascent.step(around, inertia=1 - _ALPHA if step else 0.0)
        return ascent.place

    def _evaluate(
        self, model: nn.Module, ascent: _Ascent, final: bool
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return logits, loss and its gradient; of the final point nobody needs the gradient."""
        with torch.set_grad_enabled(not final):
            x = ascent.x.detach().requires_grad_(not final)
            logits = classify(model, x)
            # Half precision is too coarse to compare losses in.
            wide = logits.to(torch.promote_types(logits.dtype, torch.float32))
            loss = (_dlr if self.loss == "dlr" else _log_odds)(wide, ascent.labels)
            gradient = torch.zeros_like(x) if final else slope(loss, x)
        return logits.detach(), loss.detach(), gradient


@dataclass
class _Ascent:
    """Images on their way, and what Auto-PGD remembers of each: tensors, one item per image."""

    place: Tensor  # which images of the chunk these are
    images: Tensor
    labels: Tensor
    x: Tensor
    previous: Tensor  # the point before x
    gradient: Tensor  # at x
    loss: Tensor  # at x
    best: Tensor  # the point of the highest loss so far
    best_gradient: Tensor
    best_loss: Tensor
    size: Tensor  # of the next step
    rises: Tensor  # steps since the last checkpoint that raised the loss
    checked_loss: Tensor  # best_loss at the last checkpoint
    halved: Tensor  # whether the last checkpoint halved the step

    @classmethod
    def begin(
        cls, place: Tensor, images: Tensor, labels: Tensor, start: Tensor, size: float
    ) -> _Ascent:
        """Stand at the start, before its loss is known."""
        wide = torch.promote_types(images.dtype, torch.float32)
        low = images.new_full((len(images),), -torch.inf, dtype=wide)
        none = torch.zeros_like(start)
        return cls(
            *(place, images, labels, start, start, none, low, start, none, low),
            size=torch.full_like(low, size),
            rises=torch.zeros_like(labels),
            checked_loss=low,
            halved=torch.zeros_like(labels, dtype=torch.bool),
        )

    def only(self, kept: Tensor) -> _Ascent:
        """Return what is remembered of some of the images."""
        return _Ascent(**{name: value[kept] for name, value in vars(self).items()})

    def note(self, loss: Tensor, gradient: Tensor) -> None:
        """Take in the loss at x and its gradient."""
        loss = loss.nan_to_num(-torch.inf, torch.inf, -torch.inf)
        self.rises = self.rises + (loss > self.loss)
        better = loss > self.best_loss
        self.loss, self.gradient = loss, gradient
        self.best_loss = torch.where(better, loss, self.best_loss)
        self.best = torch.where(_wide(better), self.x, self.best)
        self.best_gradient = torch.where(_wide(better), gradient, self.best_gradient)

    def check(self, steps: int) -> None:
        """Halve the step and go back to the best point where the last ``steps`` did not do well."""
        if steps == 0:  # the start, of which nothing can be said
            halve = self.halved
        else:
            few = self.rises < _RHO * steps
            halve = few | (~self.halved & (self.best_loss == self.checked_loss))
        self.size = torch.where(halve, self.size / 2, self.size)
        self.x = torch.where(_wide(halve), self.best, self.x)
        self.gradient = torch.where(_wide(halve), self.best_gradient, self.gradient)
        self.loss = torch.where(halve, self.best_loss, self.loss)
        self.rises = torch.zeros_like(self.rises)
        self.checked_loss, self.halved = self.best_loss, halve

    def step(self, around: LinfBall | L2Ball, inertia: float) -> Tensor:
        """Go along the gradient and on in the direction so far; return where there was none."""
        direction = around.step(self.gradient, 1.0)
        size = _wide(self.size).to(direction.dtype)
        x = around.project(self.x + size * direction, self.images)
        if inertia:
            ahead = self.x + (1 - inertia) * (x - self.x) + inertia * (self.x - self.previous)
            x = around.project(ahead, self.images)
        self.x, self.previous = x, self.x
        return directionless(self.gradient)


def _checkpoints(steps: int) -> list[int]:
    """After which steps the step size is judged, from 0 on.

    p₀ = 0, p₁ = 0.22, p_{j+1} = p_j + max(p_j − p_{j−1} − 0.03, 0.06), as shares of all steps.

    Examples
    --------
    >>> _checkpoints(100)
    [0, 22, 41, 57, 70, 80, 87, 93, 99]
    """
    percents = [0, 22]  # whole numbers, which add up without rounding
    while percents[-1] < 100:
        percents.append(percents[-1] + max(percents[-1] - percents[-2] - 3, 6))
    return sorted({-(-percent * steps // 100) for percent in percents[:-1]})


def _log_odds(logits: Tensor, labels: Tensor) -> Tensor:
    """Return log((1 − p) / p) of the label's probability p, which rises with the cross-entropy."""
    own = logits.gather(1, labels[:, None])
    return logits.scatter(1, labels[:, None], -torch.inf).logsumexp(1) - own[:, 0]


def _dlr(logits: Tensor, labels: Tensor) -> Tensor:
    """Divide the lead of the highest other logit by the distance from the first to the third.

    Examples
    --------
    >>> _dlr(torch.tensor([[5.0, 4.0, 3.0, 0.0]]), torch.tensor([0]))
    tensor([-0.5000])
    """
    first, _, third = logits.topk(3).values.unbind(1)
    return -margin(logits, labels) / (first - third + 1e-12)


def _wide(values: Tensor) -> Tensor:
    return values[:, None, None, None]


_ALPHA = 0.75
"""The weight of the gradient's step against the inertia of the last."""
_RHO = 0.75
"""The share of steps that must raise the loss for the step size to stay."""
