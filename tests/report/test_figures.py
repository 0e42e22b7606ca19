import dataclasses
import sys

import numpy as np
import pytest

from holdfast.contracts import InputError
from holdfast.report import box_plot, gallery
from holdfast.report.figures import common_images

CHECK = "top_k/integrated_gradients"


def without_gallery(run):
    return dataclasses.replace(run, gallery=None)


def test_box_plot_draws_the_quantiles(four_runs):
    axes = box_plot(four_runs, CHECK, "kendall_tau").axes[0]
    medians = [line for line in axes.lines if line.get_color() == "#0f6b70"]
    names = [label.get_text() for label in axes.get_yticklabels()]
    assert names == ["natural", "pgd", "ig_sum_norm", "art"]
    for run, median, box in zip(four_runs, medians, axes.patches, strict=True):
        values = 100 * run.values(CHECK, "kendall_tau")
        edges = box.get_path().vertices[:, 0]
        assert median.get_xdata()[0] == pytest.approx(np.median(values))
        quartiles = np.percentile(values, [25, 75]).tolist()
        assert [edges.min(), edges.max()] == pytest.approx(quartiles)


def test_box_plot_keeps_a_line_for_a_run_without_the_check(make_run):
    runs = [make_run("one"), make_run("two", checks=("a/b",))]
    figure = box_plot(runs, CHECK, "kendall_tau")
    figure.draw_without_rendering()
    assert len(figure.axes[0].get_yticklabels()) == 2


def test_box_plot_of_nothing(make_run):
    with pytest.raises(InputError, match="kendall_tau of nowhere/x"):
        box_plot([make_run()], "nowhere/x", "kendall_tau")


def test_gallery_has_four_panels_an_image_and_model(four_runs):
    figure = gallery(four_runs[:2], CHECK, images=3)
    assert len(figure.axes) == 3 * 2 * 4
    shown = figure.axes[0].images[0].get_array()
    np.testing.assert_allclose(shown[..., 0], four_runs[0].gallery[f"{CHECK}|images"][0, 0])
    scores = [axes.get_xlabel() for axes in figure.axes if axes.get_xlabel()]
    tau = float(four_runs[0].gallery[f"{CHECK}|kendall_tau"][0])
    assert f"τ {100 * tau:.1f}%" in scores[0]
    assert scores[2] == "label not kept"
    assert figure.axes[0].get_ylabel() == "digit 4"


def test_gallery_takes_names_and_classes_as_they_are(make_run):
    run = dataclasses.replace(make_run("$x_{$ &"), classes=())
    figure = gallery([run], CHECK, images=1)
    figure.draw_without_rendering()
    assert figure.axes[0].get_ylabel() == "4"


def test_gallery_leaves_out_runs_without_one(four_runs):
    figure = gallery([without_gallery(four_runs[0]), four_runs[1]], CHECK, images=2)
    assert len(figure.axes) == 2 * 4
    with pytest.raises(InputError, match="a check that a gallery holds"):
        gallery([without_gallery(four_runs[0])], CHECK)


def test_images_that_all_galleries_hold_come_first(make_run):
    one = make_run("one", gallery=(1, 2, 3, 4))
    two = make_run("two", gallery=(9, 4, 2))
    chosen = common_images([one, two], CHECK, 3)
    assert [(index, [run.name for run in held]) for index, held in chosen] == [
        (2, ["one", "two"]),
        (4, ["one", "two"]),
        (1, ["one"]),
    ]
    gallery([one, two], CHECK, images=5).draw_without_rendering()


def test_no_global_state_of_pyplot(make_run):
    figures = sys.modules.get("matplotlib.pyplot")
    before = figures.get_fignums() if figures else []
    box_plot([make_run()], CHECK, "kendall_tau")
    after = sys.modules.get("matplotlib.pyplot")
    assert (after.get_fignums() if after else []) == before
