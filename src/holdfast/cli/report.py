"""``holdfast report``: compare audited runs."""

from __future__ import annotations

import sys
from pathlib import Path

from holdfast.cli.options import make_parser, split

__all__ = ["report", "show"]


def report(arguments: list[str]) -> None:
    """Compare audited runs: a table here, and one HTML file with figures and galleries."""
    parser = make_parser("report", report)
    parser.add_argument("runs", type=str, nargs="+", help="Folders of audited runs.")
    parser.add_argument("--out", type=str, default="report.html", help="The HTML file to write.")
    parser.add_argument("--title", type=str, help="The report's title.")
    parser.add_argument("--tables", type=str, help="A folder for all tables: CSV, Markdown, LaTeX.")
    asked = split(parser, arguments)
    if asked is None:
        return
    options, _ = asked
    runs = [Path(run) for run in options.runs]
    page = show(runs, Path(options.out), options.title, options.tables)
    print(f"The report is in {page}.")
    if options.tables:
        print(f"Its tables are in {options.tables}.")


def show(
    runs: list[Path],
    page: Path | None = None,
    title: str | None = None,
    tables: str | None = None,
) -> Path | None:
    """Write the report and its tables, where it is said to, and print the comparison of runs."""
    from rich.console import Console

    from holdfast import report

    read = [report.read_run(run) for run in runs]
    if tables is not None:
        report.write_tables(read, tables)
    if page is not None:
        page = report.write_report(read, page, **({"title": title} if title else {}))
    # Piped into a file, the table keeps the width that it needs.
    console = Console() if sys.stdout.isatty() else Console(width=120)
    console.print(report.to_rich(report.table(read)))
    return page
