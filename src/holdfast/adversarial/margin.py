"""By how much a model prefers the label to every other class."""

from __future__ import annotations

import math

from jaxtyping import Float, Int
from torch import Tensor

__all__ = ["margin"]


def margin(logits: Float[Tensor, "n k"], labels: Int[Tensor, " n"]) -> Float[Tensor, " n"]:
    """Subtract the highest other logit from the label's: above 0 where the model is right.

    Examples
    --------
    >>> import torch
    >>> margin(torch.tensor([[3.0, 1.0, 0.0], [3.0, 1.0, 0.0]]), torch.tensor([0, 1]))
    tensor([ 2., -2.])
    """
    own = logits.gather(1, labels[:, None])[:, 0]
    return own - logits.scatter(1, labels[:, None], -math.inf).amax(1)
