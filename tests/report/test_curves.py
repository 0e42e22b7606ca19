import dataclasses

import numpy as np
import pytest

from holdfast.report import table
from holdfast.report.curves import Curve, Point, curve_plot, curve_sheet, family_curves, plot_of


def test_points_are_the_means_of_the_records(three_whole_runs):
    eps, steps = family_curves(three_whole_runs, table(three_whole_runs), "attacks")
    for run in three_whole_runs:
        expected = [run.values("clean", "correct").mean()]
        expected += [run.values(f"pgd_{n}", "correct").mean() for n in (2, 4, 8, 16)]
        points = eps.lines[run.name]
        assert [255 * point.x for point in points] == pytest.approx([0, 2, 4, 8, 16])
        assert [point.y for point in points] == pytest.approx(expected)
        assert all(point.low < point.y < point.high for point in points)
        over_steps = [run.values(f"pgd_{n}", "correct").mean() for n in (8, 100, 500)]
        assert [point.y for point in steps.lines[run.name]] == pytest.approx(over_steps)
        assert [point.x for point in steps.lines[run.name]] == [40, 100, 500]


def test_similarity_over_epsilon_begins_with_the_map_itself(three_whole_runs):
    (curve,) = family_curves(three_whole_runs, table(three_whole_runs), "manipulations")
    for run in three_whole_runs:
        expected = [1.0] + [
            run.values(f"top_k{n}/integrated_gradients", "kendall_tau").mean()
            for n in ("_4", "", "_16")
        ]
        assert [point.y for point in curve.lines[run.name]] == pytest.approx(expected)


def test_epsilon_is_written_as_it_was_meant(three_whole_runs):
    compared = table(three_whole_runs)
    eps, _ = family_curves(three_whole_runs, compared, "attacks")
    assert eps.x_title == "ε, in 1/255"
    assert [eps.write(p.x) for p in eps.lines["art"]] == ["0", "2", "4", "8", "16"]
    attacks = {
        f"pgd_{n}": {"class_path": "PGD", "init_args": {"eps": 0.1 * n, "steps": 40}}
        for n in (2, 4)
    }
    run = dataclasses.replace(three_whole_runs[0], settings={"attacks": attacks})
    (plain,) = family_curves([run], compared, "attacks")
    assert plain.x_title == "ε"
    assert [plain.write(point.x) for point in plain.lines["natural"]] == ["0", "0.2", "0.4"]


def test_the_figure_draws_points_and_bands():
    points = (Point(1.0, 0.9, 0.8, 0.95), Point(10.0, 0.5, 0.4, 0.6), Point(100.0, 0.2, 0.1, 0.3))
    lines = {"one": points, "$two": (Point(1.0, 0.1), Point(10.0, -0.3))}
    curve = Curve("c", "mean τ over steps", "steps", "mean τ, %", lines, doubling=True)
    axes = curve_plot(curve).axes[0]
    assert axes.get_xscale() == "log"
    first, second = axes.lines
    assert list(first.get_xdata()) == [1, 10, 100]
    assert list(first.get_ydata()) == pytest.approx([90, 50, 20])
    assert second.get_ydata().tolist() == pytest.approx([10.0, -30.0])
    (band,) = axes.collections  # where no interval is known, none is drawn
    heights = band.get_paths()[0].vertices[:, 1]
    assert heights.min() == pytest.approx(10)
    assert heights.max() == pytest.approx(95)
    assert axes.get_ylim()[0] <= -40
    assert first.get_color() != second.get_color()
    curve_plot(curve).draw_without_rendering()


def test_the_numbers_behind_a_curve():
    lines = {"one": (Point(0.0, 0.9, 0.8, 0.95), Point(0.5, 0.5)), "two": (Point(0.5, 0.4),)}
    sheet = curve_sheet(Curve("c", "accuracy", "ε", "accuracy, %", lines))
    assert [line.labels for line in sheet.lines] == [("0",), ("0.5",)]
    assert sheet.lines[0].cells == ({"mean": 0.9, "low": 0.8, "high": 0.95}, None)
    assert [cell["mean"] for cell in sheet.lines[1].cells] == [0.5, 0.4]
    told = plot_of(Curve("c", "accuracy", "ε", "accuracy, %", lines)).alt
    assert "one: 90.0 at 0, 50.0 at 0.5; two: 40.0 at 0.5" in told


def test_many_models_are_told_apart():
    lines = {f"model {n}": (Point(0.0, 0.5), Point(1.0, 0.01 * n)) for n in range(15)}
    axes = curve_plot(Curve("c", "accuracy", "ε", "accuracy, %", lines)).axes[0]
    styles = {(line.get_color(), str(line._dash_pattern)) for line in axes.lines}
    assert len(styles) == 15


def test_old_audits_have_no_curves(four_runs):
    assert family_curves(four_runs, table(four_runs), "attacks") == ()
    assert np.isfinite(four_runs[0].values("clean", "correct")).all()
