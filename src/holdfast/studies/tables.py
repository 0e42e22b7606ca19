"""Published and measured side by side: Markdown, LaTeX, and what a page shows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

from holdfast.report.tables import latex_text, markdown_text
from holdfast.report.wording import MISSING
from holdfast.studies.measured import Results, Value
from holdfast.studies.orderings import Ordering
from holdfast.studies.study import Column

__all__ = ["Grid", "Line", "grid", "to_latex", "to_markdown"]

REFUTED, REVERSED = "‡", "†"
KEY = {
    REFUTED: f"{REFUTED} a published ordering with this value is refuted",
    REVERSED: f"{REVERSED} one is reversed, but open",
}


@dataclass(frozen=True)
class Line:
    """A row's name and group, and for each column what was published and what was measured."""

    name: str
    group: str
    cells: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Grid:
    """A table of a study, all of it text.

    Attributes
    ----------
    columns : tuple of str
        Headers, with an arrow towards better values.
    groups : tuple of str
        The header above each column, "" where there is none.
    published : bool
        Whether anything was published, so that it has columns of its own.
    lines : tuple of Line
        The rows.
    notes : tuple of str
        What signs in the cells mean.
    """

    columns: tuple[str, ...]
    groups: tuple[str, ...]
    published: bool
    lines: tuple[Line, ...]
    notes: tuple[str, ...]

    @property
    def headers(self) -> tuple[str, ...]:
        """The headers of the columns, with that above them where it does not begin them."""
        pairs = zip(self.groups, self.columns, strict=True)
        return tuple(t if t.startswith(group) else f"{group}, {t}" for group, t in pairs)


def grid(results: Results, orderings: Sequence[Ordering]) -> Grid:
    """Lay out a study's table.

    Parameters
    ----------
    results : Results
        What was measured.
    orderings : sequence of Ordering
        What came of the published orderings, for the marks.
    """
    study = results.job.study
    marks: dict[tuple[str, str], str] = {}
    for ordering in orderings:
        if not ordering.reversed:
            continue
        sign = REFUTED if ordering.verdict == "refuted" else REVERSED
        for row in (ordering.above, ordering.below):
            if marks.get((row, ordering.column)) != REFUTED:
                marks[row, ordering.column] = sign
    lines = []
    for name, about in study.shown.items():
        cells = []
        for title, column in study.columns.items():
            printed = _published(study.published(name, title))
            sign = marks.get((name, title), "")
            cells.append((printed, _measured(results.value(name, title), column) + sign))
        lines.append(Line(name, about.group, tuple(cells)))
    published = any(row.published is not None for row in study.shown.values())
    arrows = {"higher": " ↑", "lower": " ↓", "neither": ""}
    return Grid(
        tuple(f"{title}{arrows[column.better]}" for title, column in study.columns.items()),
        tuple(column.group for column in study.columns.values()),
        published,
        tuple(lines),
        tuple(text for sign, text in KEY.items() if sign in marks.values()),
    )


def to_markdown(table: Grid) -> str:
    """Write a study's table as Markdown.

    Examples
    --------
    >>> line = Line("ART", "", (("92.90", "90.1"),))
    >>> print(to_markdown(Grid(("IN ↑",), ("",), True, (line,), ())))
    | Row | IN ↑: published | measured |
    | :--- | ---: | ---: |
    | ART | 92.90 | 90.1 |
    """
    head = ["Row"]
    for named in table.headers:
        head += [f"{named}: published", "measured"] if table.published else [named]
    body = [[_row_name(line), *_flat(table, line)] for line in table.lines]
    rule = [":---"] + ["---:"] * (len(head) - 1)
    rows = [[markdown_text(cell) for cell in row] for row in (head, *body)]
    written = [f"| {' | '.join(row)} |" for row in (rows[0], rule, *rows[1:])]
    notes = [f"{'; '.join(table.notes)}."] if table.notes else []
    return "\n".join([*written, *(f"\n{note}" for note in notes)])


def to_latex(table: Grid) -> str:
    r"""Write a study's table as a LaTeX ``tabular`` in the style of booktabs.

    Examples
    --------
    >>> line = Line("ART", "", (("92.90", "90.1"),))
    >>> print(to_latex(Grid(("IN",), ("",), True, (line,), ())))
    \begin{tabular}{lrr}
    \toprule
     & \multicolumn{2}{c}{IN} \\
    Row & published & measured \\
    \midrule
    ART & 92.90 & 90.1 \\
    \bottomrule
    \end{tabular}
    """
    width = 2 if table.published else 1
    lines = [rf"\begin{{tabular}}{{l{'r' * (width * len(table.columns))}}}", r"\toprule"]
    if any(table.groups):
        spans = [(group, width * len(list(same))) for group, same in groupby(table.groups)]
        cells = [rf"\multicolumn{{{n}}}{{c}}{{{latex_text(group)}}}" for group, n in spans]
        lines.append(" & ".join(["", *cells]) + r" \\")
    titles = [latex_text(title) for title in table.columns]
    if table.published:
        wide = [rf"\multicolumn{{2}}{{c}}{{{title}}}" for title in titles]
        lines.append(" & ".join(["", *wide]) + r" \\")
        titles = ["published", "measured"] * len(titles)
    lines += [" & ".join(["Row", *titles]) + r" \\", r"\midrule"]
    for line in table.lines:
        cells = [latex_text(cell) for cell in (_row_name(line), *_flat(table, line))]
        lines.append(" & ".join(cells) + r" \\")
    lines += [f"% {note}" for note in table.notes]
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}"])


def _row_name(line: Line) -> str:
    named = line.name.startswith(line.group)
    return line.name if named else f"{line.group}: {line.name}"


def _flat(table: Grid, line: Line) -> list[str]:
    if table.published:
        return [text for cell in line.cells for text in cell]
    return [measured for _, measured in line.cells]


def _published(value: float | None) -> str:
    return MISSING if value is None else f"{value:g}".replace("-", "−")


def _measured(value: Value | None, column: Column) -> str:
    """Write a value, its spread over seeds, and its interval over images."""
    if value is None:
        return MISSING
    text = _number(value.mean, column)
    if value.spread is not None:
        text += f" ± {_number(value.spread, column)}"
    if value.low is not None and value.high is not None:
        text += f" ({_number(value.low, column)} to {_number(value.high, column)})"
    return text


def _number(value: float, column: Column) -> str:
    return f"{round(value, column.digits) + 0.0:.{column.digits}f}".replace("-", "−")
