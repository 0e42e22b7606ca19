import numpy as np
import pyarrow as pa
import pytest
from scipy import stats

from holdfast.report import table
from holdfast.report.corruptions import corruption_sections, mean_over
from holdfast.report.records import AuditedRun
from holdfast.report.sheet import is_struck

KINDS = ("gaussian_noise", "fog", "jpeg_compression")


def accuracies(run):
    """Average row by row: a matrix of corruptions and severities, image by image."""
    images = run.images
    matrix = np.zeros((3, 3, images))
    for row in run.records.to_pylist():
        parts = row["check"].split("/")
        if parts[0] == "corruption":
            matrix[KINDS.index(parts[1]), int(parts[2]) - 1, row["index"]] = row["value"]
    return matrix


def test_every_number_by_hand(three_whole_runs):
    (section,) = corruption_sections(three_whole_runs, table(three_whole_runs))
    for place, run in enumerate(three_whole_runs):
        matrix = accuracies(run)
        shown = [line.cells[place]["mean"] for line in section.sheets[0].lines]
        assert shown == pytest.approx([*matrix.mean((1, 2)), matrix.mean()])
        lines = [line for line in section.heat.lines if line.labels[0] == run.name]
        names = [line.labels[1] for line in lines]
        assert names == ["gaussian noise", "fog", "jpeg compression", "mean"]
        cells = np.array([[cell["mean"] for cell in line.cells] for line in lines])
        np.testing.assert_allclose(cells[:3, :3], matrix.mean(2))
        np.testing.assert_allclose(cells[3, :3], matrix.mean((0, 2)))
        np.testing.assert_allclose(cells[:3, 3], matrix.mean((1, 2)))
        assert cells[3, 3] == pytest.approx(matrix.mean())
        curve = [line.cells[place]["mean"] for line in section.data[0].lines]
        clean = run.values("clean", "correct").mean()
        assert curve == pytest.approx([clean, *matrix.mean((0, 2))])


def test_intervals_resample_images(make_whole_run):
    run = make_whole_run()
    each = accuracies(run).mean((0, 1))
    expected = stats.bootstrap((each,), np.mean, method="percentile", rng=3).confidence_interval
    compared = table([run])
    row = compared.row("art", "corruptions", "correct")
    width = expected.high - expected.low
    assert (row.low, row.high) == pytest.approx(tuple(expected), abs=0.1 * width)
    assert mean_over(run, compared.corruptions)["low"] == row.low
    assert row.mean == pytest.approx(each.mean())
    assert compared.predictions[-1] == "corruptions"
    assert not any(check.startswith("corruption/") for check in compared.predictions)


def test_runs_with_different_corruptions(make_whole_run):
    runs = [
        make_whole_run("one"),
        make_whole_run("two", corruptions=("fog", "rain"), severities=(5,)),
        make_whole_run("three", corruptions=()),
    ]
    (section,) = corruption_sections(runs, table(runs))
    sheet = section.sheets[0]
    assert [column.title for column in sheet.columns] == ["one", "two"]
    lines = {line.labels[0]: line.cells for line in sheet.lines}
    assert lines["gaussian noise"][1] is None
    assert lines["rain"][0] is None
    assert [column.title for column in section.heat.columns] == ["1", "2", "3", "5", "mean"]
    fog = next(line for line in section.heat.lines if line.labels == ("two", "fog"))
    assert [cell is None for cell in fog.cells] == [True, True, True, False, False]
    assert table(runs).row("three", "corruptions", "correct") is None


def test_a_corruption_that_moved_no_image_is_struck_out():
    records = [
        (index, check, measure, value)
        for index in range(4)
        for check, measure, value in (
            ("clean", "correct", 1.0),
            ("corruption/saturate/1", "correct", 1.0),
            ("corruption/saturate/1", "moved", 0.0),
            ("corruption/fog/1", "correct", 1.0),
            ("corruption/fog/1", "moved", 0.3),
        )
    ]
    index, check, measure, value = zip(*records, strict=True)
    columns = {"index": index, "label": index, "check": check, "measure": measure, "value": value}
    run = AuditedRun("art", pa.table(columns))
    (section,) = corruption_sections([run], table([run]))
    struck = {line.labels[0]: is_struck(line.cells[0]) for line in section.sheets[0].lines}
    assert struck == {"saturate": True, "fog": False, "mean": False}
    assert section.sheets[0].notes == (
        "Struck out, “art” under saturate (accuracy): it moved no image.",
    )


def test_one_severity_has_no_curve(make_whole_run):
    run = make_whole_run(severities=(3,))
    (section,) = corruption_sections([run], table([run]))
    assert section.plots == ()


def test_none(make_run):
    assert corruption_sections([make_run()], table([make_run("b")])) == []
