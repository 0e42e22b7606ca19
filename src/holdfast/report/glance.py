"""What matters most of an audit, on one screen."""

from __future__ import annotations

from collections.abc import Sequence

from holdfast.report.attacks import AT_A_GLANCE
from holdfast.report.checks import checks_named
from holdfast.report.evidence import notes_of
from holdfast.report.explanations import APART
from holdfast.report.records import AuditedRun
from holdfast.report.sheet import RANDOM, Cell, Column, Line, Sheet, cell_of, with_random
from holdfast.report.summary import CORRUPTIONS, Row, Table
from holdfast.report.trust import doubt_count
from holdfast.report.wording import attribution_of, check_title
from holdfast.report.wsol import best_threshold, over_thresholds

__all__ = ["glance"]


def glance(runs: Sequence[AuditedRun], table: Table) -> Sheet:
    """Lay out accuracy, clean and attacked, and mean τ, with a line for each model.

    Of attacks that differ in one number only the main one has a column, corruptions have one
    together, and of more attacks than fit there is the first and the one that leaves the least.

    Examples
    --------
    >>> import pyarrow as pa
    >>> from holdfast.report.summary import table
    >>> runs = [AuditedRun("art", pa.table({"index": [0, 1], "label": [3, 5],
    ...     "check": ["clean"] * 2, "measure": ["correct"] * 2, "value": [1.0, 0.0]}))]
    >>> [column.title for column in glance(runs, table(runs)).columns]
    ['Accuracy']
    """
    shown: list[Row] = []  # of what is struck out, only what stands here is told of
    columns = [
        *_accuracies(table, shown),
        *_similarities(table, shown),
        *_localization(runs, table),
    ]
    counts = [_doubts(table, run) for run in table.runs]
    if any(counts):
        column = Column("Doubts", "doubts", "", ("value",), _count, "")
        columns.append((column, counts))
    lines = [
        Line((run,), tuple(cells[number] for _, cells in columns))
        for number, run in enumerate(table.runs)
    ]
    kept = with_random([column for column, _ in columns], lines)
    struck = [(r.run, check_title(r.check), r.measure, r.struck) for r in shown if r.struck]
    notes = (*notes_of(struck), *_findings(table))
    return Sheet("glance", _caption(table, kept), ("Model",), kept, tuple(lines), notes)


def _accuracies(table: Table, told: list[Row]) -> list[tuple[Column, list[Cell | None]]]:
    attacks = [c for c in table.predictions if c not in table.folded and c != CORRUPTIONS]
    shown = attacks if len(attacks) <= AT_A_GLANCE else attacks[:2]
    columns = [_column(table, check, "correct", _accuracy_title(check), told) for check in shown]
    if len(attacks) > len(shown):
        others = [check for check in attacks if check != "clean"]
        title = f"Accuracy under the strongest of {len(others)} attacks"
        columns.append(_strongest(table, others, "correct", title, told))
    if CORRUPTIONS in table.predictions:
        title = f"Accuracy, mean over {_kinds(table)} corruptions"
        columns.append(_column(table, CORRUPTIONS, "correct", title, told))
    return columns


def _similarities(table: Table, told: list[Row]) -> list[tuple[Column, list[Cell | None]]]:
    attacks = [check for check in table.explanations if check not in table.folded]
    shown = attacks if len(attacks) <= APART else attacks[:1]
    columns = [
        _column(table, check, "kendall_tau", f"τ under {check_title(check)}", told)
        for check in shown
    ]
    if len(attacks) > len(shown):
        title = f"τ under the strongest of {len(attacks)} attacks"
        columns.append(_strongest(table, attacks, "kendall_tau", title, told))
    return columns


def _localization(
    runs: Sequence[AuditedRun], table: Table
) -> list[tuple[Column, list[Cell | None]]]:
    checks = checks_named(table, "wsol/")
    if not checks:
        return []
    cells: list[Cell | None] = []
    for run in runs:
        best = best_threshold(over_thresholds(run, checks[0]))
        cells.append({"mean": float(best.met.mean())} if best else None)
    if not any(cells):
        return []
    title = f"GT-known Loc, {attribution_of(checks[0]) or 'boxes from maps'}"
    return [(Column(title, f"{checks[0]}:gt_known_loc", "", ("mean",)), cells)]


def _column(
    table: Table, check: str, measure: str, title: str, told: list[Row]
) -> tuple[Column, list[Cell | None]]:
    rows = [table.row(run, check, measure) for run in table.runs]
    told += [row for row in rows if row]
    cells = [cell_of(row) for row in rows]
    return Column(title, f"{check}:{measure}"), cells


def _strongest(
    table: Table, checks: Sequence[str], measure: str, title: str, told: list[Row]
) -> tuple[Column, list[Cell | None]]:
    """Take for each model the check that leaves the lowest mean, of those that are evidence."""
    cells = []
    for run in table.runs:
        rows: list[Row] = [r for check in checks if (r := table.row(run, check, measure))]
        rows = [row for row in rows if not row.struck] or rows
        lowest = min(rows, key=lambda row: row.mean) if rows else None
        told += [lowest] if lowest else []
        cells.append(cell_of(lowest))
    return Column(title, f"strongest:{measure}"), cells


def _doubts(table: Table, run: str) -> Cell | None:
    """Count what speaks against the figures of a run, if that was looked for."""
    count = doubt_count(table, run)
    return None if count is None else {"value": float(count)}


def _findings(table: Table) -> list[str]:
    return [f"“{run}”: {said}" for run, found in table.findings.items() for said in found]


def _kinds(table: Table) -> int:
    return len({check.split("/")[1] for check in table.corruptions})


def _accuracy_title(check: str) -> str:
    return "Accuracy" if check == "clean" else f"Accuracy under {check_title(check)}"


def _count(value: float | None) -> str:
    return "–" if value is None else f"{value:.0f}"


def _caption(table: Table, columns: Sequence[Column]) -> str:
    parts = ["Means in percent, with their 95% confidence intervals."]
    if table.explanations:
        parts.append("τ is how alike the maps are before and after an attack on the explanation.")
    if any(RANDOM in column.parts for column in columns):
        parts.append("Beneath it: what random signs at the same ε leave.")
    if table.folded:
        parts.append("Attacks that differ in one number only share a column, that of the main one.")
    if len(table.runs) > 1:
        parts.append("The highest of a column is bold.")
    return " ".join(parts)
