"""The check of the audit itself: whether the attacks it reports fail for the wrong reasons."""

from __future__ import annotations

from dataclasses import dataclass

from jaxtyping import Float64
from torch import Tensor, nn

from holdfast.adversarial import PGD, correct
from holdfast.audit.measures import spread
from holdfast.contracts import Attack, Batch, Manipulation, check_positive, checked
from holdfast.manipulation import trust_figures
from holdfast.manipulation.trust import check_trustable

__all__ = ["Trustworthiness"]


@dataclass(frozen=True)
@checked
class Trustworthiness:
    """Record, image by image, what speaks for or against gradient masking.

    Images that the model gets right are attacked again: longer, in a ball twice as large, without
    gradients, and without a bound. `holdfast.manipulation.doubts` judges the means.

    Parameters
    ----------
    manipulation : Manipulation
        The attack on explanations that is reported, with fields ``eps`` and ``steps``.
    attack : PGD, optional
        The attack on predictions that is reported; by default PGD-20 with the manipulation's ε.
    stronger : tuple of Attack, optional
        What should leave no lower accuracy; by default PGD-100, PGD-500 and SPSA.
    queries : int
        Maps an image for the random search.

    Raises
    ------
    InputError
        If ``manipulation`` has no ``eps`` or ``steps``, or ``queries`` is not above 0.

    Examples
    --------
    >>> import torch
    >>> from holdfast.attributions import Gradient
    >>> from holdfast.manipulation import RankCorrelation
    >>> model = nn.Sequential(nn.Flatten(), nn.Linear(9, 8), nn.Sigmoid(), nn.Linear(8, 2))
    >>> images = torch.rand(4, 1, 3, 3)
    >>> batch = Batch(images=images, labels=model(images).argmax(1))
    >>> manipulation = RankCorrelation(Gradient(), eps=0.1, step_size=0.01, steps=5)
    >>> list(Trustworthiness(manipulation, stronger=())(model, batch))[:3]
    ['tau', 'tau_twice_steps', 'tau_twice_eps']
    """

    manipulation: Manipulation
    attack: PGD | None = None
    stronger: tuple[Attack, ...] | None = None
    queries: int = 100

    def __post_init__(self) -> None:
        check_positive(self, "queries")
        check_trustable(self.manipulation, "Trustworthiness.manipulation")

    def __call__(self, model: nn.Module, batch: Batch) -> dict[str, Float64[Tensor, " n"]]:
        """Return what `holdfast.manipulation.trust_figures` measures for each image, ``(N,)``.

        None at all if the model gets no image right.
        """
        chosen = correct(model, batch["images"], batch["labels"])
        if not chosen.any():
            return {}
        figures = trust_figures(
            model,
            batch["images"][chosen],
            batch["labels"][chosen],
            self.manipulation,
            attack=self.attack,
            stronger=self.stronger,
            queries=self.queries,
        )
        return spread(figures, chosen)
