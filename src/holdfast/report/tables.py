"""Tables for the terminal, for Markdown, for a spreadsheet and for a paper."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Sequence
from itertools import groupby

import rich.box
import rich.table
from rich.text import Text

from holdfast.report.records import KEPT, SIMILARITIES
from holdfast.report.sheet import (
    COUNT,
    RANDOM,
    WITH_MEDIAN,
    Cell,
    Column,
    Line,
    Sheet,
    cell_of,
    is_struck,
    number_text,
    random_text,
    with_random,
)
from holdfast.report.summary import Table
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
    drawn = _drawn(table, title)
    random = any(_random(table, run, check) for run in table.runs for check in explanations)
    drawn.add_column("Model", overflow="fold")
    for check in predictions:
        drawn.add_column(Text(f"Acc.\n{check_title(check)}"), justify="right")
    if several:
        drawn.add_column("Check", overflow="fold")
    if explanations:
        for measure in SIMILARITIES:
            header = f"{measure_sign(measure)}\nmean/median"
            drawn.add_column(header, justify="right", no_wrap=True)
        if random:
            drawn.add_column("Random\nsigns, τ", justify="right", no_wrap=True)
        drawn.add_column("Labels\npreserved", justify="right", no_wrap=True)
    for run in table.runs:
        accuracies = [_mean(table, run, check, "correct") for check in predictions]
        lines = [
            [check_title(check)] * several + _explanation_cells(table, run, check, random)
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
    random = any(_random(table, run, check) for run in table.runs for check in explanations)
    after = " (τ after random signs)" if random else ""
    drawn = _drawn(
        table, f"Accuracy, and mean {signs} of maps before and after the attack{after}, %"
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
        cells = [_short(table, run, check) for run in table.runs]
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
    shown = with_random(columns, lines)
    return Sheet("comparison", caption, ("Model",), shown, tuple(lines), table.notes(*keys))


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
    written = [f"| {' | '.join(markdown_text(cell) for cell in line)} |" for line in lines]
    return "\n".join([*written, *(f"\n{markdown_text(note)}" for note in sheet.notes)])


def to_csv(table: Table | Sheet) -> str:
    """Write a table as CSV for a spreadsheet or a script.

    Values are those of the records (fractions, not percent) at full precision, with the 95 %
    interval of each mean; a column is named ``check:measure:statistic``. What was not measured is
    left empty. Figures that are no evidence stand between ``~~``, so that no script takes them for
    numbers, and a last column ``notes`` says why. A text that a spreadsheet would take for a
    formula has ``'`` before it.

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
    noted = ["notes"] if sheet.notes else []
    writer.writerow(map(_inert, [*labels, *parts, *noted]))
    for line in sheet.lines:
        values = [
            _struck(str(value))
            if value is not None and part != RANDOM and is_struck(cell)
            else value
            for column, cell in zip(sheet.columns, line.cells, strict=True)
            for part in column.parts
            for value in [(cell or {}).get(part)]
        ]
        about = [" ".join(sheet.notes) if any(map(is_struck, line.cells)) else ""] if noted else []
        writer.writerow(map(_inert, [*line.labels, *values, *about]))
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
    if sheet.notes:
        width = rf"\multicolumn{{{len(kinds)}}}{{p{{0.95\linewidth}}}}"
        notes = [rf"{width}{{\footnotesize {latex_text(note)}}} \\" for note in sheet.notes]
        lines = [r"% \sout is of \usepackage[normalem]{ulem}", *lines, r"\midrule", *notes]
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}"])


def _inert(cell: object) -> object:
    """Keep a spreadsheet from taking a text for a formula; numbers stay numbers."""
    if isinstance(cell, str) and cell[:1] in _FORMULA and not _NUMBER.fullmatch(cell):
        return f"'{cell}"
    return cell


_FORMULA = tuple("=+-@\t\r\n＝＋－＠")
_NUMBER = re.compile(r"[-+]?(\d+(\.\d*)?|\.\d+)([eE][-+]?\d+)?")
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
    title = f"{column.title} mean / median" if "median" in column.parts else column.title
    return f"{title} (random signs)" if RANDOM in column.parts else title


def _texts(sheet: Sheet, line: Line) -> list[str]:
    """Write the cells of a line as they stand in Markdown and LaTeX, mean and median in one."""
    pairs = zip(sheet.columns, line.cells, strict=True)
    return [*line.labels, *(_cell_text(column, cell) for column, cell in pairs)]


def _cell_text(column: Column, cell: Cell | None) -> str:
    text = number_text(column, cell)
    if cell is not None and "median" in column.parts:
        text = f"{text} / {column.write(cell['median'])}"
    if is_struck(cell):
        text = _struck(text)
    random = random_text(column, cell)
    return f"{text} ({random})" if random else text


def _struck(text: str) -> str:
    return f"~~{text}~~"


def _drawn(table: Table, title: str) -> rich.table.Table:
    """Begin a table for the terminal; what speaks against its figures stands beneath."""
    told = [f"{run}: {said}" for run, findings in table.findings.items() for said in findings]
    caption = Text("\n".join([*table.notes(), *told]), style="default")
    return rich.table.Table(
        title=Text(title),
        title_justify="left",
        caption=caption if caption else None,
        caption_justify="left",
        box=rich.box.SIMPLE_HEAD,
    )


def _short(table: Table, run: str, check: str) -> str:
    rows = [table.row(run, check, measure) for measure in SHORT]
    if all(row and row.struck for row in rows):
        text = _struck(" / ".join(percent(row.mean) for row in rows if row))
    else:
        text = " / ".join(_mean(table, run, check, measure) for measure in SHORT)
    random = _random(table, run, check)
    return f"{text} ({random})" if random else text


def _random(table: Table, run: str, check: str) -> str:
    """Write what random signs at the same ε leave of τ; nothing where that is not known."""
    row = table.row(run, check, SHORT[1])
    return percent(row.random) if row and row.random is not None else ""


def _explanation_cells(table: Table, run: str, check: str, random: bool) -> list[str]:
    cells = []
    for measure in SIMILARITIES:
        row = table.row(run, check, measure)
        text = f"{percent(row.mean)} / {percent(row.median)}" if row else MISSING
        cells.append(_struck(text) if row and row.struck else text)
    kept = table.row(run, check, KEPT)
    if random:
        cells.append(_random(table, run, check) or MISSING)
    return [*cells, f"{kept.preserved} of {kept.attacked}" if kept else MISSING]


def _mean(table: Table, run: str, check: str, measure: str) -> str:
    row = table.row(run, check, measure)
    text = percent(row.mean if row else None)
    return _struck(text) if row and row.struck else text


def markdown_text(cell: str) -> str:
    cell = re.sub(r"([\\|`*\[\]])", r"\\\1", " ".join(cell.split()))
    return re.sub(r"&(?=#?\w+;)", "&amp;", cell).replace("<", "&lt;")


def _latex_groups(sheet: Sheet) -> list[str]:
    """Write the headers above groups of columns, and the rules beneath these."""
    if not any(column.group for column in sheet.columns):
        return []
    cells, rules, place = [""] * len(sheet.labels), [], len(sheet.labels) + 1
    for group, columns in groupby(sheet.columns, key=lambda column: column.group):
        width = len(list(columns))
        if group:
            cells.append(rf"\multicolumn{{{width}}}{{c}}{{{latex_text(group)}}}")
            rules.append(rf"\cmidrule(lr){{{place}-{place + width - 1}}}")
        else:
            cells += [""] * width
        place += width
    return [" & ".join(cells) + r" \\", " ".join(rules)]


def _latex_row(cells: Sequence[str]) -> str:
    return " & ".join(latex_text(cell) for cell in cells) + r" \\"


def latex_text(text: str) -> str:
    struck = re.fullmatch(r"~~(.*)~~(.*)", text)
    if struck:
        return rf"\sout{{{latex_text(struck[1])}}} {latex_text(struck[2])}".rstrip()
    return "".join(_LATEX.get(sign, sign) for sign in " ".join(text.split()))
