"""Saliency-based adversarial training (SAT): perturbations drawn from saliency maps."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import torch
from jaxtyping import Float, Integer
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
    missing : {"noise", "leave_out"}
        What becomes of an image whose entry is NaN, as data sets mark what has none: trained on
        random perturbations alone in every epoch, as `UniformNoise` does, or not trained on. The
        paper does not say, though only 849 of Flower-17's 1,360 images have a mask. The default
        keeps the images the same as in the rows that it is compared with.
    teacher : nn.Module, optional
        A trained classifier whose maps are s. It runs in eval mode and is not trained.
    attribution : Attribution
        How the teacher is explained.
    quantile : float
        The threshold by which the teacher's maps come to [−1, 1]; see `signed_saliency`.

    Notes
    -----
    The epoch comes with the batch: ``batch["epoch"]``, from 0 on. Holdfast's own training puts it
    there; a loop of your own has to. For PGD-SAT and TRADES-SAT see `Successive`. The loss of a
    batch from which all images are left out is 0. Without a teacher the share of the batch's images
    that have s comes back beside the loss, as ``marked``, for the log.

    References
    ----------
    On Saliency Maps and Adversarial Robustness (ECML-PKDD 2020).

    Examples
    --------
    >>> model = nn.Sequential(nn.Flatten(), nn.Linear(16, 2))
    >>> batch = {"images": torch.rand(1, 1, 4, 4), "labels": torch.tensor([1]), "epoch": 3}
    >>> boxes = torch.tensor([[0.0, 0.0, 2.0, 2.0]])
    >>> sorted(SaliencyTraining(eps=0.1, source="boxes")(model, batch | {"boxes": boxes}))
    ['loss', 'marked']
    """

    eps: float = 8 / 255
    alpha: float = 0.9
    source: Literal["saliency", "masks", "boxes"] = "saliency"
    teacher: nn.Module | None = field(default=None, compare=False)
    attribution: Attribution = SmoothGrad()
    quantile: float = 0.99
    missing: Literal["noise", "leave_out"] = "noise"

    def __post_init__(self) -> None:
        check_positive(self, "eps", zero=True)
        check_share(self, "alpha", "quantile")
        if self.source not in ("saliency", "masks", "boxes"):
            expected = "'saliency', 'masks' or 'boxes'"
            raise InputError("SaliencyTraining.source", repr(self.source), expected)
        if self.missing not in ("noise", "leave_out"):
            raise InputError("SaliencyTraining.missing", repr(self.missing), "'noise', 'leave_out'")
        if self.teacher is not None:
            check_teacher(self)

    def __repr__(self) -> str:
        return settings_in_brief(self)

    def __call__(self, model: nn.Module, batch: Batch) -> dict[str, Tensor]:
        """Return ``{"loss"}``, and ``"marked"`` where s is of the batch."""
        images, labels = images_and_labels(batch)
        epoch = entry(batch, "epoch")
        if epoch < 0:
            raise InputError("batch['epoch']", epoch, "the number of the epoch, from 0 on")
        random = self.alpha**epoch
        if self.teacher is not None:
            maps = explain(self.teacher, self.attribution, images, labels)
            delta = saliency_perturbation(signed_saliency(maps, self.quantile), random)
            return {"loss": self._loss(model, images, labels, delta)}
        saliency = _of_batch(batch, self.source, images)
        marked = ~saliency.isnan().flatten(1).any(1)
        share = {"marked": marked.to(images).mean()}
        delta = saliency_perturbation(saliency, random)
        if self.missing == "leave_out":
            images, labels, delta = images[marked], labels[marked], delta[marked]
            if not len(images):
                nothing = sum((p * 0).sum() for p in model.parameters())
                return {"loss": images.new_zeros(()) + nothing} | share
        elif not marked.all():
            delta = torch.where(marked[:, None, None, None], delta, random_signs(images))
        return {"loss": self._loss(model, images, labels, delta)} | share

    def _loss(
        self,
        model: nn.Module,
        images: Float[Tensor, "n c h w"],
        labels: Integer[Tensor, " n"],
        delta: Float[Tensor, "n c h w"],
    ) -> Float[Tensor, ""]:
        perturbed = (images + self.eps * delta).clamp(0, 1)
        return classification_loss(classify(model, perturbed), labels)


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
    """Make s of what the batch carries, the same for every channel; NaN where it has none."""
    given: Tensor = entry(batch, source).to(images.device)
    n, _, height, width = images.shape
    shape = (n, 4) if source == "boxes" else (n, height, width)
    if given.shape != shape:
        raise InputError(f"batch[{source!r}]", f"shape {tuple(given.shape)}", f"shape {shape}")
    none = given.isnan().flatten(1).all(1)[:, None, None]
    if source == "saliency":
        if not ((given.abs() <= 1) | none.view(n, *[1] * (given.ndim - 1))).all():
            raise InputError("batch['saliency']", "other values or NaN", "values in [−1, 1]")
        maps = given.to(images)
    else:
        if not (given.isfinite().flatten(1).all(1) | none.flatten()).all():
            came = "infinite values, or NaN among others"
            raise InputError(f"batch[{source!r}]", came, "numbers, or NaN all over for none")
        boxes = source == "boxes"
        inside = box_masks(given.nan_to_num(), (height, width)) if boxes else given > 0.5
        maps = torch.where(none, torch.nan, inside.to(images) * 2 - 1)
    return maps[:, None].expand_as(images)
