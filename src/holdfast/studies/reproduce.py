"""A study from its cells to its tables and its page."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from holdfast.audit import share_out
from holdfast.files import whole
from holdfast.studies.cells import Cell, run_cell, stages
from holdfast.studies.measured import Results, measured
from holdfast.studies.orderings import Ordering, orderings
from holdfast.studies.page import write_page
from holdfast.studies.plan import Reproduction, cells
from holdfast.studies.tables import Grid, grid, to_latex, to_markdown

__all__ = ["Written", "reproduce", "write"]


@dataclass(frozen=True)
class Written:
    """What a study came to, and where it stands.

    Attributes
    ----------
    results : Results
        All values.
    orderings : tuple of Ordering
        What came of the published orderings.
    table : Grid
        The table.
    folder : Path
        Where ``table.md``, ``table.tex`` and ``index.html`` are.
    """

    results: Results
    orderings: tuple[Ordering, ...]
    table: Grid
    folder: Path


def reproduce(
    name: str,
    job: Reproduction,
    *,
    run: Callable[[Cell], None] | None = None,
    ray: Mapping[str, Any] | None = None,
    command: str = "",
    progress: bool = False,
) -> Written:
    """Train what is missing, audit, and write tables and page.

    What was stopped goes on where it was, with the same result in the end.

    Parameters
    ----------
    name : str
        The study's name, by which its folder in ``job.out`` is called.
    job : Reproduction
        The study, and how it is to be made.
    run : callable, optional
        Runs a cell; `run_cell` in this process by default.
    ray : mapping, optional
        Let Ray run cells that do not need each other at the same time: what
        `holdfast.audit.share_out` takes, such as ``{"address": "first:6379"}``.
    command : str
        What makes the study again, to be shown on its page.
    progress : bool
        Show progress.

    Examples
    --------
    >>> import tempfile
    >>> from holdfast.studies import read_study, selected
    >>> few = {"trainer.max_epochs": 1, "data.limit": 20, "audit.manipulations": {}}
    >>> study = selected(read_study("digits/methods"), ["natural"])
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     job = Reproduction(study, Path(folder), scale=0.1, overrides=few)
    ...     made = reproduce("digits/methods", job)
    ...     sorted(file.name for file in made.folder.iterdir())
    ['index.html', 'table.md', 'table.tex']
    """
    for stage in stages(cells(job)):
        if ray is not None:
            for cell, _ in share_out(run_cell, stage, "cell", **ray):
                if progress:
                    print(f"{cell.name} is done", flush=True)
            continue
        for cell in stage:
            run_cell(cell, progress=progress) if run is None else run(cell)
    return write(name, job, command)


def write(name: str, job: Reproduction, command: str = "") -> Written:
    """Write the tables and the page of a study whose cells are done.

    Raises
    ------
    HoldfastError
        If an audit is missing.
    """
    results = measured(job)
    found = orderings(results)
    table = grid(results, found)
    mine = Path(name).suffix in (".yaml", ".yml")  # wherever the file is
    folder = job.out / re.sub(r"[^\w./-]+", ".", Path(name).stem if mine else name)
    for file, text in (("table.md", to_markdown(table)), ("table.tex", to_latex(table))):
        with whole(folder / file) as unfinished:
            unfinished.write_text(text + "\n", encoding="utf-8")
    write_page(results, table, found, folder / "index.html", command)
    return Written(results, found, table, folder)
