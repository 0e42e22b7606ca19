import dataclasses

import pytest

from holdfast.report import table
from holdfast.report.attacks import attack_sections


def test_every_attack_has_a_line(three_whole_runs):
    (section,) = attack_sections(three_whole_runs, table(three_whole_runs))
    (sheet,) = section.sheets
    checks = ("clean", "pgd_2", "pgd_4", "pgd_8", "pgd_16", "pgd_100", "pgd_500")
    assert [line.labels[0].replace(" ", "_") for line in sheet.lines] == [*checks]
    for check, line in zip(checks, sheet.lines, strict=True):
        shown = [cell["mean"] for cell in line.cells]
        expected = [run.values(check, "correct").mean() for run in three_whole_runs]
        assert shown == pytest.approx(expected)
    assert len(section.plots) == len(section.data) == 2


def test_what_is_seen_at_a_glance_has_no_section(four_runs):
    assert attack_sections(four_runs, table(four_runs)) == []


def test_many_attacks_without_curves(make_whole_run):
    run = dataclasses.replace(make_whole_run(), settings={})
    (section,) = attack_sections([run], table([run]))
    assert section.plots == ()
