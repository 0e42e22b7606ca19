import statistics

import pytest

from holdfast.report import table
from holdfast.report.alignment import alignment_sections
from holdfast.report.wording import number


def test_every_number_by_hand(three_whole_runs):
    (section,) = alignment_sections(three_whole_runs, table(three_whole_runs))
    image, boundary, correlations = section.sheets
    assert correlations.name == "boundary_correlation"
    checks = {
        "alignment/image": (image, ("alignment", "absolute_cosine", "signed_cosine")),
        "alignment/boundary": (boundary, ("sm_bsm", "ig_big", "ig_agi")),
    }
    for check, (sheet, measures) in checks.items():
        assert [column.key for column in sheet.columns] == [*measures]
        for run, line in zip(three_whole_runs, sheet.lines, strict=True):
            for measure, cell in zip(measures, line.cells, strict=True):
                values = run.values(check, measure).tolist()
                assert cell["mean"] == pytest.approx(statistics.fmean(values))
                assert cell["median"] == pytest.approx(statistics.median(values))


def test_the_closest_is_the_best(three_whole_runs):
    (section,) = alignment_sections(three_whole_runs, table(three_whole_runs))
    _, boundary, _ = section.sheets
    means = [line.cells[0]["mean"] for line in boundary.lines]
    assert (means.index(min(means)), 0) in boundary.best


def test_the_signed_cosine_is_shown_over_the_images(three_whole_runs):
    (section,) = alignment_sections(three_whole_runs, table(three_whole_runs))
    (plot,) = section.plots
    for run in three_whole_runs:
        median = 100 * statistics.median(run.values("alignment/image", "signed_cosine").tolist())
        assert f"{run.name}: median {number(median)}" in plot.alt
    assert plot.draw().axes[0].get_xlabel() == "signed cosine, %"


def test_none(make_run):
    assert alignment_sections([make_run()], table([make_run("b")])) == []
