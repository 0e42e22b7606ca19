"""A table laid out: what stands in it, before it is written as HTML, CSV, Markdown or LaTeX."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Literal

from holdfast.report.summary import Row
from holdfast.report.wording import MISSING, percent

__all__ = [
    "Cell",
    "Column",
    "Head",
    "Line",
    "Sheet",
    "cell_of",
    "is_struck",
    "number_text",
    "random_text",
    "small_text",
    "with_random",
]

MEAN = ("mean", "low", "high")
WITH_MEDIAN = (*MEAN, "median")
COUNT = ("preserved", "attacked")
RANDOM = "random"

Cell = Mapping[str, float | int | None]
"""The numbers behind one cell by their names: ``mean``, ``low``, ``high``, ``median``, …

``random`` is what random signs leave of the mean; ``struck`` is 1 where the figure is no evidence.
"""


@dataclass(frozen=True)
class Column:
    """One column of numbers.

    Attributes
    ----------
    title : str
        Its header.
    key : str
        What it is called in CSV.
    group : str
        A header above that of neighbouring columns of the same group.
    parts : tuple of str
        Which numbers of its cells it has, the one that is shown first.
    write : callable
        Writes such a number for people.
    better : str
        Whether ``"higher"`` or ``"lower"`` values are better; the best are bold. Empty for neither.
    """

    title: str
    key: str
    group: str = ""
    parts: tuple[str, ...] = MEAN
    write: Callable[[float | None], str] = percent
    better: Literal["higher", "lower", ""] = "higher"


@dataclass(frozen=True)
class Line:
    """One line of a table: its labels, and a cell for each column, None where nothing is known."""

    labels: tuple[str, ...]
    cells: tuple[Cell | None, ...]


@dataclass(frozen=True)
class Head:
    """One header cell of the table in HTML, over so many columns and rows."""

    text: str
    columns: int = 1
    rows: int = 1
    group: bool = False
    first: bool = False


@dataclass(frozen=True)
class Sheet:
    """A table with a line for each model, or for each model and what it was put to.

    Attributes
    ----------
    name : str
        What its files are called.
    caption : str
        A sentence on what the numbers are.
    labels : tuple of str
        The headers of the labels of a line; lines of the same labels but the last stand together.
    columns : tuple of Column
        The columns of numbers.
    lines : tuple of Line
        The lines.
    notes : tuple of str
        Why figures are struck out.
    """

    name: str
    caption: str
    labels: tuple[str, ...]
    columns: tuple[Column, ...]
    lines: tuple[Line, ...]
    notes: tuple[str, ...] = ()

    @property
    def best(self) -> frozenset[tuple[int, int]]:
        """Line and column of the best values among those that stand together, as printed."""
        found: set[tuple[int, int]] = set()
        for number, column in enumerate(self.columns):
            if not column.better:
                continue
            for _, lines in _together(self.lines):
                shown = {
                    place: column.write(value)
                    for place, line in lines
                    if (value := _first(column, line.cells[number])) is not None
                    and not is_struck(line.cells[number])
                }
                values = {p: _first(column, self.lines[p].cells[number]) or 0.0 for p in shown}
                if len(shown) > 1:
                    pick = max if column.better == "higher" else min
                    text = shown[pick(values, key=values.__getitem__)]
                    found |= {(place, number) for place in shown if shown[place] == text}
        return frozenset(found)

    @property
    def groups(self) -> tuple[tuple[str, tuple[tuple[int, Line], ...]], ...]:
        """The lines that stand together with their numbers, and what their labels share."""
        pieces = [(labels, tuple(lines)) for labels, lines in _together(self.lines)]
        return tuple((", ".join(filter(None, labels)), lines) for labels, lines in pieces)

    @property
    def width(self) -> int:
        """How many columns the table takes in HTML."""
        return 1 + sum(2 if "median" in column.parts else 1 for column in self.columns)

    @property
    def flat(self) -> bool:
        """Whether each line stands alone, so that what it shares with none can name it."""
        return len(self.labels) > 1 and all(len(lines) == 1 for _, lines in self.groups)

    @property
    def header(self) -> tuple[tuple[Head, ...], ...]:
        """The header cells in HTML, row by row; a column with a median takes two columns there."""
        deep = any(column.group or "median" in column.parts for column in self.columns)
        label = self.labels[0] if self.flat else self.labels[-1]
        upper, lower = [Head(label, rows=2 if deep else 1)], []
        for group, columns in groupby(self.columns, key=lambda column: column.group):
            wide = list(columns)
            if group:
                upper.append(Head(group, len(wide), group=True))
                lower += [Head(c.title, first=n == 0) for n, c in enumerate(wide)]
                continue
            for column in wide:
                if "median" in column.parts:
                    upper.append(Head(column.title, 2, group=True))
                    lower += [Head(column.parts[0], first=True), Head("median")]
                else:
                    upper.append(Head(column.title, rows=2 if deep else 1, first=deep))
        return (tuple(upper), tuple(lower)) if deep else (tuple(upper),)


def cell_of(row: Row | None) -> Cell | None:
    """Take what a cell may show from a row of the comparison."""
    if row is None:
        return None
    kept = {"preserved": row.preserved, "attacked": row.attacked}
    cell = {"mean": row.mean, "low": row.low, "high": row.high, "median": row.median, **kept}
    return cell | {RANDOM: row.random} | ({"struck": 1} if row.struck else {})


def is_struck(cell: Cell | None) -> bool:
    """Tell whether the figure of a cell is no evidence, and to be shown struck out.

    Examples
    --------
    >>> is_struck({"mean": 1.0, "struck": 1}), is_struck({"mean": 0.5}), is_struck(None)
    (True, False, False)
    """
    return bool(cell and cell.get("struck"))


def with_random(columns: Sequence[Column], lines: Sequence[Line]) -> tuple[Column, ...]:
    """Let columns have what random signs leave, where that is known of one of their cells."""
    known = [
        any(cell and cell.get(RANDOM) is not None for cell in cells)
        for cells in zip(*(line.cells for line in lines), strict=True)
    ]
    return tuple(
        replace(column, parts=(*column.parts, RANDOM)) if has else column
        for column, has in zip(columns, known or [False] * len(columns), strict=True)
    )


def random_text(column: Column, cell: Cell | None) -> str:
    """Write what random signs leave of the mean of a cell; nothing where that is not known.

    Examples
    --------
    >>> random_text(Column("τ", "tau", parts=("mean", "random")), {"mean": 0.2, "random": 0.4})
    '40.0'
    """
    value = cell.get(RANDOM) if cell and RANDOM in column.parts else None
    return "" if value is None else column.write(value)


def number_text(column: Column, cell: Cell | None) -> str:
    """Write the number that a cell shows; a dash where there is none.

    Examples
    --------
    >>> number_text(Column("τ", "tau"), {"mean": 0.5, "low": 0.4, "high": 0.6})
    '50.0'
    """
    if column.parts == COUNT:
        return f"{cell['preserved']:,} of {cell['attacked']:,}" if cell else MISSING
    return column.write(_first(column, cell))


def small_text(column: Column, cell: Cell | None) -> str:
    """Write the interval of a cell, or how many images it counts; nothing where there is none.

    Examples
    --------
    >>> small_text(Column("τ", "tau"), {"mean": 0.5, "low": 0.4, "high": 0.6})
    '40.0 to 60.0'
    """
    if cell is None or "low" not in column.parts:
        return ""
    low, high = cell.get("low"), cell.get("high")
    return "" if low is None or high is None else f"{column.write(low)} to {column.write(high)}"


def _first(column: Column, cell: Cell | None) -> float | None:
    value = None if cell is None else cell.get(column.parts[0])
    return None if value is None else float(value)


def _together(lines: Sequence[Line]) -> Iterator[tuple[tuple[str, ...], list[tuple[int, Line]]]]:
    for labels, piece in groupby(enumerate(lines), key=lambda pair: pair[1].labels[:-1]):
        yield labels, list(piece)
