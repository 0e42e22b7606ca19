import dataclasses

import pytest

from holdfast.report import table
from holdfast.report.glance import glance


def columns(runs):
    sheet = glance(runs, table(runs))
    values = zip(*(line.cells for line in sheet.lines), strict=True)
    return {c.title: list(v) for c, v in zip(sheet.columns, values, strict=True)}


def test_an_old_audit(four_runs):
    found = columns(four_runs)
    assert list(found) == [
        "Accuracy", "Accuracy under pgd", "τ under top k on integrated gradients"
    ]  # fmt: skip
    assert found["Accuracy"][0]["mean"] == four_runs[0].values("clean", "correct").mean()


def test_a_whole_audit_keeps_to_a_few_columns(three_whole_runs):
    found = columns(three_whole_runs)
    assert list(found) == [
        "Accuracy",
        "Accuracy under pgd 2",
        "Accuracy under pgd 500",
        "Accuracy, mean over 3 corruptions",
        "τ under top k on gradient",
        "τ under the strongest of 4 attacks",
        "GT-known Loc, gradient",
        "Doubts",
    ]
    attacks = [f"{a}/{b}" for a in ("top_k", "mass_centre")
               for b in ("gradient", "integrated_gradients")]  # fmt: skip
    for place, run in enumerate(three_whole_runs):
        lowest = min(run.values(check, "kendall_tau").mean() for check in attacks)
        assert found["τ under the strongest of 4 attacks"][place]["mean"] == pytest.approx(lowest)


def test_many_attacks_on_predictions(make_whole_run):
    run = dataclasses.replace(make_whole_run(), settings={})
    found = columns([run])
    assert list(found)[:3] == [
        "Accuracy", "Accuracy under pgd 2", "Accuracy under the strongest of 6 attacks"
    ]  # fmt: skip
    lowest = min(run.values(f"pgd_{n}", "correct").mean() for n in (2, 4, 8, 16, 100, 500))
    assert found["Accuracy under the strongest of 6 attacks"][0]["mean"] == lowest


def test_runs_with_different_checks(make_run, make_whole_run):
    runs = [make_run("old"), make_whole_run("new")]
    found = columns(runs)
    assert found["Doubts"][0] is None
    assert found["Accuracy, mean over 3 corruptions"][0] is None
    assert found["Accuracy under pgd"][1] is None
    assert found["GT-known Loc, gradient"][0] is None
