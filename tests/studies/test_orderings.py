from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from scipy import stats

from holdfast.report import AuditedRun
from holdfast.studies import Reproduction, read_study
from holdfast.studies.measured import Results, Value, combined, value_of, values_of
from holdfast.studies.orderings import counted, difference, orderings
from holdfast.studies.study import Column


def value(mean, half, *each):
    return Value(mean, mean - half, mean + half, None, each or (mean,), 100)


@pytest.fixture
def results(settings, written):
    job = Reproduction(read_study(written(settings)), Path("out"))

    def make(**values):
        rows = {(row, "τ"): one for row, one in values.items()}
        return Results(job, {}, rows)

    return make


@pytest.mark.parametrize(
    ("natural", "pgd", "verdict"),
    [
        (value(0.2, 0.05), value(0.6, 0.05), "confirmed"),
        (value(0.6, 0.05), value(0.2, 0.05), "refuted"),
        (value(0.40, 0.05), value(0.43, 0.05), "open"),
        (value(0.43, 0.05), value(0.40, 0.05), "open"),
        (value(0.2, 0.05, 0.1, 0.3), value(0.6, 0.05, 0.25, 0.95), "open"),  # seeds disagree
        (value(0.2, 0.05, 0.1, 0.3), value(0.6, 0.05, 0.55, 0.65), "confirmed"),
        (Value(0.2, None, None, None, (0.2,), 1), value(0.6, 0.05), "open"),
    ],
)
def test_an_ordering_is_what_its_interval_and_its_seeds_say(natural, pgd, verdict, results):
    (found,) = orderings(results(natural=natural, pgd=pgd))
    assert (found.above, found.below, found.verdict) == ("pgd", "natural", verdict)
    assert found.reversed == (natural.mean > pgd.mean)


def test_rows_of_other_groups_and_equal_ones_are_not_compared(settings, written):
    settings["rows"]["pgd"]["group"] = "other"
    job = Reproduction(read_study(written(settings)), Path("out"))
    both = {("natural", "τ"): value(0.2, 0.1), ("pgd", "τ"): value(0.6, 0.1)}
    assert orderings(Results(job, {}, both)) == ()
    settings["rows"]["pgd"] |= {"group": "", "published": [97.0, 0.25]}
    job = Reproduction(read_study(written(settings, "same.yaml")), Path("out"))
    assert orderings(Results(job, {}, both)) == ()


def test_a_column_is_ordered_as_the_one_that_it_is_like(settings, written):
    settings["columns"]["ρ"] = {"check": "top_k/gradient", "measure": "spearman_rho", "like": "τ"}
    for row in settings["rows"].values():
        row["published"].append(None)
    job = Reproduction(read_study(written(settings)), Path("out"))
    both = {("natural", "ρ"): value(0.2, 0.1), ("pgd", "ρ"): value(0.6, 0.1)}
    (found,) = orderings(Results(job, {}, both))
    assert (found.column, found.verdict) == ("ρ", "confirmed")


def test_the_interval_of_a_difference_of_shares_is_newcombes():
    # Newcombe 1998, table II, 56/70 against 48/80: method 10 gives 0.0524 to 0.3339.
    column = Column("clean", "correct", unit="number")
    one = value_of(np.repeat([1.0, 0.0], [56, 14]), column)
    other = value_of(np.repeat([1.0, 0.0], [48, 32]), column)
    gap, low, high = difference(one, other)
    assert (round(gap, 4), round(low, 4), round(high, 4)) == (0.2, 0.0524, 0.3339)


def test_the_interval_of_a_median_covers_it():
    column = Column("c", "m", statistic="median", unit="number")
    random = np.random.default_rng(0)
    ends = [value_of(random.exponential(size=41), column) for _ in range(400)]
    covered = np.mean([one.low <= np.log(2) <= one.high for one in ends])
    assert 0.93 <= covered <= 0.99
    # As scipy's quantile test has it.
    sample = random.exponential(size=41)
    exact = stats.quantile_test(sample, p=0.5).confidence_interval(0.95)
    one = value_of(sample, column)
    assert (one.low, one.high) == (exact.low, exact.high)


def test_images_that_all_agree_leave_an_interval():
    one = value_of(np.zeros(100), Column("clean", "correct"))
    assert one.low == 0
    assert 3 < one.high < 4


@pytest.fixture
def run():
    rows = {
        ("clean", "correct"): [1.0, 0.0, 1.0, 1.0, 1.0],
        ("wsol", "box_iou"): [0.7, 0.9, 0.5, 0.4, 0.2],
        ("alignment", "distance"): [1.0, 2.0, 5.0, 3.0, 8.0],
    }
    columns = [(i, *key, v) for key, values in rows.items() for i, v in enumerate(values)]
    index, check, measure, value = zip(*columns, strict=True)
    label = [0] * len(index)
    names = ("index", "label", "check", "measure", "value")
    values = (index, label, check, measure, value)
    return AuditedRun("m", pa.table(dict(zip(names, values, strict=True))))


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"at_least": 0.5}, 60.0),  # 0.7, 0.9 and 0.5
        ({"at_least": 0.5, "right": True}, 40.0),  # of a wrong prediction 0.9 does not count
        ({"right": True}, 36.0),
        ({"statistic": "median"}, 50.0),
    ],
)
def test_shares_and_what_counts_only_where_the_prediction_is_right(settings, expected, run):
    column = Column("wsol", "box_iou", **settings)
    assert value_of(values_of(run, column), column).mean == pytest.approx(expected)


def test_a_correlation_is_pearsons(run):
    column = Column("wsol", "box_iou", "correlation", unit="number", other="alignment:distance")
    expected = np.corrcoef([0.7, 0.9, 0.5, 0.4, 0.2], [1, 2, 5, 3, 8])[0, 1]
    value = value_of(values_of(run, column), column)
    assert value.mean == pytest.approx(expected)
    assert value.low < expected < value.high
    turned = replace(column, other="-alignment:distance")
    assert value_of(values_of(run, turned), turned).mean == pytest.approx(-expected)


def test_seeds_are_averaged():
    one, other = value(1.0, 0.5), replace(value(3.0, 1.5), images=90)
    both = combined([one, other])
    assert (both.mean, both.low, both.high, both.images) == (2.0, 1.0, 3.0, 90)
    assert both.spread == pytest.approx(np.sqrt(2))


def test_what_came_out_is_counted(results):
    assert "no two rows" in counted(orderings(results(natural=value(0.1, 0.0))))
    found = orderings(results(natural=value(0.2, 0.05), pgd=value(0.6, 0.05)))
    assert counted(found) == "of 1 published orderings 1 confirmed, 0 refuted, 0 open"
