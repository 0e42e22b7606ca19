"""Figures of an audit: box plots over images, and galleries of maps before and after."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from holdfast.contracts import InputError
from holdfast.plot import INK, QUIET
from holdfast.report.evidence import struck_out
from holdfast.report.pictures import PANELS, class_name, common_images, panel_colours, score_text
from holdfast.report.records import AuditedRun
from holdfast.report.wording import measure_sign

__all__ = ["box_plot", "gallery", "grouped_box_plot"]

ACCENT = "#0f6b70"


def box_plot(runs: Sequence[AuditedRun], check: str, measure: str, *, width: float = 4.8) -> Figure:
    """Draw how a measure is spread over the images, one box a model.

    The box reaches from the lower to the upper quartile, the line in it is the median, the diamond
    the mean; the whiskers hold 90 % of the images. Models without values keep an empty line.

    Parameters
    ----------
    runs : sequence of AuditedRun
        The runs, drawn from top to bottom.
    check, measure : str
        What is drawn, for example ``"top_k/integrated_gradients"`` and ``"kendall_tau"``.
    width : float
        Of the figure, in inches.

    Raises
    ------
    InputError
        If no run has values of this measure under this check.

    Examples
    --------
    >>> import pyarrow as pa
    >>> run = AuditedRun("art", pa.table({"index": [0, 1], "label": [3, 5],
    ...     "check": ["top_k/gradient"] * 2, "measure": ["kendall_tau"] * 2, "value": [0.7, 0.5]}))
    >>> len(box_plot([run], "top_k/gradient", "kendall_tau").axes)
    1
    """
    values = [100 * run.values(check, measure) for run in runs]
    if not any(map(len, values)):
        raise InputError("measure", f"{measure} of {check}", "a measure that a run has values of")
    struck = [(check, measure) in struck_out(run) for run in runs]
    names = [
        _wrapped(run.name) + "\n(struck out)" * out for run, out in zip(runs, struck, strict=True)
    ]
    figure, axes = _axes(names, width=width)
    _boxes(axes, values, range(1, len(runs) + 1))
    axes.set_yticks(range(1, len(runs) + 1), names, color=INK)
    _percent_scale(axes, values)
    axes.set_xlabel(f"{measure_sign(measure)}, %", color=QUIET)
    return figure


def grouped_box_plot(
    groups: Mapping[str, Mapping[str, Float[np.ndarray, " n"]]],
    title: str,
    *,
    percent: bool = True,
) -> Figure:
    """Draw how values are spread over the images, one box a model, models in groups.

    Boxes are drawn as by :func:`box_plot`. Where every group has a single box, the group names it.

    Parameters
    ----------
    groups : mapping of str to mapping
        For each group (an attribution) the values ``(n,)`` of each model.
    title : str
        What stands beneath the axis.
    percent : bool
        Whether the values are fractions, to be drawn in percent.

    Raises
    ------
    InputError
        If there are no values.

    Examples
    --------
    >>> figure = grouped_box_plot({"gradient": {"art": np.array([0.2, 0.4])}}, "EG, %")
    >>> [label.get_text() for label in figure.axes[0].get_yticklabels()]
    ['gradient']
    """
    values = [np.asarray(boxes) * (100 if percent else 1) for _, boxes in _each(groups)]
    if not any(map(len, values)):
        raise InputError("groups", "none", "at least one value")
    alone = all(len(boxes) == 1 for boxes in groups.values())
    names, places = [], []
    for group, boxes in groups.items():
        if not alone:
            names.append(_wrapped(group, 24))
        places += [len(names) + n for n in range(1, len(boxes) + 1)]
        names += [_wrapped(group if alone else name, 20) for name in boxes]
    figure, axes = _axes(names, 0.3)
    _boxes(axes, values, places)
    axes.set_yticks(range(1, len(names) + 1), names, color=INK)
    for place, label in enumerate(axes.get_yticklabels(), start=1):
        if place not in places:
            label.set(fontweight="bold", fontsize=9, color=QUIET)
    if percent:
        _percent_scale(axes, values)
    else:
        axes.set_xlim(left=min(0, *(np.percentile(v, 5) for v in values if len(v))))
    axes.set_xlabel(title, color=QUIET)
    return figure


def gallery(runs: Sequence[AuditedRun], check: str, *, images: int = 6) -> Figure:
    """Draw images and their maps before and after an attack on the explanation.

    A row is an image; for each model side by side the image, its map, the perturbed image and its
    map, with Kendall's τ and IN beneath. Where the galleries share images, these are shown.

    Parameters
    ----------
    runs : sequence of AuditedRun
        The runs; those without this check in their gallery are left out.
    check : str
        The check on explanations.
    images : int
        How many images at most.

    Raises
    ------
    InputError
        If no run has this check in its gallery.

    Examples
    --------
    >>> import pyarrow as pa
    >>> gallery([AuditedRun("art", pa.table({}))], "top_k/gradient")
    Traceback (most recent call last):
        ...
    holdfast.contracts.InputError: check: expected a check that a gallery holds, got top_k/gradient
    """
    rows = common_images(runs, check, images)
    shown = [run for run in runs if any(run in held for _, held in rows)]
    if not shown:
        raise InputError("check", check, "a check that a gallery holds")
    figure = Figure(figsize=(4.4 * len(shown), 0.5 + 1.42 * len(rows)), layout="constrained")
    parts = figure.subfigures(1, len(shown), squeeze=False)[0]
    for run, part in zip(shown, parts, strict=True):
        part.suptitle(_plain(run.name), color=INK, fontsize=11)
        grid = part.subplots(len(rows), len(PANELS), squeeze=False)
        for axes, title in zip(grid[0], PANELS.values(), strict=True):
            axes.set_title(title, fontsize=8, color=QUIET)
        for (index, held), line in zip(rows, grid, strict=True):
            for axes, panel in zip(line, PANELS, strict=True):
                axes.set(xticks=[], yticks=[])
                axes.spines[:].set(color=QUIET, alpha=0.3, linewidth=0.75)
                if run in held:
                    axes.imshow(panel_colours(run, check, panel, index), interpolation="nearest")
            if run in held:
                label = class_name(run, index)
                line[0].set_ylabel(_plain(label), fontsize=9, color=INK)
                line[3].set_xlabel(score_text(run, check, index), loc="right", fontsize=8)
    return figure


def _each(
    groups: Mapping[str, Mapping[str, np.ndarray]],
) -> list[tuple[str, np.ndarray]]:
    return [pair for boxes in groups.values() for pair in boxes.items()]


def _axes(names: Sequence[str], least: float = 0.42, width: float = 4.8) -> tuple[Figure, Axes]:
    """Make axes with a line for each name, high enough for it."""
    line = max(least, *(0.2 * (1 + name.count("\n")) for name in names))
    figure = Figure(figsize=(width, 0.75 + line * len(names)), layout="constrained")
    axes = figure.add_subplot()
    axes.set_ylim(len(names) + 0.5, 0.5)
    axes.tick_params(length=0, labelsize=10)
    axes.tick_params(axis="x", labelcolor=QUIET)
    axes.grid(axis="x", color=QUIET, alpha=0.25, linewidth=0.75)
    axes.set_axisbelow(True)
    axes.spines[:].set_visible(False)
    return figure, axes


def _boxes(axes: Axes, values: Sequence[np.ndarray], places: Sequence[int]) -> None:
    limits = axes.get_ylim()
    axes.boxplot(
        values,
        positions=places,
        orientation="horizontal",
        widths=0.5,
        whis=(5, 95),
        showfliers=False,
        showmeans=True,
        patch_artist=True,
        boxprops={"facecolor": ACCENT, "alpha": 0.22, "linewidth": 0},
        medianprops={"color": ACCENT, "linewidth": 2, "solid_capstyle": "butt"},
        whiskerprops={"color": QUIET, "linewidth": 1},
        capprops={"linewidth": 0},
        meanprops={"marker": "D", "markersize": 4, "markerfacecolor": INK, "markeredgewidth": 0},
    )
    axes.set_ylim(limits)
    axes.xaxis.set_major_formatter(FuncFormatter(lambda tick, _: f"{tick:g}".replace("-", "−")))


def _percent_scale(axes: Axes, values: Sequence[np.ndarray]) -> None:
    # From 0 to 100 in every plot, so that plots compare; further only where values are below 0.
    lowest = min(np.percentile(v, 5) for v in values if len(v))
    axes.set_xlim(min(0, 20 * np.floor(lowest / 20)) - 2, 102)


def _wrapped(name: str, width: int = 16) -> str:
    """Break a long name where its words end, so that it leaves room for the plot."""
    lines = [""]
    for word in re.findall(r"[^\s_./-]*[\s_./-]*", name):
        if lines[-1] and len(lines[-1]) + len(word) > width:
            lines.append("")
        lines[-1] += word
    return _plain("\n".join(lines))


def _plain(text: str) -> str:
    """Keep matplotlib from reading a name as mathematics."""
    return text.replace("$", r"\$")
