"""Curvature regularization (CURE): a loss whose gradient stays the same nearby."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Integer
from torch import Tensor, nn

from holdfast.contracts import Batch, InputError, check_positive, checked
from holdfast.models import (
    Anchor,
    at_anchor,
    classify,
    differentiate,
    double_backward,
    statistics_kept,
)
from holdfast.objectives.checks import (
    classification_loss,
    classification_losses,
    entry,
    images_and_labels,
)

__all__ = ["CURE", "curvature"]


@dataclass(frozen=True)
@checked
class CURE:
    """The cross-entropy, and how much its input gradient changes a little further uphill.

    ``ℓ(x, y) + λ ‖∇ℓ(x + h z) − ∇ℓ(x)‖₂²``, with z the sign of ``∇ℓ(x)``, normalized to length 1.

    Parameters
    ----------
    weight : float
        λ.
    h : float
        How far from x the second gradient is taken, as an ℓ2 length in the units of ``anchor``.
    squared : bool
        Whether the norm is squared, as published; the authors' public code does not square it.
    warmup : int
        During so many epochs h grows in equal steps to its value. With any, the batch has to carry
        ``epoch``, counted from 0, as Holdfast's own training puts it there.
    anchor : {"normalized", "pixels"}
        What x is, and the gradients are taken with respect to: the model's normalized input, as in
        the public code, or the pixels.

    Notes
    -----
    z is held fixed: no gradient goes through it. x + h z is not clipped to the values of an image,
    nor is it in the public code.

    λ = 4 and h = 3 are the defaults of the public code, which takes the second term in eval mode.
    Here it is taken in the mode that the model is in, and batch-norm's running statistics follow
    the pass of the cross-entropy only. Both are meant to go on from a naturally trained model.

    References
    ----------
    Moosavi-Dezfooli et al., Robustness via Curvature Regularization, and Vice Versa (CVPR 2019);
    compared with Attributional Robustness Training (ECCV 2020), appendix C.

    Examples
    --------
    >>> model = nn.Sequential(nn.Flatten(), nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 3))
    >>> batch = {"images": torch.rand(2, 1, 2, 2), "labels": torch.tensor([0, 2])}
    >>> terms = CURE(weight=4.0, h=0.5)(model, batch)
    >>> bool(terms["loss"].isclose(terms["cross_entropy"] + 4.0 * terms["curvature"]))
    True
    """

    weight: float = 4.0
    h: float = 3.0
    squared: bool = True
    warmup: int = 0
    anchor: Anchor = "normalized"

    def __post_init__(self) -> None:
        check_positive(self, "weight", "warmup", zero=True)
        check_positive(self, "h")

    def __call__(self, model: nn.Module, batch: Batch) -> dict[str, Tensor]:
        """Return ``{"loss", "cross_entropy", "curvature"}``."""
        images, labels = images_and_labels(batch)
        cross_entropy = classification_loss(classify(model, images), labels)
        with statistics_kept(model):
            squares = curvature(model, images, labels, h=self._h(batch), anchor=self.anchor)
        bent = (squares if self.squared else _root(squares)).mean()
        return {
            "loss": cross_entropy + self.weight * bent,
            "cross_entropy": cross_entropy,
            "curvature": bent,
        }

    def _h(self, batch: Batch) -> float:
        if not self.warmup:
            return self.h
        epoch = entry(batch, "epoch")
        if not epoch >= 0:
            raise InputError("batch['epoch']", epoch, "the number of an epoch, from 0 on")
        return self.h * min(1.0, (epoch + 1) / self.warmup)


def curvature(
    model: nn.Module,
    images: Float[Tensor, "n c h w"],
    labels: Integer[Tensor, " n"],
    *,
    h: float = 3.0,
    anchor: Anchor = "normalized",
) -> Float[Tensor, " n"]:
    """Return ``‖∇ℓ(x + h z) − ∇ℓ(x)‖₂²`` of each image, with z the normalized sign of ``∇ℓ(x)``.

    Returns
    -------
    Tensor
        One value an image, ``(N,)``, differentiable with respect to the weights. 0 where the
        gradient is zero, which gives no direction.

    Examples
    --------
    >>> linear = nn.Sequential(nn.Flatten(), nn.Linear(4, 2))
    >>> images, labels = torch.rand(3, 1, 2, 2), torch.tensor([0, 1, 1])
    >>> curvature(linear, images, labels, h=0.1).shape
    torch.Size([3])
    """
    with torch.enable_grad(), double_backward():
        seen, inner = at_anchor(model, images.detach(), anchor)

        def gradient(x: Tensor) -> Tensor:
            x = x.detach().requires_grad_(True)
            losses = classification_losses(classify(inner, x), labels)
            return differentiate(losses.sum(), x, create_graph=True)

        before = gradient(seen)
        sign = before.detach().sign()
        length = sign.flatten(1).norm(dim=1).clamp_min(1).view(-1, 1, 1, 1)
        change = gradient(seen + h * sign / length) - before
    return change.square().flatten(1).sum(1)


def _root(squares: Tensor) -> Tensor:
    # Without the floor, the root's derivative at 0 would be infinite.
    return squares.clamp_min(torch.finfo(squares.dtype).tiny).sqrt()
