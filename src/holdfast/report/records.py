"""Reading a run folder: what was trained, how it was audited, and what was measured."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from holdfast import plain_yaml
from holdfast.contracts import InputError
from holdfast.parts import SCHEMA, DamagedError, read_part, settings_digest
from holdfast.records import check_range, read_records, shown
from holdfast.report.gallery_file import read_gallery

__all__ = ["KEPT", "SIMILARITIES", "AuditedRun", "read_run"]

SIMILARITIES = ("top_k_intersection", "kendall_tau", "spearman_rho")
KEPT = "preserved"

_SHARES = ("correct", "preserved", "no_direction", "top_k_intersection")
_BOUNDS = {
    **dict.fromkeys((*_SHARES, "loc", "energy_game", "positive_percentage"), (0.0, 1.0)),
    **dict.fromkeys(("kendall_tau", "spearman_rho"), (-1.0, 1.0)),
}
"""What the measures of Holdfast can be; those that others bring may be anything."""
_ANY = (-1e300, 1e300)


@dataclass(frozen=True, eq=False)
class AuditedRun:
    """One trained model and the records of its audit.

    Attributes
    ----------
    name : str
        What tables and figures call the model.
    records : pyarrow.Table
        One row per image, check and measure, with the columns ``index``, ``label``, ``check``,
        ``measure`` and ``value``. A check that measured ``correct`` is an attack on predictions,
        one that measured ``preserved`` an attack on explanations.
    path : Path, optional
        The run folder.
    config : Mapping
        The recipe as trained; empty if the folder holds none.
    settings : Mapping
        What the audit was made with; empty if the folder holds none.
    fitness : Mapping
        What was seen of the model before the audit began; empty if the folder holds no such file.
    gallery : dict of str to ndarray, optional
        A few images and their maps, as :func:`~holdfast.report.gallery_file.read_gallery` has them.
    classes : tuple of str
        The names of the classes; empty if unknown.

    Examples
    --------
    >>> run = AuditedRun("art", pa.table({"index": [0, 1], "label": [3, 5], "check": ["clean"] * 2,
    ...                                   "measure": ["correct"] * 2, "value": [1.0, 0.0]}))
    >>> run.checks, run.values("clean", "correct")
    (('clean',), array([1., 0.]))
    """

    name: str
    records: pa.Table
    path: Path | None = None
    config: Mapping[str, Any] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)
    fitness: Mapping[str, Any] = field(default_factory=dict)
    gallery: dict[str, np.ndarray] | None = None
    classes: tuple[str, ...] = ()

    @property
    def checks(self) -> tuple[str, ...]:
        """The names of the checks, in the order in which they were made."""
        return tuple(dict.fromkeys(check for check, _ in self._series))

    @property
    def images(self) -> int:
        """How many images the records are about."""
        return int(pc.count_distinct(self.records["index"]).as_py())

    def measures(self, check: str) -> tuple[str, ...]:
        """List what a check measured, in the order of the records."""
        return tuple(measure for known, measure in self._series if known == check)

    @property
    def findings(self) -> tuple[str, ...]:
        """What may be wrong with the model or the data, as the audit found before it began."""
        found = self.fitness.get("findings") or ()
        return tuple(map(str, found)) if isinstance(found, list | tuple) else (str(found),)

    def value(self, check: str, measure: str, index: int) -> float | None:
        """Look up one measure of one image; None where it has none."""
        indices, values = self._series.get((check, measure), _NOTHING)
        found = values[indices == index]
        return float(found[0]) if len(found) else None

    def values(self, check: str, measure: str) -> np.ndarray:
        """Pick one measure under one check: a value an image ``(n,)``, in the order of records."""
        return self._series.get((check, measure), _NOTHING)[1]

    def aligned(self, *wanted: tuple[str, str]) -> tuple[np.ndarray, ...]:
        """Pick several measures, image by image: values ``(n,)`` of the images that have them all.

        Parameters
        ----------
        *wanted : tuple of str
            The check and the measure of each.

        Returns
        -------
        tuple of ndarray
            One for each, all in the order of the images' indices.

        Examples
        --------
        >>> run = AuditedRun("art", pa.table({"index": [0, 1, 1], "label": [3, 5, 5],
        ...     "check": ["a", "a", "b"], "measure": ["m"] * 3, "value": [1.0, 2.0, 3.0]}))
        >>> run.aligned(("a", "m"), ("b", "m"))
        (array([2.]), array([3.]))
        """
        series = [self._series.get(key, _NOTHING) for key in wanted]
        shared = series[0][0]
        for index, _ in series[1:]:
            shared = np.intersect1d(shared, index)
        picked = []
        for index, values in series:
            order = np.argsort(index)
            places = np.searchsorted(index, np.sort(shared), sorter=order)
            picked.append(values[order[places]])
        return tuple(picked)

    @cached_property
    def _series(self) -> dict[tuple[str, str], tuple[np.ndarray, np.ndarray]]:
        """Cut the records by check and measure: indices and values, in the order of records."""
        checks, check_of = _numbered(self.records["check"])
        measures, measure_of = _numbered(self.records["measure"])
        kind = check_of * len(measures) + measure_of
        # Stable, so that each piece keeps the order of the records.
        order = np.argsort(kind, kind="stable")
        starts = np.flatnonzero(np.diff(kind[order], prepend=-1))
        pieces = np.split(order, starts[1:]) if len(order) else []
        index, value = (self.records[name].to_numpy() for name in ("index", "value"))
        return {
            (checks[check_of[piece[0]]], measures[measure_of[piece[0]]]): (
                index[piece],
                value[piece],
            )
            for piece in sorted(pieces, key=lambda piece: int(piece[0]))
        }


_NOTHING = np.empty(0, np.int64), np.empty(0)


def _numbered(names: pa.ChunkedArray) -> tuple[list[str], np.ndarray]:
    """List the different names, and tell which of them each record has."""
    known = pc.unique(names)
    return known.to_pylist(), pc.index_in(names, known).to_numpy().astype(np.int64)


def read_run(path: str | Path, *, name: str | None = None) -> AuditedRun:
    """Read the audit of a run folder.

    Parameters
    ----------
    path : str or Path
        The run folder. It holds ``audit/part-00000.parquet`` and on, and may hold ``config.yaml``,
        ``audit/settings.yaml``, ``audit/fitness.yaml`` and ``audit/gallery.safetensors``.
    name : str, optional
        What to call the model; the name of the folder by default.

    Raises
    ------
    InputError
        If there is no such folder, it holds no audit, or a file in it is not what it should be.

    Examples
    --------
    >>> read_run("runs/never_trained")
    Traceback (most recent call last):
        ...
    holdfast.contracts.InputError: path: expected the folder of a run, got runs/never_trained
    """
    folder = Path(path)
    try:
        there = folder.is_dir()
    except OSError as error:  # a name too long
        raise InputError("path", f"{folder} ({error.strerror})", "the folder of a run") from error
    if not there:
        raise InputError("path", folder, "the folder of a run")
    audit = folder / "audit"
    parts = sorted(audit.glob("part-*.parquet"))
    if not parts:
        raise InputError("path", folder, "a run that was audited, with audit/part-00000.parquet")
    digest = _digest(audit / "settings.yaml")
    records = pa.concat_tables([_read_part(part, digest) for part in parts])
    _check_records(records, audit)
    gallery, classes = read_gallery(audit / "gallery.safetensors")
    settings = _read_mapping(audit / "settings.yaml")
    called = shown(folder.resolve().name if name is None else name)
    run = AuditedRun(
        name=called + _unfinished(records, settings),
        records=records,
        path=folder,
        config=_read_mapping(folder / "config.yaml"),
        settings=settings,
        fitness=_read_mapping(audit / "fitness.yaml"),
        gallery=gallery,
        classes=classes,
    )
    _check_known(run, audit)
    return run


def _unfinished(records: pa.Table, settings: Mapping[str, Any]) -> str:
    """Say so, wherever a run is named, if its audit has not seen all images yet."""
    data = settings.get("data")
    total = data.get("images") if isinstance(data, Mapping) else None
    images = pc.count_distinct(records["index"]).as_py()
    if not isinstance(total, int) or images >= total:
        return ""
    return f" (unfinished: {images:,} of {total:,} images)"


def _digest(settings: Path) -> str | None:
    """Return the digest that parts of an audit carry; None of an older one, or without settings."""
    try:
        return settings_digest(settings.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError):
        return None


def _read_part(path: Path, audit: str | None) -> pa.Table:
    """Read one file of records, and refuse a damaged one and values that no measure has."""
    table = read_records(path, SCHEMA, "audit records in Parquet")
    try:
        read_part(path, audit)
    except DamagedError as error:
        came = f"one that is damaged ({error}); the same audit once more makes it anew"
        raise InputError(str(path), came, "a part of this audit") from error
    check_range(path, "index", table["index"], 0, 2**40)
    check_range(path, "label", table["label"], 0, 2**40)
    for measure in pc.unique(table["measure"]).to_pylist():
        low, high = _BOUNDS.get("correct" if measure.startswith("correct_") else measure, _ANY)
        values = table.filter(pc.equal(table["measure"], measure))["value"]
        check_range(path, measure, values, low, high)
    return table


def _check_records(records: pa.Table, audit: Path) -> None:
    """Refuse what would make a number wrong without a word: gaps, NaN, images counted twice."""
    if records.num_rows == 0:
        raise InputError(str(audit), "no records", "at least one record")
    groups = records.group_by(["index", "check", "measure"]).aggregate([([], "count_all")])
    if groups.num_rows < records.num_rows:
        twice = groups.filter(pc.greater(groups["count_all"], 1)).slice(0, 1).to_pylist()[0]
        came = f"several for image {twice['index']}, {twice['check']}, {twice['measure']}"
        raise InputError(str(audit), came, "one record per image, check and measure")
    labels = records.group_by("index").aggregate([("label", "min"), ("label", "max")])
    torn = labels.filter(pc.not_equal(labels["label_min"], labels["label_max"]))
    if torn.num_rows:
        came = f"several of image {torn['index'][0].as_py()}"
        raise InputError(str(audit), came, "one label an image")


def _check_known(run: AuditedRun, audit: Path) -> None:
    """Refuse images and labels beyond those that the audit was of."""
    data = run.settings.get("data")
    images = data.get("images") if isinstance(data, Mapping) else None
    if isinstance(images, int) and not isinstance(images, bool) and images > 0:
        what = f", as the audit is of {images:,} images"
        check_range(audit, "index", run.records["index"], 0, images - 1, what)
    if run.classes:
        what = f", as there are {len(run.classes)} classes"
        check_range(audit, "label", run.records["label"], 0, len(run.classes) - 1, what)


def _read_mapping(path: Path) -> Mapping[str, Any]:
    if not path.exists():
        return {}
    return plain_yaml.read_mapping(path)
