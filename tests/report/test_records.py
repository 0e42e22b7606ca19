import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from safetensors.numpy import load_file, save_file

from holdfast.contracts import HoldfastError, InputError
from holdfast.parts import SCHEMA, settings_digest, with_digest, write_part
from holdfast.report import read_run

CHECK = "top_k/integrated_gradients"


def parts_of(run):
    return sorted((run.path / "audit").glob("part-*.parquet"))


def test_parts_are_joined_in_order(make_run):
    run = make_run(images=30, parts=4, gallery=(4, 17))
    rows = [row for part in parts_of(run) for row in pq.ParquetFile(part).read().to_pylist()]
    assert run.records.to_pylist() == rows
    assert run.images == 30
    assert run.checks == ("clean", "pgd", CHECK)
    assert run.measures(CHECK)[0] == "preserved"
    expected = [r["value"] for r in rows if (r["check"], r["measure"]) == (CHECK, "kendall_tau")]
    assert run.values(CHECK, "kendall_tau").tolist() == expected
    assert len(run.values("nowhere", "kendall_tau")) == 0


def test_name_config_settings_gallery_and_classes(make_run):
    run = make_run("some run")
    assert run.name == "some run"
    assert run.config["model"]["init_args"] == {"width": 32}
    assert run.settings["versions"]["torch"] == "2.11.0"
    assert run.classes[3] == "digit 3"
    assert run.gallery[f"{CHECK}|maps"].shape == (6, 1, 8, 8)
    assert read_run(run.path, name="other").name == "other"


def test_what_may_be_missing(make_run):
    run = make_run(gallery=())
    (run.path / "config.yaml").unlink()
    (run.path / "audit" / "settings.yaml").unlink()
    run = read_run(run.path)
    assert (run.config, run.settings, run.gallery, run.classes) == ({}, {}, None, ())


def test_narrower_types_are_widened(make_run):
    run = make_run(parts=1)
    (part,) = parts_of(run)
    narrow = pa.schema(
        {
            "index": pa.int32(),
            "label": pa.uint8(),
            "check": pa.dictionary(pa.int32(), pa.string()),
            "measure": pa.large_string(),
            "value": pa.float64(),
        }
    )
    pq.write_table(run.records.cast(narrow), part)
    assert read_run(run.path).records == run.records


def test_no_folder_and_no_audit(tmp_path):
    with pytest.raises(InputError, match="the folder of a run"):
        read_run(tmp_path / "nowhere")
    with pytest.raises(InputError, match="a run that was audited"):
        read_run(tmp_path)


def test_a_file_that_is_no_parquet(make_run):
    run = make_run()
    parts_of(run)[1].write_bytes(b"PAR1 torn off")
    with pytest.raises(InputError, match=r"part-00001.*cannot be read"):
        read_run(run.path)


def test_missing_columns_are_named(make_run):
    run = make_run(parts=1)
    pq.write_table(run.records.drop_columns(["measure", "value"]), parts_of(run)[0])
    with pytest.raises(InputError, match="none named measure, value"):
        read_run(run.path)


def test_columns_of_another_kind(make_run):
    run = make_run(parts=1)
    words = pa.array(["high"] * run.records.num_rows)
    pq.write_table(run.records.set_column(4, "value", words), parts_of(run)[0])
    with pytest.raises(InputError, match="value: string"):
        read_run(run.path)


@pytest.mark.parametrize(
    ("value", "message"), [(np.nan, "NaN"), (np.inf, "infinite"), (None, "gaps in value")]
)
def test_values_that_are_no_numbers(make_run, value, message):
    run = make_run(parts=1)
    values = [value, *run.records["value"].to_pylist()[1:]]
    table = run.records.set_column(4, "value", pa.array(values, pa.float64()))
    pq.write_table(table, parts_of(run)[0])
    with pytest.raises(InputError, match=message):
        read_run(run.path)


def test_no_image_is_counted_twice(make_run):
    run = make_run(parts=1)
    pq.write_table(run.records.slice(0, 1), run.path / "audit" / "part-00001.parquet")
    with pytest.raises(InputError, match="several for image 0, clean, correct"):
        read_run(run.path)


def test_empty_records(make_run):
    run = make_run(parts=1)
    pq.write_table(run.records.slice(0, 0), parts_of(run)[0])
    with pytest.raises(InputError, match="at least one record"):
        read_run(run.path)


@pytest.mark.parametrize(
    ("text", "message"), [("- a\n- b\n", "a mapping"), ("", "a mapping"), ("a: [", "no valid YAML")]
)
def test_settings_that_are_none(make_run, text, message):
    run = make_run()
    (run.path / "config.yaml").write_text(text)
    with pytest.raises(HoldfastError, match=message):
        read_run(run.path)


def test_a_torn_gallery(make_run):
    run = make_run()
    path = run.path / "audit" / "gallery.safetensors"
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(InputError, match="a gallery in safetensors"):
        read_run(run.path)


@pytest.mark.parametrize(
    ("key", "array", "message"),
    [
        ("index", None, "none named index"),
        (f"{CHECK}|preserved", None, "none named"),
        (f"{CHECK}|maps", np.zeros((6, 8, 8), np.float32), r"shape \(6, C, H, W\)"),
        (f"{CHECK}|kendall_tau", np.zeros(5, np.float32), r"shape \(6,\)"),
        (f"{CHECK}|maps", np.full((6, 1, 8, 8), np.nan, np.float32), "NaN"),
    ],
)
def test_a_gallery_with_a_part_amiss(make_run, key, array, message):
    run = make_run()
    path = run.path / "audit" / "gallery.safetensors"
    tensors = load_file(path)
    tensors.pop(key)
    if array is not None:
        tensors[key] = array
    save_file(tensors, path, {"classes": json.dumps(["a"])})
    with pytest.raises(InputError, match=message):
        read_run(run.path)


def with_record(run, **changes):
    """Change the first record of a run."""
    (part, *_) = parts_of(run)
    table = pq.ParquetFile(part).read()
    columns = table.to_pydict()
    for name, value in changes.items():
        columns[name][0] = value
    pq.write_table(pa.table(columns, table.schema), part)
    return part


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"value": 200.0}, "correct from 0.0 to 1.0, got 200"),
        ({"value": -0.5}, "correct from 0.0 to 1.0, got -0.5"),
        ({"measure": "kendall_tau", "value": 7.0}, "kendall_tau from -1.0 to 1.0, got 7"),
        ({"measure": "correct_no_bound", "value": 2.0}, "correct_no_bound from 0.0 to 1.0, got 2"),
        ({"index": -1}, "index from 0"),
        ({"index": 2**41}, "index from 0"),
        ({"label": -1}, "label from 0"),
        ({"check": "clean\x1b[2J"}, "names in check"),
    ],
)
def test_records_that_cannot_be(make_run, changes, says):
    run = make_run()
    with_record(run, **changes)
    with pytest.raises(InputError) as error:
        read_run(run.path)
    assert says in str(error.value)
    assert "audit" in str(error.value)


def test_images_beyond_the_data_and_labels_that_differ(make_run):
    run = make_run()
    settings = run.path / "audit" / "settings.yaml"
    settings.write_text("data: {images: 100}\n")
    with pytest.raises(InputError, match="index from 0 to 99, as the audit is of 100 images"):
        read_run(run.path)
    settings.write_text("data: {images: many}\n")
    read_run(run.path)
    label = run.records["label"][0].as_py()
    with_record(run, label=(label + 1) % 10)
    with pytest.raises(InputError, match="one label an image"):
        read_run(run.path)


def test_labels_beyond_the_classes(make_run):
    run = make_run()
    for part in parts_of(run):
        table = pq.ParquetFile(part).read()
        columns = table.to_pydict()
        columns["label"] = [
            99 if index == 0 else label
            for index, label in zip(columns["index"], columns["label"], strict=True)
        ]
        pq.write_table(pa.table(columns, table.schema), part)
    with pytest.raises(InputError, match="label from 0 to 9, as there are 10 classes, got 99"):
        read_run(run.path)


def test_a_measure_of_others_may_be_anything(make_run):
    run = make_run()
    with_record(run, measure="their_own", value=-1e9)
    assert read_run(run.path).value("clean", "their_own", 0) == -1e9


def test_a_folder_whose_name_is_too_long():
    with pytest.raises(InputError, match="the folder of a run"):
        read_run("x" * 5_000)


def write_audit(folder, shards=3, done=3):
    """Write what an audit of ten images a shard leaves, with its checksums."""
    rows = [{"label": 0, "check": "clean", "measure": "correct", "value": 1.0}]
    settings = with_digest(f"data:\n  images: {10 * shards}\n")
    folder.mkdir(parents=True)
    (folder / "settings.yaml").write_text(settings)
    for number in range(done):
        records = [{"index": 10 * number + n, **rows[0]} for n in range(10)]
        write_part(folder, number, pa.Table.from_pylist(records, SCHEMA), settings_digest(settings))


def test_an_unfinished_audit_says_so_wherever_it_is_named(tmp_path):
    write_audit(tmp_path / "art" / "audit", done=2)
    run = read_run(tmp_path / "art")
    assert run.name == "art (unfinished: 20 of 30 images)"
    assert read_run(tmp_path / "art", name="A").name == "A (unfinished: 20 of 30 images)"
    write_audit(tmp_path / "pgd" / "audit")
    assert read_run(tmp_path / "pgd").name == "pgd"


def test_parts_that_are_damaged_or_of_another_audit_are_refused(tmp_path):
    audit = tmp_path / "art" / "audit"
    write_audit(audit)
    part = audit / "part-00001.parquet"
    metadata = pq.read_schema(part).metadata
    table = pq.ParquetFile(part).read()
    other = table.set_column(4, "value", pa.array([0.0] * 10))
    pq.write_table(other.replace_schema_metadata(metadata), part)
    with pytest.raises(InputError, match="part-00001.parquet does not fit its checksum"):
        read_run(tmp_path / "art")
    write_part(audit, 1, table.replace_schema_metadata(None), "0" * 64)
    with pytest.raises(InputError, match="part-00001.parquet was made with other settings"):
        read_run(tmp_path / "art")
