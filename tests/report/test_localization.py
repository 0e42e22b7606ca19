import statistics

import numpy as np
import pytest
from scipy import stats

from holdfast.report import table
from holdfast.report.localization import localization_sections

MEASURES = ("loc", "energy_game", "positive_percentage", "concentration", "pointing_game")


def test_every_number_by_hand(three_whole_runs):
    (section,) = localization_sections(three_whole_runs, table(three_whole_runs))
    (sheet,) = section.sheets
    assert [column.key for column in sheet.columns] == [*MEASURES]
    labels = [
        (name, run.name)
        for name in ("gradient", "integrated gradients")
        for run in three_whole_runs
    ]
    assert [line.labels for line in sheet.lines] == labels
    runs = {run.name: run for run in three_whole_runs}
    for line in sheet.lines:
        check = f"localization/{line.labels[0].replace(' ', '_')}"
        for measure, cell in zip(MEASURES, line.cells, strict=True):
            rows = runs[line.labels[1]].records.to_pylist()
            values = [r["value"] for r in rows if (r["check"], r["measure"]) == (check, measure)]
            assert cell["mean"] == pytest.approx(statistics.fmean(values))
            assert cell["median"] == pytest.approx(statistics.median(values))
            expected = stats.bootstrap((np.array(values),), np.mean, method="percentile", rng=0)
            low, high = expected.confidence_interval
            if measure == "pointing_game":
                test = stats.binomtest(round(sum(values)), len(values))
                low, high = test.proportion_ci(method="wilson")
            assert (cell["low"], cell["high"]) == pytest.approx((low, high), rel=0.03)


def test_units(make_whole_run):
    run = make_whole_run()
    (section,) = localization_sections([run], table([run]))
    written = [column.write(0.5) for column in section.sheets[0].columns]
    assert written == ["50.0", "50.0", "50.0", "0.50", "50.0"]
    assert len(section.plots) == 4


def test_none(make_run):
    assert localization_sections([make_run()], table([make_run("b")])) == []
