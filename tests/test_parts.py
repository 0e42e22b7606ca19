import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from holdfast.parts import (
    SCHEMA,
    DamagedError,
    part_file,
    read_part,
    settings_digest,
    with_digest,
    write_part,
)


def records(**changes):
    row = {"index": 3, "label": 1, "check": "clean", "measure": "correct", "value": 1 / 3}
    return pa.Table.from_pylist([{**row, **changes}], SCHEMA)


def test_a_part_comes_back_and_is_the_same_file_again(tmp_path):
    write_part(tmp_path, 7, records(), "abc")
    file = part_file(tmp_path, 7)
    for audit in ("abc", None):
        assert read_part(file, audit).equals(records())
    first = file.read_bytes()
    write_part(tmp_path, 7, records(), "abc")
    assert file.read_bytes() == first


@pytest.mark.parametrize("length", [0, 4, 100, -1])
def test_a_part_that_is_cut_is_damaged(length, tmp_path):
    write_part(tmp_path, 0, records(), "abc")
    file = part_file(tmp_path, 0)
    file.write_bytes(file.read_bytes()[:length])
    with pytest.raises(DamagedError, match="part-00000.parquet cannot be read"):
        read_part(file, "abc")


@pytest.mark.parametrize(
    "change", [{"index": 4}, {"label": 0}, {"check": "x"}, {"measure": "x"}, {"value": 0.5}]
)
def test_a_part_whose_records_were_changed_is_damaged(change, tmp_path):
    write_part(tmp_path, 0, records(), "abc")
    file = part_file(tmp_path, 0)
    metadata = pq.read_schema(file).metadata
    pq.write_table(records(**change).replace_schema_metadata(metadata), file)
    for audit in ("abc", None):
        with pytest.raises(DamagedError, match="does not fit its checksum"):
            read_part(file, audit)


def test_a_part_of_another_audit_or_place_is_not_this_one(tmp_path):
    write_part(tmp_path, 0, records(), "abc")
    file = part_file(tmp_path, 0)
    with pytest.raises(DamagedError, match="made with other settings"):
        read_part(file, "abd")
    moved = file.rename(part_file(tmp_path, 1))
    with pytest.raises(DamagedError, match="part-00001.parquet is part 0 by another name"):
        read_part(moved)


def test_parts_of_an_older_holdfast_are_read_and_not_gone_on_with(tmp_path):
    pq.write_table(records(), part_file(tmp_path, 0))
    assert read_part(part_file(tmp_path, 0)).equals(records())
    with pytest.raises(DamagedError, match="no checksum"):
        read_part(part_file(tmp_path, 0), "abc")


def test_settings_carry_their_digest():
    text = with_digest("k: 100\nname: é\n")
    assert len(settings_digest(text)) == 64
    for changed in (text.replace("100", "10"), text + "\n", text[:-9], "k: 100\n", ""):
        assert settings_digest(changed) is None
