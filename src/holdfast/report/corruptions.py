"""Common corruptions: accuracy under each of them, at each severity."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from holdfast.report.curves import Curve, Point, curve_sheet, plot_of
from holdfast.report.evidence import notes_of
from holdfast.report.records import AuditedRun
from holdfast.report.section import Section
from holdfast.report.sheet import Cell, Column, Line, Sheet
from holdfast.report.summary import Table, mean_interval

__all__ = ["corruption_sections", "mean_over", "parts_of"]

READING = (
    (
        "Corruptions",
        "What happens to images without an opponent: noise, blur, weather, and what cameras and "
        "files do to them, at severities from 1 on. Means over corruptions weigh each of them and "
        "each severity alike; intervals come from resampling the images.",
    ),
)


def parts_of(check: str) -> tuple[str, int | None]:
    """Split the name of a check into the corruption and its severity.

    Examples
    --------
    >>> parts_of("corruption/gaussian_noise/3"), parts_of("corruption/rain")
    (('gaussian noise', 3), ('rain', None))
    """
    name, _, severity = check.partition("/")[2].rpartition("/")
    if name and severity.isdecimal():
        return name.replace("_", " "), int(severity)
    return check.partition("/")[2].replace("_", " "), None


def mean_over(run: AuditedRun, checks: Sequence[str]) -> Cell | None:
    """Average accuracy over checks, with the interval from resampling images; None for no check.

    Images count that were put to all of these checks.

    Examples
    --------
    >>> import pyarrow as pa
    >>> checks = ("corruption/fog/1", "corruption/fog/2")
    >>> run = AuditedRun("art", pa.table({"index": [0, 0], "label": [3, 3], "check": checks,
    ...     "measure": ["correct"] * 2, "value": [1.0, 0.0]}))
    >>> mean_over(run, checks)["mean"]
    0.5
    """
    made = [(check, "correct") for check in checks if len(run.values(check, "correct"))]
    if not made:
        return None
    values = np.mean(run.aligned(*made), axis=0)
    if not len(values):
        return None
    low, high = mean_interval(values) or (None, None)
    return {"mean": float(values.mean()), "low": low, "high": high}


def corruption_sections(runs: Sequence[AuditedRun], table: Table) -> list[Section]:
    """Lay out accuracy under corruptions: by kind, by severity, and both at once."""
    if not table.corruptions:
        return []
    kinds = {check: parts_of(check) for check in table.corruptions}
    severities = sorted({severity for _, severity in kinds.values() if severity is not None})
    curves = _severity_curves(runs, table, kinds, severities)
    put = [run for run in runs if set(run.checks) & set(kinds)]
    return [
        Section(
            "corruptions",
            "Common corruptions",
            "How often each model is right when images are corrupted.",
            sheets=(_by_kind(put, table, kinds),),
            heat=_matrix(put, table, kinds, severities) if len(severities) > 1 else None,
            plots=tuple(plot_of(curve) for curve in curves),
            plots_note=(
                "Mean over the corruptions at each severity; severity 0 is the clean image. Bands "
                "are 95% confidence intervals."
            ),
            data=tuple(curve_sheet(curve) for curve in curves),
            reading=READING,
        )
    ]


def _by_kind(
    runs: Sequence[AuditedRun], table: Table, kinds: dict[str, tuple[str, int | None]]
) -> Sheet:
    lines, struck = [], []
    for name in dict.fromkeys(name for name, _ in kinds.values()):
        checks = [check for check, (kind, _) in kinds.items() if kind == name]
        cells = []
        for run in runs:
            cell, why = mean_over(run, checks), _no_evidence(table, run, checks)
            cells.append({**cell, "struck": 1} if cell and why else cell)
            struck += [(run.name, name, "correct", why)] if why else []
        lines.append(Line((name,), tuple(cells)))
    total = tuple(mean_over(run, table.corruptions) for run in runs)
    lines.append(Line(("mean",), total))
    return Sheet(
        "corruptions",
        "Accuracy in percent, mean over the severities, with its 95% confidence interval.",
        ("Corruption",),
        tuple(Column(run.name, run.name, better="") for run in runs),
        tuple(lines),
        notes=notes_of(struck),
    )


def _no_evidence(table: Table, run: AuditedRun, checks: Sequence[str]) -> str:
    """Say why accuracy under a corruption is no evidence at any severity, as of colours on grey."""
    rows = [row for check in checks if (row := table.row(run.name, check, "correct"))]
    return rows[0].struck if rows and all(row.struck for row in rows) else ""


def _matrix(
    runs: Sequence[AuditedRun],
    table: Table,
    kinds: dict[str, tuple[str, int | None]],
    severities: Sequence[int],
) -> Sheet:
    """Lay out every corruption at every severity, with means at both sides."""
    checks = {kind: check for check, kind in kinds.items()}
    lines = []
    for run in runs:
        known: dict[str, list[float | None]] = {}
        for name in dict.fromkeys(name for name, _ in kinds.values()):
            rows = [
                table.row(run.name, checks.get((name, severity), ""), "correct")
                for severity in severities
            ]
            if any(rows):
                known[name] = [row.mean if row else None for row in rows]
        known["mean"] = [_mean(column) for column in zip(*known.values(), strict=True)]
        every = [value for name, values in known.items() if name != "mean" for value in values]
        for name, values in known.items():
            edge = _mean(every if name == "mean" else values)
            cells = [None if value is None else {"mean": value} for value in (*values, edge)]
            lines.append(Line((run.name, name), tuple(cells)))
    titles = [*(str(severity) for severity in severities), "mean"]
    columns = tuple(Column(title, title, "", ("mean",), better="") for title in titles)
    caption = "Accuracy in percent by corruption and severity."
    return Sheet("corruptions_by_severity", caption, ("Model", "Corruption"), columns, tuple(lines))


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None


def _severity_curves(
    runs: Sequence[AuditedRun],
    table: Table,
    kinds: dict[str, tuple[str, int | None]],
    severities: Sequence[int],
) -> list[Curve]:
    lines = {}
    for run in runs:
        points = []
        clean = table.row(run.name, "clean", "correct")
        if clean:
            points.append(Point(0.0, clean.mean, clean.low, clean.high))
        for severity in severities:
            checks = [check for check, (_, own) in kinds.items() if own == severity]
            cell = mean_over(run, checks)
            if cell and cell["mean"] is not None:
                points.append(Point(float(severity), cell["mean"], cell["low"], cell["high"]))
        if len(points) > 1:
            lines[run.name] = tuple(points)
    if len(severities) < 2 or not lines:
        return []
    title = "accuracy over the severity of corruptions"
    return [Curve("corruption_severity", title, "severity", "accuracy, %", lines)]
