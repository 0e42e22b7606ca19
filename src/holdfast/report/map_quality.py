"""Whether maps say what the model does, and whether they are still those of a reference model."""

from __future__ import annotations

from collections.abc import Sequence

from holdfast.report.checks import checks_named, column_of, sheet_of, spread_plots
from holdfast.report.records import SIMILARITIES, AuditedRun
from holdfast.report.section import Section
from holdfast.report.summary import Table

__all__ = ["faithfulness_sections", "reference_sections"]


def faithfulness_sections(runs: Sequence[AuditedRun], table: Table) -> list[Section]:
    """Lay out insertion and deletion for each attribution and model."""
    checks = checks_named(table, "faithfulness/")
    if not checks:
        return []
    columns = [column_of(measure, median=True) for measure in ("insertion", "deletion")]
    caption = "Area under the curve in percent: mean with its 95% confidence interval, and median."
    return [
        Section(
            "faithfulness",
            "Faithfulness",
            "Whether the pixels that a map names are those that the prediction rests on.",
            sheets=(sheet_of("faithfulness", caption, table, checks, columns),),
            reading=(
                (
                    "Insertion, deletion",
                    "The probability of the predicted class while pixels come, or go, in the order "
                    "of the map. If the map names the right ones first, the probability rises "
                    "early (a large area) or falls early (a small one).",
                ),
            ),
        )
    ]


def reference_sections(runs: Sequence[AuditedRun], table: Table) -> list[Section]:
    """Lay out how alike the maps of each model and of a reference model are."""
    checks = checks_named(table, "reference/")
    if not checks:
        return []
    columns = [column_of(measure, median=True) for measure in SIMILARITIES]
    caption = (
        "How alike the maps of each model and those of the reference model are, in percent: mean "
        "with its 95% confidence interval, and median."
    )
    return [
        Section(
            "reference",
            "Likeness to the reference model",
            "A model whose maps hold still is of little use if they have become other maps: here "
            "they are compared with those of a naturally trained model, with no attack.",
            sheets=(sheet_of("reference", caption, table, checks, columns),),
            plots=spread_plots(runs, checks, ("kendall_tau",)),
        )
    ]
