"""The records of an audit, in parts: files of Parquet that carry a checksum."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from holdfast.errors import HoldfastError
from holdfast.files import whole

__all__ = [
    "SCHEMA",
    "DamagedError",
    "part_file",
    "read_part",
    "settings_digest",
    "with_digest",
    "write_part",
]

SCHEMA = pa.schema(
    {
        "index": pa.int64(),
        "label": pa.int64(),
        "check": pa.string(),
        "measure": pa.string(),
        "value": pa.float64(),
    }
)
_KEY = b"holdfast"


class DamagedError(HoldfastError):
    """A file is not what was written there, or belongs to another audit."""


def part_file(folder: Path, number: int) -> Path:
    """Name the file of a part.

    Examples
    --------
    >>> part_file(Path("audit"), 3).as_posix()
    'audit/part-00003.parquet'
    """
    return folder / f"part-{number:05d}.parquet"


def write_part(folder: Path, number: int, records: pa.Table, audit: str) -> None:
    """Write a part whole, with its number, the digest of its audit's settings, and a checksum.

    Raises
    ------
    HoldfastError
        If the file system does not take the file.
    """
    told = {"part": number, "audit": audit, "sha256": _checksum(records)}
    with whole(part_file(folder, number)) as unfinished:
        pq.write_table(records.replace_schema_metadata({_KEY: json.dumps(told)}), unfinished)


def read_part(file: Path, audit: str | None = None) -> pa.Table:
    """Read a part, and see that it is what was written there.

    Parameters
    ----------
    file : Path
        ``part-00000.parquet`` and on.
    audit : str, optional
        The digest of the settings that it must have been made with, see `settings_digest`. Without
        it, a part that an older Holdfast has written without a checksum is taken, too.

    Returns
    -------
    pyarrow.Table
        With the columns of `SCHEMA`, whatever else the file has.

    Raises
    ------
    DamagedError
        If the file cannot be read, has other columns, does not fit its checksum, or is another part
        or of another audit.

    Examples
    --------
    >>> import tempfile
    >>> folder = Path(tempfile.mkdtemp())
    >>> write_part(folder, 0, SCHEMA.empty_table(), audit="abc")
    >>> read_part(part_file(folder, 0), audit="abc").num_rows
    0
    >>> _ = part_file(folder, 0).rename(part_file(folder, 1))
    >>> read_part(part_file(folder, 1))
    Traceback (most recent call last):
        ...
    holdfast.parts.DamagedError: part-00001.parquet is part 0 by another name
    """
    try:
        # Not read_table: it would take the folders above for partitions (check=…).
        table = pq.ParquetFile(file).read()
    except (pa.ArrowException, OSError, ValueError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise DamagedError(f"{file.name} cannot be read ({reason})") from error
    told = (table.schema.metadata or {}).get(_KEY)
    if told is None and audit is None:
        return table
    if not table.schema.equals(SCHEMA):
        raise DamagedError(f"{file.name} has other columns than records of an audit")
    table = table.replace_schema_metadata(None)
    try:
        known = json.loads(told or b"{}")
        number, made_with, checksum = known["part"], known["audit"], known["sha256"]
    except (ValueError, TypeError, KeyError) as error:
        raise DamagedError(f"{file.name} has no checksum") from error
    if checksum != _checksum(table):
        raise DamagedError(f"{file.name} does not fit its checksum")
    if file.name != part_file(file.parent, number).name:
        raise DamagedError(f"{file.name} is part {number} by another name")
    if audit is not None and made_with != audit:
        raise DamagedError(f"{file.name} was made with other settings")
    return table


def settings_digest(text: str) -> str | None:
    """Return the digest at the end of an audit's settings; None if it is missing or wrong.

    Examples
    --------
    >>> settings_digest("k: 100")
    >>> len(settings_digest(with_digest("")))
    64
    """
    found = _DIGEST.search(text)
    if found is None or hashlib.sha256(text[: found.start()].encode()).hexdigest() != found[1]:
        return None
    return found[1]


def with_digest(text: str) -> str:
    """Append its digest to the text of an audit's settings."""
    return f"{text}digest: {hashlib.sha256(text.encode()).hexdigest()}\n"


_DIGEST = re.compile(r"^digest: ([0-9a-f]{64})\n\Z", re.MULTILINE)


def _checksum(records: pa.Table) -> str:
    """Hash the content of records, however it is cut and compressed."""
    digest = hashlib.sha256()
    for name, column in zip(records.column_names, records.columns, strict=True):
        digest.update(f"{name} {column.type} {len(column)} {column.null_count}\0".encode())
        if pa.types.is_string(column.type):
            texts = column.to_pylist()
            digest.update(json.dumps(texts, ensure_ascii=False).encode("utf-8", "surrogatepass"))
        else:
            digest.update(column.to_numpy().tobytes())
    return digest.hexdigest()
