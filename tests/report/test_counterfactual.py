import statistics

import pyarrow as pa
import pytest

from holdfast.report import AuditedRun, table
from holdfast.report.alignment import alignment_sections
from holdfast.report.contents import contents
from holdfast.report.counterfactual import baseline_sections, removal_sections

REMOVAL = {
    "kept_without_object": [0.0, 1.0, 1.0],
    "lost_without_object": [0.9, 0.1, -0.2],
    "kept_object_alone": [1.0, 1.0, 0.0],
    "lost_object_alone": [0.3, 0.2, 0.8],
    "object_share": [0.7, 0.4, 0.9],
    "map_agrees": [1.0, 0.0, 0.0],
    "tau_elsewhere": [0.2, 0.5, 0.6],
}
BASELINE = {
    "top_k_intersection": [0.5, 0.25, 0.75],
    "kendall_tau": [0.1, 0.3, -0.2],
    "spearman_rho": [0.2, 0.4, -0.1],
    "map_cosine": [-0.5, -0.25, 0.3],
}
SMOOTHED = {
    "sg_bsg/0.5": [0.25, 0.5, 1.5],
    "found/0.5": [1.0, 1.0, 1.0],
    "sg_bsg/0.05": [2.0, 4.0],
    "found/0.05": [1.0, 0.0, 1.0],
}


def run_of(name, **checks):
    rows = [
        {"index": n, "label": 0, "check": check.replace("__", "/"), "measure": m, "value": value}
        for check, measures in {"clean": {"correct": [1.0, 1.0, 1.0]}, **checks}.items()
        for m, values in measures.items()
        for n, value in enumerate(values)
    ]
    return AuditedRun(name, pa.Table.from_pylist(rows))


@pytest.mark.parametrize(
    ("sections", "check", "measures", "label"),
    [
        (removal_sections, "removal__big", REMOVAL, "BIG"),
        (baseline_sections, "baseline__deep_lift", BASELINE, "deep lift"),
    ],
)
def test_every_number_by_hand(sections, check, measures, label):
    runs = [run_of("art", **{check: measures}), run_of("pgd", **{check: measures})]
    (section,) = sections(runs, table(runs))
    (sheet,) = section.sheets
    assert [line.labels for line in sheet.lines] == [(label, "art"), (label, "pgd")]
    assert [column.key for column in sheet.columns] == list(measures)
    for column, cell in zip(sheet.columns, sheet.lines[0].cells, strict=True):
        assert cell["mean"] == pytest.approx(statistics.fmean(measures[column.key]))


def test_smoothed_alignment_over_sigma():
    runs = [run_of("art", alignment__smoothed=SMOOTHED)]
    (section,) = alignment_sections(runs, table(runs))
    (sheet,) = section.sheets
    columns = [(column.title, column.key, column.better) for column in sheet.columns]
    assert columns == [
        ("σ 0.05", "sg_bsg/0.05", "lower"),
        ("σ 0.5", "sg_bsg/0.5", "lower"),
        ("σ 0.05", "found/0.05", ""),
        ("σ 0.5", "found/0.5", ""),
    ]
    (line,) = sheet.lines
    for column, cell in zip(sheet.columns, line.cells, strict=True):
        assert cell["mean"] == pytest.approx(statistics.fmean(SMOOTHED[column.key]))
    (plot,) = section.plots
    assert plot.alt == (
        "Box plot of ‖SG − BSG‖ over σ. σ 0.05, art: median 3.00; σ 0.5, art: median 0.50."
    )
    assert plot.draw().axes


def test_each_has_its_place_and_none_is_among_the_others():
    checks = {"removal__ig": REMOVAL, "baseline__ig": BASELINE, "alignment__smoothed": SMOOTHED}
    runs = [run_of("art", **checks)]
    names = [section.name for section in contents(runs, table(runs))]
    assert names == ["alignment", "removal", "baseline"]


def test_none():
    runs = [run_of("art")]
    assert removal_sections(runs, table(runs)) == []
    assert baseline_sections(runs, table(runs)) == []
    assert alignment_sections(runs, table(runs)) == []
