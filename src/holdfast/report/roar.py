"""What ROAR found: the accuracy after retraining without the pixels that maps name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import cycle
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.legend import Legend
from rich.table import Table
from rich.text import Text

from holdfast.contracts import InputError
from holdfast.files import whole
from holdfast.plot import INK, QUIET
from holdfast.records import read_roar
from holdfast.report.curves import COLOURS
from holdfast.report.records import AuditedRun
from holdfast.report.section import Plot, Section
from holdfast.report.sheet import Cell, Column, Line, Sheet
from holdfast.report.summary import Table as Comparison
from holdfast.report.tables import to_csv, to_latex, to_markdown
from holdfast.report.wording import percent

__all__ = ["roar_curves", "roar_sections", "roar_table", "write_roar"]

READING = (
    "Remove and retrain (ROAR)",
    "The pixels that a map ranks highest become the mean colour of the training images, in every "
    "image to train and to test on; a new model is trained on what is left. The lower its "
    "accuracy, the more of what matters was in those pixels. Compare with pixels removed at "
    "random. A new model may also learn from where the holes are, which hides what was in them: a "
    "curve that is not below the control’s says little.",
)
FILE = "roar.parquet"
CHANCE = "random"
# One more than there are colours, so that pairs of both repeat late.
MARKERS = ("o", "s", "D", "^", "v", "P", "X")


def roar_curves(results: str | Path | Mapping[str, str | Path]) -> Figure:
    """Draw the accuracy over the share of pixels removed.

    Lines are means over the repeats, the bands around them reach from the lowest to the highest.
    The control, pixels removed by chance, is dashed; a faithful map runs below it.

    Parameters
    ----------
    results : str, Path or mapping
        What `holdfast.audit.ROAR` has written to: a folder, of which each attribution becomes a
        line; or several by the names of their models, which become lines in a panel for each
        attribution. What models have in common, as the control of new models that were trained the
        same way, is drawn once.

    Raises
    ------
    InputError
        If there is no ``roar.parquet`` in a folder, or it cannot be read.

    Examples
    --------
    >>> import tempfile, pyarrow as pa, pyarrow.parquet as pq
    >>> rows = {"attribution": ["none", "ig", "random"], "share": [0.0, 0.5, 0.5],
    ...         "repeat": [0, 0, 0], "accuracy": [0.98, 0.6, 0.9]}
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     pq.write_table(pa.table(rows), Path(folder) / "roar.parquet")
    ...     figure = roar_curves(folder)
    ...     both = roar_curves({"art": folder, "pgd": folder})
    >>> [line.get_label() for line in figure.axes[0].lines]
    ['ig', 'random']
    >>> [line.get_label() for line in both.axes[0].lines]
    ['art', 'pgd', 'random']
    """
    return _figure(_read_all(results))


def roar_table(results: str | Path | Mapping[str, str | Path]) -> Table:
    """Write the same as a table: mean accuracy in percent ± standard deviation over the repeats.

    Parameters
    ----------
    results : str, Path or mapping
        As for `roar_curves`; of several models, each map has a line for each of them.

    Raises
    ------
    InputError
        If there is no ``roar.parquet`` in a folder, or it cannot be read.

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
    known = _read_all(results)
    several = len(known) > 1
    shares = _shares(known)
    table = Table(box=None, pad_edge=False)
    table.add_column("pixels removed", overflow="fold")
    if several:
        table.add_column("model", overflow="fold")
    for share in shares:
        table.add_column(f"{100 * share:g} %", justify="right")
    for name in _attributions(known) or ["none"]:
        for model, found in known.items():
            if name in found.maps or name == "none":
                values = {**found.kept, **found.maps.get(name, {})}
                labels = [Text(name), Text(model)][: 1 + several]
                table.add_row(*labels, *(_cell(values.get(share)) for share in shares))
    return table


def write_roar(results: str | Path | Mapping[str, str | Path], out: str | Path) -> Path:
    """Write figure and table to files: ``roar.png``, ``roar.csv``, ``roar.md``, ``roar.tex``.

    Parameters
    ----------
    results : str, Path or mapping
        As for `roar_curves`.
    out : str or Path
        The folder; it is made if it is not there.

    Returns
    -------
    Path
        The figure.

    Raises
    ------
    InputError
        If there is no ``roar.parquet`` in a folder, or it cannot be read.

    Examples
    --------
    >>> import tempfile, pyarrow as pa, pyarrow.parquet as pq
    >>> rows = {"attribution": ["none", "ig"], "share": [0.0, 0.5], "repeat": [0, 0],
    ...         "accuracy": [1.0, 0.5]}
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     pq.write_table(pa.table(rows), Path(folder) / "roar.parquet")
    ...     figure = write_roar({"art": folder, "pgd": folder}, folder)
    ...     print(figure.with_suffix(".md").read_text(), end="")
    | Map | Model | 0 % | 50 % |
    | :--- | :--- | ---: | ---: |
    | ig | art | 100.0 | 50.0 |
    | ig | pgd | 100.0 | 50.0 |
    """
    found, out = _read_all(results), Path(out)
    out.mkdir(parents=True, exist_ok=True)
    figure = _figure(found)
    with whole(out / "roar.png") as unfinished:
        figure.savefig(unfinished, dpi=150, format="png")
    sheet = _sheet(found)
    for ending, text in (
        ("csv", to_csv(sheet)),
        ("md", to_markdown(sheet)),
        ("tex", to_latex(sheet)),
    ):
        with whole(out / f"roar.{ending}") as unfinished:
            unfinished.write_text(f"{text.rstrip()}\n", encoding="utf-8")
    return out / "roar.png"


def roar_sections(runs: Sequence[AuditedRun], table: Comparison) -> list[Section]:
    """Lay out what ROAR has written into the folders of runs, to ``roar/``, where it did."""
    written = {run.name: run.path / "roar" for run in runs if run.path is not None}
    read = {name: _read(folder) for name, folder in written.items() if (folder / FILE).is_file()}
    # Where it was stopped early, no pixels may have been removed yet.
    results = {name: found for name, found in read.items() if found.maps}
    if not results:
        return []
    about = "Accuracy after retraining over the share of pixels removed, for maps of"
    return [
        Section(
            "roar",
            "Remove and retrain",
            "Whether a new model still learns the classes without the pixels that a map names.",
            sheets=(_sheet(results),),
            plots=(Plot(partial(_figure, results), f"{about} {', '.join(results)}"),),
            plots_note="Bands reach from the lowest to the highest of the repeats.",
            reading=(READING,),
        )
    ]


# --- figures -------------------------------------------------------------------------------------


def _figure(results: Mapping[str, _Found]) -> Figure:
    if len(results) > 1:
        return _compared(results)
    ((name, found),) = results.items()
    return _drawn(found, name)


def _drawn(found: _Found, title: str) -> Figure:
    """Draw the maps of one model, a line for each attribution."""
    figure = Figure(figsize=(5.6, 3.6), layout="constrained")
    axes = _axes(figure, 1, 1, [title])[0]
    styles = zip(cycle(COLOURS), cycle(MARKERS))
    for name, accuracies in found.maps.items():
        colour, marker = (QUIET, None) if name == CHANCE else next(styles)
        _line(axes, {**found.kept, **accuracies}, name, colour, marker, dashed=name == CHANCE)
    axes.set_xlim(left=-2)
    if found.maps:
        _plain(axes.legend(*axes.get_legend_handles_labels(), frameon=False, labelcolor=INK))
    return figure


def _compared(results: Mapping[str, _Found]) -> Figure:
    """Draw the maps of several models: a panel for each attribution, a line for each model."""
    names = [name for name in _attributions(results) if name != CHANCE]
    columns = min(3, max(1, len(names)))
    rows = -(-max(1, len(names)) // columns)
    figure = Figure(figsize=(1.6 + 3.4 * columns, 3.4 * rows), layout="constrained")
    panels = _axes(figure, rows, columns, names or [""])
    styles = dict(zip(results, zip(cycle(COLOURS), cycle(MARKERS)), strict=False))
    controls = {m: {**f.kept, **f.maps[CHANCE]} for m, f in results.items() if CHANCE in f.maps}
    once = len(controls) > 1 and _same(list(controls.values()))
    for axes, name in zip(panels, names or [CHANCE], strict=True):
        for model, found in results.items():
            if name in found.maps:
                _line(axes, {**found.kept, **found.maps[name]}, model, *styles[model])
        if once:
            _line(axes, next(iter(controls.values())), CHANCE, QUIET, None, dashed=True)
        else:
            for model, control in controls.items():
                _line(axes, control, f"{model}, {CHANCE}", styles[model][0], None, dashed=True)
        axes.set_xlim(left=-2)  # when all lines are there: it stops the other end from growing
    lines = {str(line.get_label()): line for axes in panels for line in axes.lines}
    if lines:
        legend = figure.legend(
            list(lines.values()),
            list(lines),
            loc="outside right upper",
            frameon=False,
            labelcolor=INK,
        )
        _plain(legend)
    return figure


def _axes(figure: Figure, rows: int, columns: int, titles: Sequence[str]) -> list[Axes]:
    """Make a panel for each title."""
    grid = figure.subplots(rows, columns, squeeze=False).flatten()
    for axes in grid[len(titles) :]:
        axes.remove()
    for axes, title in zip(grid, titles, strict=False):
        axes.set_title(title, loc="left", fontsize=10, color=INK, parse_math=False)
        axes.set_xlabel("pixels removed, %", color=QUIET)
        axes.set_ylabel("accuracy after retraining, %", color=QUIET)
        axes.set_ylim(0, 102)
        axes.tick_params(length=0, labelcolor=QUIET)
        axes.grid(axis="y", color=QUIET, alpha=0.25, linewidth=0.75)
        axes.set_axisbelow(True)
        axes.spines[:].set_visible(False)
    return list(grid[: len(titles)])


def _line(
    axes: Axes,
    accuracies: Mapping[float, np.ndarray],
    label: str,
    colour: str,
    marker: str | None,
    *,
    dashed: bool = False,
) -> None:
    """Draw the mean over the repeats, and a band from the lowest to the highest."""
    curve = sorted(accuracies.items())
    shares = [100 * share for share, _ in curve]
    values = [100 * repeats for _, repeats in curve]
    axes.plot(
        shares,
        [v.mean() for v in values],
        label=label,
        color=colour,
        linestyle="--" if dashed else "-",
        marker=marker,
        markersize=4.5,
        linewidth=2,
    )
    lowest, highest = [v.min() for v in values], [v.max() for v in values]
    axes.fill_between(shares, lowest, highest, color=colour, alpha=0.15, linewidth=0)


def _plain(legend: Legend) -> None:
    for text in legend.get_texts():
        text.set_parse_math(False)


def _same(curves: Sequence[Mapping[float, np.ndarray]]) -> bool:
    first = curves[0]
    return all(
        one.keys() == first.keys() and all(np.array_equal(one[x], first[x]) for x in first)
        for one in curves
    )


# --- tables --------------------------------------------------------------------------------------


def _sheet(results: Mapping[str, _Found]) -> Sheet:
    shares, lines = _shares(results), []
    named = list(results) != [""]
    for attribution in _attributions(results):
        for run, found in results.items():
            if attribution in found.maps:
                values = {**found.kept, **found.maps[attribution]}
                cells = tuple(_range(values.get(share)) for share in shares)
                lines.append(Line((attribution, run) if named else (attribution,), cells))
    return Sheet(
        "roar",
        "Test accuracy of models retrained without so many of the pixels, in percent: mean over "
        "the repeats, and the lowest to the highest.",
        ("Map", "Model") if named else ("Map",),
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


def _shares(results: Mapping[str, _Found]) -> list[float]:
    return sorted({share for found in results.values() for share in found.shares})


def _attributions(results: Mapping[str, _Found]) -> list[str]:
    """Name the maps of all models, the control last."""
    names = list(dict.fromkeys(name for found in results.values() for name in found.maps))
    return sorted(names, key=lambda name: name == CHANCE)


def _read_all(results: str | Path | Mapping[str, str | Path]) -> dict[str, _Found]:
    if isinstance(results, str | Path):
        results = {"": results}
    if not results:
        raise InputError("results", "none", "a folder of ROAR's results, or several by their names")
    return {name: _read(Path(folder)) for name, folder in results.items()}


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
