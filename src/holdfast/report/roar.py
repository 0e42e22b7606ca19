"""What ROAR found: the accuracy after retraining without the pixels that maps name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from itertools import cycle
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from matplotlib.figure import Figure
from rich.table import Table

from holdfast.contracts import InputError
from holdfast.plot import INK, QUIET
from holdfast.report.curves import COLOURS
from holdfast.report.records import AuditedRun
from holdfast.report.section import Plot, Section
from holdfast.report.sheet import Cell, Column, Line, Sheet
from holdfast.report.summary import Table as Comparison
from holdfast.report.wording import percent

__all__ = ["roar_curves", "roar_sections", "roar_table"]

READING = (
    "Remove and retrain (ROAR)",
    "The pixels that a map ranks highest become the mean colour of the training images, in every "
    "image to train and to test on; a new model is trained on what is left. The lower its "
    "accuracy, the more of what matters was in those pixels. Compare with pixels removed at "
    "random. A new model may also learn from where the holes are, which hides what was in them: a "
    "curve that is not below the control’s says little.",
)
FILE = "roar.parquet"
# One more than there are colours, so that pairs of both repeat late.
MARKERS = ("o", "s", "D", "^", "v", "P", "X")


def roar_curves(folder: str | Path) -> Figure:
    """Draw the accuracy over the share of pixels removed, a line for each attribution.

    Lines are means over the repeats, the bands around them reach from the lowest to the highest.
    The control, pixels removed by chance, is dashed; a faithful map runs below it.

    Parameters
    ----------
    folder : str or Path
        What `holdfast.audit.ROAR` has written to.

    Raises
    ------
    InputError
        If there is no ``roar.parquet`` in the folder.

    Examples
    --------
    >>> import tempfile, pyarrow as pa
    >>> rows = {"attribution": ["none", "ig", "random"], "share": [0.0, 0.5, 0.5],
    ...         "repeat": [0, 0, 0], "accuracy": [0.98, 0.6, 0.9]}
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     pq.write_table(pa.table(rows), Path(folder) / "roar.parquet")
    ...     figure = roar_curves(folder)
    >>> [line.get_label() for line in figure.axes[0].lines]
    ['ig', 'random']
    """
    found = _read(Path(folder))
    kept = found.pop("none", {})
    figure = Figure(figsize=(5.6, 3.6), layout="constrained")
    axes = figure.add_subplot()
    styles = zip(cycle(COLOURS), cycle(MARKERS))
    for name, accuracies in found.items():
        colour, marker = (QUIET, None) if name == "random" else next(styles)
        curve = sorted({**kept, **accuracies}.items())
        shares = [100 * share for share, _ in curve]
        values = [100 * repeats for _, repeats in curve]
        axes.plot(
            shares,
            [v.mean() for v in values],
            label=name,
            color=colour,
            linestyle="--" if name == "random" else "-",
            marker=marker,
            markersize=4.5,
            linewidth=2,
        )
        lowest, highest = [v.min() for v in values], [v.max() for v in values]
        axes.fill_between(shares, lowest, highest, color=colour, alpha=0.15, linewidth=0)
    axes.set_xlabel("pixels removed, %", color=QUIET)
    axes.set_ylabel("accuracy after retraining, %", color=QUIET)
    axes.set_xlim(left=-2)
    axes.set_ylim(0, 102)
    axes.tick_params(length=0, labelcolor=QUIET)
    axes.grid(axis="y", color=QUIET, alpha=0.25, linewidth=0.75)
    axes.set_axisbelow(True)
    axes.spines[:].set_visible(False)
    if found:
        axes.legend(frameon=False, labelcolor=INK, loc="best")
    return figure


def roar_table(folder: str | Path) -> Table:
    """Write the same as a table: mean accuracy in percent ± standard deviation over the repeats.

    Parameters
    ----------
    folder : str or Path
        What `holdfast.audit.ROAR` has written to.

    Raises
    ------
    InputError
        If there is no ``roar.parquet`` in the folder.

    Examples
    --------
    >>> import tempfile, pyarrow as pa
    >>> from rich import print
    >>> rows = {"attribution": ["none", "ig", "ig"], "share": [0.0, 0.5, 0.5],
    ...         "repeat": [0, 0, 1], "accuracy": [0.98, 0.6, 0.7]}
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     pq.write_table(pa.table(rows), Path(folder) / "roar.parquet")
    ...     print(roar_table(folder))
    pixels removed   0 %        50 %
    ig              98.0  65.0 ± 7.1
    """
    found = _read(Path(folder))
    kept = found.pop("none", {})
    shares = sorted({share for accuracies in (kept, *found.values()) for share in accuracies})
    table = Table(box=None, pad_edge=False)
    table.add_column("pixels removed")
    for share in shares:
        table.add_column(f"{100 * share:g} %", justify="right")
    for name, accuracies in (found or {"none": kept}).items():
        values = {**kept, **accuracies}
        table.add_row(name, *(_cell(values.get(share)) for share in shares))
    return table


def roar_sections(runs: Sequence[AuditedRun], table: Comparison) -> list[Section]:
    """Lay out what ROAR has written into the folders of runs, to ``roar/``, where it did."""
    written = {run.name: run.path / "roar" for run in runs if run.path is not None}
    # Where it was stopped early, no pixels may have been removed yet.
    folders = {
        name: folder
        for name, folder in written.items()
        if (folder / FILE).is_file() and _read(folder).keys() - {"none"}
    }
    if not folders:
        return []
    plots = tuple(
        Plot(
            partial(_titled_curves, folder, name),
            f"Accuracy after retraining over the share of pixels removed, for maps of {name}",
        )
        for name, folder in folders.items()
    )
    return [
        Section(
            "roar",
            "Remove and retrain",
            "Whether a new model still learns the classes without the pixels that a map names.",
            sheets=(_sheet(folders),),
            plots=plots,
            plots_note="Bands reach from the lowest to the highest of the repeats.",
            reading=(READING,),
        )
    ]


def _titled_curves(folder: Path, title: str) -> Figure:
    figure = roar_curves(folder)
    figure.axes[0].set_title(title, loc="left", fontsize=10, color=INK)
    return figure


def _sheet(folders: Mapping[str, Path]) -> Sheet:
    found = {name: _read(folder) for name, folder in folders.items()}
    kept = {name: maps.pop("none", {}) for name, maps in found.items()}
    attributions = dict.fromkeys(name for maps in found.values() for name in maps)
    known = [values for maps in found.values() for values in maps.values()]
    shares = sorted({share for values in (*kept.values(), *known) for share in values})
    lines = []
    for attribution in attributions:
        for run, maps in found.items():
            if attribution in maps:
                values = {**kept[run], **maps[attribution]}
                cells = tuple(_range(values.get(share)) for share in shares)
                lines.append(Line((attribution, run), cells))
    return Sheet(
        "roar",
        "Test accuracy of models retrained without so many of the pixels, in percent: mean over "
        "the repeats, and the lowest to the highest.",
        ("Map", "Model"),
        tuple(Column(f"{100 * share:g} %", f"removed_{share:g}", better="") for share in shares),
        tuple(lines),
    )


def _range(values: np.ndarray | None) -> Cell | None:
    if values is None:
        return None
    several = len(values) > 1
    return {
        "mean": float(values.mean()),
        "low": float(values.min()) if several else None,
        "high": float(values.max()) if several else None,
    }


def _read(folder: Path) -> dict[str, dict[float, np.ndarray]]:
    """Read the accuracies of each attribution and share, one a repeat ``(r,)``."""
    file = folder / FILE
    if not file.is_file():
        raise InputError("folder", folder, "a folder of ROAR's results, with roar.parquet")
    found: dict[str, dict[float, list[float]]] = {}
    for row in pq.ParquetFile(file).read().to_pylist():
        accuracies = found.setdefault(row["attribution"], {})
        accuracies.setdefault(row["share"], []).append(row["accuracy"])
    return {
        name: {share: np.array(values) for share, values in accuracies.items()}
        for name, accuracies in found.items()
    }


def _cell(values: np.ndarray | None) -> str:
    if values is None:
        return percent(None)
    spread = f" ± {percent(values.std(ddof=1))}" if len(values) > 1 else ""
    return percent(values.mean()) + spread
