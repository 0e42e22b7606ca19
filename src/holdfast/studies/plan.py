"""From a study to its cells: which models are trained where, and audited how."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from holdfast import plain_yaml
from holdfast.contracts import HoldfastError, InputError, check_positive
from holdfast.studies.cells import Auditing, Cell, Retraining, Training, stages
from holdfast.studies.given import described
from holdfast.studies.scale import LEAST_IMAGES, check_scale, rule, scaled_count
from holdfast.studies.study import Row, Study
from holdfast.training.recipe import overlay, read_recipe

__all__ = ["Reproduction", "cells"]

_REFERENCE = "row:"


@dataclass(frozen=True)
class Reproduction:
    """A study, and how it is to be made.

    Parameters
    ----------
    study : Study
        The study.
    out : Path
        Its folder, shared by all studies: a model is trained once, in
        ``runs/RECIPE-DIGEST/seed-SEED``, and audited there.
    scale : float
        The share of the published training and audit, see `scaled`.
    seeds : int
        How many models a row, each from another seed: the recipe's, the next one, and so on.
    data : dict of str to str
        Where data is, by the first part of recipes' names (``mnist``); under "" for all others.
    runs : dict of str to tuple of Path
        Runs that are there already, by row, one a seed.
    overrides : dict
        Settings of all recipes and audits at dotted keys.
    images, explained : int, optional
        How many test images at most, and of how many explanations are attacked.

    Raises
    ------
    HoldfastError
        If there is no such row or data, or a number is out of range.
    """

    study: Study
    out: Path
    scale: float = 1.0
    seeds: int = 1
    data: Mapping[str, str] = field(default_factory=dict)
    runs: Mapping[str, Sequence[Path]] = field(default_factory=dict)
    overrides: Mapping[str, Any] = field(default_factory=dict)
    images: int | None = None
    explained: int | None = None

    def __post_init__(self) -> None:
        check_scale(self.scale)
        counts = [n for n in ("images", "explained") if getattr(self, n) is not None]
        check_positive(self, "seeds", *counts)
        for name in self.runs:
            if name not in self.study.rows:
                raise InputError("run", repr(name), f"a row: {', '.join(self.study.rows)}")
            if not self.runs[name]:
                raise InputError("run", f"no folder for {name}", "at least one")
        families = {_family(row) for row in self.study.rows.values()} - {""}
        for name in self.data:
            if name and name not in families:
                raise InputError("data", repr(name), f"one of {', '.join(sorted(families))}")

    @property
    def limit(self) -> int | None:
        """How many test images are audited at most, as asked for or as the study has them."""
        if self.images is not None or self.study.images is None:
            return self.images
        return scaled_count(self.study.images, self.scale, LEAST_IMAGES)

    @property
    def terms(self) -> str:
        """Say at which scale the study is made, what was changed, and which models were there."""
        said = rule(self.scale, self.limit, self.explained)
        if self.overrides:
            changes = ", ".join(f"{key} {value}" for key, value in self.overrides.items())
            said += f" Changed in all rows: {changes}."
        if self.runs:
            rows = self.study.rows
            models = "; ".join(
                f"{row}: {described(rows[row], Path(folder))}"
                for row, folders in self.runs.items()
                for folder in folders
            )
            said += f" Not trained by this study: {models}."
        return said

    def audits(self, row: str) -> list[Auditing]:
        """Return a row's audits, one a seed; none where ROAR is what the study does."""
        if self.study.roar:
            return []
        return [self._auditing(row, number) for number in range(self._count(row))]

    def retrainings(self, row: str) -> list[Retraining]:
        """Return what a row's ROAR is, one a seed; none where it is audited."""
        if not self.study.roar:
            return []
        return [self._retraining(row, number) for number in range(self._count(row))]

    def measuring(self, row: str) -> list[Cell]:
        """Return what is measured of a row, by audits or by ROAR."""
        return [*self.audits(row), *self.retrainings(row)]

    @property
    def needed(self) -> tuple[Training, ...]:
        """The trainings that the audits of all shown rows need, each once."""
        for row in self.study.shown:
            self.measuring(row)
        return tuple({training.name: training for training in self._known.values()}.values())

    # --- trainings -------------------------------------------------------------------------------

    def _count(self, row: str) -> int:
        """Say how many models a row has."""
        name = self._trained(row)
        if name in self.runs:
            return len(self.runs[name])
        return self.seeds if self.study.rows[name].recipe else 1

    def _trained(self, row: str) -> str:
        """Return the row whose model this one has."""
        model = self.study.rows[row].model
        return model if model in self.study.rows and row not in self.runs else row

    def _training(self, row: str, number: int, above: tuple[str, ...] = ()) -> Training:
        """Return the training of a row's model that is trained by a recipe."""
        if row in above:
            raise HoldfastError(f"rows need each other's models: {' → '.join((*above, row))}")
        key = (row, number)
        if key not in self._known:
            self._known[key] = self._made(row, number, (*above, row))
        return self._known[key]

    @cached_property
    def _known(self) -> dict[tuple[str, int], Training]:
        return {}

    def _made(self, row: str, number: int, above: tuple[str, ...]) -> Training:
        about = self.study.rows[row]
        path = self._path(about)
        places = {} if path is None else {"data.path": path}
        ours = {key: value for key, value in self.overrides.items() if not _of_audit(key)}
        settings = read_recipe(about.recipe, {**about.overrides, **places, **ours})
        settings = overlay(settings, {"seed": _seed(settings) + number})
        needed: dict[str, Training] = {}

        def run_of(name: str) -> str:
            found = self._model(name, number, above)
            if isinstance(found, Training):
                needed[found.name] = found
                return str(found.folder)
            return found

        made = _with_runs(settings, run_of)
        # A digest of what does not depend on where the folder is.
        told = _with_runs(settings, lambda name: self._named(name, number, above))
        digest = _digest({**told, "seed": 0, "scale": self.scale})
        place = f"{_slug(about.recipe)}-{digest}"
        folder = self.out / "runs" / place / f"seed-{settings['seed']}"
        name = f"train {place} seed {settings['seed']}"
        return Training(name, folder, made, self.scale, tuple(needed))

    def _model(self, row: str, number: int, above: tuple[str, ...] = ()) -> Training | str:
        """Return what trains a row's model, or the model's name."""
        if row not in self.study.rows:
            raise HoldfastError(f"{_REFERENCE}{row}: there is no such row")
        name = self._trained(row)
        if name in self.runs:
            folders = self.runs[name]
            return str(folders[number % len(folders)])
        about = self.study.rows[name]
        return self._training(name, number, above) if about.recipe else about.model

    def _named(self, row: str, number: int, above: tuple[str, ...]) -> str:
        found = self._model(row, number, above)
        return found.name if isinstance(found, Training) else found

    def _path(self, row: Row) -> str | None:
        return self.data.get(_family(row), self.data.get(""))

    # --- audits ----------------------------------------------------------------------------------

    def _auditing(self, row: str, number: int) -> Auditing:
        study, about = self.study, self.study.rows[row]
        model = self._model(row, number)
        needed = [model.name] if isinstance(model, Training) else []
        settings = {f"audit.{key}": value for key, value in {**study.audit, **about.audit}.items()}
        if not isinstance(model, Training) and self._trained(row) not in self.runs:
            groups = ("data.", "model.")
            settings |= {k: v for k, v in about.overrides.items() if k.startswith(groups)}
        ours = {k: v for k, v in self.overrides.items() if k.startswith(("data.", "audit."))}

        def run_of(name: str) -> str:
            found = self._model(name, number)
            if isinstance(found, Training):
                needed.append(found.name)
                return str(found.folder)
            return found

        made = _with_runs(settings, run_of) | ours
        told = _with_runs(settings, lambda name: self._named(name, number, ())) | ours
        plain = {"battery": study.battery, "eps": study.eps, "data": self._path(about)}
        counts = {"scale": self.scale, "images": self.limit, "explained": self.explained}
        digest = _digest({**plain, **counts, "settings": told})
        above, subject = self._place(row, model, "audits")
        return Auditing(
            f"audit {subject} {digest}",
            above / digest,
            subject,
            study.battery or None,
            None if study.eps is None else str(study.eps),
            self._path(about),
            made,
            self.scale,
            self.limit,
            self.explained,
            tuple(dict.fromkeys(needed)),
        )

    def _retraining(self, row: str, number: int) -> Retraining:
        model = self._model(row, number)
        needed = (model.name,) if isinstance(model, Training) else ()
        path = self._path(self.study.rows[row])
        places = {} if path is None else {"data.path": path}
        ours = {k: v for k, v in self.overrides.items() if k.startswith("data.")}
        digest = _digest({"roar": self.study.roar, "settings": {**places, **ours}})
        above, subject = self._place(row, model, "roar")
        name = f"roar {subject} {digest}"
        settings = {**places, **ours}
        return Retraining(name, above / digest, subject, self.study.roar, settings, needed)

    def _place(self, row: str, model: Training | str, what: str) -> tuple[Path, str]:
        """Return the folder for what is found out about a model, and the model's name."""
        if isinstance(model, Training):
            return model.folder / what, str(model.folder)
        place = f"{_slug(row)}-{_digest(str(Path(model).absolute()))}"
        return self.out / "given" / place, model


def cells(job: Reproduction) -> list[Cell]:
    """Return all trainings and audits of a study, each once, in an order in which they can be run.

    Examples
    --------
    >>> from holdfast.studies import read_study
    >>> made = cells(Reproduction(read_study("digits/methods"), Path("runs/studies"), 0.1))
    >>> type(made[0]).__name__, type(made[-1]).__name__
    ('Training', 'Auditing')
    """
    measuring: dict[str, Cell] = {}
    for row in job.study.shown:
        measuring |= {cell.name: cell for cell in job.measuring(row)}
    found: list[Cell] = [*job.needed, *measuring.values()]
    return [cell for stage in stages(found) for cell in stage]


def _family(row: Row) -> str:
    """Return the first part of a recipe's name, by which its data is known."""
    return row.recipe.partition("/")[0] if "/" in row.recipe else ""


def _of_audit(key: str) -> bool:
    return key == "audit" or key.startswith("audit.")


def _seed(settings: Mapping[str, Any]) -> int:
    seed = settings.get("seed", 0)
    seed = plain_yaml.parse(seed, "seed") if isinstance(seed, plain_yaml.Unread) else seed
    if isinstance(seed, bool) or not isinstance(seed, int):
        raise InputError("seed", repr(seed), "an integer")
    return seed


def _with_runs(settings: Any, run_of: Any) -> Any:
    """Put runs in the place of ``row:NAME``."""
    if isinstance(settings, Mapping):
        return {key: _with_runs(value, run_of) for key, value in settings.items()}
    if isinstance(settings, list | tuple):
        return [_with_runs(value, run_of) for value in settings]
    if isinstance(settings, str) and settings.startswith(_REFERENCE):
        return run_of(settings.removeprefix(_REFERENCE))
    return settings


def _digest(settings: Any) -> str:
    text = plain_yaml.dump(_read(settings))
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:10]


def _read(settings: Any) -> Any:
    """Read what was typed, so that 0.10 and 0.1 are one setting."""
    if isinstance(settings, Mapping):
        return {key: _read(settings[key]) for key in sorted(settings, key=str)}
    if isinstance(settings, list | tuple):
        return [_read(value) for value in settings]
    if isinstance(settings, plain_yaml.Unread):
        try:
            return _read(plain_yaml.parse(settings, "setting"))
        except HoldfastError:
            return str(settings)
    if isinstance(settings, float) and settings.is_integer():
        return int(settings)  # 50 is 50.0
    return settings


def _slug(name: str) -> str:
    return re.sub(r"[^\w.=-]+", ".", str(Path(name).with_suffix("") if "/" in name else name))
