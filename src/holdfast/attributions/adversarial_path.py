"""Adversarial gradient integration: gradients gathered on the way to other classes."""

from __future__ import annotations

import math
import warnings
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Bool, Float, Integer
from torch import Tensor, nn

from holdfast.adversarial import Norm, ball
from holdfast.attributions.target import resolve_targets, select_output
from holdfast.contracts import check_images, check_positive, checked, chunks, default_chunk
from holdfast.models import classify, differentiate, double_backward, evaluating

__all__ = ["AdversarialGradientIntegration"]


@dataclass(frozen=True)
@checked
class AdversarialGradientIntegration:
    """AGI: what the probability of the class loses on the ways to other classes, pixel by pixel.

    From the image, sign steps ascend the probability of each of several other classes until it is
    predicted. The map is ``Σ −∇p_c · Δx`` over all steps of all these paths. The paths to one class
    sum, as steps get small, to ``p_c(x) − p_c(end)``, unless steps are taken from the image. The
    paths are held fixed when a map is differentiated.

    Parameters
    ----------
    classes : int
        To how many other classes the paths lead; to all others, if there are fewer.
    steps : int
        Number of steps of a path, at most.
    step_size : float
        Length of a step in the norm of steps, in pixel units on [0, 1].
    others : {"likeliest", "spaced"}
        Which other classes: those with the highest logits, or every so many-th one by number, which
        for 15 of 1,000 classes are 0, 66, …, 990 without the predicted one.
    step_from : {"point", "image"}
        Where a step starts: at the last point, or again at the image, as the authors' code has it.
        Then every point is one step away from the image, and Δx is that step.
    norm : {"linf", "l2"}
        The norm of steps: along the sign of the gradient, or along the gradient.
    chunk : int, optional
        How many inputs (images times classes) the model sees at a time; by default chosen from the
        size of the images.

    Notes
    -----
    The authors' public code takes ``classes=15, steps=15, step_size=0.05, others="spaced",
    step_from="image"``, by the short name ``agi_authors`` in `METHODS`. Wang et al. (ICLR 2022)
    took its settings for ImageNet, 10 classes for CIFAR-10, and step lengths of 0.5 to 6, which can
    be lengths in ℓ2 alone: ``norm="l2"``.

    References
    ----------
    Pan et al., Explaining Deep Neural Network Models with Adversarial Gradient Integration (IJCAI
    2021).

    Examples
    --------
    >>> model = nn.Sequential(nn.Flatten(), nn.Linear(4, 3))
    >>> images = torch.rand(2, 1, 2, 2)
    >>> agi = AdversarialGradientIntegration(steps=100)
    >>> maps, found = agi.with_found(model, images)
    >>> maps.shape, found.shape
    (torch.Size([2, 1, 2, 2]), torch.Size([2]))
    """

    classes: int = 10
    steps: int = 15
    step_size: float = 0.02
    others: Literal["likeliest", "spaced"] = "likeliest"
    step_from: Literal["point", "image"] = "point"
    norm: Norm = "linf"
    chunk: int | None = None

    def __post_init__(self) -> None:
        check_positive(self, "classes", "steps", "step_size")

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
        lost = int((~found).sum())
        if lost:
            warnings.warn(
                f"{type(self).__name__}: no path reached its class for {lost} of {len(found)} "
                "images; their maps gather the paths as far as they went",
                stacklevel=2,
            )
        return maps

    def with_found(
        self,
        model: nn.Module,
        images: Float[Tensor, "n c h w"],
        targets: Integer[Tensor, " n"] | None = None,
        *,
        create_graph: bool = False,
    ) -> tuple[Float[Tensor, "n c h w"], Bool[Tensor, " n"]]:
        """Return the maps, and whether a path reached its class ``(N,)``; without a warning."""
        check_images(images)
        size = self.chunk or default_chunk(images)
        with evaluating(model):
            targets = resolve_targets(model, images, targets, size)
            others = self._others(model, images, size)
            count = others.shape[1]
            maps = torch.zeros_like(images, requires_grad=False)
            found = torch.zeros(len(images), dtype=torch.bool, device=images.device)
            for some in chunks(len(images), max(1, size // count)):
                for few in chunks(count, size):
                    gathered, reached = self._walk(
                        model, images[some], targets[some], others[some, few], create_graph
                    )
                    maps[some] += gathered
                    found[some] |= reached
        return maps, found

    def _others(self, model: nn.Module, images: Tensor, size: int) -> Tensor:
        """Choose the classes that the paths of each image lead to, ``(N, classes)``.

        Where they are spaced, the predicted one may be among them: its path has no steps.
        """
        parts = []
        for part in chunks(len(images), size):
            with torch.no_grad():
                logits = classify(model, images[part])
            if self.others == "spaced":
                every = max(1, logits.shape[1] // self.classes)
                spaced = torch.arange(0, logits.shape[1], every, device=logits.device)
                parts.append(spaced.expand(len(logits), -1))
                continue
            rest = logits.scatter(1, logits.argmax(1, keepdim=True), -math.inf)
            parts.append(rest.topk(min(self.classes, logits.shape[1] - 1), dim=1).indices)
        return torch.cat(parts)

    def _walk(
        self, model: nn.Module, images: Tensor, targets: Tensor, others: Tensor, create_graph: bool
    ) -> tuple[Tensor, Tensor]:
        """Walk from each image to each of its other classes, gathering on the way."""
        count = others.shape[1]
        starts = images.repeat_interleave(count, 0)
        own, goals = targets.repeat_interleave(count), others.flatten()
        offset = torch.zeros_like(starts, requires_grad=False)
        total = torch.zeros_like(offset)
        reached = torch.zeros(len(starts), dtype=torch.bool, device=images.device)
        step_of = ball(self.norm, self.step_size).step
        for step in range(self.steps + 1):
            with torch.enable_grad(), double_backward() if create_graph else nullcontext():
                x = starts + offset if create_graph else (starts + offset).detach()
                x = x if x.requires_grad else x.requires_grad_(True)
                logits = classify(model, x)
                if step == 0:
                    home = logits.argmax(1)
                reached = reached | (logits.argmax(1) == goals)
                if step == self.steps or reached.all():
                    break
                # The logarithm has the same sign of gradient, and does not vanish in rounding.
                ahead = select_output(logits, goals, "log_probability").sum()
                behind = select_output(logits, own, "probability").sum()
                climb = differentiate(ahead, x, retain_graph=True)
                loss = differentiate(behind, x, create_graph=create_graph)
            origin = (starts if self.step_from == "image" else x).detach()
            goal = (origin + step_of(climb, self.step_size)).clamp(0, 1)
            going = ~reached[:, None, None, None]
            total = total - torch.where(going, loss * (goal - origin), 0)
            offset = torch.where(going, goal - starts.detach(), offset)
        gathered = total.view(len(images), count, *images.shape[1:]).sum(1)
        return gathered, (reached & (goals != home)).view(len(images), count).any(1)
