"""One objective for the first part of training, another for the rest."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from holdfast.contracts import Batch, InputError, Objective, checked
from holdfast.objectives.checks import check_share, entry

__all__ = ["Successive"]


@dataclass(frozen=True)
@checked
class Successive:
    """Train by one objective first, then by another.

    Saliency-based training before adversarial training makes PGD-SAT and TRADES-SAT::

        Successive(SaliencyTraining(eps=8 / 255), AdversarialTraining(PGD(...)))
        Successive(SaliencyTraining(eps=8 / 255), TRADES(attack=PGD(...)))

    and with `UniformNoise` first, their controls.

    Parameters
    ----------
    first, then : Objective
        The two objectives.
    share : float
        For what share of training the first one holds, in [0, 1]. The default is ours; no share is
        published.

    Notes
    -----
    How far training is comes with the batch: ``batch["progress"]`` in [0, 1]. Holdfast's own
    training puts it there; a loop of your own has to.

    References
    ----------
    On Saliency Maps and Adversarial Robustness (ECML-PKDD 2020), PGD-SAT and TRADES-SAT.

    Examples
    --------
    >>> import torch
    >>> from holdfast.objectives import JacobianRegularization, Natural
    >>> model = nn.Sequential(nn.Flatten(), nn.Linear(4, 2))
    >>> batch = {"images": torch.rand(3, 1, 2, 2), "labels": torch.tensor([0, 1, 1])}
    >>> objective = Successive(Natural(), JacobianRegularization(), share=0.5)
    >>> sorted(objective(model, batch | {"progress": 0.2}))
    ['loss']
    >>> sorted(objective(model, batch | {"progress": 0.7}))
    ['cross_entropy', 'jacobian', 'loss']
    """

    first: Objective
    then: Objective
    share: float = 0.5

    def __post_init__(self) -> None:
        check_share(self, "share")

    def __call__(self, model: nn.Module, batch: Batch) -> dict[str, Tensor]:
        """Return the terms of the objective whose turn it is."""
        progress = entry(batch, "progress")
        if not 0 <= progress <= 1:
            raise InputError("batch['progress']", progress, "the share of training done, in [0, 1]")
        objective = self.first if progress < self.share else self.then
        return objective(model, batch)
