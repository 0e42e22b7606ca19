"""The checks that have a section of their own, by the first part of their names."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import numpy as np

from holdfast.report.evidence import beside
from holdfast.report.figures import grouped_box_plot
from holdfast.report.records import KEPT, SIMILARITIES, AuditedRun
from holdfast.report.section import Plot
from holdfast.report.sheet import Column, Line, Sheet, cell_of
from holdfast.report.summary import Table
from holdfast.report.wording import attribution_of, capitalized, measure_sign, number, percent

__all__ = ["checks_named", "column_of", "other_measures", "sheet_of", "spread_plots"]

# Checks and what they measure; a name that ends in "/" stands for all that begin so.
KNOWN: dict[str, tuple[str, ...]] = {
    "localization/": (
        "loc",
        "energy_game",
        "positive_percentage",
        "concentration",
        "pointing_game",
    ),
    "wsol/": ("box_iou/", "mask_iou/", "top_1"),
    "alignment/image": ("alignment", "absolute_cosine", "signed_cosine"),
    "alignment/boundary": ("sm_bsm", "ig_big", "ig_agi"),
    "alignment/smoothed": ("sg_bsg/", "found/"),
    "faithfulness/": ("insertion", "deletion"),
    "baseline/": (*SIMILARITIES, "map_cosine"),
    "removal/": (
        "kept_without_object",
        "lost_without_object",
        "kept_object_alone",
        "lost_object_alone",
        "object_share",
        "map_agrees",
        "tau_elsewhere",
    ),
    "reference/": SIMILARITIES,
    "trust/": (
        "tau",
        "tau_",
        "moved",
        "no_direction",
        "zero_gradient",
        "surrogate_agrees",
        "correct_",
    ),
}
LOWER = ("sm_bsm", "ig_big", "ig_agi", "deletion")
OWN_UNIT = ("concentration", "alignment", "sm_bsm", "ig_big", "ig_agi")
ARROWS = {"higher": " ↑", "lower": " ↓", "": ""}


def _attribution(check: str) -> str:
    return attribution_of(check) or check


def checks_named(table: Table, name: str) -> tuple[str, ...]:
    """List the checks of a section in the order in which they were made.

    Examples
    --------
    >>> import numpy as np
    >>> from holdfast.report.summary import row_of
    >>> row = row_of("art", "wsol/gradient", "top_1", np.ones(3))
    >>> checks_named(Table(("art",), (), (), {("art", "wsol/gradient", "top_1"): row}), "wsol/")
    ('wsol/gradient',)
    """
    checks = dict.fromkeys(check for _, check, _ in table.rows)
    return tuple(check for check in checks if _is(check, name))


def other_measures(table: Table) -> list[tuple[str, str]]:
    """List the checks and measures that have no place of their own in the report.

    Examples
    --------
    >>> import numpy as np
    >>> from holdfast.report.summary import row_of
    >>> rows = {("art", "wsol/gradient", name): row_of("art", "wsol/gradient", name, np.ones(3))
    ...         for name in ("box_iou/0.20", "top_5")}
    >>> other_measures(Table(("art",), (), (), rows))
    [('wsol/gradient', 'top_5')]
    """
    found = dict.fromkeys((check, measure) for _, check, measure in table.rows)
    return [pair for pair in found if not _has_place(table, *pair)]


def column_of(measure: str, *, median: bool = False, title: str | None = None) -> Column:
    """Make the column of a measure: its sign, which way is better, and its unit.

    Examples
    --------
    >>> column_of("deletion").title, column_of("deletion").better
    ('deletion ↓', 'lower')
    """
    better = "lower" if measure in LOWER else "higher"
    parts = ("mean", "low", "high", "median") if median else ("mean", "low", "high")
    write = number if measure in OWN_UNIT else percent
    told = (measure_sign(measure) if title is None else title) + ARROWS[better]
    return Column(told, measure, "", parts, write, "lower" if better == "lower" else "higher")


def sheet_of(
    name: str,
    caption: str,
    table: Table,
    checks: Sequence[str],
    columns: Sequence[Column],
    label: tuple[str, Callable[[str], str]] = ("Attribution", _attribution),
) -> Sheet:
    """Lay out checks that differ in their attribution: a line for each attribution and model.

    Columns that nothing was measured for are left out, and so are lines.

    Parameters
    ----------
    name, caption : str
        Those of the sheet.
    table : Table
        The comparison.
    checks : sequence of str
        The checks.
    columns : sequence of Column
        What is shown; their keys are measures.
    label : tuple of str and callable
        What the checks differ in, and what it is called for a check.
    """
    measured = {measure for _, check, measure in table.rows if check in checks}
    shown = tuple(column for column in columns if column.key in measured)
    lines = []
    for check in checks:
        for run in table.runs:
            cells = tuple(cell_of(table.row(run, check, column.key)) for column in shown)
            if any(cells):
                lines.append(Line((label[1](check), run), cells))
    return Sheet(name, caption, (label[0], "Model"), shown, tuple(lines))


def spread_plots(
    runs: Sequence[AuditedRun], checks: Sequence[str], measures: Sequence[str], what: str = ""
) -> tuple[Plot, ...]:
    """Draw box plots of measures, one figure each: a box for each attribution and model."""
    plots = []
    for measure in measures:
        groups = {
            _attribution(check): {
                run.name: run.values(check, measure)
                for run in runs
                if len(run.values(check, measure))
            }
            for check in checks
        }
        groups = {group: boxes for group, boxes in groups.items() if boxes}
        if not groups:
            continue
        percents = measure not in OWN_UNIT
        scale, unit = (100, ", %") if percents else (1, "")
        title = (what or measure_sign(measure)) + unit
        told = [
            f"{group}, {run}: median {number(scale * float(np.median(values)))}"
            for group, boxes in groups.items()
            for run, values in boxes.items()
        ]
        plots.append(
            Plot(
                partial(grouped_box_plot, groups, title, percent=percents),
                f"Box plot of {capitalized(title)}. {'; '.join(told)}.",
            )
        )
    return tuple(plots)


def _has_place(table: Table, check: str, measure: str) -> bool:
    if measure == "correct" or (check in table.explanations and measure in (*SIMILARITIES, KEPT)):
        return True
    if beside(measure) and check in (*table.predictions, *table.corruptions, *table.explanations):
        return True
    return any(
        _is(check, name) and any(measure == m or _is(measure, m) for m in measures)
        for name, measures in KNOWN.items()
    )


def _is(name: str, known: str) -> bool:
    """Tell whether a name is the known one, or begins with a known beginning."""
    return name == known or (known[-1:] in ("/", "_") and name.startswith(known))
