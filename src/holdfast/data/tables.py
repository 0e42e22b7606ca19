"""Opening a data set: each of its splits as a table of images and labels.

What is on the disk is listed and read by Holdfast itself, with nothing kept from one time to the
next; the ``datasets`` library is asked only for names on the Hugging Face hub.
"""

from __future__ import annotations

import hashlib
import os
import re
import secrets
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
from datasets.table import MemoryMappedTable

from holdfast.contracts import HoldfastError, InputError
from holdfast.data.columns import PARQUET
from holdfast.data.digits import digits
from holdfast.data.folders import ImageFiles, image_files, parquet_files
from holdfast.data.labels import in_order
from holdfast.files import whole
from holdfast.hub import asking_the_hub, why_not

__all__ = ["FOLDER", "is_unlabelled", "open_tables", "place_of"]

FOLDER = "imagefolder"
"""The ``builder_name`` of a table that was made of a folder of images."""

_HUB_NAME = re.compile(r"(\w[\w.-]{0,95}/)?\w[\w.-]{0,95}", re.ASCII)
_READERS = """
    arrow audiofolder cache conll csv eval fasta fastq genbank generator harbor hdf5 iceberg
    imagefolder json lance meshfolder mmcif niftifolder pandas parquet pdb pdffolder spark sql
    text tsfile videofolder vortex webdataset xml
"""
_LOADERS = frozenset(_READERS.split())
"""What the ``datasets`` library takes for one of its own readers of files, some of which execute
what they read."""
_KEPT_IN_MEMORY = 2**30
"""Parquet of at most so many bytes, decompressed, is read at once."""


def open_tables(
    path: str, config: str | None = None, named: Collection[str] = ()
) -> dict[str, datasets.Dataset]:
    """Open every split of a data set.

    Parameters
    ----------
    path : str
        "digits", a local folder or Parquet file, or a name on the Hugging Face hub.
    config : str, optional
        Which configuration of a data set on the hub, or which sub-folder of a local one.
    named : collection of str
        What the user calls splits.

    Raises
    ------
    InputError
        If there is nothing at ``path``, or it is no data set.
    HoldfastError
        If it cannot be read.

    Examples
    --------
    >>> {split: len(table) for split, table in open_tables("digits").items()}
    {'train': 1297, 'test': 500}
    """
    if path == "digits":
        return digits()
    place = place_of(path)
    try:
        if place is None:
            return _from_hub(_hub_name(path), config)
        return _open_file(place) if place.is_file() else _open_folder(place, config, named)
    except HoldfastError:
        raise
    except Exception as error:  # the disk fails in any way at all
        reason = (str(error.__cause__ or error) or type(error).__name__).partition("\n")[0]
        raise HoldfastError(f"{path!r} cannot be loaded: {reason}") from error


def place_of(path: str) -> Path | None:
    """Return where on the disk that is, or none if there is nothing.

    Examples
    --------
    >>> place_of("nobody/nowhere") is None
    True
    """
    # Unlike those of pathlib, these functions never raise, whatever stands in a name.
    place = os.path.expanduser(path)
    return Path(place) if path and os.path.exists(place) else None


def is_unlabelled(table: datasets.Dataset) -> bool:
    """Tell a split of a folder whose images lie in no folders of classes.

    Examples
    --------
    >>> is_unlabelled(open_tables("digits")["train"])
    False
    """
    return table.info.builder_name == FOLDER and "label" not in table.column_names


def _from_hub(name: str, config: str | None) -> dict[str, datasets.Dataset]:
    with asking_the_hub() as asked:
        offline = datasets.config.HF_HUB_OFFLINE
        datasets.config.HF_HUB_OFFLINE = not asked
        try:
            return dict(datasets.load_dataset(name, config))
        except Exception as error:
            raise HoldfastError(
                f"{name!r} (no folder here, so sought on the Hugging Face hub) cannot be loaded: "
                f"{why_not(error.__cause__ or error, local=False, asked=asked)}"
            ) from error
        finally:
            datasets.config.HF_HUB_OFFLINE = offline


def _hub_name(path: str) -> str:
    """Return a name that can be one on the hub; refuse others, and those of readers of files."""
    if path.lower() in _LOADERS:
        expected = "a folder or file that exists; by this name nothing is sought on the hub"
        raise InputError("ImageData.path", repr(path), expected)
    if not _HUB_NAME.fullmatch(path) or path.endswith((".parquet", ".py")) or ".." in path:
        raise InputError("ImageData.path", repr(path), "a folder or file that exists")
    return path


def _open_file(file: Path) -> dict[str, datasets.Dataset]:
    if file.suffix.lower() != ".parquet":
        raise InputError("ImageData.path", repr(str(file)), "a Parquet file, *.parquet")
    return {"train": _read_parquet([file])}


def _open_folder(
    folder: Path, config: str | None, named: Collection[str]
) -> dict[str, datasets.Dataset]:
    if config is not None:
        if config in ("", "..") or Path(config).name != config or not (folder / config).is_dir():
            raise InputError("ImageData.config", repr(config), f"the name of a folder in {folder}")
        folder = folder / config
    if files := parquet_files(folder, named):
        return {split: _read_parquet(paths) for split, paths in files.items()}
    return _tables_of(image_files(folder, named))


def _tables_of(files: ImageFiles) -> dict[str, datasets.Dataset]:
    """Make tables of images and labels; of images alone where there are no classes."""
    classes = in_order({name for split in files.values() for name in split if name is not None})
    numbers = {name: number for number, name in enumerate(classes)}
    tables = {}
    for split, by_class in files.items():
        paths = [str(file) for images in by_class.values() for file in images]
        column = pa.StructArray.from_arrays(
            [pa.nulls(len(paths), pa.binary()), pa.array(paths, pa.string())], ["bytes", "path"]
        )
        columns, features = {"image": column}, {"image": datasets.Image()}
        if None not in by_class:
            labels = [numbers[str(name)] for name, images in by_class.items() for _ in images]
            columns["label"] = pa.array(labels, pa.int64())
            features["label"] = datasets.ClassLabel(names=list(classes))
        info = datasets.DatasetInfo(features=datasets.Features(features), builder_name=FOLDER)
        tables[split] = _as_dataset(pa.table(columns), info)
    return tables


def _as_dataset(table: Any, info: datasets.DatasetInfo) -> datasets.Dataset:
    # By default the fingerprint is a digest of all that is in memory, which takes long.
    return datasets.Dataset(table, info=info, fingerprint=secrets.token_hex(8))


# --- Parquet --------------------------------------------------------------------------------------


def _read_parquet(files: Sequence[Path]) -> datasets.Dataset:
    """Read a split. What does not fit in memory is decompressed to a file and mapped."""
    schema = _schema(files)
    info = datasets.DatasetInfo(
        features=datasets.Features.from_arrow_schema(schema), builder_name=PARQUET
    )
    footers = [pq.read_metadata(file) for file in files]
    groups = [footer.row_group(i) for footer in footers for i in range(footer.num_row_groups)]
    if sum(group.total_byte_size for group in groups) > _KEPT_IN_MEMORY:
        table = MemoryMappedTable.from_file(str(_decompressed(files, schema)))
    else:
        table = pa.concat_tables([_plain(pq.ParquetFile(file).read()) for file in files])
    return _as_dataset(table, info)


def _schema(files: Sequence[Path]) -> pa.Schema:
    """Return the schema of the files of a split, which must be the same."""
    first, *others = (_plain(pq.ParquetFile(file).schema_arrow.empty_table()) for file in files)
    kinds = datasets.Features.from_arrow_schema(first.schema)
    for file, other in zip(files[1:], others, strict=True):
        if datasets.Features.from_arrow_schema(other.schema) != kinds:
            expected = f"the columns, types and classes of {files[0].name}"
            raise InputError("ImageData.path", f"others in {file.name} of {file.parent}", expected)
    return first.schema


def _plain(table: pa.Table) -> pa.Table:
    """Undo what a column may be compressed by, such as pandas' categories."""
    for number, column in enumerate(table.schema):
        kind = column.type
        if pa.types.is_dictionary(kind):
            values = table.column(number).cast(kind.value_type)
            table = table.set_column(number, column.with_type(kind.value_type), values)
    return table


def _decompressed(files: Sequence[Path], schema: pa.Schema) -> Path:
    """Write all rows where the ``datasets`` library keeps its files, bound to what they are of."""
    digest = hashlib.sha256()
    for file in files:
        status = file.stat()
        came_from = (os.path.realpath(file), status.st_ino, status.st_size)
        digest.update(repr((*came_from, status.st_mtime_ns, status.st_ctime_ns)).encode())
    kept = Path(datasets.config.HF_DATASETS_CACHE) / "holdfast" / f"{digest.hexdigest()[:32]}.arrow"
    if not kept.exists():
        with (
            whole(kept) as unfinished,
            pa.OSFile(str(unfinished), "wb") as file_,
            pa.ipc.new_stream(file_, schema) as writer,
        ):
            for file in files:
                for batch in pq.ParquetFile(file).iter_batches(batch_size=1024):
                    writer.write_table(_plain(pa.Table.from_batches([batch])).cast(schema))
    return kept
