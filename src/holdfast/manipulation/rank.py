"""The rank attack: descend Kendall's τ itself, through a smooth count of pairs."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Integer
from torch import Tensor, nn

from holdfast.contracts import Attribution, Outcome, check_positive, checked
from holdfast.manipulation.descent import Loss, check_settings, descend
from holdfast.manipulation.judge import Judge
from holdfast.metrics import pixel_scores

__all__ = ["RankCorrelation", "drawn_pairs", "pair_agreement", "rank_loss"]


@dataclass(frozen=True)
@checked
class RankCorrelation:
    """Descend a smooth Kendall τ between the maps before and after, in an ℓ∞ ball, label kept.

    Kendall's τ counts pairs of pixels that two maps order alike. Each step descends a smooth count
    over pairs drawn at random: ``tanh`` of the difference of the pair's scores, measured in mean
    scores, times the sign that the difference had.

    Parameters
    ----------
    attribution : Attribution
        The explanation under attack. It must be differentiable.
    eps : float
        Radius ε of the ℓ∞ ball, in pixel units on [0, 1].
    step_size : float
        Length α of a step.
    steps : int
        Number of steps.
    pairs : int
        With how many others each pixel is compared in a step.
    beta : float
        Sharpness of the softplus surrogate.
    momentum : float
        How much of the last step's direction remains in the next.
    margin : float
        Where the label's lead in logits falls below this share of what it was, a step leads back up
        instead of down the loss.
    path_samples : int, optional
        Estimate maps that average over many inputs from so many, drawn anew each step; see `TopK`.
    judge_every : int
        Judge the map after every so many steps, and after the last.
    seed : int
        Draws of an image depend on this and on the image's content alone.
    chunk : int, optional
        How many images to take at a time; by default chosen from their size and the path's length.

    Raises
    ------
    InputError
        If a setting is out of range, or ``path_samples`` is given for an attribution that has
        nothing to sample.

    Examples
    --------
    >>> from holdfast.attributions import Gradient
    >>> model = nn.Sequential(nn.Flatten(), nn.Linear(64, 16), nn.ReLU(), nn.Linear(16, 2))
    >>> images = torch.rand(2, 1, 8, 8)
    >>> manipulate = RankCorrelation(Gradient(), eps=0.1, step_size=0.02, steps=5)
    >>> outcome = manipulate(model, images, model(images).argmax(1))
    >>> bool((outcome.similarity <= 1).all())
    True
    """

    attribution: Attribution
    eps: float
    step_size: float
    steps: int
    pairs: int = 64
    beta: float = 50.0
    momentum: float = 0.0
    margin: float = 0.0
    path_samples: int | None = None
    judge_every: int = 1
    seed: int = 0
    chunk: int | None = None

    def __post_init__(self) -> None:
        check_positive(self, "pairs", "beta")
        check_settings(self)

    def __call__(
        self,
        model: nn.Module,
        images: Float[Tensor, "n c h w"],
        labels: Integer[Tensor, " n"],
    ) -> Outcome:
        """Manipulate the map of each image's label; the model runs in eval mode."""

        def prepare(judge: Judge, _: slice) -> Loss:
            return rank_loss(judge, self.pairs, self.seed)

        return descend(self, model, images, labels, prepare, beta=self.beta)


def rank_loss(judge: Judge, pairs: int, seed: int) -> Loss:
    """Prepare the smooth Kendall τ with the maps that a judge knows, pairs drawn anew each step."""

    def loss(maps: Tensor, x: Tensor, step: int) -> Tensor:
        others = drawn_pairs(judge.scores.shape[1], pairs, seed + step)
        return pair_agreement(judge.scores, pixel_scores(maps), others.to(x.device))

    return loss


def pair_agreement(
    before: Float[Tensor, "n p"], after: Float[Tensor, "n p"], others: Integer[Tensor, "p m"]
) -> Float[Tensor, " n"]:
    """Count smoothly in how many pairs of pixels two maps agree, less those where they do not.

    With ``t`` the mean score after, the mean over pairs of ``tanh((a_i − a_j) / t) · sign(b_i −
    b_j)``: it lies in [−1, 1], and nears Kendall's τ-a over these pairs as the differences grow.

    Parameters
    ----------
    before, after : Tensor
        Pixel scores ``(N, P)``; the second are differentiated.
    others : Tensor
        With which pixels each is compared, ``(P, M)``.

    Examples
    --------
    >>> before, after = torch.tensor([[0.0, 1.0]]), torch.tensor([[2.0, 0.0]])
    >>> pair_agreement(before, after, torch.tensor([[1], [0]]))
    tensor([-0.9640])
    """
    sign = (before[:, :, None] - before[:, others]).sign()
    scale = after.detach().mean(1)[:, None, None]
    difference = (after[:, :, None] - after[:, others]) / torch.where(scale > 0, scale, 1)
    return (torch.tanh(difference) * sign).mean((1, 2))


def drawn_pairs(pixels: int, count: int, seed: int) -> Integer[Tensor, "p m"]:
    """Draw with which ``count`` others each pixel is compared: each at the same drawn distances.

    Examples
    --------
    >>> drawn_pairs(pixels=4, count=2, seed=0).shape
    torch.Size([4, 2])
    """
    if pixels == 1:
        return torch.zeros(1, 1, dtype=torch.long)
    generator = torch.Generator().manual_seed(seed)
    distances = 1 + torch.randperm(pixels - 1, generator=generator)[:count]
    return (torch.arange(pixels)[:, None] + distances) % pixels
