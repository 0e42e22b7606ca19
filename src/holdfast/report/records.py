"""Reading a run folder: what was trained, how it was audited, and what was measured."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import yaml
from safetensors import SafetensorError, safe_open

from holdfast.contracts import InputError

__all__ = ["AuditedRun", "read_run"]

SCHEMA = {
    "index": pa.int64(),
    "label": pa.int64(),
    "check": pa.string(),
    "measure": pa.string(),
    "value": pa.float64(),
}
PANELS = ("images", "maps", "perturbed_images", "perturbed_maps")
SCORES = ("kendall_tau", "top_k_intersection", "preserved")


@dataclass(frozen=True, eq=False)
class AuditedRun:
    """One trained model and the records of its audit.

    Attributes
    ----------
    name : str
        What tables and figures call the model.
    records : pyarrow.Table
        One row per image, check and measure, with the columns ``index``, ``label``, ``check``,
        ``measure`` and ``value``. A check with a ``/`` in its name is on explanations, any other
        on predictions.
    path : Path, optional
        The run folder.
    config : Mapping
        The recipe as trained; empty if the folder holds none.
    settings : Mapping
        What the audit was made with; empty if the folder holds none.
    gallery : dict of str to ndarray, optional
        A few images and their maps before and after: ``index`` and ``label`` ``(n,)``, and for each
        check on explanations ``CHECK|images``, ``CHECK|maps``, ``CHECK|perturbed_images`` and
        ``CHECK|perturbed_maps`` ``(n, C, H, W)``, ``CHECK|kendall_tau``,
        ``CHECK|top_k_intersection`` and ``CHECK|preserved`` ``(n,)``.
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
    gallery: dict[str, np.ndarray] | None = None
    classes: tuple[str, ...] = ()

    @property
    def checks(self) -> tuple[str, ...]:
        """The names of the checks, in the order in which they were made."""
        return tuple(pc.unique(self.records["check"]).to_pylist())

    @property
    def images(self) -> int:
        """How many images the records are about."""
        return int(pc.count_distinct(self.records["index"]).as_py())

    def measures(self, check: str) -> tuple[str, ...]:
        """List what a check measured, in the order of the records."""
        rows = self.records.filter(pc.equal(self.records["check"], check))
        return tuple(pc.unique(rows["measure"]).to_pylist())

    def values(self, check: str, measure: str) -> np.ndarray:
        """Pick one measure under one check: a value an image ``(n,)``, in the order of records."""
        records = self.records
        rows = pc.and_(pc.equal(records["check"], check), pc.equal(records["measure"], measure))
        return np.asarray(records.filter(rows)["value"].to_numpy())


def read_run(path: str | Path, *, name: str | None = None) -> AuditedRun:
    """Read the audit of a run folder.

    Parameters
    ----------
    path : str or Path
        The run folder. It holds ``audit/part-00000.parquet`` and on, and may hold ``config.yaml``,
        ``audit/settings.yaml`` and ``audit/gallery.safetensors``.
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
    if not folder.is_dir():
        raise InputError("path", folder, "the folder of a run")
    audit = folder / "audit"
    parts = sorted(audit.glob("part-*.parquet"))
    if not parts:
        raise InputError("path", folder, "a run that was audited, with audit/part-00000.parquet")
    records = pa.concat_tables([_read_part(part) for part in parts])
    _check_records(records, audit)
    gallery, classes = _read_gallery(audit / "gallery.safetensors")
    return AuditedRun(
        name=folder.resolve().name if name is None else name,
        records=records,
        path=folder,
        config=_read_mapping(folder / "config.yaml"),
        settings=_read_mapping(audit / "settings.yaml"),
        gallery=gallery,
        classes=classes,
    )


def _read_part(path: Path) -> pa.Table:
    try:
        # Not read_table: it would take the folders above for partitions (check=…).
        table = pq.ParquetFile(path).read()
    except (pa.ArrowException, OSError) as error:
        came = f"a file that cannot be read ({str(error).splitlines()[0]})"
        raise InputError(str(path), came, "audit records in Parquet") from error
    missing = [column for column in SCHEMA if column not in table.column_names]
    if missing:
        raise InputError(str(path), f"none named {', '.join(missing)}", f"columns {_columns()}")
    try:
        return table.select(list(SCHEMA)).cast(pa.schema(SCHEMA))
    except (pa.ArrowException, ValueError) as error:
        came = ", ".join(f"{column}: {table.schema.field(column).type}" for column in SCHEMA)
        raise InputError(str(path), came, f"columns {_columns()}") from error


def _columns() -> str:
    return ", ".join(f"{column} ({kind})" for column, kind in SCHEMA.items())


def _check_records(records: pa.Table, audit: Path) -> None:
    """Refuse what would make a number wrong without a word: gaps, NaN, images counted twice."""
    if records.num_rows == 0:
        raise InputError(str(audit), "no records", "at least one record")
    empty = [column for column in SCHEMA if records[column].null_count]
    if empty:
        raise InputError(str(audit), f"gaps in {', '.join(empty)}", "records without gaps")
    if not pc.all(pc.is_finite(records["value"])).as_py():
        raise InputError(str(audit), "NaN or infinite values", "finite values")
    groups = records.group_by(["index", "check", "measure"]).aggregate([([], "count_all")])
    if groups.num_rows < records.num_rows:
        twice = groups.filter(pc.greater(groups["count_all"], 1)).slice(0, 1).to_pylist()[0]
        came = f"several for image {twice['index']}, {twice['check']}, {twice['measure']}"
        raise InputError(str(audit), came, "one record per image, check and measure")


def _read_mapping(path: Path) -> Mapping[str, Any]:
    if not path.exists():
        return {}
    try:
        mapping = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError, OSError) as error:
        came = f"a file that cannot be read ({' '.join(str(error).split())})"
        raise InputError(str(path), came, "settings in YAML") from error
    if mapping is None:
        return {}
    if not isinstance(mapping, Mapping):
        raise InputError(str(path), type(mapping).__name__, "a mapping from names to settings")
    return mapping


def _read_gallery(path: Path) -> tuple[dict[str, np.ndarray] | None, tuple[str, ...]]:
    if not path.exists():
        return None, ()
    try:
        with safe_open(path, framework="numpy") as file:
            gallery = {key: np.asarray(file.get_tensor(key)) for key in file.keys()}  # noqa: SIM118
            classes = json.loads((file.metadata() or {}).get("classes", "[]"))
    except (SafetensorError, json.JSONDecodeError, OSError, TypeError) as error:
        came = f"a file that cannot be read ({error})"
        raise InputError(str(path), came, "a gallery in safetensors") from error
    _check_gallery(gallery, path)
    return gallery, tuple(str(name) for name in classes)


def _check_gallery(gallery: dict[str, np.ndarray], path: Path) -> None:
    checks = {key.rpartition("|")[0] for key in gallery if "|" in key}
    wanted = {"index": 1, "label": 1}
    for check in sorted(checks):
        wanted |= {f"{check}|{panel}": 4 for panel in PANELS}
        wanted |= {f"{check}|{score}": 1 for score in SCORES}
    for key, dimensions in wanted.items():
        if key not in gallery:
            raise InputError(str(path), f"none named {key}", f"a tensor {key}")
        array, count = gallery[key], len(gallery["index"])
        if array.ndim != dimensions or len(array) != count:
            shape = f"({count},)" if dimensions == 1 else f"({count}, C, H, W)"
            raise InputError(str(path), f"shape {array.shape}", f"{key} of shape {shape}")
        if not np.isfinite(array).all():
            raise InputError(str(path), f"NaN or infinite values in {key}", "finite values")
