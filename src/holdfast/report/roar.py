"""What ROAR found: the accuracy after retraining without the pixels that maps name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import cycle
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from rich.table import Table
from rich.text import Text

from holdfast.contracts import InputError
from holdfast.plot import INK, QUIET
from holdfast.records import read_roar
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
        If there is no ``roar.parquet`` in the folder, or it cannot be read.

    Examples
    --------
    >>> import tempfile, pyarrow as pa, pyarrow.parquet as pq
    >>> rows = {"attribution": ["none", "ig", "random"], "share": [0.0, 0.5, 0.5],
    ...         "repeat": [0, 0, 0], "accuracy": [0.98, 0.6, 0.9]}
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     pq.write_table(pa.table(rows), Path(folder) / "roar.parquet")
    ...     figure = roar_curves(folder)
    >>> [line.get_label() for line in figure.axes[0].lines]
    ['ig', 'random']
    """
    return _drawn(_read(Path(folder)))


def _drawn(found: _Found, title: str = "") -> Figure:
    figure = Figure(figsize=(5.6, 3.6), layout="constrained")
    axes = figure.add_subplot()
    axes.set_title(title, loc="left", fontsize=10, color=INK, parse_math=False)
    styles = zip(cycle(COLOURS), cycle(MARKERS))
    for name, accuracies in found.maps.items():
        colour, marker = (QUIET, None) if name == "random" else next(styles)
        curve = sorted({**found.kept, **accuracies}.items())
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
    if found.maps:
        legend = axes.legend(*axes.get_legend_handles_labels(), frameon=False, labelcolor=INK)
        for text in legend.get_texts():
            text.set_parse_math(False)
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
        If there is no ``roar.parquet`` in the folder, or it cannot be read.

    Examples
    --------
    >>> import tempfile, pyarrow as pa, pyarrow.parquet as pq
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
    table = Table(box=None, pad_edge=False)
    table.add_column("pixels removed", overflow="fold")
    for share in found.shares:
        table.add_column(f"{100 * share:g} %", justify="right")
    for name, accuracies in (found.maps or {"none": found.kept}).items():
        values = {**found.kept, **accuracies}
        table.add_row(Text(name), *(_cell(values.get(share)) for share in found.shares))
    return table


def roar_sections(runs: Sequence[AuditedRun], table: Comparison) -> list[Section]:
    """Lay out what ROAR has written into the folders of runs, to ``roar/``, where it did."""
    written = {run.name: run.path / "roar" for run in runs if run.path is not None}
    read = {name: _read(folder) for name, folder in written.items() if (folder / FILE).is_file()}
    # Where it was stopped early, no pixels may have been removed yet.
    results = {name: found for name, found in read.items() if found.maps}
    if not results:
        return []
    plots = tuple(
        Plot(
            partial(_drawn, found, name),
            f"Accuracy after retraining over the share of pixels removed, for maps of {name}",
        )
        for name, found in results.items()
    )
    return [
        Section(
            "roar",
            "Remove and retrain",
            "Whether a new model still learns the classes without the pixels that a map names.",
            sheets=(_sheet(results),),
            plots=plots,
            plots_note="Bands reach from the lowest to the highest of the repeats.",
            reading=(READING,),
        )
    ]


def _sheet(results: Mapping[str, _Found]) -> Sheet:
    shares = sorted({share for found in results.values() for share in found.shares})
    lines = []
    for attribution in dict.fromkeys(name for found in results.values() for name in found.maps):
        for run, found in results.items():
            if attribution in found.maps:
                values = {**found.kept, **found.maps[attribution]}
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


@dataclass(frozen=True, eq=False)
class _Found:
    """Accuracies by the share of pixels removed, one a repeat ``(r,)``.

    Of each map, and of the images that were kept whole.
    """

    maps: dict[str, dict[float, np.ndarray]]
    kept: dict[float, np.ndarray]

    @property
    def shares(self) -> list[float]:
        return sorted({share for known in (self.kept, *self.maps.values()) for share in known})


def _read(folder: Path) -> _Found:
    file = folder / FILE
    if not file.is_file():
        raise InputError("folder", folder, "a folder of ROAR's results, with roar.parquet")
    table = read_roar(file, "ROAR's results in Parquet")
    if table.num_rows == 0:
        raise InputError(str(file), "no records", "at least one record")
    cells = table.group_by(["attribution", "share", "repeat"]).aggregate([([], "count_all")])
    if cells.num_rows < table.num_rows:
        raise InputError(str(file), "several", "one record for each map, share and repeat")
    maps: dict[str, dict[float, list[float]]] = {}
    for row in table.to_pylist():
        known = maps.setdefault(row["attribution"], {})
        known.setdefault(row["share"], []).append(row["accuracy"])
    arrays = {
        name: {share: np.array(values) for share, values in known.items()}
        for name, known in maps.items()
    }
    kept = arrays.pop("none", {})
    return _Found(arrays, kept)


def _cell(values: np.ndarray | None) -> str:
    if values is None:
        return percent(None)
    spread = f" ± {percent(values.std(ddof=1))}" if len(values) > 1 else ""
    return percent(values.mean()) + spread
