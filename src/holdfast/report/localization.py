"""Localization: whether maps point at the object, and weakly supervised boxes from maps."""

from __future__ import annotations

from collections.abc import Sequence

from holdfast.report.checks import KNOWN, checks_named, column_of, sheet_of, spread_plots
from holdfast.report.records import AuditedRun
from holdfast.report.section import Section
from holdfast.report.summary import Table

__all__ = ["localization_sections"]

SPREAD = ("loc", "energy_game", "positive_percentage", "concentration")
READING = (
    (
        "Loc, EG, PP, Con",
        "Whether a map points at the object: Loc is how far the pixels that speak for the class "
        "and the object’s region overlap; EG, the energy game, is the part of the positive "
        "attribution that lies on the object; PP is the part of the attribution on the object "
        "that is positive; Con, concentration, grows as the attribution on the object gathers "
        "about one point. In the pointing game the highest pixel has to lie on the object.",
    ),
)


def localization_sections(runs: Sequence[AuditedRun], table: Table) -> list[Section]:
    """Lay out Loc, EG, PP, Con and the pointing game for each attribution and model."""
    checks = checks_named(table, "localization/")
    if not checks:
        return []
    columns = [
        column_of(measure, median=measure != "pointing_game") for measure in KNOWN["localization/"]
    ]
    caption = (
        "Mean with its 95% confidence interval, and median, over the images that a model gets "
        "right and whose object is marked. Con in its own unit, all others in percent."
    )
    sheet = sheet_of("localization", caption, table, checks, columns)
    note = (
        "How much of each map lies on the object that the image shows: inside its mask where the "
        "data has masks, else inside its box. Images that have neither are left out."
    )
    plots = spread_plots(runs, checks, SPREAD)
    return [
        Section(
            "localization",
            "Localization",
            note,
            sheets=(sheet,) if sheet.lines and sheet.columns else (),
            plots=plots,
            reading=READING,
        )
    ]
