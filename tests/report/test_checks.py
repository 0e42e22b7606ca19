import numpy as np
import pyarrow as pa
import pytest

from holdfast.report import AuditedRun, table
from holdfast.report.checks import (
    checks_named,
    column_of,
    other_measures,
    sheet_of,
    spread_plots,
)


def made(**measures):
    """Build a run of three images; the names of checks and measures are joined by two dashes."""
    rows = [(n, *key.split("--"), value) for key, value in measures.items() for n in range(3)]
    index, checks, names, values = zip(*rows, strict=True)
    columns = {"index": index, "label": [0] * len(index), "check": checks}
    return AuditedRun("art", pa.table(columns | {"measure": names, "value": values}))


def test_everything_of_ours_has_a_place(three_whole_runs):
    assert other_measures(table(three_whole_runs)) == []


@pytest.mark.parametrize(
    ("check", "measure"),
    [
        ("mine", "energy"),
        ("mine", "loc"),
        ("localization/gradient", "energy"),
        ("localization", "loc"),
        ("wsol/gradient", "box_iou"),
        ("trust/top_k/gradient", "kendall_tau"),
        ("alignment/image", "sm_bsm"),
    ],
)
def test_what_is_not_ours(check, measure):
    assert other_measures(table([made(**{f"{check}--{measure}": 1.0})])) == [(check, measure)]


def test_checks_by_their_name():
    compared = table([made(**{"wsol/a--top_1": 1.0, "wsol/b/c--top_1": 1.0, "wsolar--x": 0.0})])
    assert checks_named(compared, "wsol/") == ("wsol/a", "wsol/b/c")
    assert checks_named(compared, "alignment/image") == ()


def test_lines_and_columns_without_values_are_left_out(make_whole_run):
    runs = [make_whole_run("one"), make_whole_run("two", 0.2, seed=1)]
    columns = [column_of("insertion"), column_of("never_measured")]
    compared = table(runs)
    sheet = sheet_of("x", "", compared, ("faithfulness/gradient", "faithfulness/none"), columns)
    assert [column.key for column in sheet.columns] == ["insertion"]
    assert [line.labels for line in sheet.lines] == [("gradient", "one"), ("gradient", "two")]
    mean = np.mean(runs[1].values("faithfulness/gradient", "insertion"))
    assert sheet.lines[1].cells[0]["mean"] == pytest.approx(mean)


def test_box_plots_say_in_words_what_they_show(make_whole_run):
    run = make_whole_run()
    concentration, loc = spread_plots([run], ("localization/gradient",), ("concentration", "loc"))
    middle = np.median(run.values("localization/gradient", "concentration"))
    assert concentration.alt == f"Box plot of Con. gradient, art: median {middle:.2f}."
    values = run.values("localization/gradient", "loc")
    assert loc.alt == f"Box plot of Loc, %. gradient, art: median {100 * np.median(values):.1f}."
    median = next(line for line in loc.draw().axes[0].lines if line.get_color() == "#0f6b70")
    assert median.get_xdata()[0] == pytest.approx(100 * np.median(values))
    assert spread_plots([run], ("localization/none",), ("loc",)) == ()
