"""Curves: how accuracy, or the similarity of maps, changes as one number is turned up."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullFormatter

from holdfast.plot import INK, QUIET
from holdfast.report.families import Family, Kind, families
from holdfast.report.records import AuditedRun
from holdfast.report.section import Plot
from holdfast.report.sheet import Column, Line, Sheet
from holdfast.report.summary import Row, Table
from holdfast.report.wording import capitalized, check_title, percent

__all__ = ["Curve", "Point", "curve_plot", "curve_sheet", "family_curves", "plot_of", "point_of"]

# One colour and one marker a model, so that a line is known without colour too.
COLOURS = ("#0f6b70", "#b4540a", "#5b4fa8", "#a8195e", "#55750f", "#3c5a78")
MARKERS = ("o", "s", "^", "D", "v", "P")
DASHES = ("-", (0, (5, 2)), (0, (1, 1.5)))


@dataclass(frozen=True)
class Point:
    """A mean with its 95 % interval, all fractions; None for an interval that is not known.

    ``struck`` where it is no evidence.
    """

    x: float
    y: float
    low: float | None = None
    high: float | None = None
    struck: bool = False


@dataclass(frozen=True)
class Curve:
    """A line of points for each model.

    Attributes
    ----------
    name : str
        What the file of its numbers is called.
    title : str
        What it shows.
    x_title, y_title : str
        What stands at the axes; the values of y are drawn in percent.
    lines : Mapping
        For each model its points, ascending in x.
    write : callable
        Writes a value of x.
    doubling : bool
        Whether x is doubled again and again, and so drawn on a logarithmic scale where it is wide.
    """

    name: str
    title: str
    x_title: str
    y_title: str
    lines: Mapping[str, tuple[Point, ...]]
    write: Callable[[float], str] = "{:g}".format
    doubling: bool = False


def family_curves(runs: Sequence[AuditedRun], table: Table, kind: Kind) -> tuple[Curve, ...]:
    """Draw accuracy (or mean τ) over ε and over steps, for attacks that differ in nothing else.

    Over ε a curve begins at 0, where accuracy is that on clean images, and a map is itself.

    Parameters
    ----------
    runs : sequence of AuditedRun
        The runs.
    table : Table
        Their comparison.
    kind : str
        ``"attacks"`` on predictions, or ``"manipulations"`` of explanations.
    """
    measure, what = ("correct", "accuracy") if kind == "attacks" else ("kendall_tau", "mean τ")
    curves = []
    for number, family in enumerate(families(runs, kind), start=1):
        lines = {}
        for run, members in family.members.items():
            points = [
                point_of(x, table.row(run, check, measure)) for x, check in members.items() if x > 0
            ]
            start = [_at_zero(table, run, kind)] if family.setting == "eps" else []
            known = tuple(point for point in [*start, *points] if point)
            if len(known) > 1:
                lines[run] = known
        if lines:
            title = "ε" if family.setting == "eps" else "steps"
            write, unit = _scale(family)
            curves.append(
                Curve(
                    f"{kind}_curve_{number}",
                    f"{what} over {title}, {check_title(family.main)}",
                    title + unit,
                    f"{what}, %",
                    lines,
                    write,
                    doubling=True,
                )
            )
    return tuple(curves)


def point_of(x: float, row: Row | None) -> Point | None:
    """Take a point from a row of the comparison; None where nothing was measured."""
    return Point(x, row.mean, row.low, row.high, bool(row.struck)) if row else None


def curve_plot(curve: Curve) -> Figure:
    """Draw a curve: a line a model, with a band for the 95 % interval of the mean.

    Examples
    --------
    >>> points = (Point(0.0, 0.9, 0.85, 0.95), Point(0.1, 0.4, 0.3, 0.5))
    >>> curve = Curve("c", "accuracy over ε", "ε", "accuracy, %", {"art": points})
    >>> curve_plot(curve).axes[0].lines[0].get_ydata().tolist()
    [90.0, 40.0]
    """
    figure = Figure(figsize=(4.8, 3.1 + 0.22 * (len(curve.lines) // 3)), layout="constrained")
    axes = figure.add_subplot()
    for number, (run, points) in enumerate(curve.lines.items()):
        colour = COLOURS[number % len(COLOURS)]
        x = [point.x for point in points]
        axes.plot(
            x,
            [100 * point.y for point in points],
            color=colour,
            linewidth=1.75,
            linestyle=DASHES[number // len(COLOURS) % len(DASHES)],
            marker=MARKERS[number % len(MARKERS)],
            markersize=4.5 if len(x) < 12 else 3,
            label=run.replace("$", r"\$"),
        )
        out = [(point.x, 100 * point.y) for point in points if point.struck]
        if out:
            axes.plot(*zip(*out, strict=True), "x", color=INK, markersize=10, markeredgewidth=1.75)
        ends = [(p.x, p.low, p.high) for p in points if p.low is not None and p.high is not None]
        if len(ends) > 1:
            at, low, high = np.array(ends).T
            axes.fill_between(at, 100 * low, 100 * high, color=colour, alpha=0.16, linewidth=0)
    _dress(axes, curve)
    if len(curve.lines) > 1:
        figure.legend(
            loc="outside upper left",
            ncols=3,
            frameon=False,
            fontsize=9,
            labelcolor=INK,
            handlelength=1.6,
            columnspacing=1.2,
        )
    return figure


def curve_sheet(curve: Curve) -> Sheet:
    """Lay out the numbers behind a curve: a line for each value of x, a column a model."""
    steps = sorted({point.x for points in curve.lines.values() for point in points})
    cells = {
        (run, point.x): {"mean": point.y, "low": point.low, "high": point.high}
        | ({"struck": 1} if point.struck else {})
        for run, points in curve.lines.items()
        for point in points
    }
    return Sheet(
        curve.name,
        f"{capitalized(curve.title)}, in percent.",
        (curve.x_title,),
        tuple(Column(run, run, better="") for run in curve.lines),
        tuple(
            Line((curve.write(x),), tuple(cells.get((run, x)) for run in curve.lines))
            for x in steps
        ),
    )


def plot_of(curve: Curve) -> Plot:
    """Give a curve's figure and the same in words."""
    told = [
        f"{run}: {', '.join(_told(curve, point) for point in points)}"
        for run, points in curve.lines.items()
    ]
    alt = f"{capitalized(curve.title)} ({curve.y_title}, {curve.x_title}). {'; '.join(told)}."
    return Plot(lambda: curve_plot(curve), alt)


def _told(curve: Curve, point: Point) -> str:
    struck = " (struck out)" if point.struck else ""
    return f"{percent(point.y)} at {curve.write(point.x)}{struck}"


def _at_zero(table: Table, run: str, kind: Kind) -> Point | None:
    """Give what an attack without room leaves: clean accuracy, or a map that is itself."""
    if kind == "attacks":
        return point_of(0.0, table.row(run, "clean", "correct"))
    return Point(0.0, 1.0)


def _scale(family: Family) -> tuple[Callable[[float], str], str]:
    """Write ε in 1/255 where it was so meant: 0.0314 is 8/255, and 0.3 is 0.3."""
    values = [value for members in family.members.values() for value in members]
    grey = [255 * value for value in values]
    meant = family.setting == "eps" and any(abs(v - round(v, 3)) > 1e-9 for v in values)
    if meant and all(abs(2 * g - round(2 * g)) < 1e-6 for g in grey):
        return (lambda value: f"{round(510 * value) / 2:g}"), ", in 1/255"
    return "{:g}".format, ""


def _dress(axes: Axes, curve: Curve) -> None:
    known = sorted({point.x for points in curve.lines.values() for point in points})
    if curve.doubling and known[0] > 0 and known[-1] >= 10 * known[0]:
        axes.set_xscale("log")
        axes.xaxis.set_minor_formatter(NullFormatter())
        axes.minorticks_off()
    every = -(-len(known) // 8)
    axes.set_xticks(known[::every])
    axes.xaxis.set_major_formatter(FuncFormatter(lambda tick, _: curve.write(tick)))
    values = [100 * point.y for points in curve.lines.values() for point in points]
    axes.set_ylim(min(0, 20 * np.floor(min(values) / 20)) - 2, 102)
    axes.yaxis.set_major_formatter(FuncFormatter(lambda tick, _: f"{tick:g}".replace("-", "−")))
    axes.set_xlabel(curve.x_title, color=QUIET)
    axes.set_title(_wrapped_title(curve.title), loc="left", color=INK, fontsize=10)
    axes.tick_params(length=0, labelsize=10, labelcolor=QUIET)
    axes.grid(color=QUIET, alpha=0.25, linewidth=0.75)
    axes.set_axisbelow(True)
    axes.spines[:].set_visible(False)


def _wrapped_title(title: str) -> str:
    return textwrap.fill(capitalized(title).replace("$", r"\$") + ", %", 52)
