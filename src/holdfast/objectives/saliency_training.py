"""Saliency-based adversarial training (SAT): perturbations drawn from saliency maps."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from holdfast.attributions import SmoothGrad
from holdfast.contracts import Attribution, Batch, InputError, check_positive, checked
from holdfast.metrics import box_masks
from holdfast.models import classify
from holdfast.objectives.checks import (
    check_share,
    classification_loss,
    entry,
    images_and_labels,
)
from holdfast.objectives.saliency import signed_saliency
from holdfast.objectives.teacher import check_teacher, explain, settings_in_brief
from holdfast.objectives.uniform_noise import random_signs

__all__ = ["SaliencyTraining", "saliency_perturbation"]


@dataclass(frozen=True)
@checked
class SaliencyTraining:
    """SAT: the cross-entropy of ``clip(x + ε δ)``, with δ against the image's saliency.

    In epoch t each component of δ is random, −1 or 1, with probability αᵗ, and else −s, where s in
    [−1, 1] is the saliency map of the true class. No attack is run: s comes with the data or from a
    teacher. In epoch 0 all is random, as in `UniformNoise`.

    Parameters
    ----------
    eps : float
        ε, in pixel units on [0, 1].
    alpha : float
        α, in [0, 1]. The default is ours; no value is published.
    source : {"saliency", "masks", "boxes"}
        Which entry of the batch s is made of, if there is no teacher: maps ``(N, H, W)`` in
        [−1, 1], the same for all channels; or masks or boxes, 1 inside and −1 outside.
    teacher : nn.Module, optional
        A trained classifier whose maps are s. It runs in eval mode and is not trained.
    attribution : Attribution
        How the teacher is explained.
    quantile : float
        The threshold by which the teacher's maps come to [−1, 1]; see `signed_saliency`.

    Notes
    -----
    The epoch comes with the batch: ``batch["epoch"]``, from 0 on. Holdfast's own training puts it
    there; a loop of your own has to. For PGD-SAT and TRADES-SAT see `Successive`.

    References
    ----------
    On Saliency Maps and Adversarial Robustness (ECML-PKDD 2020).

    Examples
    --------
    >>> model = nn.Sequential(nn.Flatten(), nn.Linear(16, 2))
    >>> batch = {"images": torch.rand(1, 1, 4, 4), "labels": torch.tensor([1]), "epoch": 3}
    >>> boxes = torch.tensor([[0.0, 0.0, 2.0, 2.0]])
    >>> sorted(SaliencyTraining(eps=0.1, source="boxes")(model, batch | {"boxes": boxes}))
    ['loss']
    """

    eps: float = 8 / 255
    alpha: float = 0.9
    source: Literal["saliency", "masks", "boxes"] = "saliency"
    teacher: nn.Module | None = field(default=None, compare=False)
    attribution: Attribution = SmoothGrad()
    quantile: float = 0.99

    def __post_init__(self) -> None:
        check_positive(self, "eps", zero=True)
        check_share(self, "alpha", "quantile")
        if self.source not in ("saliency", "masks", "boxes"):
            expected = "'saliency', 'masks' or 'boxes'"
            raise InputError("SaliencyTraining.source", repr(self.source), expected)
        if self.teacher is not None:
            check_teacher(self)

    def __repr__(self) -> str:
        return settings_in_brief(self)

    def __call__(self, model: nn.Module, batch: Batch) -> dict[str, Tensor]:
        """Return ``{"loss"}``."""
        images, labels = images_and_labels(batch)
        epoch = entry(batch, "epoch")
        if epoch < 0:
            raise InputError("batch['epoch']", epoch, "the number of the epoch, from 0 on")
        if self.teacher is None:
            saliency = _of_batch(batch, self.source, images)
        else:
            maps = explain(self.teacher, self.attribution, images, labels)
            saliency = signed_saliency(maps, self.quantile)
        delta = saliency_perturbation(saliency, random=self.alpha**epoch)
        perturbed = (images + self.eps * delta).clamp(0, 1)
        return {"loss": classification_loss(classify(model, perturbed), labels)}


def saliency_perturbation(
    saliency: Float[Tensor, "n c h w"], random: float
) -> Float[Tensor, "n c h w"]:
    """Draw δ: each component −1 or 1 at random with this probability, and else against s.

    Parameters
    ----------
    saliency : Tensor
        s in [−1, 1], ``(N, C, H, W)``.
    random : float
        The probability αᵗ that a component is random.

    Examples
    --------
    >>> saliency = torch.tensor([1.0, -0.5]).view(1, 1, 1, 2)
    >>> saliency_perturbation(saliency, random=0.0).flatten()
    tensor([-1.0000,  0.5000])
    """
    chosen = torch.rand_like(saliency) < random
    return torch.where(chosen, random_signs(saliency), -saliency)


def _of_batch(batch: Batch, source: str, images: Tensor) -> Float[Tensor, "n c h w"]:
    """Make s of what the batch carries, the same for every channel."""
    given: Tensor = entry(batch, source).to(images.device)
    n, _, height, width = images.shape
    shape = (n, 4) if source == "boxes" else (n, height, width)
    if given.shape != shape:
        raise InputError(f"batch[{source!r}]", f"shape {tuple(given.shape)}", f"shape {shape}")
    if source == "saliency":
        if not (given.abs() <= 1).all():
            raise InputError("batch['saliency']", "other values or NaN", "values in [−1, 1]")
        maps = given.to(images)
    else:
        if not given.isfinite().all():
            raise InputError(f"batch[{source!r}]", "NaN or infinite values", "one for every image")
        inside = box_masks(given, (height, width)) if source == "boxes" else given > 0.5
        maps = inside.to(images) * 2 - 1
    return maps[:, None].expand_as(images)
