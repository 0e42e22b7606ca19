"""Random search: an attack that needs no derivatives, for maps that have none."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Integer
from torch import Tensor, nn

from holdfast.contracts import Attribution, Outcome, check_positive, checked, generators
from holdfast.manipulation.descent import attacked, joined
from holdfast.manipulation.estimate import path_length
from holdfast.manipulation.judge import Judge

__all__ = ["RandomSearch", "search"]


@dataclass(frozen=True)
@checked
class RandomSearch:
    """Repaint random squares at the surface of the ℓ∞ ball, and keep what makes τ lower.

    The first trial moves each pixel by ε up or down at random. Each further one moves all pixels of
    a random square, channel by channel, by ε up or all down; squares shrink on the way. What keeps
    the label and lowers Kendall's τ with the original map is kept. Needs maps only, no derivative
    of them: also for DeepLIFT, guided backpropagation and Captum's methods.

    Parameters
    ----------
    attribution : Attribution
        The explanation under attack.
    eps : float
        Radius ε of the ℓ∞ ball, in pixel units on [0, 1].
    queries : int
        How many maps to compute for each image.
    seed : int
        Draws of an image depend on this and on the image's content alone.
    chunk : int, optional
        How many images to take at a time; by default chosen from their size and the path's length.

    References
    ----------
    The proposals are those of Andriushchenko et al., Square Attack (ECCV 2020), with τ in place of
    the classifier's margin.

    Examples
    --------
    >>> from holdfast.attributions import GuidedBackprop
    >>> model = nn.Sequential(nn.Flatten(), nn.Linear(64, 16), nn.ReLU(), nn.Linear(16, 2))
    >>> images = torch.rand(2, 1, 8, 8)
    >>> manipulate = RandomSearch(GuidedBackprop(), eps=0.1, queries=10)
    >>> outcome = manipulate(model, images, model(images).argmax(1))
    >>> bool((outcome.images - images).abs().max() <= 0.1 + 1e-6)
    True
    """

    attribution: Attribution
    eps: float
    queries: int = 200
    seed: int = 0
    chunk: int | None = None

    def __post_init__(self) -> None:
        check_positive(self, "queries")
        check_positive(self, "eps", zero=True)

    def __call__(
        self,
        model: nn.Module,
        images: Float[Tensor, "n c h w"],
        labels: Integer[Tensor, " n"],
    ) -> Outcome:
        """Search around each image; the model runs in eval mode."""

        def attack(judge: Judge, part: slice) -> None:
            search(judge, self.eps, self.queries, self.seed)

        copies = path_length(self.attribution)
        return joined(attacked(self, model, images, labels, attack, copies))


def search(judge: Judge, eps: float, queries: int, seed: int, source: str = "") -> None:
    """Try random perturbations around the images of a judge, who remembers the best.

    A trial repaints what is best so far, whoever found it.
    """
    images = judge.images
    dice = generators(images, seed)
    for query in range(queries):
        tried = judge.best.clone()
        for i, die in enumerate(dice):
            signs, rows, columns = _square(images.shape, query / queries, die)
            if query == 0:
                rows, columns = slice(None), slice(None)
            painted = images[i] + eps * signs.to(images)
            tried[i, :, rows, columns] = painted[:, rows, columns]
        judge(tried.clamp(0, 1), source)


def _square(
    shape: torch.Size, progress: float, die: torch.Generator
) -> tuple[Tensor, slice, slice]:
    """Draw a square, and signs: for the first trial one a pixel, then one a channel."""
    channels, height, width = shape[1:]
    place = torch.rand(2, generator=die, dtype=torch.float32).tolist()
    fine = progress == 0
    cells = (channels, height, width) if fine else (channels, 1, 1)
    signs = torch.where(
        torch.rand(cells, generator=die, dtype=torch.float32) < 0.5, -1.0, 1.0
    ).expand(shape[1:])
    # From squares of half the area of the image down to an eighth of their side.
    side = max(1, round((0.5 * height * width) ** 0.5 * (1 - 0.875 * progress)))
    tall, wide = min(side, height), min(side, width)
    top, left = int(place[0] * (height - tall + 1)), int(place[1] * (width - wide + 1))
    return signs, slice(top, top + tall), slice(left, left + wide)
