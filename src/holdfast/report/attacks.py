"""Attacks on predictions: all of them, and curves over their strength."""

from __future__ import annotations

from collections.abc import Sequence

from holdfast.report.curves import curve_sheet, family_curves, plot_of
from holdfast.report.records import AuditedRun
from holdfast.report.section import Section
from holdfast.report.sheet import Column, Line, Sheet, cell_of
from holdfast.report.summary import CORRUPTIONS, Table
from holdfast.report.wording import check_title

__all__ = ["CURVES_NOTE", "attack_sections"]

# So many checks on predictions have a column each at a glance.
AT_A_GLANCE = 5
CURVES_NOTE = (
    "Attacks that differ in one number only; bands are 95% confidence intervals of the mean. What "
    "is crossed out is no evidence: that attack had no direction, or did less than chance."
)


def attack_sections(runs: Sequence[AuditedRun], table: Table) -> list[Section]:
    """Lay out accuracy under every attack, where that is more than can be seen at a glance."""
    curves = family_curves(runs, table, "attacks")
    checks = [check for check in table.predictions if check != CORRUPTIONS]
    if not curves and len(checks) <= AT_A_GLANCE:
        return []
    lines = [
        Line(
            (check_title(check),),
            tuple(cell_of(table.row(run, check, "correct")) for run in table.runs),
        )
        for check in checks
    ]
    sheet = Sheet(
        "attacks",
        "Accuracy in percent, with its 95% confidence interval.",
        ("Attack",),
        tuple(Column(run, run, better="") for run in table.runs),
        tuple(lines),
        table.notes(*((check, "correct") for check in checks)),
    )
    return [
        Section(
            "attacks",
            "Attacks on predictions",
            sheets=(sheet,),
            plots=tuple(plot_of(curve) for curve in curves),
            plots_note=CURVES_NOTE,
            data=tuple(curve_sheet(curve) for curve in curves),
        )
    ]
