"""The search for a point that a classifier gives another class under nearly all of some noises."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import torch
from jaxtyping import Float, Integer
from torch import Tensor, nn
from torch.nn import functional as F

from holdfast.adversarial.accuracy import check_logits, right
from holdfast.adversarial.ball import Norm, ball
from holdfast.adversarial.searching import Boundary, searched
from holdfast.adversarial.slope import directionless, slope
from holdfast.contracts import (
    InputError,
    check_images,
    check_positive,
    checked,
    chunks,
    default_chunk,
)
from holdfast.models import classify

__all__ = ["SmoothedPGD"]


@dataclass(frozen=True)
@checked
class SmoothedPGD:
    """PGD to the boundary of a smoothed classifier, on gradients summed over shared noise.

    The smoothed classifier is the model on noisy copies of an image, with noise that the search is
    given and that is the same for all images. From the image, each step ascends the sum of the
    copies' cross-entropies within a ball; an image is done as soon as fewer than a share ``kept``
    of its copies have their class.

    Parameters
    ----------
    eps : float
        Radius ε of the ball, in pixel units on [0, 1].
    step_size : float, optional
        Length of a step, in the same units and norm; by default 2ε / ``steps``.
    steps : int
        Number of steps, at most.
    kept : float
        The share of copies with the class of the image below which it is done, in (0, 1].
    norm : {"linf", "l2"}
        The norm of ball and steps.
    chunk : int, optional
        How many inputs (images times copies) the model sees at a time; by default chosen from the
        size of the images.

    Raises
    ------
    InputError
        If a setting is out of range; when called, if images, noise or labels are not what they
        must be.

    Notes
    -----
    Steps, the share and the use of one noise for search and map are as published. The radius and
    the size of steps are not: they depend on the model, and the text that we worked from has lost
    both. 2ε / steps is what the authors' public code takes for PGD. Nothing is drawn here, and no
    start is random.

    References
    ----------
    Wang et al., Robust Models Are More Interpretable Because Attributions Look Normal (ICLR 2022),
    appendix B.5.

    Examples
    --------
    >>> model = nn.Flatten()  # the brighter of two pixels
    >>> image, noise = torch.tensor([[[[0.7, 0.3]]]]), 0.01 * torch.randn(50, 1, 1, 2)
    >>> boundary = SmoothedPGD(eps=0.5)(model, image, noise)
    >>> boundary.found, boundary.labels
    (tensor([True]), tensor([1]))
    """

    eps: float = 3.0
    step_size: float | None = None
    steps: int = 40
    kept: float = 0.1
    norm: Norm = "l2"
    chunk: int | None = None

    def __post_init__(self) -> None:
        ball(self.norm, self.eps)
        check_positive(self, "steps")
        if self.step_size is not None:
            check_positive(self, "step_size")
        if not 0 < self.kept <= 1:
            raise InputError("SmoothedPGD.kept", self.kept, "a share above 0, at most 1")

    def __call__(
        self,
        model: nn.Module,
        images: Float[Tensor, "n c h w"],
        noise: Float[Tensor, "m c h w"],
        labels: Integer[Tensor, " n"] | None = None,
    ) -> Boundary:
        """Search around each image; the model runs in eval mode.

        Parameters
        ----------
        model : Module
            The classifier.
        images : Tensor
            The images, ``(N, C, H, W)`` in [0, 1].
        noise : Tensor
            What is added to make the M copies of each image, ``(M, C, H, W)``. Copies are not
            clipped to [0, 1].
        labels : Tensor, optional
            The class that the copies have to lose, ``(N,)``; by default the one that the model
            gives the image itself.

        Returns
        -------
        Boundary
            Where each search ended, whether fewer than the share ``kept`` of the copies have their
            class there (``found``), the class that most copies have, and the distance, infinite
            where none was found. An image whose copies have lost their class before the first step
            is its own point, found at distance 0.
        """
        check_images(images)
        if noise.ndim != 4 or noise.shape[1:] != images.shape[1:] or not len(noise):
            expected = f"shape (M, {', '.join(map(str, images.shape[1:]))}), M at least 1"
            raise InputError("noise", f"shape {tuple(noise.shape)}", expected)
        size = max(1, (self.chunk or default_chunk(images)) // len(noise))
        search = partial(self._search, noise.to(images))
        return searched(self, search, model, images, labels, chunk=size)

    def _search(
        self, noise: Tensor, model: nn.Module, images: Tensor, labels: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        with torch.no_grad():
            logits = classify(model, images)
        labels = logits.argmax(1) if labels is None else labels.to(images.device, torch.long)
        check_logits(logits, labels)
        around, length = ball(self.norm, self.eps), self.step_size or 2 * self.eps / self.steps
        points, active = images.clone(), torch.arange(len(images), device=images.device)
        found = torch.zeros_like(labels, dtype=torch.bool)
        classes, (taken, stuck) = labels.clone(), images.new_zeros(2, len(images))
        for step in range(self.steps + 1):
            uphill, kept, votes = self._ask(model, points[active], noise, labels[active])
            classes[active], found[active] = votes, kept < self.kept
            going = kept >= self.kept
            active, uphill = active[going], uphill[going]
            if step == self.steps or not len(active):
                break
            taken[active] += 1
            stuck[active] += directionless(uphill)
            ahead = points[active] + around.step(uphill, length)
            points[active] = around.project(ahead, images[active])
        distances = (points - images).flatten(1).norm(dim=1)
        return points, torch.where(found, distances, torch.inf), classes, stuck / taken

    def _ask(
        self, model: nn.Module, points: Tensor, noise: Tensor, labels: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Sum the gradients of the copies; return with it the share right, and the common class."""
        total = torch.zeros_like(points)
        predicted, kept = [], torch.zeros_like(labels)
        for few in chunks(len(noise), self.chunk or default_chunk(points)):
            with torch.enable_grad():
                x = points.detach().requires_grad_(True)
                copies = x[:, None] + noise[few]
                own = labels.repeat_interleave(copies.shape[1])
                logits = classify(model, copies.flatten(0, 1))
                loss = F.cross_entropy(logits, own, reduction="none")
                total += slope(loss.view(len(x), -1).sum(1), x).nan_to_num(0, 0, 0)
            kept += right(logits.detach(), own).view(len(x), -1).sum(1)
            predicted.append(logits.detach().argmax(1).view(len(x), -1))
        return total, kept / len(noise), torch.cat(predicted, 1).mode(1).values
