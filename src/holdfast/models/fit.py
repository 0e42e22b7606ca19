"""Whether the softplus surrogate reaches a model, and still answers as the model does."""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from holdfast.contracts import check_images, chunks, default_chunk
from holdfast.models.classifier import classify
from holdfast.models.state import evaluating
from holdfast.models.surrogate import softplus

__all__ = ["SurrogateFit", "surrogate_fit"]


class SurrogateFit(NamedTuple):
    """How the surrogate of a model answers, image by image.

    Attributes
    ----------
    agree : Tensor
        Whether the surrogate predicts the same class as the model, bool ``(N,)``.
    change : Tensor
        The largest change of a logit, as a share of what lies between the model's largest and
        smallest logit, ``(N,)``; infinite where these are equal and the surrogate's differ.
    replaced : int
        How many functions were replaced in a forward pass. 0: the surrogate reaches nothing, and
        gives a piecewise-linear model no second derivative.
    """

    agree: Bool[Tensor, " n"]
    change: Float[Tensor, " n"]
    replaced: int


def surrogate_fit(
    model: nn.Module, images: Float[Tensor, "n c h w"], beta: float = 50.0
) -> SurrogateFit:
    """Compare the softplus surrogate of a model with the model, in eval mode.

    Parameters
    ----------
    model : nn.Module
        The classifier.
    images : Tensor
        Images ``(N, C, H, W)`` in [0, 1].
    beta : float
        Sharpness of the surrogate.

    Raises
    ------
    HoldfastError
        If the model's output has no gradient with respect to the images: see `classify`.

    Examples
    --------
    >>> model = nn.Sequential(nn.Flatten(), nn.ReLU(), nn.Linear(4, 2))
    >>> fit = surrogate_fit(model, torch.rand(3, 1, 2, 2), beta=500.0)
    >>> fit.agree.shape, fit.replaced
    (torch.Size([3]), 1)
    """
    check_images(images)
    agree, change, replaced = [], [], 0
    with evaluating(model), torch.enable_grad():
        for part in chunks(len(images), default_chunk(images)):
            # Where nothing asks for a gradient, constants and activations look alike.
            x = images[part].detach().requires_grad_(True)
            exact = classify(model, x).detach()
            with softplus(beta) as surrogate:
                smooth = classify(model, x).detach()
            agree.append(smooth.argmax(1) == exact.argmax(1))
            change.append(_change(smooth, exact))
            replaced = surrogate.replaced.total()
    return SurrogateFit(torch.cat(agree), torch.cat(change), replaced)


def _change(smooth: Tensor, exact: Tensor) -> Tensor:
    largest = (smooth - exact).abs().amax(1)
    return torch.where(largest == 0, 0.0, largest / (exact.amax(1) - exact.amin(1)))
