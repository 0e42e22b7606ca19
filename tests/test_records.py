import os

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from holdfast.contracts import InputError
from holdfast.records import check_range, is_name, read_records

SCHEMA = pa.schema({"index": pa.int64(), "name": pa.string(), "value": pa.float64()})
GOOD = {"index": [0, 1], "name": ["a", "b"], "value": [0.5, 1.0]}


def written(tmp_path, table):
    path = tmp_path / "records.parquet"
    pq.write_table(table if isinstance(table, pa.Table) else pa.table(table), path)
    return path


def test_reads_the_columns_in_their_order_and_types(tmp_path):
    columns = {
        "more": [1, 2],
        "value": pa.array([1, 2], pa.int32()),
        "name": pa.array(["a", "b"]).dictionary_encode(),
        "index": pa.array([0, 1], pa.uint8()),
    }
    table = read_records(written(tmp_path, columns), SCHEMA, "records")
    assert table.schema == SCHEMA
    assert table.to_pydict() == {"index": [0, 1], "name": ["a", "b"], "value": [1.0, 2.0]}


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"index": ["0", "1"]}, "index: string"),
        ({"index": [0.0, 1.0]}, "index: double"),
        ({"index": [True, False]}, "index: bool"),
        ({"index": [None, 1]}, "gaps in index"),
        ({"index": pa.array([0, 2**63], pa.uint64())}, "cannot be read"),
        ({"value": ["1", "2"]}, "value: string"),
        ({"value": [True, False]}, "value: bool"),
        ({"value": [[1.0], [2.0]]}, "value: list"),
        ({"value": [float("nan"), 1.0]}, "NaN or infinite value"),
        ({"value": [float("inf"), 1.0]}, "NaN or infinite value"),
        ({"name": [1, 2]}, "name: int64"),
        ({"name": [b"a", b"b"]}, "name: binary"),
        ({"name": [None, "b"]}, "gaps in name"),
        ({"name": ["", "b"]}, "names in name, got ''"),
        ({"name": ["a\x1b[2J", "b"]}, "names in name"),
        ({"name": ["a\nb", "b"]}, "names in name"),
        ({"name": ["a\u202eb", "b"]}, "names in name"),
        ({"name": ["a" * 301, "b"]}, "names in name"),
    ],
)
def test_names_what_is_wrong_in_one_line(tmp_path, changes, says):
    path = written(tmp_path, GOOD | changes)
    with pytest.raises(InputError, match="records.parquet: expected") as error:
        read_records(path, SCHEMA, "records")
    assert says in str(error.value)
    assert "\n" not in str(error.value)


def test_columns_that_are_missing_or_there_twice(tmp_path):
    path = written(tmp_path, {"index": [0]})
    with pytest.raises(InputError, match="none named name, value"):
        read_records(path, SCHEMA, "records")
    table = pa.Table.from_arrays([pa.array([0])] * 2, names=["index", "index"])
    path = written(tmp_path, table.append_column("name", [["a"]]).append_column("value", [[1.0]]))
    with pytest.raises(InputError, match="several named index"):
        read_records(path, SCHEMA, "records")


@pytest.mark.parametrize("keep", [0, 4, 100, -4, -1])
def test_half_a_file(tmp_path, keep):
    path = written(tmp_path, GOOD)
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(InputError, match="records.parquet: expected records, got a file that"):
        read_records(path, SCHEMA, "records")


def test_any_byte_that_is_changed_is_an_error_of_ours_or_harmless(tmp_path):
    path = written(tmp_path, GOOD)
    whole = path.read_bytes()
    said = []
    for place in range(0, len(whole), 7):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 0xFF]) + whole[place + 1 :])
        try:
            read_records(path, SCHEMA, "records")
        except InputError as error:
            said.append(str(error))
    assert said
    assert not any("\n" in message for message in said)


def test_what_is_no_file(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path, tmp_path / "pipe", tmp_path / "none"):
        with pytest.raises(InputError, match="got no file"):
            read_records(path, SCHEMA, "records")


def test_ranges(tmp_path):
    values = pa.chunked_array([[-1.0000000001, 0.3]])
    check_range(tmp_path, "τ", values, -1, 1)
    check_range(tmp_path, "τ", pa.chunked_array([], pa.float64()), -1, 1)
    with pytest.raises(InputError, match=r"τ from 0 to 1 of three, got -1"):
        check_range(tmp_path, "τ", values, 0, 1, " of three")


def test_names_in_any_script():
    assert all(map(is_name, ("top_k/ig", "ε = 8/255", "虎百合", "🌸", "<script>")))
    assert not any(map(is_name, ("", "a\0", "\ud800", "a\u2028", 7, None)))
