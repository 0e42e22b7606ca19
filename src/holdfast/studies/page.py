"""The page of a study: one HTML file that loads nothing."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import holdfast
from holdfast.files import whole
from holdfast.report.drawing import page_templates
from holdfast.studies.figures import plots
from holdfast.studies.measured import Results
from holdfast.studies.orderings import Ordering, counted
from holdfast.studies.tables import Grid

__all__ = ["write_page"]

_TOLD = 400
"""So many orderings are listed; of more, those that are confirmed are only counted."""


def write_page(
    results: Results, table: Grid, orderings: Sequence[Ordering], path: Path, command: str = ""
) -> Path:
    """Write a study's page, whole or not at all.

    Parameters
    ----------
    results : Results
        What was measured.
    table : Grid
        The table.
    orderings : sequence of Ordering
        What came of the published orderings.
    path : Path
        The file.
    command : str
        What makes the study again, to be shown.
    """
    job = results.job
    listed = [one for one in orderings if len(orderings) <= _TOLD or one.verdict != "confirmed"]
    first = next(iter(results.values.values()))
    text = (
        page_templates("studies", "report")
        .get_template("study.html.j2")
        .render(
            title=job.study.title,
            source=job.study.source,
            note=job.study.note,
            lead=_lead(table, orderings),
            rule=job.terms,
            facts=[
                f"{len(job.study.shown)} rows",
                f"{len(first.each)} seed{'s' * (len(first.each) != 1)}",
            ],
            table=table,
            orderings=[(one, _verdict_text(one)) for one in listed],
            plots=plots(results),
            folders=[
                (row, [str(cell.folder) for cell in job.measuring(row)]) for row in job.study.shown
            ],
            command=command,
            holdfast=holdfast.__version__,
        )
    )
    with whole(path) as unfinished:
        unfinished.write_text(text, encoding="utf-8", errors="replace")
    return path


def _lead(table: Grid, orderings: Sequence[Ordering]) -> str:
    if not table.published:
        return "The paper gives no numbers here; this is what was measured."
    said = counted(orderings)
    return f"{said[0].upper()}{said[1:]}."


def _verdict_text(ordering: Ordering) -> str:
    ends = ""
    if ordering.low is not None and ordering.high is not None:
        ends = f" ({ordering.low:.4g} to {ordering.high:.4g})"
    return f"{ordering.difference:.4g}{ends}".replace("-", "−")
