"""Which of two rows is ahead: as published, and as measured."""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from holdfast.studies.measured import Results, Value

__all__ = ["Ordering", "counted", "difference", "orderings"]

Verdict = Literal["confirmed", "refuted", "open"]


@dataclass(frozen=True)
class Ordering:
    """A pair of rows whose published values differ in a column.

    Attributes
    ----------
    column, above, below : str
        The column; the row with the higher published value, and the other one.
    published : tuple of float
        Their values.
    difference : float
        Measured, ``above`` minus ``below``, in the unit of the column.
    low, high : float or None
        Its 95 % interval over images.
    verdict : {"confirmed", "refuted", "open"}
        Confirmed or refuted where the interval lies on one side of 0, and the models of all seeds
        on the same one.
    """

    column: str
    above: str
    below: str
    published: tuple[float, float]
    difference: float
    low: float | None
    high: float | None
    verdict: Verdict

    @property
    def reversed(self) -> bool:
        """Whether the measured order is the other one, however surely."""
        return self.difference < 0


def orderings(results: Results) -> tuple[Ordering, ...]:
    """Compare every pair of rows of a group, in every column.

    Pairs whose published values are equal or missing, or that were not measured, are left out.
    """
    study = results.job.study
    found = []
    for column in study.columns:
        for one, other in itertools.combinations(study.shown, 2):
            if study.rows[one].group != study.rows[other].group:
                continue
            printed = {name: study.expected(name, column) for name in (one, other)}
            if printed[one] is None or printed[other] is None or printed[one] == printed[other]:
                continue
            above, below = sorted((one, other), key=lambda name: -(printed[name] or 0.0))
            values = results.value(above, column), results.value(below, column)
            if values[0] is None or values[1] is None:
                continue
            gap, low, high = difference(values[0], values[1])
            verdict = _verdict(values[0], values[1], low, high)
            pair = (printed[above] or 0.0, printed[below] or 0.0)
            found.append(Ordering(column, above, below, pair, gap, low, high, verdict))
    return tuple(found)


def difference(one: Value, other: Value) -> tuple[float, float | None, float | None]:
    """Return the difference of two values and its 95 % interval over images.

    The interval is made of those of the two (the method of variance estimates recovery), as if
    their images were drawn apart; where they are the same, it errs on the wide side.

    References
    ----------
    Newcombe, Interval estimation for the difference between independent proportions (1998); Zou and
    Donner, Construction of confidence limits about effect measures (2008).

    Examples
    --------
    >>> one = Value(0.7, 0.6, 0.8, None, (0.7,), 100)
    >>> other = Value(0.4, 0.3, 0.5, None, (0.4,), 100)
    >>> [round(end, 3) for end in difference(one, other)]
    [0.3, 0.159, 0.441]
    """
    gap = one.mean - other.mean
    if one.low is None or one.high is None or other.low is None or other.high is None:
        return gap, None, None
    low = gap - math.hypot(one.mean - one.low, other.high - other.mean)
    high = gap + math.hypot(one.high - one.mean, other.mean - other.low)
    return gap, low, high


def counted(found: Sequence[Ordering]) -> str:
    """Say how many orderings came out how.

    Examples
    --------
    >>> counted([])
    'no two rows were published with different values in a column that was measured'
    """
    if not found:
        return "no two rows were published with different values in a column that was measured"
    counts = Counter(ordering.verdict for ordering in found)
    told = [f"{counts[verdict]} {verdict}" for verdict in ("confirmed", "refuted", "open")]
    return f"of {len(found)} published orderings {', '.join(told)}"


def _verdict(above: Value, below: Value, low: float | None, high: float | None) -> Verdict:
    if low is None or high is None:
        return "open"
    ahead = [one > other for one in above.each for other in below.each]
    behind = [one < other for one in above.each for other in below.each]
    if low > 0 and all(ahead):
        return "confirmed"
    if high < 0 and all(behind):
        return "refuted"
    return "open"
