"""By how much a model prefers the label to every other class."""

from __future__ import annotations

import math

import torch
from jaxtyping import Bool, Float, Integer
from torch import Tensor

__all__ = ["beyond_rounding", "margin"]


def margin(logits: Float[Tensor, "n k"], labels: Integer[Tensor, " n"]) -> Float[Tensor, " n"]:
    """Subtract the highest other logit from the label's: above 0 where the model is right.

    Examples
    --------
    >>> margin(torch.tensor([[3.0, 1.0, 0.0], [3.0, 1.0, 0.0]]), torch.tensor([0, 1]))
    tensor([ 2., -2.])
    """
    own = logits.gather(1, labels[:, None])[:, 0]
    return own - logits.scatter(1, labels[:, None], -math.inf).amax(1)


def beyond_rounding(
    logits: Float[Tensor, "n k"], labels: Integer[Tensor, " n"]
) -> Bool[Tensor, " n"]:
    """Tell whether the model gets an image wrong by more than rounding, or answers with NaN.

    Logits differ by rounding with the batch that an image is in; what is found in one batch must
    hold in all.

    Examples
    --------
    >>> logits = torch.tensor([[1.0, 2.0], [1.0, 1.0000001], [1.0, torch.nan]])
    >>> beyond_rounding(logits, torch.tensor([0, 0, 0]))
    tensor([ True, False,  True])
    """
    finite = logits.nan_to_num(0, 0, 0)
    rounding = 16 * torch.finfo(logits.dtype).eps * finite.abs().amax(1)
    return ~(margin(logits, labels) >= -rounding) | logits.isnan().any(1)
