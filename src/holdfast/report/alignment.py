"""Alignment of maps: with the image, and with the decision boundaries nearby."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import numpy as np

from holdfast.report.checks import KNOWN, checks_named, column_of, spread_plots
from holdfast.report.correlation import correlation_sheet
from holdfast.report.figures import grouped_box_plot
from holdfast.report.records import AuditedRun
from holdfast.report.section import Plot, Section
from holdfast.report.sheet import Column, Line, Sheet, cell_of
from holdfast.report.summary import Table
from holdfast.report.wording import measure_sign, number

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
        "Gradients; BSM, BIG and AGI are their boundary variants, BSG that of SG, SmoothGrad.",
    ),
)
SMOOTHED = "alignment/smoothed"
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
    smoothed = _smoothed_sheet(table)
    if smoothed:
        sheets.append(smoothed)
    correlations = correlation_sheet(runs, table)
    if correlations:
        sheets.append(correlations)
    if not sheets:
        return []
    image = checks_named(table, "alignment/image")
    plots = (*spread_plots(runs, image, ("signed_cosine",)), *_smoothed_plots(runs, table))
    return [
        Section(
            "alignment", "Alignment of maps", sheets=tuple(sheets), plots=plots, reading=READING
        )
    ]


def _smoothed_sheet(table: Table) -> Sheet | None:
    """Lay out ‖SG − BSG‖ over σ, and how many images have a boundary there."""
    noises = _noises(table)
    if not noises:
        return None
    distance = partial(Column, group=measure_sign("sg_bsg"), write=number, better="lower")
    share = partial(Column, group="images with a boundary", better="")
    columns = (
        *(distance(f"σ {noise}", f"sg_bsg/{noise}") for noise in noises),
        *(share(f"σ {noise}", f"found/{noise}") for noise in noises),
    )
    lines = []
    for run in table.runs:
        cells = tuple(cell_of(table.row(run, SMOOTHED, column.key)) for column in columns)
        if any(cells):
            lines.append(Line((run,), cells))
    caption = (
        "Distance (ℓ₂) of SmoothGrad from its boundary variant under noise of standard deviation "
        "σ, over the images for which a boundary was found, and their share in percent. Mean with "
        "its 95% confidence interval."
    )
    return Sheet("alignment_smoothed", caption, ("Model",), columns, tuple(lines))


def _smoothed_plots(runs: Sequence[AuditedRun], table: Table) -> tuple[Plot, ...]:
    groups = {
        f"σ {noise}": {
            run.name: values
            for run in runs
            if len(values := run.values(SMOOTHED, f"sg_bsg/{noise}"))
        }
        for noise in _noises(table)
    }
    groups = {group: boxes for group, boxes in groups.items() if boxes}
    if not groups:
        return ()
    title = f"{measure_sign('sg_bsg')} over σ"
    told = [
        f"{group}, {run}: median {number(float(np.median(values)))}"
        for group, boxes in groups.items()
        for run, values in boxes.items()
    ]
    draw = partial(grouped_box_plot, groups, title, percent=False)
    return (Plot(draw, f"Box plot of {title}. {'; '.join(told)}."),)


def _noises(table: Table) -> list[str]:
    """List the σ for which anything was measured, ascending."""
    measured = {measure for _, check, measure in table.rows if check == SMOOTHED}
    return sorted({measure.partition("/")[2] for measure in measured}, key=float)


def _sheet(table: Table, check: str, caption: str) -> Sheet:
    measured = {measure for _, known, measure in table.rows if known == check}
    columns = tuple(column_of(m, median=True) for m in KNOWN[check] if m in measured)
    lines = []
    for run in table.runs:
        cells = tuple(cell_of(table.row(run, check, column.key)) for column in columns)
        if any(cells):
            lines.append(Line((run,), cells))
    return Sheet(check.replace("/", "_"), caption, ("Model",), columns, tuple(lines))
