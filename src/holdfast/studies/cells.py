"""The cells of a study: trainings, audits and ROAR, each in a folder of its own.

A cell is plain data that can be sent to another process or machine. It writes whole files, goes on
where it was stopped, and does nothing where it is done. What a cell needs of others it names in
``after``; cells that do not name each other can run at the same time, anywhere.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from holdfast import plain_yaml
from holdfast.contracts import HoldfastError
from holdfast.files import whole
from holdfast.studies.scale import LEAST_EXPLAINED, LEAST_IMAGES, scaled, scaled_count
from holdfast.training.recipe import Recipe, build, read_recipe
from holdfast.training.run_folder import CHECKPOINTS, CONFIG, MODEL
from holdfast.training.saving import load_saved
from holdfast.training.settings import from_a_run

__all__ = ["IMAGES", "Auditing", "Cell", "Retraining", "Training", "run_cell", "stages"]

IMAGES = "images.yaml"
"""How many test images the accuracies of ROAR are of."""


@dataclass(frozen=True)
class Training:
    """Train a model by plain settings of a recipe.

    Attributes
    ----------
    name : str
        Unlike that of any other cell.
    folder : Path
        The run.
    settings : dict
        The recipe, its seed among it.
    scale : float
        See `scaled`.
    after : tuple of str
        The names of cells that must be done before.
    """

    name: str
    folder: Path
    settings: Mapping[str, Any]
    scale: float = 1.0
    after: tuple[str, ...] = ()


@dataclass(frozen=True)
class Auditing:
    """Audit a model.

    Attributes
    ----------
    name : str
        Unlike that of any other cell.
    folder : Path
        What `holdfast.report.read_run` reads; the records go into its folder ``audit``.
    subject : str
        The model: a run's folder, or any name that `holdfast.load` takes.
    battery, eps, data, overrides
        As for `holdfast.audit.assignment.assign`.
    scale : float
        Which share of the images is audited; see `scaled_count`.
    images, explained : int, optional
        How many at most, instead.
    after : tuple of str
        The names of cells that must be done before.
    """

    name: str
    folder: Path
    subject: str
    battery: str | None = None
    eps: str | None = None
    data: str | None = None
    overrides: Mapping[str, Any] = field(default_factory=dict)
    scale: float = 1.0
    images: int | None = None
    explained: int | None = None
    after: tuple[str, ...] = ()


@dataclass(frozen=True)
class Retraining:
    """Remove what a model's maps name, and retrain naturally on what is left (ROAR).

    Attributes
    ----------
    name : str
        Unlike that of any other cell.
    folder : Path
        Where ``roar.parquet`` grows.
    subject : str
        The folder of the run. What is retrained is as long as it was.
    settings : dict
        Of `holdfast.audit.ROAR`.
    overrides : dict
        Settings of the recipe at dotted keys, such as ``data.path``.
    after : tuple of str
        The names of cells that must be done before.
    """

    name: str
    folder: Path
    subject: str
    settings: Mapping[str, Any]
    overrides: Mapping[str, Any] = field(default_factory=dict)
    after: tuple[str, ...] = ()


Cell = Training | Auditing | Retraining


def run_cell(cell: Cell, *, progress: bool = False) -> None:
    """Do what a cell says, as far as it is not done.

    Raises
    ------
    HoldfastError
        As `holdfast.training.train` and `holdfast.audit.audit_on` do.
    """
    if isinstance(cell, Training):
        _train(cell, progress)
    elif isinstance(cell, Retraining):
        _retrain(cell, progress)
    else:
        _audit(cell, progress)


def stages(cells: Iterable[Cell]) -> list[list[Cell]]:
    """Put cells in stages: those of one stage need nothing but what stages before it made.

    Raises
    ------
    HoldfastError
        If cells wait for each other.

    Examples
    --------
    >>> first, last = Training("a", Path("a"), {}), Auditing("b", Path("b"), "a", after=("a",))
    >>> [[cell.name for cell in stage] for stage in stages([last, first])]
    [['a'], ['b']]
    """
    left, made, staged = list(cells), set[str](), []
    known = {cell.name for cell in left}
    while left:
        ready = [cell for cell in left if made.issuperset(known.intersection(cell.after))]
        if not ready:
            waiting = ", ".join(cell.name for cell in left)
            raise HoldfastError(f"rows need each other's models: {waiting}")
        staged.append(ready)
        made |= {cell.name for cell in ready}
        left = [cell for cell in left if cell.name not in made]
    return staged


def _train(cell: Training, progress: bool) -> None:
    if (cell.folder / MODEL).is_file():
        return
    from holdfast.training.fit import train  # Lightning takes seconds

    recipe: Recipe = build(Recipe, cell.settings, at="")
    if cell.scale != 1:
        recipe = scaled(recipe, cell.scale, len(recipe.data.load("train")))
    begun = (cell.folder / CHECKPOINTS).is_dir()
    train(recipe, cell.folder, resume=begun, progress=progress)


def _retrain(cell: Retraining, progress: bool) -> None:
    from holdfast.audit import ROAR
    from holdfast.audit.retraining import natural_settings

    settings = natural_settings(read_recipe(Path(cell.subject) / CONFIG, cell.overrides))
    with from_a_run(trust_code=False):
        recipe: Recipe = build(Recipe, {**settings, "audit": None}, at="")
        method: ROAR = build(ROAR, cell.settings, "roar")
        model = load_saved(cell.subject)
    method(model, recipe, cell.folder, retrain=recipe, progress=progress)
    with whole(cell.folder / IMAGES) as unfinished:
        count = len(recipe.data.load("test"))
        unfinished.write_text(plain_yaml.dump({"images": count}), encoding="utf-8")


def _audit(cell: Auditing, progress: bool) -> None:
    from holdfast.audit.assignment import Assignment, assign
    from holdfast.audit.devices import audit_on

    def assigned(**more: Any) -> Assignment:
        return assign(
            cell.subject,
            battery=cell.battery,
            eps=cell.eps,
            data=cell.data,
            out=str(cell.folder),
            overrides={**cell.overrides, **more},
        )

    job = assigned(**({} if cell.images is None else {"data.limit": cell.images}))
    audit = job.audit
    if cell.images is None and cell.scale != 1:
        count = len(job.load_data())
        few = scaled_count(count, cell.scale, LEAST_IMAGES)
        job = assigned(**{"data.limit": few}) if few < count else job
    if cell.explained is not None:
        most = cell.explained if audit.explained is None else audit.explained
        audit = replace(audit, explained=min(most, cell.explained))
    elif cell.scale != 1:
        asked = audit.explained
        asked = len(job.load_data()) if asked is None else asked
        audit = replace(audit, explained=scaled_count(asked, cell.scale, LEAST_EXPLAINED))
    audit_on(1, audit, job.load_model, job.load_data, cell.folder / "audit", progress=progress)
