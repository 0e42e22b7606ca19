"""What speaks against the figures: signs that attacks failed for the wrong reasons."""

from __future__ import annotations

from collections.abc import Sequence

from holdfast.manipulation import doubts
from holdfast.report.checks import checks_named, other_measures, sheet_of
from holdfast.report.evidence import beside
from holdfast.report.records import AuditedRun
from holdfast.report.section import Finding, Section
from holdfast.report.sheet import Column, Sheet
from holdfast.report.summary import Table
from holdfast.report.wording import check_title, number, percent

__all__ = ["doubt_count", "doubts_of", "trust_sections"]

TITLES = {
    "tau": "as reported",
    "tau_twice_steps": "twice the steps",
    "tau_twice_eps": "twice ε",
    "tau_random_search": "random search",
    "tau_random_sign": "random signs",
    "zero_gradient": "is zero",
    "no_direction": "steps without",
    "moved": "image moved, 1/255",
    "surrogate_agrees": "surrogate agrees",
    "correct_no_bound": "no bound",
}
SOUND = "Nothing was found that speaks against these figures."
GROUPS = ("Mean τ", "Accuracy", "Direction")
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
YARDSTICK_READING = (
    (
        "Struck out",
        "A figure that is struck out is no evidence of robustness: most steps of its attack had no "
        "direction (the gradient was zero), it moved no image, or it did less than random signs "
        "in the same ball do. The figures that are named in its place say what is known.",
    ),
    (
        "Random signs",
        "Every pixel moves by ε up or down by chance, four times; the worst for the map counts. An "
        "attack worth its name leaves less. At ε → 0 a map compares with itself: what is missing "
        "from 100 there are pixels that tie, and rounding.",
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


def doubt_count(table: Table, run: str) -> int | None:
    """Count what speaks against the figures of a run; None if nothing was looked for.

    That is what the checks ``trust/…`` found, what the audit found before it began, and every
    attack whose figures are struck out.
    """
    checks = [c for c in checks_named(table, "trust/") if _was_made(table, run, c)]
    looked = any(name == run and beside(measure) for name, _, measure in table.rows)
    if not checks and not looked and run not in table.findings:
        return None
    struck = {row.check for row in table.rows.values() if row.run == run and row.struck}
    found = sum(len(doubts_of(table, run, check)) for check in checks)
    return found + len(struck) + len(table.findings.get(run, ()))


def trust_sections(runs: Sequence[AuditedRun], table: Table) -> list[Section]:
    """Lay out what more effort comes to, and say in words what speaks against the figures."""
    checks = checks_named(table, "trust/")
    findings = [*_of_audits(runs, table)]
    for check in checks:
        for run in table.runs:
            if _was_made(table, run, check):
                said = doubts_of(table, run, check)
                about = f"{run}, {_about(check)}"
                findings.append(Finding(about, said or (SOUND,), sound=not said))
    sheets = [_yardsticks(table)] if _has_yardsticks(table) else []
    sheets += [_sheet(table, checks)] if checks else []
    if not findings and not sheets:
        return []
    return [
        Section(
            "trust",
            "Can these figures be trusted?",
            findings=tuple(findings),
            sheets=tuple(sheets),
            reading=(*(YARDSTICK_READING if _looked(table) else ()), *(READING if checks else ())),
        )
    ]


def _of_audits(runs: Sequence[AuditedRun], table: Table) -> list[Finding]:
    """Say of each audit that looked for it what its own attacks and its first look found."""
    findings = []
    for run in runs:
        rows = [row for row in table.rows.values() if row.run == run.name]
        if not run.fitness and not any(beside(row.measure) for row in rows):
            continue
        struck = {row.check: row.struck for row in rows if row.struck}
        said = [*table.findings.get(run.name, ())]
        said += [f"Struck out, {check_title(check)}: {why}." for check, why in struck.items()]
        findings.append(Finding(run.name, tuple(said) or (SOUND,), sound=not said))
    return findings


def _looked(table: Table) -> bool:
    return any(beside(measure) for _, _, measure in table.rows)


def _has_yardsticks(table: Table) -> bool:
    attacks = (*table.predictions, *table.explanations)
    return any(beside(measure) for _, check, measure in table.rows if check in attacks)


def _yardsticks(table: Table) -> Sheet:
    """Lay out each attack beside what chance does, and how it went."""
    columns = [
        Column("attack", "kendall_tau", "Mean τ", ("mean",), better=""),
        Column("signs", "random_sign_kendall_tau", "Mean τ", ("mean",), better=""),
        Column("search", "random_search_kendall_tau", "Mean τ", ("mean",), better=""),
        Column("ε → 0", "no_change_kendall_tau", "Mean τ", ("mean",), better=""),
        Column("attack", "top_k_intersection", "Mean IN", ("mean",), better=""),
        Column("signs", "random_sign_top_k_intersection", "Mean IN", ("mean",), better=""),
        Column("accuracy", "correct", "Steps", ("mean",), better=""),
        Column("blind", "no_direction", "Steps", ("mean",), better=""),
        Column("moved", "moved", "Steps", ("mean",), _grey, better=""),
    ]
    checks = [c for c in (*table.predictions, *table.explanations) if _measured(table, c)]
    caption = (
        "Each attack beside random signs and, where it had no direction, a random search in the "
        "same ball, in percent; the share of its steps that had no direction (blind); and how far "
        "images moved, in 1/255."
    )
    return sheet_of("yardsticks", caption, table, checks, columns, ("Attack", check_title))


def _measured(table: Table, check: str) -> bool:
    return any(known == check and beside(measure) for _, known, measure in table.rows)


def _grey(value: float | None) -> str:
    return number(None if value is None else 255 * value)


def _was_made(table: Table, run: str, check: str) -> bool:
    return any((run, check) == key[:2] for key in table.rows)


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
    write = _grey if measure == "moved" else percent
    title = TITLES.get(measure, _plain(measure, ""))
    return Column(title, measure, "Direction", write=write, better="")


def _plain(measure: str, prefix: str) -> str:
    return measure.removeprefix(prefix).replace("_", " ")


def _about(check: str) -> str:
    return check_title(check.partition("/")[2] or check)
