"""Alignment of maps: with the image, and with the decision boundaries nearby."""

from __future__ import annotations

from collections.abc import Sequence

from holdfast.report.checks import KNOWN, checks_named, column_of, spread_plots
from holdfast.report.correlation import correlation_sheet
from holdfast.report.records import AuditedRun
from holdfast.report.section import Section
from holdfast.report.sheet import Line, Sheet, cell_of
from holdfast.report.summary import Table

__all__ = ["alignment_sections"]

READING = (
    (
        "Alignment",
        "With the image: how far the gradient points along the image itself. Alignment is a length "
        "in pixels, and |cosine| that divided by the image’s, for the predicted class. The signed "
        "cosine is that of the true class’s gradient and the input as the model normalizes it, "
        "which training for alignment raises. With boundaries: how far a map is from the same map "
        "taken at the nearest point where the model would change its mind; the smaller the "
        "distance, the more the map tells of that boundary. SM is the gradient, IG Integrated "
        "Gradients; BSM, BIG and AGI are their boundary variants.",
    ),
)
CAPTIONS = {
    "alignment/image": (
        "Gradient and image: length of the image along the gradient in units of pixels, and "
        "cosines in percent. Mean with its 95% confidence interval, and median."
    ),
    "alignment/boundary": (
        "Distances (ℓ₂) of maps from their boundary variants. Mean with its 95% confidence "
        "interval, and median."
    ),
}


def alignment_sections(runs: Sequence[AuditedRun], table: Table) -> list[Section]:
    """Lay out alignment with the image and with boundaries, and what the latter goes along with."""
    sheets = [
        _sheet(table, check, caption)
        for check, caption in CAPTIONS.items()
        if checks_named(table, check)
    ]
    correlations = correlation_sheet(runs, table)
    if correlations:
        sheets.append(correlations)
    if not sheets:
        return []
    plots = spread_plots(runs, checks_named(table, "alignment/image"), ("signed_cosine",))
    return [
        Section(
            "alignment", "Alignment of maps", sheets=tuple(sheets), plots=plots, reading=READING
        )
    ]


def _sheet(table: Table, check: str, caption: str) -> Sheet:
    measured = {measure for _, known, measure in table.rows if known == check}
    columns = tuple(column_of(m, median=True) for m in KNOWN[check] if m in measured)
    lines = []
    for run in table.runs:
        cells = tuple(cell_of(table.row(run, check, column.key)) for column in columns)
        if any(cells):
            lines.append(Line((run,), cells))
    return Sheet(check.replace("/", "_"), caption, ("Model",), columns, tuple(lines))
