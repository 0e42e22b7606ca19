"""What of the classifier's answer is explained: which class, and on which scale."""

from __future__ import annotations

from typing import get_args

import torch
from jaxtyping import Float, Integer
from torch import Tensor, nn
from torch.nn import functional as F

from holdfast.contracts import InputError, Output, check_labels, chunks, default_chunk
from holdfast.models import classify

__all__ = ["resolve_targets", "select_output"]


def select_output(
    logits: Float[Tensor, "n k"], targets: Integer[Tensor, " n"], output: Output = "logit"
) -> Float[Tensor, " n"]:
    """Pick the number that an attribution differentiates, one an image.

    Parameters
    ----------
    logits : Tensor
        The classifier's answer ``(N, K)``.
    targets : Tensor
        The class of each image ``(N,)``.
    output : {"logit", "probability", "log_probability", "loss"}
        The scale: the logit of the class, its softmax probability, the logarithm of that, or its
        negative, the cross-entropy.

    Returns
    -------
    Tensor
        ``(N,)``

    Raises
    ------
    InputError
        If the logits are no matrix, a target is no class of theirs, or ``output`` is unknown.

    Examples
    --------
    >>> logits = torch.tensor([[2.0, 2.0]])
    >>> select_output(logits, torch.tensor([1]), "probability")
    tensor([0.5000])
    """
    if logits.ndim != 2:
        raise InputError("model", f"an output of shape {tuple(logits.shape)}", "logits (N, K)")
    check_labels(targets, len(logits), logits.shape[1], "targets")
    if output == "logit":
        scale = logits
    elif output == "probability":
        scale = logits.softmax(1)
    elif output == "log_probability":
        scale = logits.log_softmax(1)
    elif output == "loss":
        return F.cross_entropy(logits, targets, reduction="none")
    else:
        raise InputError("output", repr(output), f"one of {', '.join(get_args(Output))}")
    return scale.gather(1, targets[:, None]).squeeze(1)


def resolve_targets(
    model: nn.Module,
    images: Float[Tensor, "n c h w"],
    targets: Integer[Tensor, " n"] | None,
    chunk: int | None = None,
) -> Integer[Tensor, " n"]:
    """Return the targets that were given, or the predicted class of each image.

    Examples
    --------
    >>> model = nn.Sequential(nn.Flatten(), nn.Identity())
    >>> resolve_targets(model, torch.tensor([[[[0.1, 0.9]]]]), None)
    tensor([1])
    """
    if targets is not None:
        check_labels(targets, len(images), name="targets")
        return targets.to(images.device, torch.long)
    with torch.no_grad():
        parts = chunks(len(images), chunk or default_chunk(images))
        return torch.cat([classify(model, images[part]).argmax(1) for part in parts])
