"""Projected gradient descent towards a class instead of away from one."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from jaxtyping import Float, Integer
from torch import Tensor, nn
from torch.nn import functional as F

from holdfast.adversarial.accuracy import check_logits
from holdfast.adversarial.ball import Norm, ball
from holdfast.adversarial.pgd import PGD, ascend
from holdfast.adversarial.slope import warn_if_stuck
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

__all__ = ["TargetedPGD"]

Target = Literal["least_likely", "most_likely", "next", "random"]


@dataclass(frozen=True)
@checked
class TargetedPGD:
    """Projected gradient descent on the cross-entropy of a class that is not the label.

    It is called with the labels, as every attack, and chooses the class to aim at by ``target``. To
    choose yourself, call `toward`.

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
    target : {"least_likely", "most_likely", "next", "random"}
        The class to aim at, never the label: the one of the lowest logit on the image itself, the
        hardest to reach; the one of the highest; the one after the label, and 0 after the last; or
        any, each as likely.
    random_start : bool
        Start at a random point of the ball instead of at the image.
    seed : int, optional
        Draw target and start of an image from this seed and the image's content alone, the same in
        any batch. By default they come from torch's global generator.
    chunk : int, optional
        How many images to take at a time; by default chosen from their size.

    Raises
    ------
    InputError
        If a setting is out of range.

    References
    ----------
    Kurakin et al., Adversarial Examples in the Physical World (ICLR 2017 workshop); Madry et al.,
    Towards Deep Learning Models Resistant to Adversarial Attacks (ICLR 2018).

    Examples
    --------
    >>> from torch import nn
    >>> model = nn.Flatten()  # the brightest of four pixels
    >>> image = torch.tensor([[[[0.5, 0.4], [0.3, 0.2]]]])
    >>> attack = TargetedPGD(eps=0.25, step_size=0.05, steps=10)
    >>> model(attack(model, image, torch.tensor([0]))).argmax(1)
    tensor([3])
    >>> model(attack.toward(model, image, torch.tensor([2]))).argmax(1)
    tensor([2])
    """

    eps: float
    step_size: float
    steps: int
    norm: Norm = "linf"
    target: Target = "least_likely"
    random_start: bool = True
    seed: int | None = None
    chunk: int | None = None

    def __post_init__(self) -> None:
        ball(self.norm, self.eps)
        check_positive(self, "step_size", "steps", zero=True)
        if self.target not in get_args(Target):
            expected = ", ".join(map(repr, get_args(Target)))
            raise InputError("TargetedPGD.target", repr(self.target), f"one of {expected}")

    def __call__(
        self,
        model: nn.Module,
        images: Float[Tensor, "n c h w"],
        labels: Integer[Tensor, " n"],
    ) -> Float[Tensor, "n c h w"]:
        """Attack each image towards another class than its label; the model runs in eval mode.

        Returns the last point of each descent, ``(N, C, H, W)`` in [0, 1]. Warns where most
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
        """Return the attacked images, and the share of steps without direction; no warning."""
        check_images(images)
        check_labels(labels, len(images))
        with evaluating(model), torch.no_grad():
            logits = torch.cat(
                [
                    classify(model, images[part])
                    for part in chunks(len(images), self.chunk or default_chunk(images))
                ]
            )
        labels = labels.to(images.device, torch.long)
        return self._toward(model, images, self._targets(images, logits, labels))

    def toward(
        self,
        model: nn.Module,
        images: Float[Tensor, "n c h w"],
        targets: Integer[Tensor, " n"],
    ) -> Float[Tensor, "n c h w"]:
        """Attack each image towards the class given for it; ``target`` plays no part.

        Parameters
        ----------
        model : nn.Module
            The classifier; it runs in eval mode.
        images : Tensor
            The images, ``(N, C, H, W)`` in [0, 1].
        targets : Tensor
            The class that each image shall be taken for, ``(N,)``.

        Returns
        -------
        Tensor
            The last point of each descent, ``(N, C, H, W)`` in [0, 1].
        """
        attacked, stuck = self._toward(model, images, targets)
        warn_if_stuck(self, stuck)
        return attacked

    def _toward(self, model: nn.Module, images: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        check_images(images)
        check_labels(targets, len(images), name="targets")
        targets = targets.to(images.device, torch.long)

        def nearness(x: Tensor, y: Tensor) -> Tensor:
            logits = classify(model, x)
            check_labels(y, len(x), logits.shape[1], name="targets")
            return -F.cross_entropy(logits, y, reduction="none")

        pgd = self._pgd()
        with evaluating(model):
            return ascend(pgd, nearness, images, targets, pgd.start(images))

    def _pgd(self) -> PGD:
        return PGD(
            eps=self.eps,
            step_size=self.step_size,
            steps=self.steps,
            norm=self.norm,
            random_start=self.random_start,
            seed=self.seed,
            chunk=self.chunk,
        )

    def _targets(self, images: Tensor, logits: Tensor, labels: Tensor) -> Tensor:
        check_logits(logits, labels)
        own, count = labels[:, None], logits.shape[1]
        if self.target == "least_likely":
            return logits.scatter(1, own, math.inf).argmin(1)
        if self.target == "most_likely":
            return logits.scatter(1, own, -math.inf).argmax(1)
        if self.target == "next":
            return (labels + 1) % count
        if self.seed is None:
            ahead = torch.randint(1, count, labels.shape, device=labels.device)
        else:
            dice = generators(images, ~self.seed)  # other draws than those of the start
            drawn = [torch.randint(1, count, (), generator=die) for die in dice]
            ahead = torch.stack(drawn).to(labels)
        return (labels + ahead) % count
