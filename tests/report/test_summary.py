import statistics

import numpy as np
import pytest
from scipy import stats

from holdfast.contracts import InputError
from holdfast.report import summarize, table
from holdfast.report.summary import mean_difference, mean_interval

CHECK = "top_k/integrated_gradients"


def by_hand(run, check, measure):
    """Read the values row by row, with nothing of the room under test."""
    rows = run.records.to_pylist()
    return [r["value"] for r in rows if r["check"] == check and r["measure"] == measure]


def test_every_row_against_plain_python(make_run):
    run = make_run(images=120)
    rows = summarize(run)
    assert [(row.check, row.measure) for row in rows] == [
        ("clean", "correct"),
        ("pgd", "correct"),
        (CHECK, "preserved"),
        (CHECK, "top_k_intersection"),
        (CHECK, "kendall_tau"),
        (CHECK, "spearman_rho"),
    ]
    for row in rows:
        values = by_hand(run, row.check, row.measure)
        lower, middle, upper = statistics.quantiles(values, n=4, method="inclusive")
        assert row.run == run.name
        assert row.count == len(values)
        assert row.mean == pytest.approx(statistics.fmean(values))
        assert row.median == pytest.approx(middle)
        assert (row.lower_quartile, row.upper_quartile) == pytest.approx((lower, upper))


def test_attacked_and_preserved(make_run):
    run = make_run(images=120)
    kept = by_hand(run, CHECK, "preserved")
    for row in summarize(run):
        expected = (len(kept), sum(kept)) if row.check == CHECK else (None, None)
        assert (row.attacked, row.preserved) == expected


@pytest.mark.parametrize("count", [8, 150, 3000])
def test_interval_against_scipy(count):
    values = np.random.default_rng(3).beta(2, 5, count)
    expected = stats.bootstrap((values,), np.mean, method="percentile", batch=500, rng=9)
    width = expected.confidence_interval.high - expected.confidence_interval.low
    assert mean_interval(values) == pytest.approx(
        tuple(expected.confidence_interval), abs=0.06 * width
    )


def test_interval_in_small_chunks_is_like_that_of_theory():
    values = np.random.default_rng(3).normal(0.4, 0.1, 100_000)
    error = 1.96 * values.std() / np.sqrt(len(values))
    expected = (values.mean() - error, values.mean() + error)
    assert mean_interval(values) == pytest.approx(expected, abs=0.1 * error)


@pytest.mark.parametrize(("hits", "count"), [(0, 10), (10, 10), (37, 50)])
def test_interval_of_a_proportion_against_wilson(hits, count):
    values = np.array([1.0] * hits + [0.0] * (count - hits))
    z, p = stats.norm.ppf(0.975), hits / count
    centre = (p + z**2 / (2 * count)) / (1 + z**2 / count)
    half = z * np.sqrt(p * (1 - p) / count + z**2 / (4 * count**2)) / (1 + z**2 / count)
    expected = (centre - half, centre + half)
    assert mean_interval(values, proportion=True) == pytest.approx(expected, abs=1e-9)


def test_degenerate_intervals():
    assert mean_interval(np.array([0.3])) is None
    assert mean_interval(np.full(5, 0.25)) == (0.25, 0.25)
    assert mean_difference(np.array([0.3]), np.ones(4)) is None


def test_intervals_are_the_same_each_time():
    values = np.random.default_rng(0).random(50)
    assert mean_interval(values) == mean_interval(values)


def test_difference_against_scipy():
    random = np.random.default_rng(1)
    first, second = random.normal(0.5, 0.1, 200), random.normal(0.3, 0.2, 90)

    def gap(a, b, axis=-1):
        return a.mean(axis=axis) - b.mean(axis=axis)

    expected = stats.bootstrap((first, second), gap, method="percentile", rng=5)
    assert mean_difference(first, second) == pytest.approx(
        tuple(expected.confidence_interval), abs=0.005
    )


def test_table_of_runs_with_different_checks(make_run):
    runs = [
        make_run("one", checks=("b/x", "a/y")),
        make_run("two", checks=("a/y", "c/z"), seed=1),
    ]
    compared = table(runs)
    assert compared.runs == ("one", "two")
    assert compared.predictions == ("clean", "pgd")
    assert compared.explanations == ("b/x", "a/y", "c/z")
    assert compared.row("two", "b/x", "kendall_tau") is None
    mean = statistics.fmean(by_hand(runs[1], "a/y", "kendall_tau"))
    assert compared.row("two", "a/y", "kendall_tau").mean == pytest.approx(mean)


def test_table_needs_runs_of_different_names(make_run):
    with pytest.raises(InputError, match="at least one run"):
        table([])
    with pytest.raises(InputError, match="several named 'art'"):
        table([make_run("art"), make_run("art")])
