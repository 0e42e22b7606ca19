"""From per-image records to numbers: a row per measure, and the table that compares models."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from weakref import WeakKeyDictionary

import numpy as np
from jaxtyping import Float
from scipy import stats

from holdfast.contracts import InputError
from holdfast.report.evidence import beside, findings_of, notes_of, random_mean, struck_out
from holdfast.report.families import folded
from holdfast.report.records import KEPT, SIMILARITIES, AuditedRun
from holdfast.report.wording import check_title

__all__ = [
    "Row",
    "Table",
    "mean_difference",
    "mean_interval",
    "row_of",
    "summarize",
    "table",
]

# What an image either is or is not; also every accuracy, ``correct_…``.
PROPORTIONS = ("correct", "preserved", "pointing_game", "top_1", "zero_gradient")
CORRUPTION = "corruption/"
CORRUPTIONS = "corruptions"
RESAMPLES = 2_000
_NOTHING = np.empty(0)
# A summary resamples thousands of times: it is made once for the table, the page and the files.
_SUMMARIES: WeakKeyDictionary[AuditedRun, tuple[Row, ...]] = WeakKeyDictionary()


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
        The 95 % confidence interval of the mean (see :func:`mean_interval`); None for one image,
        for what was measured at a threshold (``box_iou/0.20``), of which no mean is reported, and
        for what only tells how an attack went (``moved``).
    attacked, preserved : int or None
        For a check on explanations: how many images were attacked, and for how many of them a
        perturbation was found that keeps the label. None for a check on predictions.
    random : float or None
        For a similarity of maps, its mean after random signs at the same ε. None if the audit did
        not try them.
    struck : str
        Why the figure is no evidence and must be shown struck out; empty if it is sound.
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
    random: float | None = None
    struck: str = ""


@dataclass(frozen=True)
class Table:
    """The comparison of several models, one row a model.

    Attributes
    ----------
    runs : tuple of str
        The models, in the order given.
    predictions : tuple of str
        The checks on predictions, ``clean`` first. If there are corruptions, the last is
        ``corruptions``: the mean of each image over all of them.
    explanations : tuple of str
        The attacks on explanations: the checks that measured ``preserved``.
    rows : Mapping
        Every :class:`Row` by its run, check and measure.
    corruptions : tuple of str
        The checks ``corruption/NAME/SEVERITY``.
    folded : frozenset of str
        Checks that are points of a curve, and that another one stands for where room is short.
    findings : Mapping
        For each run that has any, what may be wrong with its model, its data or its attacks.
    """

    runs: tuple[str, ...]
    predictions: tuple[str, ...]
    explanations: tuple[str, ...]
    rows: Mapping[tuple[str, str, str], Row]
    corruptions: tuple[str, ...] = ()
    folded: frozenset[str] = frozenset()
    findings: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def row(self, run: str, check: str, measure: str) -> Row | None:
        """Look up what was measured; None if this model was not put to this check."""
        return self.rows.get((run, check, measure))

    def notes(self, *wanted: tuple[str, str]) -> tuple[str, ...]:
        """Say which of these checks and measures are struck out, and why.

        Parameters
        ----------
        *wanted : tuple of str
            Each check and measure; by default all there are.
        """
        rows = [
            row
            for (_, check, measure), row in self.rows.items()
            if row.struck and (not wanted or (check, measure) in wanted)
        ]
        return notes_of([(r.run, check_title(r.check), r.measure, r.struck) for r in rows])


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
    if run not in _SUMMARIES:
        struck = struck_out(run)
        _SUMMARIES[run] = tuple(
            replace(
                row_of(
                    run.name, check, measure, run.values(check, measure), run.values(check, KEPT)
                ),
                random=random_mean(run, check, measure) if measure in SIMILARITIES else None,
                struck=struck.get((check, measure), ""),
            )
            for check in run.checks
            for measure in run.measures(check)
        )
    return _SUMMARIES[run]


def row_of(
    run: str,
    check: str,
    measure: str,
    values: Float[np.ndarray, " n"],
    kept: Float[np.ndarray, " m"] = _NOTHING,
) -> Row:
    """Sum up one measure over its images.

    Parameters
    ----------
    run, check, measure : str
        What was measured.
    values : ndarray
        A value an image, ``(n,)``.
    kept : ndarray
        For an attack on explanations whether each label was kept, ``(m,)``.

    Examples
    --------
    >>> row_of("art", "clean", "correct", np.array([1.0, 0.0, 1.0, 1.0])).mean
    0.75
    """
    quartiles = np.quantile(values, [0.25, 0.5, 0.75]).tolist()
    proportion = measure in PROPORTIONS or measure.startswith("correct_")
    proportion = proportion and bool(np.isin(values, (0, 1)).all())
    ends = (
        None if "/" in measure or beside(measure) else mean_interval(values, proportion=proportion)
    )
    low, high = ends or (None, None)
    return Row(
        run=run,
        check=check,
        measure=measure,
        count=len(values),
        mean=float(values.mean()),
        median=quartiles[1],
        lower_quartile=quartiles[0],
        upper_quartile=quartiles[2],
        low=low,
        high=high,
        attacked=len(kept) if len(kept) else None,
        preserved=int(kept.sum()) if len(kept) else None,
    )


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
    checks = list(dict.fromkeys(check for run in runs for check in run.checks))
    measured = {(check, measure) for _, check, measure in rows}
    predictions = [check for check in checks if (check, "correct") in measured]
    corruptions = [check for check in predictions if check.startswith(CORRUPTION)]
    predictions = [check for check in predictions if check not in corruptions]
    for run in runs if CORRUPTIONS not in checks else ():
        values = _over_corruptions(run, corruptions)
        if len(values):
            rows[run.name, CORRUPTIONS, "correct"] = row_of(
                run.name, CORRUPTIONS, "correct", values
            )
    if corruptions and CORRUPTIONS not in checks:
        predictions.append(CORRUPTIONS)
    return Table(
        runs=tuple(run.name for run in runs),
        predictions=tuple(sorted(predictions, key=lambda check: check != "clean")),
        explanations=tuple(check for check in checks if (check, KEPT) in measured),
        rows=rows,
        corruptions=tuple(corruptions),
        folded=folded(runs),
        findings={run.name: found for run in runs if (found := findings_of(run))},
    )


def _over_corruptions(run: AuditedRun, corruptions: Sequence[str]) -> np.ndarray:
    """Average each image's ``correct`` over the corruptions that a run was put to."""
    made = [(check, "correct") for check in corruptions if len(run.values(check, "correct"))]
    return np.mean(run.aligned(*made), axis=0) if made else _NOTHING


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
