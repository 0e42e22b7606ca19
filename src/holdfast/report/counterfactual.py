"""What another input says of a map: another baseline, or the image without its object."""

from __future__ import annotations

from collections.abc import Sequence

from holdfast.report.checks import checks_named, column_of, sheet_of, spread_plots
from holdfast.report.records import SIMILARITIES, AuditedRun
from holdfast.report.section import Section
from holdfast.report.sheet import Column
from holdfast.report.summary import Table
from holdfast.report.wording import percent

__all__ = ["baseline_sections", "removal_sections"]

MEAN = ("mean", "low", "high")


def removal_sections(runs: Sequence[AuditedRun], table: Table) -> list[Section]:
    """Lay out what model and map say when the object is gone, and when all else is."""
    checks = checks_named(table, "removal/")
    if not checks:
        return []
    groups = (("object gone", "without_object"), ("object alone", "object_alone"))
    columns = [
        Column(title, f"{what}_{name}", group, MEAN, percent, "")
        for group, name in groups
        for what, title in (("kept", "class stays"), ("lost", "probability lost"))
    ]
    columns += [
        Column("on object", "object_share", "map", MEAN, percent, ""),
        Column("agrees", "map_agrees", "map", MEAN, percent, "higher"),
        Column("τ elsewhere", "tau_elsewhere", "map", MEAN, percent, "higher"),
    ]
    caption = "In percent: mean with its 95% confidence interval."
    return [
        Section(
            "removal",
            "Without the object",
            "Images that the model gets right, with the object taken out, and with all else taken "
            "out.",
            sheets=(sheet_of("removal", caption, table, checks, columns),),
            reading=(
                (
                    "On object, agrees, τ elsewhere",
                    "How much of the map’s positive part lies on the object; how often map and "
                    "model say the same of what counts more, the object or the rest; and Kendall’s "
                    "τ, outside the object, of the maps before and after it is gone.",
                ),
            ),
        )
    ]


def baseline_sections(runs: Sequence[AuditedRun], table: Table) -> list[Section]:
    """Lay out how alike maps are that differ in their baseline alone."""
    checks = checks_named(table, "baseline/")
    if not checks:
        return []
    measures = (*SIMILARITIES, "map_cosine")
    columns = [column_of(measure, median=True) for measure in measures]
    caption = (
        "How alike the maps from different baselines are, in percent: mean with its 95% confidence "
        "interval, and median."
    )
    return [
        Section(
            "baseline",
            "Sensitivity to the baseline",
            "Where maps from black and from white differ, the baseline decides what is explained. "
            "IN, τ and ρ compare how much each pixel counts, the cosine compares signs as well.",
            sheets=(sheet_of("baseline", caption, table, checks, columns),),
            plots=spread_plots(runs, checks, ("map_cosine",)),
        )
    ]
