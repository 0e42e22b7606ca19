"""Tables for the terminal, for Markdown, for a spreadsheet and for a paper."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from itertools import groupby

import rich.box
import rich.table
from rich.text import Text

from holdfast.report.sheet import (
    COUNT,
    WITH_MEDIAN,
    Cell,
    Column,
    Line,
    Sheet,
    cell_of,
    number_text,
)
from holdfast.report.summary import KEPT, SIMILARITIES, Table
from holdfast.report.wording import MISSING, check_title, measure_sign, percent

__all__ = ["comparison", "to_csv", "to_latex", "to_markdown", "to_rich"]

# So many checks of a kind stand side by side in a terminal, and of more only these measures.
ROOM = 3
SHORT = SIMILARITIES[:2]


def to_rich(table: Table) -> rich.table.Table:
    """Lay a comparison out for the terminal, readable from 100 columns on.

    A model takes one line for each attack on explanations. With more checks than there is room for,
    these are the lines, and the models the columns. Of attacks that differ in one number only, the
    main one is shown. All values are in percent.

    Examples
    --------
    >>> from holdfast.report.summary import Table
    >>> to_rich(Table(("art",), ("clean",), (), {})).row_count
    1
    """
    predictions = [check for check in table.predictions if check not in table.folded]
    explanations = [check for check in table.explanations if check not in table.folded]
    if max(len(predictions), len(explanations)) > ROOM:
        return _by_check(table, predictions, explanations)
    several = len(explanations) > 1
    title = "Accuracy and similarity of maps before and after the attack, %"
    if len(explanations) == 1:
        title = f"{title}: {check_title(explanations[0])}"
    drawn = rich.table.Table(title=Text(title), title_justify="left", box=rich.box.SIMPLE_HEAD)
    drawn.add_column("Model", overflow="fold")
    for check in predictions:
        drawn.add_column(Text(f"Acc.\n{check_title(check)}"), justify="right")
    if several:
        drawn.add_column("Check", overflow="fold")
    if explanations:
        for measure in SIMILARITIES:
            header = f"{measure_sign(measure)}\nmean/median"
            drawn.add_column(header, justify="right", no_wrap=True)
        drawn.add_column("Labels\npreserved", justify="right", no_wrap=True)
    for run in table.runs:
        accuracies = [_mean(table, run, check, "correct") for check in predictions]
        lines = [
            [check_title(check)] * several + _explanation_cells(table, run, check)
            for check in explanations
        ] or [[]]
        for number, cells in enumerate(lines):
            start = [run, *accuracies] if number == 0 else [""] * (1 + len(accuracies))
            last = several and number == len(lines) - 1
            drawn.add_row(*(Text(cell) for cell in [*start, *cells]), end_section=last)
    return drawn


def _by_check(
    table: Table, predictions: Sequence[str], explanations: Sequence[str]
) -> rich.table.Table:
    """Lay a comparison out with a line a check, for more checks than fit side by side."""
    signs = " / ".join(measure_sign(measure) for measure in SHORT)
    drawn = rich.table.Table(
        title=Text(f"Accuracy, and mean {signs} of maps before and after the attack, %"),
        title_justify="left",
        box=rich.box.SIMPLE_HEAD,
    )
    drawn.add_column("Check", overflow="fold")
    for run in table.runs:
        drawn.add_column(Text(run), justify="right", overflow="fold")
    for check in predictions:
        cells = [_mean(table, run, check, "correct") for run in table.runs]
        drawn.add_row(
            *map(Text, [check_title(check), *cells]), end_section=check is predictions[-1]
        )
    for check in explanations:
        cells = [
            " / ".join(_mean(table, run, check, measure) for measure in SHORT) for run in table.runs
        ]
        drawn.add_row(*map(Text, [check_title(check), *cells]))
    return drawn


def comparison(table: Table) -> Sheet:
    """Lay the comparison out, one line a model: all attacks, on predictions and explanations.

    Examples
    --------
    >>> [column.title for column in comparison(Table(("art",), ("clean", "pgd"), (), {})).columns]
    ['Accuracy', 'under pgd']
    """
    keys = [(check, "correct") for check in table.predictions]
    columns = [Column(_accuracy_title(check), f"{check}:correct") for check in table.predictions]
    for check in table.explanations:
        keys += [(check, measure) for measure in (*SIMILARITIES, KEPT)]
        columns += [
            Column(measure_sign(m), f"{check}:{m}", check, WITH_MEDIAN) for m in SIMILARITIES
        ]
        columns.append(Column("labels preserved", f"{check}:{KEPT}", check, COUNT, better=""))
    lines = [
        Line((run,), tuple(cell_of(table.row(run, *key)) for key in keys)) for run in table.runs
    ]
    caption = "Accuracy, and similarity of maps before and after the attack, in percent."
    return Sheet("comparison", caption, ("Model",), tuple(columns), tuple(lines))


def to_markdown(table: Table | Sheet) -> str:
    """Write a table as Markdown, as the report shows it: in percent, unless the unit is another.

    Parameters
    ----------
    table : Table or Sheet
        The comparison of runs, or any table of the report.

    Examples
    --------
    >>> print(to_markdown(Table(("art",), ("clean",), (), {})))
    | Model | Accuracy |
    | :--- | ---: |
    | art | – |
    """
    sheet = _sheet(table)
    titles = [": ".join(filter(None, (c.group, _title(c)))) for c in sheet.columns]
    rule = [":---"] * len(sheet.labels) + ["---:"] * len(titles)
    rows = [_texts(sheet, line) for line in sheet.lines]
    lines = [[*sheet.labels, *titles], rule, *rows]
    return "\n".join(f"| {' | '.join(_markdown(cell) for cell in line)} |" for line in lines)


def to_csv(table: Table | Sheet) -> str:
    """Write a table as CSV for a spreadsheet or a script.

    Values are those of the records (fractions, not percent) at full precision, with the 95 %
    interval of each mean; a column is named ``check:measure:statistic``. What was not measured is
    left empty.

    Parameters
    ----------
    table : Table or Sheet
        The comparison of runs, or any table of the report.

    Examples
    --------
    >>> print(to_csv(Table(("art",), ("clean",), (), {})), end="")
    run,clean:correct:mean,clean:correct:low,clean:correct:high
    art,,,
    """
    sheet = _sheet(table)
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    labels = ["run" if label == "Model" else label.lower() for label in sheet.labels]
    parts = [f"{column.key}:{part}" for column in sheet.columns for part in column.parts]
    writer.writerow([*labels, *parts])
    for line in sheet.lines:
        values = [
            (cell or {}).get(part)
            for column, cell in zip(sheet.columns, line.cells, strict=True)
            for part in column.parts
        ]
        writer.writerow([*line.labels, *values])
    return text.getvalue()


def to_latex(table: Table | Sheet) -> str:
    r"""Write a table as a LaTeX ``tabular`` in the style of booktabs, as the report shows it.

    Parameters
    ----------
    table : Table or Sheet
        The comparison of runs, or any table of the report.

    Examples
    --------
    >>> print(to_latex(Table(("art",), ("clean",), (), {})))
    \begin{tabular}{lr}
    \toprule
    Model & Accuracy \\
    \midrule
    art & -- \\
    \bottomrule
    \end{tabular}
    """
    sheet = _sheet(table)
    kinds = "l" * len(sheet.labels) + "r" * len(sheet.columns)
    lines = [rf"\begin{{tabular}}{{{kinds}}}", r"\toprule", *_latex_groups(sheet)]
    # Columns of a paper are too narrow to say in each header that a cell has mean / median.
    lines += [_latex_row([*sheet.labels, *(c.title for c in sheet.columns)]), r"\midrule"]
    lines += [_latex_row(_texts(sheet, line)) for line in sheet.lines]
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}"])


_LATEX = {
    **{sign: rf"\{sign}" for sign in "&%$#_{}"},
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "τ": r"$\tau$",
    "ρ": r"$\rho$",
    "ε": r"$\varepsilon$",
    "‖": r"$\|$",
    "↑": r"$\uparrow$",
    "↓": r"$\downarrow$",
    "≥": r"$\geq$",
    "−": "$-$",
    "–": "--",
}


def _sheet(table: Table | Sheet) -> Sheet:
    return comparison(table) if isinstance(table, Table) else table


def _accuracy_title(check: str) -> str:
    return "Accuracy" if check == "clean" else f"under {check_title(check)}"


def _title(column: Column) -> str:
    return f"{column.title} mean / median" if "median" in column.parts else column.title


def _texts(sheet: Sheet, line: Line) -> list[str]:
    """Write the cells of a line as they stand in Markdown and LaTeX, mean and median in one."""
    pairs = zip(sheet.columns, line.cells, strict=True)
    return [*line.labels, *(_cell_text(column, cell) for column, cell in pairs)]


def _cell_text(column: Column, cell: Cell | None) -> str:
    text = number_text(column, cell)
    if cell is None or "median" not in column.parts:
        return text
    return f"{text} / {column.write(cell['median'])}"


def _explanation_cells(table: Table, run: str, check: str) -> list[str]:
    cells = []
    for measure in SIMILARITIES:
        row = table.row(run, check, measure)
        cells.append(f"{percent(row.mean)} / {percent(row.median)}" if row else MISSING)
    kept = table.row(run, check, KEPT)
    return [*cells, f"{kept.preserved} of {kept.attacked}" if kept else MISSING]


def _mean(table: Table, run: str, check: str, measure: str) -> str:
    row = table.row(run, check, measure)
    return percent(row.mean if row else None)


def _markdown(cell: str) -> str:
    return cell.replace("\\", "\\\\").replace("|", "\\|").replace("<", "&lt;")


def _latex_groups(sheet: Sheet) -> list[str]:
    """Write the headers above groups of columns, and the rules beneath these."""
    if not any(column.group for column in sheet.columns):
        return []
    cells, rules, place = [""] * len(sheet.labels), [], len(sheet.labels) + 1
    for group, columns in groupby(sheet.columns, key=lambda column: column.group):
        width = len(list(columns))
        if group:
            cells.append(rf"\multicolumn{{{width}}}{{c}}{{{_latex(group)}}}")
            rules.append(rf"\cmidrule(lr){{{place}-{place + width - 1}}}")
        else:
            cells += [""] * width
        place += width
    return [" & ".join(cells) + r" \\", " ".join(rules)]


def _latex_row(cells: Sequence[str]) -> str:
    return " & ".join(_latex(cell) for cell in cells) + r" \\"


def _latex(text: str) -> str:
    return "".join(_LATEX.get(sign, sign) for sign in text)
