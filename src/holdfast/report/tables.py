"""The comparison table for the terminal, for Markdown, for a spreadsheet and for a paper."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence

import rich.box
import rich.table
from rich.text import Text

from holdfast.report.summary import SIMILARITIES, Table
from holdfast.report.wording import MISSING, check_title, measure_sign, percent

__all__ = ["to_csv", "to_latex", "to_markdown", "to_rich"]


def to_rich(table: Table) -> rich.table.Table:
    """Lay a comparison out for the terminal, readable from 100 columns on.

    A model takes one line for each check on explanations. All values are in percent.

    Examples
    --------
    >>> from holdfast.report.summary import Table
    >>> to_rich(Table(("art",), ("clean",), (), {})).row_count
    1
    """
    several = len(table.explanations) > 1
    title = "Accuracy and similarity of maps before and after the attack, %"
    if len(table.explanations) == 1:
        title = f"{title}: {check_title(table.explanations[0])}"
    drawn = rich.table.Table(title=Text(title), title_justify="left", box=rich.box.SIMPLE_HEAD)
    drawn.add_column("Model", overflow="fold")
    for check in table.predictions:
        drawn.add_column(Text(f"Acc.\n{check_title(check)}"), justify="right")
    if several:
        drawn.add_column("Check", overflow="fold")
    if table.explanations:
        for measure in SIMILARITIES:
            header = f"{measure_sign(measure)}\nmean/median"
            drawn.add_column(header, justify="right", no_wrap=True)
        drawn.add_column("Labels\npreserved", justify="right", no_wrap=True)
    for run in table.runs:
        accuracies = [_mean(table, run, check, "correct") for check in table.predictions]
        lines = [
            [check_title(check)] * several + _explanation_cells(table, run, check)
            for check in table.explanations
        ] or [[]]
        for number, cells in enumerate(lines):
            start = [run, *accuracies] if number == 0 else [""] * (1 + len(accuracies))
            last = several and number == len(lines) - 1
            drawn.add_row(*(Text(cell) for cell in [*start, *cells]), end_section=last)
    return drawn


def to_markdown(table: Table) -> str:
    """Write a comparison as a Markdown table, one row a model, in percent.

    Examples
    --------
    >>> print(to_markdown(Table(("art",), ("clean",), (), {})))
    | Model | Accuracy |
    | :--- | ---: |
    | art | – |
    """
    header = ["Model", *(_prediction_header(check) for check in table.predictions)]
    for check in table.explanations:
        signs = [f"{measure_sign(measure)} mean / median" for measure in SIMILARITIES]
        header += [f"{check}: {part}" for part in [*signs, "labels preserved"]]
    rows = [[run, *_cells(table, run)] for run in table.runs]
    lines = [header, [":---"] + ["---:"] * (len(header) - 1), *rows]
    return "\n".join(f"| {' | '.join(_markdown(cell) for cell in line)} |" for line in lines)


def to_csv(table: Table) -> str:
    """Write a comparison as CSV for a spreadsheet or a script, one line a model.

    Values are fractions at full precision, with the 95 % interval of each mean; a column is named
    ``check:measure:statistic``. What was not measured is left empty.

    Examples
    --------
    >>> print(to_csv(Table(("art",), ("clean",), (), {})), end="")
    run,clean:correct:mean,clean:correct:low,clean:correct:high
    art,,,
    """
    columns = [(check, "correct", part) for check in table.predictions for part in _INTERVAL]
    for check in table.explanations:
        columns += [(check, m, part) for m in SIMILARITIES for part in (*_INTERVAL, "median")]
        columns += [(check, "preserved", "preserved"), (check, "preserved", "attacked")]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["run", *(":".join(column) for column in columns)])
    for run in table.runs:
        rows = [(table.row(run, check, measure), part) for check, measure, part in columns]
        values = [None if row is None else getattr(row, part) for row, part in rows]
        writer.writerow([run, *values])
    return text.getvalue()


def to_latex(table: Table) -> str:
    r"""Write a comparison as a LaTeX ``tabular`` in the style of booktabs, in percent.

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
    plain = 1 + len(table.predictions)
    width = len(SIMILARITIES) + 1
    header = ["Model", *(_prediction_header(check) for check in table.predictions)]
    header += [*(measure_sign(measure) for measure in SIMILARITIES), "Preserved"] * len(
        table.explanations
    )
    lines = [rf"\begin{{tabular}}{{l{'r' * (len(header) - 1)}}}", r"\toprule"]
    if table.explanations:
        groups = [rf"\multicolumn{{{width}}}{{c}}{{{_latex(c)}}}" for c in table.explanations]
        starts = [plain + 1 + number * width for number in range(len(groups))]
        lines.append("& " * plain + " & ".join(groups) + r" \\")
        lines.append(" ".join(rf"\cmidrule(lr){{{s}-{s + width - 1}}}" for s in starts))
    lines += [_latex_row(header), r"\midrule"]
    lines += [_latex_row([run, *_cells(table, run)]) for run in table.runs]
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}"])


_INTERVAL = ("mean", "low", "high")
_LATEX = {
    **{sign: rf"\{sign}" for sign in "&%$#_{}"},
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "τ": r"$\tau$",
    "ρ": r"$\rho$",
    "−": "$-$",
    "–": "--",
}


def _prediction_header(check: str) -> str:
    return "Accuracy" if check == "clean" else f"under {check_title(check)}"


def _cells(table: Table, run: str) -> list[str]:
    cells = [_mean(table, run, check, "correct") for check in table.predictions]
    for check in table.explanations:
        cells += _explanation_cells(table, run, check)
    return cells


def _explanation_cells(table: Table, run: str, check: str) -> list[str]:
    cells = []
    for measure in SIMILARITIES:
        row = table.row(run, check, measure)
        cells.append(f"{percent(row.mean)} / {percent(row.median)}" if row else MISSING)
    kept = table.row(run, check, "preserved")
    return [*cells, f"{kept.preserved} of {kept.attacked}" if kept else MISSING]


def _mean(table: Table, run: str, check: str, measure: str) -> str:
    row = table.row(run, check, measure)
    return percent(row.mean if row else None)


def _markdown(cell: str) -> str:
    return cell.replace("\\", "\\\\").replace("|", "\\|").replace("<", "&lt;")


def _latex_row(cells: Sequence[str]) -> str:
    return " & ".join(_latex(cell) for cell in cells) + r" \\"


def _latex(text: str) -> str:
    return "".join(_LATEX.get(sign, sign) for sign in text)
