"""Random signs: what chance alone does to a map, the control of every attack."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Integer
from torch import Tensor, nn

from holdfast.contracts import Attribution, Outcome, check_positive, checked, generators
from holdfast.manipulation.descent import attacked, joined
from holdfast.manipulation.estimate import path_length
from holdfast.manipulation.judge import Judge

__all__ = ["RandomSign"]


@dataclass(frozen=True)
@checked
class RandomSign:
    """Move every pixel by ε up or down at random, label kept; of several draws the best.

    Needs maps only, no derivative of them.

    Parameters
    ----------
    attribution : Attribution
        The explanation under attack.
    eps : float
        By how much every pixel moves, on [0, 1].
    draws : int
        How many perturbations to try.
    seed : int
        Draws of an image depend on this and on the image's content alone.
    chunk : int, optional
        How many images to take at a time; by default chosen from their size and the path's length.

    References
    ----------
    Ghorbani et al., Interpretation of Neural Networks Is Fragile (AAAI 2019).

    Examples
    --------
    >>> from holdfast.attributions import Gradient
    >>> model = nn.Sequential(nn.Flatten(), nn.Linear(64, 16), nn.ReLU(), nn.Linear(16, 2))
    >>> images = torch.rand(2, 1, 8, 8)
    >>> outcome = RandomSign(Gradient(), eps=0.05)(model, images, model(images).argmax(1))
    >>> bool((outcome.images - images).abs().max() <= 0.05 + 1e-6)
    True
    """

    attribution: Attribution
    eps: float
    draws: int = 1
    seed: int = 0
    chunk: int | None = None

    def __post_init__(self) -> None:
        check_positive(self, "draws")
        check_positive(self, "eps", zero=True)

    def __call__(
        self,
        model: nn.Module,
        images: Float[Tensor, "n c h w"],
        labels: Integer[Tensor, " n"],
    ) -> Outcome:
        """Perturb each image at random; the model runs in eval mode."""

        def attack(judge: Judge, part: slice) -> None:
            dice = generators(judge.images, self.seed)
            for _ in range(self.draws):
                noise = torch.stack(
                    [
                        torch.rand(images.shape[1:], generator=die, dtype=torch.float32)
                        for die in dice
                    ]
                )
                signs = (noise - 0.5).sign().to(images)
                judge((judge.images + self.eps * signs).clamp(0, 1))

        copies = path_length(self.attribution)
        return joined(attacked(self, model, images, labels, attack, copies))
