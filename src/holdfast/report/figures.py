"""Figures of an audit: box plots of similarity, and galleries of maps before and after."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from holdfast.contracts import InputError
from holdfast.plot import INK, QUIET, heat_map, picture
from holdfast.report.records import AuditedRun
from holdfast.report.wording import measure_sign, percent

__all__ = ["box_plot", "common_images", "gallery"]

ACCENT = "#0f6b70"
PANELS = {
    "images": "image",
    "maps": "map",
    "perturbed_images": "image after",
    "perturbed_maps": "map after",
}


def box_plot(runs: Sequence[AuditedRun], check: str, measure: str) -> Figure:
    """Draw how a measure is spread over the images, one box a model.

    The box reaches from the lower to the upper quartile, the line in it is the median, the diamond
    the mean; the whiskers hold 90 % of the images. Models without values keep an empty line.

    Parameters
    ----------
    runs : sequence of AuditedRun
        The runs, drawn from top to bottom.
    check, measure : str
        What is drawn, for example ``"top_k/integrated_gradients"`` and ``"kendall_tau"``.

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
    names = [_wrapped(run.name) for run in runs]
    line = max(0.42, *(0.2 * (1 + name.count("\n")) for name in names))
    figure = Figure(figsize=(4.8, 0.75 + line * len(runs)), layout="constrained")
    axes = figure.add_subplot()
    axes.boxplot(
        values,
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
    axes.set_yticks(range(1, len(runs) + 1), names, color=INK)
    axes.set_ylim(len(runs) + 0.5, 0.5)
    # From 0 to 100 in every plot, so that plots compare; further only where values are below 0.
    lowest = min(np.percentile(v, 5) for v in values if len(v))
    axes.set_xlim(min(0, 20 * np.floor(lowest / 20)) - 2, 102)
    axes.xaxis.set_major_formatter(FuncFormatter(lambda tick, _: f"{tick:.0f}".replace("-", "−")))
    axes.set_xlabel(f"{measure_sign(measure)}, %", color=QUIET)
    axes.tick_params(length=0, labelsize=10)
    axes.tick_params(axis="x", labelcolor=QUIET)
    axes.grid(axis="x", color=QUIET, alpha=0.25, linewidth=0.75)
    axes.set_axisbelow(True)
    axes.spines[:].set_visible(False)
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


def common_images(
    runs: Sequence[AuditedRun], check: str, count: int
) -> list[tuple[int, list[AuditedRun]]]:
    """Choose the images to show: those that the most galleries hold, and which runs hold them.

    Examples
    --------
    >>> import pyarrow as pa
    >>> common_images([AuditedRun("art", pa.table({}))], "top_k/gradient", 6)
    []
    """
    having = [run for run in runs if run.gallery is not None and f"{check}|maps" in run.gallery]
    held = {run.name: {int(i) for i in (run.gallery or {})["index"]} for run in having}
    order = dict.fromkeys(int(i) for run in having for i in (run.gallery or {})["index"])
    times = Counter(index for indices in held.values() for index in indices)
    chosen = sorted(order, key=lambda index: -times[index])[:count]
    return [(index, [run for run in having if index in held[run.name]]) for index in chosen]


def class_name(run: AuditedRun, index: int) -> str:
    """Name the class of a gallery image: by its name if known, else by its number."""
    assert run.gallery is not None
    label = int(run.gallery["label"][_position(run, index)])
    return run.classes[label] if 0 <= label < len(run.classes) else str(label)


def score_text(run: AuditedRun, check: str, index: int) -> str:
    """Write what was measured on a gallery image, or that its label could not be kept."""
    assert run.gallery is not None
    position = _position(run, index)
    scores = {
        measure: float(run.gallery[f"{check}|{measure}"][position])
        for measure in ("kendall_tau", "top_k_intersection", "preserved")
    }
    if not scores.pop("preserved"):
        return "label not kept"
    return ", ".join(f"{measure_sign(key)} {percent(value)}%" for key, value in scores.items())


def panel_colours(run: AuditedRun, check: str, panel: str, index: int) -> np.ndarray:
    assert run.gallery is not None
    content = run.gallery[f"{check}|{panel}"][_position(run, index)]
    return heat_map(content) if panel.endswith("maps") else picture(content)


def _position(run: AuditedRun, index: int) -> int:
    assert run.gallery is not None
    return int(np.flatnonzero(run.gallery["index"] == index)[0])


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
