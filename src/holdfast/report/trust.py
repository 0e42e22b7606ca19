"""What speaks against the figures: signs that attacks failed for the wrong reasons."""

from __future__ import annotations

from collections.abc import Sequence

from holdfast.manipulation import doubts
from holdfast.report.checks import checks_named, other_measures, sheet_of
from holdfast.report.records import AuditedRun
from holdfast.report.section import Finding, Section
from holdfast.report.sheet import Column, Sheet
from holdfast.report.summary import Table
from holdfast.report.wording import check_title

__all__ = ["doubts_of", "trust_sections"]

TITLES = {
    "tau": "as reported",
    "tau_twice_steps": "twice the steps",
    "tau_twice_eps": "twice ε",
    "tau_random_search": "random search",
    "zero_gradient": "is zero",
    "correct_no_bound": "no bound",
}
SOUND = "Nothing was found that speaks against these figures."
GROUPS = ("Mean τ", "Accuracy", "Gradient")
READING = (
    (
        "Trust",
        "An attack may fail because the model is robust, or because gradients lead it astray. So "
        "each attack is repeated with twice the steps, in a ball twice as large and without "
        "gradients, and stronger attacks on the prediction follow, the last without any bound. "
        "Wherever more effort leaves more robustness, or no bound leaves any, the figures of this "
        "report deserve doubt.",
    ),
)


def doubts_of(table: Table, run: str, check: str) -> tuple[str, ...]:
    """Say what a check ``trust/…`` found against the figures of a run, by its means."""
    figures = {
        measure: row.mean
        for (name, known, measure), row in table.rows.items()
        if (name, known) == (run, check)
    }
    return doubts(figures)


def trust_sections(runs: Sequence[AuditedRun], table: Table) -> list[Section]:
    """Lay out what more effort comes to, and say in words what speaks against the figures."""
    checks = checks_named(table, "trust/")
    if not checks:
        return []
    findings = []
    for check in checks:
        for run in table.runs:
            if any((run, check) == key[:2] for key in table.rows):
                said = doubts_of(table, run, check)
                about = f"{run}, {_about(check)}"
                findings.append(Finding(about, said or (SOUND,), sound=not said))
    return [
        Section(
            "trust",
            "Can these figures be trusted?",
            findings=tuple(findings),
            sheets=(_sheet(table, checks),),
            reading=READING,
        )
    ]


def _sheet(table: Table, checks: Sequence[str]) -> Sheet:
    others = other_measures(table)
    measured = dict.fromkeys(
        measure
        for _, check, measure in table.rows
        if check in checks and (check, measure) not in others
    )
    columns = sorted(map(_column, measured), key=lambda column: GROUPS.index(column.group))
    return sheet_of(
        "trust",
        "What more effort leaves of the robustness that was reported, in percent, with 95% "
        "confidence intervals.",
        table,
        checks,
        columns,
        ("Attack", _about),
    )


def _column(measure: str) -> Column:
    if measure.startswith("tau"):
        return Column(TITLES.get(measure, _plain(measure, "tau_")), measure, "Mean τ", better="")
    if measure.startswith("correct_"):
        title = _plain(measure, "correct_").replace(" ", "-").upper()
        return Column(TITLES.get(measure, title), measure, "Accuracy", better="")
    return Column(TITLES.get(measure, _plain(measure, "")), measure, "Gradient", better="")


def _plain(measure: str, prefix: str) -> str:
    return measure.removeprefix(prefix).replace("_", " ")


def _about(check: str) -> str:
    return check_title(check.partition("/")[2] or check)
