"""The inner loop of Kendall's τ on the CPU, compiled by numba.

A module of its own, imported on first use: numba takes time to import and to compile, and who
computes no rank correlation should not wait for it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, no_type_check

import numba
import numpy as np

__all__ = ["kendall_of_keys"]


def _compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    try:
        return numba.njit(function, nogil=True, cache=True)
    except RuntimeError:  # nowhere to write the cache: compile anew in each process
        return numba.njit(function, nogil=True)


# numba compiles the bare functions; a run-time check of types cannot wrap them.


@_compiled
@no_type_check
def _tied_pairs(ordered):
    pairs = np.int64(0)
    run = np.int64(0)
    for i in range(1, len(ordered)):
        run = run + 1 if ordered[i] == ordered[i - 1] else 0
        pairs += run
    return pairs


@_compiled
@no_type_check
def _sort_short_runs(values, length):
    swaps = np.int64(0)
    for start in range(0, len(values), length):
        for i in range(start + 1, min(start + length, len(values))):
            value = values[i]
            j = i
            while j > start and values[j - 1] > value:
                values[j] = values[j - 1]
                j -= 1
            values[j] = value
            swaps += i - j
    return swaps


@_compiled
@no_type_check
def _merge(values, start, middle, stop, merged):
    swaps = np.int64(0)
    left, right, place = start, middle, start
    while left < middle and right < stop:
        # No branch on the comparison: it is a coin toss, and processors guess it wrong.
        behind = values[right] < values[left]
        merged[place] = values[right] if behind else values[left]
        swaps += (middle - left) * behind
        right += behind
        left += not behind
        place += 1
    for rest in range(left, middle):
        merged[place] = values[rest]
        place += 1
    for rest in range(right, stop):
        merged[rest] = values[rest]
    return swaps


@_compiled
@no_type_check
def _sort_counting_swaps(values):
    width = 8
    swaps = _sort_short_runs(values, width)
    merged = np.empty_like(values)
    while width < len(values):
        for start in range(0, len(values), 2 * width):
            middle = min(start + width, len(values))
            stop = min(start + 2 * width, len(values))
            swaps += _merge(values, start, middle, stop, merged)
        values, merged = merged, values
        width *= 2
    return values, swaps


@_compiled
@no_type_check
def kendall_of_keys(keys, out):
    """Write τ-b of each row of ``keys`` to ``out``, by Knight's algorithm.

    A key is a pair of ranks in one 64-bit integer, the first map's rank in the upper half and the
    second's, which is not negative, in the lower. The rows come sorted: the pixels stand in the
    order of the first map, ties of it in the order of the second, and a pair is discordant if the
    second map's ranks must swap to be sorted too.
    """
    maps, pixels = keys.shape
    pairs = np.int64(pixels) * (pixels - 1) // 2
    for row in range(maps):
        second, swaps = _sort_counting_swaps(keys[row].astype(np.uint32))
        tied_first = _tied_pairs((keys[row] >> 32).astype(np.uint32))
        tied_second = _tied_pairs(second)
        untied_first, untied_second = pairs - tied_first, pairs - tied_second
        if untied_first == 0 or untied_second == 0:
            out[row] = 1.0 if untied_first == untied_second else 0.0
        else:
            balance = pairs - tied_first - tied_second + _tied_pairs(keys[row]) - 2 * swaps
            out[row] = balance / np.sqrt(np.float64(untied_first) * np.float64(untied_second))
