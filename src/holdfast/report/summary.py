"""From per-image records to numbers: a row per measure, and the table that compares models."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from scipy import stats

from holdfast.contracts import InputError
from holdfast.report.records import AuditedRun

__all__ = ["Row", "Table", "mean_difference", "mean_interval", "summarize", "table"]

SIMILARITIES = ("top_k_intersection", "kendall_tau", "spearman_rho")
PROPORTIONS = ("correct", "preserved")
RESAMPLES = 2_000


@dataclass(frozen=True)
class Row:
    """One measure of one check on one model, over its images.

    Attributes
    ----------
    run, check, measure : str
        What was measured. All figures below are in the unit of the records: fractions, not percent.
    count : int
        How many images have a value.
    mean, median, lower_quartile, upper_quartile : float
        Over these images.
    low, high : float or None
        The 95 % confidence interval of the mean (see :func:`mean_interval`); None for one image.
    attacked, preserved : int or None
        For a check on explanations: how many images were attacked, and for how many of them a
        perturbation was found that keeps the label. None for a check on predictions.
    """

    run: str
    check: str
    measure: str
    count: int
    mean: float
    median: float
    lower_quartile: float
    upper_quartile: float
    low: float | None
    high: float | None
    attacked: int | None = None
    preserved: int | None = None


@dataclass(frozen=True)
class Table:
    """The comparison of several models, one row a model.

    Attributes
    ----------
    runs : tuple of str
        The models, in the order given.
    predictions : tuple of str
        The checks on predictions, ``clean`` first.
    explanations : tuple of str
        The checks on explanations.
    rows : Mapping
        Every :class:`Row` by its run, check and measure.
    """

    runs: tuple[str, ...]
    predictions: tuple[str, ...]
    explanations: tuple[str, ...]
    rows: Mapping[tuple[str, str, str], Row]

    def row(self, run: str, check: str, measure: str) -> Row | None:
        """Look up what was measured; None if this model was not put to this check."""
        return self.rows.get((run, check, measure))


def summarize(run: AuditedRun) -> tuple[Row, ...]:
    """Sum up a run: a row for each check and measure, in the order of the records.

    Parameters
    ----------
    run : AuditedRun
        The run, from :func:`~holdfast.report.read_run`.

    Examples
    --------
    >>> import pyarrow as pa
    >>> run = AuditedRun("art", pa.table({"index": [0, 1], "label": [3, 5], "check": ["clean"] * 2,
    ...                                   "measure": ["correct"] * 2, "value": [1.0, 0.0]}))
    >>> row, = summarize(run)
    >>> row.count, row.mean
    (2, 0.5)
    """
    rows = []
    for check in run.checks:
        attacked = preserved = None
        if "/" in check:
            kept = run.values(check, "preserved")
            attacked, preserved = len(kept), int(kept.sum())
        for measure in run.measures(check):
            values = run.values(check, measure)
            quartiles = np.quantile(values, [0.25, 0.5, 0.75]).tolist()
            low, high = mean_interval(values, proportion=measure in PROPORTIONS) or (None, None)
            rows.append(
                Row(
                    run=run.name,
                    check=check,
                    measure=measure,
                    count=len(values),
                    mean=float(values.mean()),
                    median=quartiles[1],
                    lower_quartile=quartiles[0],
                    upper_quartile=quartiles[2],
                    low=low,
                    high=high,
                    attacked=attacked,
                    preserved=preserved,
                )
            )
    return tuple(rows)


def table(runs: Sequence[AuditedRun]) -> Table:
    """Compare runs: what each of them was put to, and how it came out.

    Parameters
    ----------
    runs : sequence of AuditedRun
        The runs, of different names; they need not share all checks.

    Raises
    ------
    InputError
        If there is no run, or two have one name.

    Examples
    --------
    >>> import pyarrow as pa
    >>> run = AuditedRun("art", pa.table({"index": [0, 1], "label": [3, 5], "check": ["clean"] * 2,
    ...                                   "measure": ["correct"] * 2, "value": [1.0, 0.0]}))
    >>> table([run]).row("art", "clean", "correct").mean
    0.5
    """
    if not runs:
        raise InputError("runs", "none", "at least one run")
    twice = [name for name, count in Counter(run.name for run in runs).items() if count > 1]
    if twice:
        expected = "runs of different names (read_run takes name=…)"
        raise InputError("runs", f"several named {twice[0]!r}", expected)
    rows = {(row.run, row.check, row.measure): row for run in runs for row in summarize(run)}
    checks = dict.fromkeys(check for run in runs for check in run.checks)
    on_predictions = {check for _, check, measure in rows if measure == "correct"}
    return Table(
        runs=tuple(run.name for run in runs),
        predictions=tuple(sorted(on_predictions, key=lambda c: (c != "clean", [*checks].index(c)))),
        explanations=tuple(check for check in checks if "/" in check),
        rows=rows,
    )


def mean_interval(
    values: Float[np.ndarray, " n"], *, proportion: bool = False, seed: int = 0
) -> tuple[float, float] | None:
    """Give the 95 % confidence interval of a mean over images.

    The percentile bootstrap with 2,000 resamples; for a proportion Wilson's interval, which stays
    honest where all images agree (the bootstrap would then claim to be certain).

    Parameters
    ----------
    values : ndarray
        One value an image, ``(n,)``.
    proportion : bool
        Whether the values are 0 or 1.
    seed : int
        Of the resampling.

    Returns
    -------
    tuple of float, or None
        The lower and the upper end; None where a single image leaves nothing to resample.

    Examples
    --------
    >>> low, high = mean_interval(np.ones(20), proportion=True)
    >>> round(low, 2), high
    (0.84, 1.0)
    """
    if proportion:
        tested = stats.binomtest(int(values.sum()), len(values))
        interval = tested.proportion_ci(0.95, method="wilson")
        return float(interval.low), float(interval.high)
    if len(values) < 2:
        return None
    low, high = np.quantile(_resampled_means(values, seed), [0.025, 0.975])
    return float(low), float(high)


def mean_difference(
    values: Float[np.ndarray, " n"], reference: Float[np.ndarray, " m"], *, seed: int = 0
) -> tuple[float, float] | None:
    """Give the 95 % bootstrap interval of ``values.mean() - reference.mean()``.

    The two are resampled apart, for two models are seldom attacked on the very same images; where
    they are, the interval errs on the wide side.

    Examples
    --------
    >>> mean_difference(np.array([2.0, 2.0]), np.array([1.0, 1.0, 1.0]))
    (1.0, 1.0)
    """
    if min(len(values), len(reference)) < 2:
        return None
    gaps = _resampled_means(values, seed) - _resampled_means(reference, seed + 1)
    low, high = np.quantile(gaps, [0.025, 0.975])
    return float(low), float(high)


def _resampled_means(values: np.ndarray, seed: int) -> np.ndarray:
    random = np.random.default_rng(seed)
    count = len(values)
    # A few resamples at a time, so that memory stays near 32 MiB whatever the audit's size.
    at_once = max(1, 2**22 // count)
    means = []
    for start in range(0, RESAMPLES, at_once):
        drawn = min(at_once, RESAMPLES - start)
        picks = random.integers(0, count, (drawn, count), dtype=np.int32)
        means.append(values[picks].mean(axis=1))
    return np.concatenate(means)
