"""Tables of records in Parquet, read by a schema: whoever sent them may have written anything."""

from __future__ import annotations

import unicodedata
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from holdfast.errors import InputError

__all__ = ["ROAR", "check_range", "is_name", "read_records", "read_roar", "shown"]

ROAR = pa.schema(
    {
        "attribution": pa.string(),
        "share": pa.float64(),
        "repeat": pa.int64(),
        "accuracy": pa.float64(),
    }
)
"""The columns of what retrained models come to; of an audit's, see `holdfast.parts`."""

_ROWS = 50_000_000
_NAME = 300
_NOT_SHOWN = ("Cc", "Cf", "Cs", "Zl", "Zp")
"""Control; format, which may turn the direction of text; surrogates; ends of lines."""


def read_records(path: Path, schema: pa.Schema, expected: str) -> pa.Table:
    """Read the columns of a schema from a file of Parquet.

    Whole numbers of any width become those of the schema, and so do texts and their dictionaries;
    a text is never taken for a number.

    Parameters
    ----------
    path : Path
        The file.
    schema : pyarrow.Schema
        The columns; others are left out.
    expected : str
        What should be there, for errors.

    Raises
    ------
    InputError
        If it is no file of Parquet, lacks a column, has it twice or of another type, has gaps,
        numbers that are not finite, or texts that are no names. Names the file.

    Examples
    --------
    >>> read_records(Path("nowhere.parquet"), pa.schema({"index": pa.int64()}), "records")
    Traceback (most recent call last):
        ...
    holdfast.contracts.InputError: nowhere.parquet: expected records, got no file
    """
    if not path.is_file():  # a pipe, say, would be waited for
        raise InputError(str(path), "no file", expected)
    try:
        # Not read_table: it would take the folders above for partitions (check=…).
        with pq.ParquetFile(path) as file:
            _check_columns(file, schema, path, expected)
            found = file.schema_arrow
        # As dictionaries: a long text that stands in every row is small in the file alone.
        texts = [name for name in schema.names if pa.types.is_string(found.field(name).type)]
        with pq.ParquetFile(path, read_dictionary=texts) as file:
            table = file.read(columns=schema.names).select(schema.names)
            _check_types(table, schema, path, expected)
            _check_content(table, schema, path)
            return table.cast(schema)
    except InputError:
        raise
    except Exception as error:  # a damaged file makes Arrow fail in any way at all
        reason = (str(error).splitlines() or [type(error).__name__])[0][:200]
        came = f"a file that cannot be read ({reason})"
        raise InputError(str(path), came, expected) from error


def read_roar(path: Path, expected: str) -> pa.Table:
    """Read what retrained models came to.

    Raises
    ------
    InputError
        As :func:`read_records` does; or if a number is out of its range.

    Examples
    --------
    >>> read_roar(Path("nowhere.parquet"), "ROAR's results")
    Traceback (most recent call last):
        ...
    holdfast.contracts.InputError: nowhere.parquet: expected ROAR's results, got no file
    """
    table = read_records(path, ROAR, expected)
    check_range(path, "repeat", table["repeat"], 0, 2**40)
    for name in ("share", "accuracy"):
        check_range(path, name, table[name], 0, 1)
    return table


def check_range(
    path: Path,
    name: str,
    values: pa.ChunkedArray,
    low: float | int,
    high: float | int,
    what: str = "",
) -> None:
    """Refuse values out of a range, less what rounding may add.

    Raises
    ------
    InputError
        Names the file and one of the values.

    Examples
    --------
    >>> check_range(Path("roar.parquet"), "accuracy", pa.chunked_array([[0.5, 2.0]]), 0, 1)
    Traceback (most recent call last):
        ...
    holdfast.contracts.InputError: roar.parquet: expected accuracy from 0 to 1, got 2
    """
    if not len(values):
        return
    found = pc.min_max(values).as_py()
    for value in (found["min"], found["max"]):
        if not low - 1e-6 <= value <= high + 1e-6:
            bounds = f"from {low:,}" if high == float("inf") else f"from {low:,} to {high:,}"
            raise InputError(str(path), f"{value:,.8g}", f"{name} {bounds}{what}")


def is_name(text: object) -> bool:
    r"""Tell a name that can be shown: not empty, not endless, no control characters.

    Examples
    --------
    >>> is_name("top_k/ig"), is_name("red\x1b[31m"), is_name("")
    (True, False, False)
    """
    return (
        isinstance(text, str)
        and 0 < len(text) <= _NAME
        and not any(unicodedata.category(sign) in _NOT_SHOWN for sign in text)
    )


def shown(name: str) -> str:
    r"""Give a name as it can be shown, for folders are called whatever their makers like.

    Examples
    --------
    >>> shown("red\x1b[31m")
    'red�[31m'
    """
    return "".join("�" if unicodedata.category(sign) in _NOT_SHOWN else sign for sign in name)


def _check_columns(file: pq.ParquetFile, schema: pa.Schema, path: Path, expected: str) -> None:
    rows, names = file.metadata.num_rows, file.schema_arrow.names
    if not 0 <= rows <= _ROWS:
        raise InputError(str(path), f"{rows:,} rows", expected)
    missing = [name for name in schema.names if name not in names]
    if missing:
        came = f"none named {', '.join(missing)}"
        raise InputError(str(path), came, f"{expected} with {_columns(schema)}")
    twice = [name for name in schema.names if names.count(name) > 1]
    if twice:
        came = f"several named {', '.join(twice)}"
        raise InputError(str(path), came, f"{expected} with {_columns(schema)}")


def _check_types(table: pa.Table, schema: pa.Schema, path: Path, expected: str) -> None:
    for field in schema:
        kind = table.schema.field(field.name).type
        if pa.types.is_dictionary(kind):
            kind = kind.value_type
        if pa.types.is_integer(field.type):
            fits = pa.types.is_integer(kind)
        elif pa.types.is_floating(field.type):
            fits = pa.types.is_integer(kind) or pa.types.is_floating(kind)
        else:
            fits = pa.types.is_string(kind) or pa.types.is_large_string(kind)
        if not fits:
            raise InputError(
                str(path), f"{field.name}: {kind}", f"{expected} with {_columns(schema)}"
            )


def _check_content(table: pa.Table, schema: pa.Schema, path: Path) -> None:
    for field in schema:
        column = table[field.name]
        if column.null_count:
            raise InputError(str(path), f"gaps in {field.name}", "records without gaps")
        if pa.types.is_floating(field.type) and not pc.all(pc.is_finite(column)).as_py():
            if len(column):
                raise InputError(str(path), f"NaN or infinite {field.name}", "finite values")
        elif pa.types.is_string(field.type):
            odd = next((text for text in pc.unique(column).to_pylist() if not is_name(text)), None)
            if odd is not None:
                raise InputError(str(path), f"{odd[:40]!r}", f"names in {field.name}")


def _columns(schema: pa.Schema) -> str:
    return "columns " + ", ".join(f"{field.name} ({field.type})" for field in schema)
