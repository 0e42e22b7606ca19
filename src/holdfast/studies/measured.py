"""What came out: a value a row and column, its interval over images, its spread over seeds."""

from __future__ import annotations

import fnmatch
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float
from scipy import stats

from holdfast import plain_yaml
from holdfast.contracts import HoldfastError
from holdfast.records import read_roar
from holdfast.report import AuditedRun, read_run
from holdfast.report.summary import mean_interval
from holdfast.studies.cells import IMAGES
from holdfast.studies.plan import Reproduction
from holdfast.studies.study import Column

__all__ = ["Results", "Value", "combined", "measured", "value_of", "values_of"]

RESAMPLES = 2_000


@dataclass(frozen=True)
class Value:
    """One measured value, in the unit of the column.

    Attributes
    ----------
    mean : float
        The statistic over images; its mean over seeds.
    low, high : float or None
        The 95 % interval over images; the mean of those of the seeds, which are judged on the same
        images. None for a single image.
    spread : float or None
        The standard deviation over seeds; None for one seed.
    each : tuple of float
        The value of each seed.
    images : int
        How many images have a value, the fewest of all seeds.
    """

    mean: float
    low: float | None
    high: float | None
    spread: float | None
    each: tuple[float, ...]
    images: int


@dataclass(frozen=True)
class Results:
    """What a study came to.

    Attributes
    ----------
    job : Reproduction
        The study, and how it was made.
    runs : dict of str to tuple of AuditedRun
        The audits of each row, one a seed.
    values : dict of (str, str) to Value
        By row and column; missing where nothing was measured.
    """

    job: Reproduction
    runs: Mapping[str, tuple[AuditedRun, ...]]
    values: Mapping[tuple[str, str], Value]

    def value(self, row: str, column: str) -> Value | None:
        """Look up what was measured."""
        return self.values.get((row, column))


def measured(job: Reproduction) -> Results:
    """Read what the cells of a study have recorded.

    Raises
    ------
    HoldfastError
        If an audit is missing or damaged.
    """
    if job.study.roar:
        return Results(job, dict.fromkeys(job.study.shown, ()), _of_roar(job))
    runs = {
        row: tuple(read_run(cell.folder, name=row) for cell in job.audits(row))
        for row in job.study.shown
    }
    values = {}
    for row, audited in runs.items():
        for name, column in job.study.columns.items():
            of = job.study.rows[row].of
            found = [values_of(run, column, of) for run in audited]
            if all(len(one) for one in found):
                values[row, name] = combined([value_of(one, column) for one in found])
    if not values:
        known = ", ".join(next(iter(runs.values()))[0].checks)
        raise HoldfastError(f"no audit has what the columns ask for; there are checks {known}")
    return Results(job, runs, values)


def _of_roar(job: Reproduction) -> dict[tuple[str, str], Value]:
    values = {}
    for row in job.study.shown:
        found = [_accuracies(cell.folder) for cell in job.retrainings(row)]
        for name, column in job.study.columns.items():
            key = (column.check.removeprefix("roar/"), float(column.measure))
            seeds = [_share(known[key], count) for known, count in found if key in known]
            if seeds and len(seeds) == len(found):
                values[row, name] = combined(seeds)
    return values


def _accuracies(folder: Path) -> tuple[dict[tuple[str, float], float], int]:
    """Read the mean accuracy over repeats of each map and share, and the number of test images."""
    table = read_roar(folder / "roar.parquet", "ROAR's results")
    grouped = table.group_by(["attribution", "share"]).aggregate([("accuracy", "mean")])
    known = {(r["attribution"], r["share"]): r["accuracy_mean"] for r in grouped.to_pylist()}
    return known, int(plain_yaml.read_mapping(folder / IMAGES)["images"])


def _share(accuracy: float, count: int) -> Value:
    """Give an accuracy its interval over the test images, Wilson's."""
    right = round(accuracy * count)
    ends = stats.binomtest(right, count).proportion_ci(0.95, method="wilson")
    percent = 100 * accuracy
    return Value(percent, 100 * float(ends.low), 100 * float(ends.high), None, (percent,), count)


def values_of(run: AuditedRun, column: Column, of: str = "") -> Float[np.ndarray, "n ..."]:
    """Pick a column's values, one an image, or for a correlation two; none where nothing is known.

    Parameters
    ----------
    run : AuditedRun
        The audit.
    column : Column
        What is wanted.
    of : str
        What ``{of}`` in the column's check stands for.
    """
    wanted = (column.check.replace("{of}", of), column.measure)
    if "*" in wanted[0]:
        matching = [name for name in run.checks if fnmatch.fnmatchcase(name, wanted[0])]
        pairs = [(n, column.measure) for n in matching if len(run.values(n, column.measure))]
        return np.mean(run.aligned(*pairs), axis=0) if pairs else np.empty(0)
    if column.statistic == "correlation":
        other = column.other.replace("{of}", of)
        check, _, measure = other.removeprefix("-").rpartition(":")
        values, others = run.aligned(wanted, (check, measure))
        return np.stack([values, -others if other.startswith("-") else others], axis=1)
    values = run.values(*wanted)
    if column.right:
        values, right = run.aligned(wanted, ("clean", "correct"))
        values = np.where(right == 1, values, -np.inf if column.at_least is not None else 0.0)
    return values if column.at_least is None else (values >= column.at_least).astype(float)


def value_of(values: Float[np.ndarray, "n ..."], column: Column) -> Value:
    """Sum up the values of one model.

    Examples
    --------
    >>> column = Column("clean", "correct")
    >>> value = value_of(np.array([1.0, 1.0, 0.0, 1.0]), column)
    >>> value.mean, round(value.low, 1), round(value.high, 1)
    (75.0, 30.1, 95.4)
    """
    unit = 100.0 if column.unit == "percent" else 1.0
    if column.statistic == "correlation":
        point, ends = _correlation(values)
    else:
        point = float(np.median(values) if column.statistic == "median" else values.mean())
        ends = _ends(values, column.statistic)
    low, high = (None, None) if ends is None else (unit * ends[0], unit * ends[1])
    return Value(unit * point, low, high, None, (unit * point,), len(values))


def combined(seeds: Sequence[Value]) -> Value:
    """Bring the values of several seeds together.

    Examples
    --------
    >>> one = Value(1.0, 0.0, 2.0, None, (1.0,), 10)
    >>> other = Value(3.0, 2.0, 4.0, None, (3.0,), 12)
    >>> combined([one, other])
    Value(mean=2.0, low=1.0, high=3.0, spread=1.4142135623730951, each=(1.0, 3.0), images=10)
    """
    each = tuple(seed.mean for seed in seeds)
    lows = [seed.low for seed in seeds if seed.low is not None]
    highs = [seed.high for seed in seeds if seed.high is not None]
    whole = len(lows) == len(seeds)
    return Value(
        float(np.mean(each)),
        float(np.mean(lows)) if whole else None,
        float(np.mean(highs)) if whole else None,
        float(np.std(each, ddof=1)) if len(each) > 1 else None,
        each,
        min(seed.images for seed in seeds),
    )


def _ends(values: Float[np.ndarray, " n"], statistic: str) -> tuple[float, float] | None:
    if len(values) < 2:
        return None
    if statistic == "mean":
        return mean_interval(values, proportion=bool(np.isin(values, (0, 1)).all()))
    # Of the order statistics between which the median lies with 95 %: exact, whatever the values.
    ordered = np.sort(values)
    below = int(stats.binom.ppf(0.025, len(values), 0.5))
    below = max(0, below - 1)
    return float(ordered[below]), float(ordered[len(values) - 1 - below])


def _correlation(pairs: Float[np.ndarray, "n 2"]) -> tuple[float, tuple[float, float] | None]:
    """Return Pearson's correlation and its interval, by Fisher's transformation."""
    if len(pairs) < 4 or (pairs.std(axis=0) == 0).any():
        return 0.0, None  # what does not vary is correlated with nothing
    found = stats.pearsonr(pairs[:, 0], pairs[:, 1])
    ends = found.confidence_interval(0.95)
    return float(found.statistic), (float(ends.low), float(ends.high))
