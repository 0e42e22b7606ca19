"""How many of the most important pixels two maps share."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Float64
from torch import Tensor

from holdfast.contracts import InputError
from holdfast.metrics.scores import check_scores

__all__ = ["top_k_intersection"]


def top_k_intersection(
    first: Float[Tensor, "n p"], second: Float[Tensor, "n p"], k: int
) -> Float64[Tensor, " n"]:
    """Return the share of the top-k pixels of one map that are top-k pixels of the other.

    |top-k(A) ∩ top-k(B)| / k (Ghorbani et al., *Interpretation of Neural Networks is Fragile*,
    2019).

    Parameters
    ----------
    first, second : Tensor
        Pixel scores ``(N, P)`` of the two maps of each image.
    k : int
        How many pixels count as the top, from 1 to P. Of pixels tied for the last place, those
        that come first in the map are taken, on every device.

    Returns
    -------
    Tensor
        ``(N,)`` in [0, 1], float64; no gradient flows.

    Raises
    ------
    InputError
        If the scores are no two matrices of one shape, or hold NaN or an infinity, or if ``k`` is
        below 1 or above P.

    Examples
    --------
    >>> first = torch.tensor([[9.0, 8.0, 1.0, 0.0]])
    >>> second = torch.tensor([[9.0, 0.0, 1.0, 8.0]])
    >>> top_k_intersection(first, second, k=2)
    tensor([0.5000], dtype=torch.float64)
    """
    check_scores(first, second)
    if not 1 <= k <= first.shape[1]:
        raise InputError("k", k, f"1 to {first.shape[1]}, the pixels of a map")
    return (_top(first.detach(), k) & _top(second.detach(), k)).sum(1).double() / k


def _top(scores: Float[Tensor, "n p"], k: int) -> Bool[Tensor, "n p"]:
    last = torch.topk(scores, k, 1).values[:, -1:]
    above, tied = scores > last, scores == last
    room = k - above.sum(1, keepdim=True)
    return above | (tied & (tied.cumsum(1) <= room))
