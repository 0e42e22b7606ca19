"""Rank correlation of two maps: Kendall's τ-b and Spearman's ρ, one number an image.

On the CPU Kendall's τ is Knight's O(P log P) algorithm, compiled; on other devices the same count
is a bottom-up merge sort in tensor operations. Neither ever holds the P² pairs.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from jaxtyping import Float, Float64
from torch import Tensor

from holdfast.contracts import chunks
from holdfast.metrics.scores import check_scores

__all__ = ["kendall_tau", "spearman_rho"]


def kendall_tau(first: Float[Tensor, "n p"], second: Float[Tensor, "n p"]) -> Float64[Tensor, " n"]:
    """Kendall's τ-b between the scores of two maps: concordant less discordant pairs of pixels.

    τ-b = (C − D) / √((M − T₁)(M − T₂)), with C concordant and D discordant pairs out of
    M = P(P − 1)/2, and T₁ and T₂ pairs tied in either map (Kendall, *The treatment of ties in
    ranking problems*, 1945). It takes O(P log P) a map (Knight, *A computer method for calculating
    Kendall's tau with ungrouped data*, 1966).

    Parameters
    ----------
    first, second : Tensor
        Pixel scores ``(N, P)`` of the two maps of each image. Only their order counts.

    Returns
    -------
    Tensor
        ``(N,)`` in [−1, 1], float64; no gradient flows. Never NaN: 1 if both maps of an image are
        constant, 0 if just one is. The CPU's cores (``torch.get_num_threads()``) share the images.

    Raises
    ------
    InputError
        If the scores are no two matrices of one shape, or hold NaN or an infinity.

    Examples
    --------
    >>> first = torch.tensor([[1.0, 2.0, 3.0, 4.0]])
    >>> second = torch.tensor([[1.0, 3.0, 2.0, 4.0]])  # one pair of six has swapped
    >>> kendall_tau(first, second)
    tensor([0.6667], dtype=torch.float64)
    """
    check_scores(first, second)
    first, second = first.detach().contiguous(), second.detach().contiguous()
    if first.device.type == "cpu":
        return _kendall_compiled(first, second)
    size = max(1, 2**24 // first.shape[1])  # a handful of int64 temporaries of this many pixels
    parts = [_kendall_by_merging(first[part], second[part]) for part in chunks(len(first), size)]
    return torch.cat(parts) if parts else first.new_empty(0, dtype=torch.float64)


def spearman_rho(
    first: Float[Tensor, "n p"], second: Float[Tensor, "n p"]
) -> Float64[Tensor, " n"]:
    """Spearman's ρ between the scores of two maps: the correlation of their ranks.

    Tied pixels share the average of their ranks.

    Parameters
    ----------
    first, second : Tensor
        Pixel scores ``(N, P)`` of the two maps of each image. Only their order counts.

    Returns
    -------
    Tensor
        ``(N,)`` in [−1, 1], float64; no gradient flows. Never NaN: 1 if both maps of an image are
        constant, 0 if just one is.

    Raises
    ------
    InputError
        If the scores are no two matrices of one shape, or hold NaN or an infinity.

    Examples
    --------
    >>> first = torch.tensor([[1.0, 2.0, 3.0, 4.0]])
    >>> second = torch.tensor([[1.0, 3.0, 2.0, 4.0]])
    >>> spearman_rho(first, second)
    tensor([0.8000], dtype=torch.float64)
    """
    check_scores(first, second)
    one, other = (_centred_ranks(scores.detach().contiguous()) for scores in (first, second))
    return _normalized((one * other).sum(1), one.square().sum(1), other.square().sum(1))


def _normalized(product: Tensor, first: Tensor, second: Tensor) -> Tensor:
    # What is 0 / 0 elsewhere is decided here: a map without any order agrees only with its like.
    both, either = (first == 0) & (second == 0), (first == 0) | (second == 0)
    value = product / (first.double() * second).sqrt()
    return torch.where(either, both.double(), value.clamp(-1, 1))


def _ranks(scores: Tensor) -> Tensor:
    """How many pixels score less; ties share it."""
    ordered, places = scores.sort(1)
    # Looked up in order, neighbours find their answer in the same cache line.
    below = torch.searchsorted(ordered, ordered)
    return torch.empty_like(below).scatter_(1, places, below)


def _centred_ranks(scores: Tensor) -> Tensor:
    # Twice the average rank less its mean: small whole numbers, so every sum of them is exact.
    ordered, places = scores.sort(1)
    below = torch.searchsorted(ordered, ordered)
    below_or_tied = torch.searchsorted(ordered, ordered, right=True)
    centred = (below + below_or_tied - scores.shape[1]).double()
    return torch.empty_like(centred).scatter_(1, places, centred)


def _kendall_compiled(first: Tensor, second: Tensor) -> Tensor:
    # Imported here, not above: numba is slow to import and compile, and only this needs it.
    from holdfast.metrics._merge_count import kendall_of_keys

    keys = ((_order(first) << 32) + (_order(second) + 2**31)).numpy()
    tau = np.empty(len(keys))

    def fill(part: slice) -> None:
        kendall_of_keys(np.sort(keys[part], axis=1), tau[part])

    # Plain threads, as both steps let go of the interpreter: unlike numba's own they follow
    # PyTorch's thread count, may be entered from several threads, and survive a fork.
    threads = torch.get_num_threads() if keys.size > 2**16 else 1
    parts = list(chunks(len(keys), -(-len(keys) // threads) or 1))
    if len(parts) > 1:
        with ThreadPoolExecutor(threads) as pool:
            list(pool.map(fill, parts))
    else:
        for part in parts:
            fill(part)
    return torch.from_numpy(tau)


def _order(scores: Tensor) -> Tensor:
    """32-bit integers, held in 64, in the order of the scores."""
    if scores.dtype == torch.float64:
        return _ranks(scores)
    # The bits of a float sort like an integer's, once those of negative numbers are turned round.
    # Adding 0 makes −0 a 0.
    bits = (scores.float() + 0.0).view(torch.int32)
    return (bits ^ ((bits >> 31) & 0x7FFFFFFF)).long()


def _kendall_by_merging(first: Tensor, second: Tensor) -> Tensor:
    pixels = first.shape[1]
    keys = (_ranks(first) * pixels + _ranks(second)).sort(1).values
    swaps = _count_swaps(keys % pixels)
    tied_first = _tied_pairs(keys // pixels)
    tied_second = _tied_pairs((keys % pixels).sort(1).values)
    pairs = pixels * (pixels - 1) // 2
    balance = pairs - tied_first - tied_second + _tied_pairs(keys) - 2 * swaps
    return _normalized(balance, pairs - tied_first, pairs - tied_second)


def _tied_pairs(ordered: Tensor) -> Tensor:
    """Count the pairs of equal values in rows that are sorted."""
    place = torch.arange(ordered.shape[1], device=ordered.device)
    return (place - torch.searchsorted(ordered, ordered)).sum(1)


def _count_swaps(ranks: Tensor) -> Tensor:
    """Count the pairs of each row that stand in the wrong order, by merging ever longer runs."""
    maps, pixels = ranks.shape
    full = 1 << (pixels - 1).bit_length()
    # What fills the rows up is larger than any rank and stands last, so it swaps with nothing.
    runs = torch.nn.functional.pad(ranks, (0, full - pixels), value=pixels)
    swaps = ranks.new_zeros(maps)
    width = 1
    while width < full:
        left, right = (half.contiguous() for half in runs.view(-1, 2, width).unbind(1))
        ahead = width - torch.searchsorted(left, right, right=True)
        swaps += ahead.view(maps, -1).sum(1)
        runs = runs.view(-1, 2 * width).sort(1).values
        width *= 2
    return swaps
