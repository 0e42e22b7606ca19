"""The standard evaluation of an explanation: several attacks, nothing to set, the worst case."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from holdfast.contracts import Attribution, Outcome, check_positive
from holdfast.manipulation.descent import Loss, Walk, attacked, joined
from holdfast.manipulation.estimate import SAMPLED, differentiable, path_length
from holdfast.manipulation.judge import Judge
from holdfast.manipulation.mass_centre import mass_centre_loss, nudged
from holdfast.manipulation.random_search import search
from holdfast.manipulation.rank import rank_loss
from holdfast.manipulation.targeted import far_scores, shares
from holdfast.manipulation.top_k import top_k_loss
from holdfast.metrics import pixel_scores

__all__ = ["Ensemble", "EnsembleOutcome"]


@dataclass(frozen=True)
class EnsembleOutcome(Outcome):
    """What an `Ensemble` found, and which of its attacks found it.

    Attributes
    ----------
    found_by : tuple of str
        For each image ``"rank"``, ``"top_k"``, ``"mass_centre"``, ``"targeted"`` or
        ``"random_search"``; empty where no perturbation kept the label.
    """

    found_by: tuple[str, ...]


@dataclass(frozen=True)
class Ensemble:
    """The standard evaluation: complementary attacks in an ℓ∞ ball, the worst case of each image.

    There is nothing to tune but ε. Each image is attacked by

    - ``rank``: descent of Kendall's τ itself through a smooth count of pairs, see
      `RankCorrelation`;
    - ``top_k``, ``mass_centre``, ``targeted``: the published attacks, towards the eighth of the
      pixels that matter most, the centre of mass, and a far map, see `TopK`, `MassCentre` and
      `Targeted`;
    - ``random_search``, without derivatives, from the best that is known, see `RandomSearch`.

    Then ``rank`` starts again from the best that is known, as long as that pays, image by image.
    Steps begin at a quarter of ε and become shorter; where a judgement is worse than the last, the
    walk goes back to its best point with half the step. Steps have momentum, and where the label is
    about to be lost they lead back. Maps that average over many inputs are estimated from a few in
    each step. What comes back is always judged by the whole map of the unmodified model.

    Parameters
    ----------
    attribution : Attribution
        The explanation under attack. It must be differentiable.
    eps : float
        Radius ε of the ℓ∞ ball, in pixel units on [0, 1].
    seconds : float, optional
        Begin no further attack after so many seconds, in all. What is found then depends on the
        machine. By default all attacks are made.
    seed : int
        Draws of an image depend on this and on the image's content alone.
    chunk : int, optional
        How many images to take at a time; by default chosen from their size and the path's length.

    Examples
    --------
    >>> from holdfast.attributions import Gradient
    >>> model = nn.Sequential(nn.Flatten(), nn.Linear(64, 16), nn.ReLU(), nn.Linear(16, 2))
    >>> images = torch.rand(2, 1, 8, 8)
    >>> outcome = Ensemble(Gradient(), eps=0.1)(model, images, model(images).argmax(1))
    >>> len(outcome.found_by)
    2
    """

    attribution: Attribution
    eps: float
    seconds: float | None = None
    seed: int = 0
    chunk: int | None = None

    def __post_init__(self) -> None:
        check_positive(self, "eps", zero=True)
        if self.seconds is not None:
            check_positive(self, "seconds")

    def __call__(
        self,
        model: nn.Module,
        images: Float[Tensor, "n c h w"],
        labels: Int[Tensor, " n"],
    ) -> EnsembleOutcome:
        """Manipulate the map of each image's label; the model runs in eval mode."""
        copies = min(PATH_SAMPLES, path_length(self.attribution))
        begun = time.monotonic()

        def attack(judge: Judge, part: slice) -> None:
            share = part.stop / len(images)
            for _ in self._attacks(judge):
                if self.seconds and time.monotonic() - begun > share * self.seconds:
                    break

        judges = attacked(self, model, images, labels, attack, copies)
        found = joined(judges)
        names = tuple(name for judge in judges for name in judge.found_by)
        return EnsembleOutcome(found.images, found.similarity, found.preserved, names)

    def _attacks(self, judge: Judge) -> Iterator[str]:
        """Attack; after each attack but the last stop, to be asked for the next."""
        self._walk(judge, "rank", rank_loss(judge, PAIRS, self.seed), judge.images, 60)
        losses = {
            "top_k": top_k_loss(judge, max(1, judge.scores.shape[1] // 8)),
            "mass_centre": mass_centre_loss(judge),
            "targeted": _targeted_loss(judge),
        }
        start = nudged(judge.images, self.eps / 8, self.seed)
        for name, loss in losses.items():
            yield name
            self._walk(judge, name, loss, start, 10)
        yield "random_search"
        search(judge, self.eps, 5, self.seed, "random_search")

        paying = torch.arange(len(judge.images), device=judge.images.device)
        for restart in range(1, RESTARTS + 1):
            yield "rank"
            few = judge.among(paying)
            loss = rank_loss(few, PAIRS, self.seed + restart)
            self._walk(few, "rank", loss, few.best, 20, restart)
            gain = judge.similarity[paying] - few.similarity
            judge.learn(paying, few)
            paying = paying[gain > WORTH]
            if len(paying) == 0:
                return

    def _walk(
        self,
        judge: Judge,
        name: str,
        loss: Loss,
        start: Tensor,
        steps: int,
        restart: int = 0,
    ) -> None:
        """Go down one loss, judged every ten steps; back to the best where that is worse."""
        estimate = differentiable(
            self.attribution,
            judge.model,
            judge.images,
            judge.labels,
            samples=PATH_SAMPLES if isinstance(self.attribution, SAMPLED) else None,
            steps=steps,
            seed=self.seed + restart,
        )
        walk = Walk(judge, self.eps, start, momentum=0.7, margin=0.1)
        lowest = torch.full_like(judge.similarity, torch.inf)
        sizes = torch.full_like(lowest, self.eps / 4 / 2**restart)[:, None, None, None]
        best = walk.x
        for step in range(steps):
            walk.step(estimate, loss, step, sizes * (1 - step / steps), beta=50.0)
            if (step + 1) % 10 and step + 1 < steps:
                continue
            tau = judge(walk.x, name)
            worse = (tau > lowest)[:, None, None, None]
            best = torch.where(worse, best, walk.x)
            lowest = torch.minimum(lowest, tau)
            sizes = torch.where(worse, sizes / 2, sizes)
            walk.x = torch.where(worse, best, walk.x)
            walk.velocity = torch.where(worse, 0, walk.velocity)


PATH_SAMPLES = 4
PAIRS = 64
RESTARTS = 3
WORTH = 0.01
"""A restart pays for an image if it lowers τ by so much."""


def _targeted_loss(judge: Judge) -> Loss:
    far = far_scores(judge.maps)
    return lambda maps, x, step: (shares(pixel_scores(maps)) - far).square().mean(1)
