"""What a study draws: curves over rows or columns, boxes over images, galleries of maps."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure as Drawing

from holdfast import report
from holdfast.plot import INK, QUIET
from holdfast.report.curves import COLOURS, DASHES, MARKERS
from holdfast.report.figures import grouped_box_plot
from holdfast.report.section import Plot
from holdfast.studies.measured import Results, Value, values_of

__all__ = ["plots"]


def plots(results: Results) -> tuple[Plot, ...]:
    """Draw a study's figure; nothing where it has none, or nothing was measured."""
    figure = results.job.study.figure
    if figure is None:
        return ()
    if figure.kind == "boxes":
        return _boxes(results)
    if figure.kind == "gallery":
        return _galleries(results)
    return _over_rows(results) if figure.over == "rows" else _over_columns(results)


def _over_rows(results: Results) -> tuple[Plot, ...]:
    """Draw a plot a group of rows and unit, a line a column."""
    study, drawn = results.job.study, []
    for group in dict.fromkeys(row.group for row in study.shown.values()):
        names = [n for n, row in study.shown.items() if row.group == group and row.x is not None]
        for unit in dict.fromkeys(column.unit for column in study.columns.values()):
            lines = {
                title: [
                    (study.rows[name].x or 0.0, results.value(name, title))
                    for name in sorted(names, key=lambda name: study.rows[name].x or 0.0)
                ]
                for title, column in study.columns.items()
                if column.unit == unit
            }
            drawn += _plot(lines, group, unit, results)
    return tuple(drawn)


def _over_columns(results: Results) -> tuple[Plot, ...]:
    """Draw a plot a group of columns, a line a row."""
    study, drawn = results.job.study, []
    for group in dict.fromkeys(column.group for column in study.columns.values()):
        columns = {
            title: column
            for title, column in study.columns.items()
            if column.group == group and column.x is not None
        }
        titles = sorted(columns, key=lambda title: columns[title].x or 0.0)
        lines = {
            ": ".join(filter(None, (row.group, name))): [
                (columns[title].x or 0.0, results.value(name, title)) for title in titles
            ]
            for name, row in study.shown.items()
        }
        unit = next(iter(columns.values())).unit if columns else "percent"
        drawn += _plot(lines, group, unit, results)
    return tuple(drawn)


_Lines = Mapping[str, Sequence[tuple[float, Value | None]]]


def _plot(lines: _Lines, title: str, unit: str, results: Results) -> list[Plot]:
    known = {
        name: [(x, value) for x, value in points if value is not None]
        for name, points in lines.items()
    }
    known = {name: points for name, points in known.items() if points}
    if not known:
        return []
    figure = results.job.study.figure
    x_title = figure.x if figure is not None else ""
    told = [
        f"{name}: {', '.join(f'{value.mean:.4g} at {x:g}' for x, value in points)}"
        for name, points in known.items()
    ]
    alt = f"{title or results.job.study.title}, over {x_title}. {'; '.join(told)}."
    return [Plot(_drawer(known, title, x_title, unit), alt)]


def _drawer(
    lines: Mapping[str, Sequence[tuple[float, Value]]], title: str, x_title: str, unit: str
) -> Callable[[], Drawing]:
    return lambda: _curves(lines, title, x_title, unit)


def _curves(
    lines: Mapping[str, Sequence[tuple[float, Value]]], title: str, x_title: str, unit: str
) -> Drawing:
    drawing = Drawing(figsize=(4.8, 3.1 + 0.22 * (len(lines) // 3)), layout="constrained")
    axes = drawing.add_subplot()
    for number, (name, points) in enumerate(lines.items()):
        colour = COLOURS[number % len(COLOURS)]
        x = [place for place, _ in points]
        axes.plot(
            x,
            [value.mean for _, value in points],
            color=colour,
            linewidth=1.75,
            linestyle=DASHES[number // len(COLOURS) % len(DASHES)],
            marker=MARKERS[number % len(MARKERS)],
            markersize=4.5,
            label=name.replace("$", r"\$"),
        )
        ends = [(p, v.low, v.high) for p, v in points if v.low is not None and v.high is not None]
        if len(ends) > 1:
            at, low, high = zip(*ends, strict=True)
            axes.fill_between(at, low, high, color=colour, alpha=0.16, linewidth=0)
    places = sorted({x for points in lines.values() for x, _ in points})
    axes.set_xticks(places, [f"{x:g}" for x in places])
    axes.set_xlabel(x_title.replace("$", r"\$"), color=QUIET)
    said = ", ".join(filter(None, (title.replace("$", r"\$"), "%" if unit == "percent" else "")))
    axes.set_title(said, loc="left", color=INK, fontsize=10)
    axes.tick_params(length=0, labelsize=10, labelcolor=QUIET)
    axes.grid(color=QUIET, alpha=0.25, linewidth=0.75)
    axes.set_axisbelow(True)
    axes.spines[:].set_visible(False)
    if len(lines) > 1:
        drawing.legend(loc="outside upper left", ncols=3, frameon=False, fontsize=9, labelcolor=INK)
    return drawing


def _boxes(results: Results) -> tuple[Plot, ...]:
    """Draw how each column's values are spread over the images, a box a row, of its first seed."""
    study, drawn = results.job.study, []
    for title, column in study.columns.items():
        groups: dict[str, dict[str, np.ndarray]] = {}
        for name, row in study.shown.items():
            values = values_of(results.runs[name][0], column, row.of)
            if len(values):
                groups.setdefault(row.group or name, {})[name] = values
        if groups:
            percent = column.unit == "percent"
            said = f"{title}{', %' if percent else ''}"
            drawn.append(Plot(_box_drawer(groups, said, percent), f"{title}: a box a row."))
    return tuple(drawn)


def _box_drawer(
    groups: Mapping[str, Mapping[str, np.ndarray]], said: str, percent: bool
) -> Callable[[], Drawing]:
    return lambda: grouped_box_plot(groups, said, percent=percent)


def _galleries(results: Results) -> tuple[Plot, ...]:
    """Show images and their maps, of each row's first seed."""
    runs = [runs[0] for runs in results.runs.values()]
    checks = dict.fromkeys(column.check for column in results.job.study.columns.values())
    held = [
        check
        for check in checks
        if any(run.gallery is not None and f"{check}|maps" in run.gallery for run in runs)
    ]
    return tuple(
        Plot(_gallery_drawer(runs, check), f"Images and their maps before and after {check}.")
        for check in held
    )


def _gallery_drawer(runs: Sequence[report.AuditedRun], check: str) -> Callable[[], Drawing]:
    return lambda: report.gallery(runs, check)
