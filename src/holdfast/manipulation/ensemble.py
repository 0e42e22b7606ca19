"""The standard evaluation of an explanation: several attacks, nothing to set, the worst case."""

from __future__ import annotations

import time
from collections.abc import Generator
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Integer
from torch import Tensor, nn

from holdfast.adversarial.slope import MOSTLY, warn_if_stuck
from holdfast.contracts import Attribution, Outcome, check_positive, checked
from holdfast.manipulation.descent import Loss, Walk, attacked, joined, warn_if_unlike
from holdfast.manipulation.estimate import SAMPLED, differentiable, path_length
from holdfast.manipulation.judge import Judge
from holdfast.manipulation.mass_centre import mass_centre_loss, nudged
from holdfast.manipulation.random_search import search
from holdfast.manipulation.rank import rank_loss
from holdfast.manipulation.targeted import far_scores, shares
from holdfast.manipulation.top_k import top_k_loss
from holdfast.metrics import pixel_scores
from holdfast.models import surrogate_fit

__all__ = ["Ensemble", "EnsembleOutcome"]


@dataclass(frozen=True)
class EnsembleOutcome(Outcome):
    """What an `Ensemble` found, and which of its attacks found it.

    Attributes
    ----------
    found_by : tuple of str
        For each image ``"rank"``, ``"top_k"``, ``"mass_centre"``, ``"targeted"`` or
        ``"random_search"``; empty where no perturbation kept the label.
    gradient_free : Tensor
        Whether most gradient steps had no direction, so that the image was attacked by random
        search instead, ``(N,)``, bool.
    """

    found_by: tuple[str, ...] = ()

    @property
    def gradient_free(self) -> Bool[Tensor, " n"]:
        """Whether the gradients were given up for a random search."""
        return self.stuck > MOSTLY


@dataclass(frozen=True)
@checked
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
    about to be lost they lead back. Where most steps of the first attack had no direction, the
    others would have none either: their share of the work goes to the random search, with a
    warning. Maps that average over many inputs are estimated from a few in
    each step. What comes back is always judged by the whole map of the unmodified model.

    Parameters
    ----------
    attribution : Attribution
        The explanation under attack. It must be differentiable.
    eps : float
        Radius ε of the ℓ∞ ball, in pixel units on [0, 1].
    seconds : float, optional
        Begin no further attack after so many seconds, in all, but never end before a short random
        search. What is found then depends on the machine. By default all attacks are made.
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
        labels: Integer[Tensor, " n"],
    ) -> EnsembleOutcome:
        """Manipulate the map of each image's label; the model runs in eval mode."""
        copies = min(PATH_SAMPLES, path_length(self.attribution))
        begun = time.monotonic()
        agree: list[Tensor] = []

        def attack(judge: Judge, part: slice) -> None:
            agree.append(surrogate_fit(judge.model, judge.images, BETA).agree)
            share, searched = part.stop / len(images), False
            attacks = self._attacks(judge)
            for following in attacks:
                if self.seconds and time.monotonic() - begun > share * self.seconds:
                    attacks.close()
                    if not searched:
                        self._search(judge, QUERIES)
                    break
                searched = searched or following == "random_search"

        judges = attacked(self, model, images, labels, attack, copies)
        found = joined(judges)
        warn_if_stuck(self, found.stuck)
        warn_if_unlike(self, torch.cat(agree))
        names = tuple(name for judge in judges for name in judge.found_by)
        return EnsembleOutcome(**vars(found), found_by=names)

    def _attacks(self, judge: Judge) -> Generator[str]:
        """Attack; between two attacks yield the name of the next."""
        self._walk(judge, "rank", rank_loss(judge, PAIRS, self.seed), judge.images, 60)
        given_up = judge.stuck > MOSTLY
        if given_up.any():
            yield "random_search"
            stuck = given_up.nonzero().flatten()
            few = judge.among(stuck)
            self._search(few, self._queries())
            judge.learn(stuck, few)
        if not given_up.all():
            moving = (~given_up).nonzero().flatten()
            few = judge.among(moving)
            try:
                yield from self._follow(few)
            finally:  # also where the time is up
                judge.learn(moving, few)

    def _follow(self, judge: Judge) -> Generator[str]:
        """Go on with the other gradient attacks, a short random search and restarts."""
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
        self._search(judge, QUERIES)

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

    def _search(self, judge: Judge, queries: int) -> None:
        search(judge, self.eps, queries, self.seed, "random_search")

    def _queries(self) -> int:
        """Return how many whole maps cost as much as the gradient steps that are forgone."""
        length = path_length(self.attribution)
        steps = 3 * 10 + RESTARTS * 20
        return max(50, round(3 * steps * min(PATH_SAMPLES, length) / length))

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
            walk.step(estimate, loss, step, sizes * (1 - step / steps), beta=BETA)
            if (step + 1) % 10 and step + 1 < steps:
                continue
            tau = judge(walk.x, name)
            if (judge.stuck == 1).all():
                return
            worse = (tau > lowest)[:, None, None, None]
            best = torch.where(worse, best, walk.x)
            lowest = torch.minimum(lowest, tau)
            sizes = torch.where(worse, sizes / 2, sizes)
            walk.x = torch.where(worse, best, walk.x)
            walk.velocity = torch.where(worse, 0, walk.velocity)


BETA = 50.0
QUERIES = 5
PATH_SAMPLES = 4
PAIRS = 64
RESTARTS = 3
WORTH = 0.01
"""A restart pays for an image if it lowers τ by so much."""


def _targeted_loss(judge: Judge) -> Loss:
    far = far_scores(judge.maps)
    return lambda maps, x, step: (shares(pixel_scores(maps)) - far).square().mean(1)
