import statistics

import pytest

from holdfast.report import table
from holdfast.report.map_quality import faithfulness_sections, reference_sections


@pytest.mark.parametrize(
    ("sections", "name", "measures"),
    [
        (faithfulness_sections, "faithfulness", ("insertion", "deletion")),
        (reference_sections, "reference", ("top_k_intersection", "kendall_tau", "spearman_rho")),
    ],
)
def test_every_number_by_hand(three_whole_runs, sections, name, measures):
    (section,) = sections(three_whole_runs, table(three_whole_runs))
    (sheet,) = section.sheets
    assert [column.key for column in sheet.columns] == [*measures]
    runs = {run.name: run for run in three_whole_runs}
    assert len(sheet.lines) == 6
    for line in sheet.lines:
        check = f"{name}/{line.labels[0].replace(' ', '_')}"
        for measure, cell in zip(measures, line.cells, strict=True):
            values = runs[line.labels[1]].values(check, measure).tolist()
            assert cell["mean"] == pytest.approx(statistics.fmean(values))
            assert cell["median"] == pytest.approx(statistics.median(values))


def test_likeness_is_no_attack_on_explanations(make_whole_run):
    run = make_whole_run()
    assert not any(check.startswith("reference/") for check in table([run]).explanations)


def test_none(make_run):
    run = make_run()
    assert faithfulness_sections([run], table([run])) == []
    assert reference_sections([run], table([run])) == []
