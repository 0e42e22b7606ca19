"""All sections of a report in their order, and their tables as files."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from holdfast.contracts import InputError
from holdfast.files import whole
from holdfast.report.alignment import alignment_sections
from holdfast.report.attacks import attack_sections
from holdfast.report.checks import other_measures
from holdfast.report.corruptions import corruption_sections
from holdfast.report.counterfactual import baseline_sections, removal_sections
from holdfast.report.explanations import explanation_sections
from holdfast.report.glance import glance
from holdfast.report.localization import localization_sections
from holdfast.report.map_quality import faithfulness_sections, reference_sections
from holdfast.report.records import AuditedRun
from holdfast.report.roar import roar_sections
from holdfast.report.section import Section
from holdfast.report.sheet import Column, Line, Sheet, cell_of
from holdfast.report.summary import Table, table
from holdfast.report.tables import comparison, to_csv, to_latex, to_markdown
from holdfast.report.trust import trust_sections
from holdfast.report.wording import MISSING, check_title, measure_sign
from holdfast.report.wsol import wsol_sections

__all__ = ["contents", "write_tables"]

SECTIONS = (
    attack_sections,
    explanation_sections,
    trust_sections,
    localization_sections,
    wsol_sections,
    alignment_sections,
    faithfulness_sections,
    removal_sections,
    baseline_sections,
    roar_sections,
    reference_sections,
    corruption_sections,
)
WRITERS = {".csv": to_csv, ".md": to_markdown, ".tex": to_latex}


def contents(runs: Sequence[AuditedRun], table: Table) -> tuple[Section, ...]:
    """Lay out all sections for which there are records.

    Parameters
    ----------
    runs : sequence of AuditedRun
        The runs.
    table : Table
        Their comparison, from :func:`~holdfast.report.table`.

    Examples
    --------
    >>> import pyarrow as pa
    >>> runs = [AuditedRun("art", pa.table({"index": [0, 1], "label": [3, 5],
    ...     "check": ["localization/gradient"] * 2, "measure": ["loc"] * 2, "value": [1.0, 0.0]}))]
    >>> from holdfast.report.summary import table
    >>> [section.title for section in contents(runs, table(runs))]
    ['Localization']
    """
    made = [section for sections in SECTIONS for section in sections(runs, table)]
    return (*made, *_others(table))


def write_tables(runs: Sequence[AuditedRun], folder: str | Path) -> tuple[Path, ...]:
    """Write all tables of a report as CSV, Markdown and LaTeX, one file each.

    CSV has fractions at full precision, with intervals; the others read as the report does.

    Parameters
    ----------
    runs : sequence of AuditedRun
        The runs, of different names.
    folder : str or Path
        Where to write; it is made if it is not there.

    Returns
    -------
    tuple of Path
        The files.

    Raises
    ------
    InputError
        If there is no run, two have one name, or ``folder`` is a file.

    Examples
    --------
    >>> import tempfile
    >>> import pyarrow as pa
    >>> run = AuditedRun("art", pa.table({"index": [0, 1], "label": [3, 5], "check": ["clean"] * 2,
    ...                                   "measure": ["correct"] * 2, "value": [1.0, 0.0]}))
    >>> with tempfile.TemporaryDirectory() as out:
    ...     [file.name for file in write_tables([run], out)]
    ['comparison.csv', 'comparison.md', 'comparison.tex', 'glance.csv', 'glance.md', 'glance.tex']
    """
    target = Path(folder)
    if os.path.exists(target) and not target.is_dir():
        raise InputError("folder", f"the file {target}", "a folder to write to")
    compared = table(runs)
    sheets = [comparison(compared), glance(runs, compared)]
    sheets += [sheet for section in contents(runs, compared) for sheet in _sheets(section)]
    files = []
    for sheet in sheets:
        for suffix, write in WRITERS.items():
            file = target / (re.sub(r"[^\w.-]+", "_", sheet.name) + suffix)
            with whole(file) as unfinished:
                unfinished.write_text(write(sheet).rstrip("\n") + "\n", encoding="utf-8")
            files.append(file)
    return tuple(files)


def _sheets(section: Section) -> Iterator[Sheet]:
    yield from section.sheets
    if section.heat:
        yield section.heat
    yield from section.data
    for part in section.parts:
        yield from _sheets(part)


def _others(table: Table) -> list[Section]:
    """Lay out what has no place of its own."""
    others = other_measures(table)
    if not others:
        return []
    columns = tuple(
        Column(
            f"{check_title(check)}: {measure_sign(measure)}",
            f"{check}:{measure}",
            write=_plain,
            parts=("mean",),
            better="",
        )
        for check, measure in others
    )
    lines = tuple(
        Line((run,), tuple(cell_of(table.row(run, *pair)) for pair in others)) for run in table.runs
    )
    caption = "Mean over the images, in the measure’s own unit."
    return [
        Section(
            "others",
            "Other measures",
            sheets=(Sheet("other_measures", caption, ("Model",), columns, lines),),
        )
    ]


def _plain(value: float | None) -> str:
    return MISSING if value is None else f"{value:.4g}"
