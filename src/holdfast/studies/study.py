"""Studies: a table or figure of a paper as YAML, its rows, what is measured, what was published.

::

    title: "Table 1c: MNIST"
    source: Enhanced Regularizers for Attributional Robustness (AAAI 2021), table 1c
    columns:
      Nat. acc.: {check: clean, measure: correct}
      Top-K: {check: top_k/integrated_gradients, measure: top_k_intersection, statistic: median}
    rows:
      Natural: {recipe: mnist/natural, published: [99.17, 46.61]}
      Ours: {recipe: mnist/cacr_wacr, published: [98.41, 81.00]}

A value ``row:NAME``, say of an objective's teacher, is the run of that row with the same seed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib import resources
from pathlib import Path
from typing import Any, Literal

from holdfast import plain_yaml
from holdfast.contracts import HoldfastError, InputError, check_positive, checked
from holdfast.training.recipe import named_by, read_recipe
from holdfast.training.settings import build

__all__ = ["Column", "Figure", "Row", "Study", "entries", "read_study", "selected", "study_names"]

OTHERS = "others.yaml"
"""What a paper has beside its studies: name → what it shows, and why no study makes it."""


@dataclass(frozen=True)
@checked
class Column:
    """What a column measures.

    Parameters
    ----------
    check, measure : str
        As the records of an audit have them. ``{of}`` in a check stands for what the row says, and
        a check with ``*`` for the mean of each image over all that match.
    statistic : {"mean", "median", "correlation"}
        Over images; the correlation is Pearson's with what ``other`` names.
    at_least : float, optional
        Instead of the values themselves, whether each is at least this.
    right : bool
        Whether what is measured counts only where the prediction is right, and is 0 elsewhere.
    other : str
        For a correlation: ``CHECK:MEASURE``, of its negative with ``-`` before it.
    unit : {"percent", "number"}
        Whether values are fractions that are published in percent.
    better : {"higher", "lower", "neither"}
        Which values are better.
    digits : int
        Decimals of measured values.
    group : str
        A header above that of neighbouring columns; of a figure, the plot that it belongs to.
    x : float, optional
        Where it stands in a curve over columns.
    like : str
        The column whose published order is expected of this one, which the paper does not have.
    """

    check: str
    measure: str
    statistic: Literal["mean", "median", "correlation"] = "mean"
    at_least: float | None = None
    right: bool = False
    other: str = ""
    unit: Literal["percent", "number"] = "percent"
    better: Literal["higher", "lower", "neither"] = "higher"
    digits: int = 2
    group: str = ""
    x: float | None = None
    like: str = ""

    def __post_init__(self) -> None:
        if (self.statistic == "correlation") != (":" in self.other):
            raise InputError("Column.other", repr(self.other), "CHECK:MEASURE of a correlation")


@dataclass(frozen=True)
@checked
class Row:
    """A model, how it comes to be, and what was published of it.

    Parameters
    ----------
    recipe : str
        By which it is trained: a recipe's name, or a YAML file.
    model : str
        Instead of a recipe: the row that has trained the model already, or any name that
        `holdfast.load` takes (``torchvision:resnet50``).
    overrides : dict
        Settings of the recipe at dotted keys.
    audit : dict
        Settings of this row's audit, by `Audit`'s fields, each in place of the study's.
    group : str
        Rows of one group stand together, and are compared with each other alone.
    of : str
        What ``{of}`` in the columns' checks stands for.
    x : float, optional
        Where it stands in a curve over rows.
    published : tuple of float, optional
        A value a column as the paper prints it, None where it has none.
    shown : bool
        Whether it is in the table; a teacher, say, may only be trained.
    """

    recipe: str = ""
    model: str = ""
    overrides: dict[str, Any] = field(default_factory=dict)
    audit: dict[str, Any] = field(default_factory=dict)
    group: str = ""
    of: str = ""
    x: float | None = None
    published: tuple[float | None, ...] | None = None
    shown: bool = True

    def __post_init__(self) -> None:
        if bool(self.recipe) == bool(self.model):
            came = f"{self.recipe or 'none'} and {self.model or 'none'}"
            raise InputError("Row.recipe", came, "either a recipe or a model")


@dataclass(frozen=True)
@checked
class Figure:
    """What is drawn of the values.

    Parameters
    ----------
    kind : {"curves", "boxes", "gallery"}
        Lines over x; boxes over images, a plot a column; or images and their maps before and after
        the attack of each column's check.
    over : {"rows", "columns"}
        What x is of. Over rows there is a plot a group of rows and a line a column; over columns a
        plot a group of columns and a line a row.
    x : str
        The title of the axis.
    """

    kind: Literal["curves", "boxes", "gallery"]
    over: Literal["rows", "columns"] = "rows"
    x: str = ""


@dataclass(frozen=True)
@checked
class Study:
    """A table or figure: rows, columns, what was published.

    Parameters
    ----------
    title : str
        What it shows.
    source : str
        The paper, and its table or figure.
    columns : dict of str to Column
        What is measured, by header.
    rows : dict of str to Row
        Models, by name.
    audit : dict
        Settings of all audits, by `Audit`'s fields, each in place of that of the row's recipe.
    battery : str
        A ready battery in place of the recipe's audit, with ``eps``.
    eps : float, optional
        The ε of the battery.
    images : int, optional
        How many test images are audited at most; all by default.
    roar : dict
        Instead of an audit: settings of `ROAR`, whose columns have the check ``roar/MAP``, or
        ``roar/none`` and ``roar/random``, and the share as their measure.
    figure : Figure, optional
        What is drawn.
    note : str
        What differs from the paper, or must be known.
    needs : str
        What must be there that Holdfast does not bring, other than the recipes' data.

    Examples
    --------
    >>> study = read_study("aaai2021/table1c")
    >>> study.rows["Ours"].recipe, study.rows["Ours"].published
    ('mnist/cacr_wacr', (98.41, 89.53, 81.0, 0.3494))
    """

    title: str
    source: str
    columns: dict[str, Column]
    rows: dict[str, Row]
    audit: dict[str, Any] = field(default_factory=dict)
    battery: str = ""
    eps: float | None = None
    images: int | None = None
    roar: dict[str, Any] = field(default_factory=dict)
    figure: Figure | None = None
    note: str = ""
    needs: str = ""

    def __post_init__(self) -> None:
        if not self.rows or not self.columns:
            raise InputError("Study.rows", "none", "at least one row and one column")
        for name, row in self.rows.items():
            if row.published is not None and len(row.published) != len(self.columns):
                raise InputError(
                    f"Study.rows.{name}.published",
                    f"{len(row.published)} values",
                    f"{len(self.columns)}, one for each column",
                )
        for name, column in self.columns.items():
            if column.like and column.like not in self.columns:
                raise InputError(f"Study.columns.{name}.like", repr(column.like), "a column")
        if self.images is not None:
            check_positive(self, "images")
        if self.roar and (self.audit or self.battery):
            raise InputError("Study.roar", "settings", "none beside those of an audit")
        if self.eps is not None and not self.battery:
            raise InputError("Study.eps", self.eps, "None without a battery")

    @property
    def shown(self) -> dict[str, Row]:
        """The rows that are in the table."""
        return {name: row for name, row in self.rows.items() if row.shown}

    def published(self, row: str, column: str) -> float | None:
        """Look up what the paper has; None where it has nothing."""
        values = self.rows[row].published
        return None if values is None else values[list(self.columns).index(column)]

    def expected(self, row: str, column: str) -> float | None:
        """Return by what value a row is put in order: the published one, of a column like it."""
        return self.published(row, self.columns[column].like or column)


def study_names() -> list[str]:
    """Return the names of the studies that come with Holdfast: ``PAPER/TABLE``.

    Examples
    --------
    >>> "aaai2021/table1c" in study_names()
    True
    """
    return sorted(
        f"{folder.name}/{file.name.removesuffix('.yaml')}"
        for folder in resources.files("holdfast.studies").iterdir()
        if folder.is_dir()
        for file in folder.iterdir()
        if file.name.endswith(".yaml") and file.name != OTHERS
    )


def read_study(name: str | Path) -> Study:
    """Read a study.

    Parameters
    ----------
    name : str or Path
        The name of a study of Holdfast, or a YAML file.

    Raises
    ------
    HoldfastError
        If there is no such study, no machine can make it, or a setting is unknown, missing or
        wrong.

    Examples
    --------
    >>> read_study("eccv2020/figure2")
    Traceback (most recent call last):
        ...
    holdfast.contracts.HoldfastError: eccv2020/figure2 (block diagram of ART) is no study: a \
drawing; nothing is measured
    """
    with named_by(name, {}):
        study: Study = build(Study, _settings(name), at="")
    return study


def selected(study: Study, rows: Sequence[str]) -> Study:
    """Show only some rows of a study.

    Raises
    ------
    InputError
        If there is no such row.

    Examples
    --------
    >>> list(selected(read_study("aaai2021/table1c"), ["Ours"]).shown)
    ['Ours']
    """
    for name in rows:
        if name not in study.rows:
            raise InputError("rows", repr(name), f"some of {', '.join(study.rows)}")
    chosen = {n: replace(row, shown=n in rows) for n, row in study.rows.items()}
    return replace(study, rows=chosen)


def entries() -> dict[str, str]:
    """Say in a line of each table and figure what it shows, and what it needs.

    Examples
    --------
    >>> entries()["eccv2020/figure2"]
    'block diagram of ART (not run: a drawing; nothing is measured)'
    """
    known = {name: _line(read_study(name)) for name in study_names()}
    for paper in sorted({name.partition("/")[0] for name in known}):
        known |= {
            f"{paper}/{name}": f"{about['title']} (not run: {about['why']})"
            for name, about in _others(paper).items()
        }
    return dict(sorted(known.items(), key=lambda entry: _in_order(entry[0])))


def _line(study: Study) -> str:
    hub = dict.fromkeys(filter(None, (_hub_data(row) for row in study.rows.values())))
    data = f"data {', '.join(hub)}, or --data" if hub else ""
    needs = "; ".join(filter(None, (study.needs, data)))
    return f"{study.title} ({f'needs {needs}' if needs else 'runnable as it is'})"


def _hub_data(row: Row) -> str:
    """Name the data that a row's recipe is trained on, if it is not here."""
    if not row.recipe:
        return ""
    path = str(read_recipe(row.recipe, row.overrides)["data"]["path"])
    return "" if path == "digits" or Path(path).exists() else path


def _in_order(name: str) -> tuple[str, list[tuple[int, str]]]:
    """Put table 10 behind table 9."""
    paper, _, rest = name.partition("/")
    parts = "".join(sign if sign.isdigit() else f" {sign} " for sign in rest).split()
    return paper, [(int(part), "") if part.isdigit() else (0, part) for part in parts]


def _settings(name: str | Path) -> dict[str, Any]:
    path = Path(name)
    if path.suffix in (".yaml", ".yml"):
        return plain_yaml.read_mapping(path, f"study {path}")
    if str(name) in study_names():
        file = resources.files("holdfast.studies") / f"{name}.yaml"
        settings: dict[str, Any] = plain_yaml.parse(file.read_text(encoding="utf-8"), str(name))
        return settings
    paper, _, rest = str(name).partition("/")
    about = _others(paper).get(rest)
    if about is not None:
        raise HoldfastError(f"{name} ({about['title']}) is no study: {about['why']}")
    known = ", ".join(study_names())
    raise HoldfastError(f"no study {str(name)!r}; give a YAML file or one of {known}")


def _others(paper: str) -> Mapping[str, Mapping[str, str]]:
    if paper not in {name.partition("/")[0] for name in study_names()}:
        return {}
    file = resources.files("holdfast.studies") / paper / OTHERS
    if not file.is_file():
        return {}
    others: Mapping[str, Mapping[str, str]] = plain_yaml.parse(
        file.read_text(encoding="utf-8"), f"{paper}/{OTHERS}"
    )
    return others
