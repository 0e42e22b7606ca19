import pytest

from holdfast.manipulation import doubts
from holdfast.report import table
from holdfast.report.glance import glance
from holdfast.report.headline import headline
from holdfast.report.trust import SOUND, trust_sections

CHECK = "trust/top_k/gradient"


def means(run, check=CHECK):
    rows = [row for row in run.records.to_pylist() if row["check"] == check]
    values = {}
    for row in rows:
        values.setdefault(row["measure"], []).append(row["value"])
    return {measure: sum(found) / len(found) for measure, found in values.items()}


def test_figures_and_doubts(three_whole_runs):
    (section,) = trust_sections(three_whole_runs, table(three_whole_runs))
    (sheet,) = section.sheets
    keys = [column.key for column in sheet.columns]
    assert keys[:4] == ["tau", "tau_twice_steps", "tau_twice_eps", "tau_random_search"]
    assert keys[-1] == "zero_gradient"
    titles = {column.key: column.title for column in sheet.columns}
    assert titles["correct_pgd_100"] == "PGD-100"
    findings = {finding.about: finding for finding in section.findings}
    for run in three_whole_runs:
        expected = means(run)
        line = next(line for line in sheet.lines if line.labels == ("top k on gradient", run.name))
        assert [cell["mean"] for cell in line.cells] == pytest.approx([expected[k] for k in keys])
        finding = findings[f"{run.name}, top k on gradient"]
        assert finding.sentences == (doubts(expected) or (SOUND,))
        assert finding.sound == (not doubts(expected))


def test_doubts_are_seen_at_once(three_whole_runs):
    compared = table(three_whole_runs)
    checks = (CHECK, "trust/top_k/integrated_gradients")
    counts = [sum(len(doubts(means(run, c))) for c in checks) for run in three_whole_runs]
    sheet = glance(three_whole_runs, compared)
    assert sheet.columns[-1].title == "Doubts"
    assert [line.cells[-1]["value"] for line in sheet.lines] == counts
    assert counts[2] > 0  # twice ε leaves more
    detail = headline(three_whole_runs, compared).detail
    assert f"{counts[2]} doubt{'s' if counts[2] > 1 else ''} about “art”" in detail


def test_none(make_run):
    run = make_run()
    assert trust_sections([run], table([run])) == []
    assert "doubt" not in headline([run], table([run])).detail
