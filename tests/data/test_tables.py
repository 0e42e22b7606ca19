import io
import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets.packaged_modules import _PACKAGED_DATASETS_MODULES
from PIL import Image

from holdfast.contracts import HoldfastError, InputError
from holdfast.data import tables
from holdfast.data.tables import _LOADERS, open_tables

WriteImage = Callable[..., np.ndarray]


def picture(grey: int) -> dict[str, Any]:
    buffer = io.BytesIO()
    Image.new("L", (3, 2), grey).save(buffer, "PNG")
    return {"bytes": buffer.getvalue(), "path": None}


def write(file: Path, greys: list[int], labels: list[Any], **columns: Any) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table({"image": list(map(picture, greys)), "label": labels, **columns}), file)
    return file


def greys(table: datasets.Dataset) -> list[int]:
    return [int(np.asarray(row["image"])[0, 0]) for row in table.cast_column("image", DECODED)]


DECODED = datasets.Image(mode="L")


def test_a_folder_of_images_becomes_a_table_a_split(
    tmp_path: Path, write_image: WriteImage
) -> None:
    for name in ("train/10/1.png", "train/9/1.png", "test/10/1.png", "test/11/1.png"):
        write_image(f"set/{name}")
    found = open_tables(str(tmp_path / "set"))
    assert {split: table.features["label"].names for split, table in found.items()} == {
        "train": ["9", "10", "11"],
        "test": ["9", "10", "11"],
    }
    assert found["train"]["label"][:] == [0, 1]
    assert found["test"]["label"][:] == [1, 2]
    paths = [row["path"] for row in found["train"].data.column("image").to_pylist()]
    assert paths == [str(tmp_path / "set/train" / name) for name in ("9/1.png", "10/1.png")]


def test_a_folder_of_parquet_is_read_as_it_is_now(tmp_path: Path) -> None:
    file = write(tmp_path / "set/train.parquet", [1, 2], [0, 1])
    before = file.stat()
    first = open_tables(str(tmp_path / "set"))
    assert greys(first["train"]) == [1, 2]
    size = before.st_size
    write(file, [3, 4], [1, 0])
    assert file.stat().st_size == size
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    second = open_tables(str(tmp_path / "set"))
    assert greys(second["train"]) == [3, 4]
    assert second["train"]["label"][:] == [1, 0]
    assert not (tmp_path / "cache").exists()


def test_what_does_not_fit_in_memory_is_mapped_and_bound_to_its_content(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tables, "_KEPT_IN_MEMORY", 0)
    folder = tmp_path / "a::b [c]*"
    write(folder / "train-00001-of-00002.parquet", [3], ["b"])
    file = write(folder / "train-00000-of-00002.parquet", [1, 2], ["a", "b"])
    before = file.stat()
    first = open_tables(str(folder))["train"]
    assert first.cache_files
    assert greys(first) == [1, 2, 3]
    assert first["label"][:] == ["a", "b", "b"]
    kept = list((tmp_path / "cache" / "holdfast").iterdir())
    assert len(kept) == 1
    assert greys(open_tables(str(folder))["train"]) == [1, 2, 3]
    assert list((tmp_path / "cache" / "holdfast").iterdir()) == kept
    write(file, [5, 6], ["a", "b"])
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert greys(open_tables(str(folder))["train"]) == [5, 6, 3]


def test_categories_of_pandas_are_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    labels = pa.array(["b", "a"]).dictionary_encode()
    file = write(tmp_path / "x.parquet", [1, 2], labels)
    assert open_tables(str(file))["train"]["label"][:] == ["b", "a"]
    monkeypatch.setattr(tables, "_KEPT_IN_MEMORY", 0)
    assert open_tables(str(file))["train"]["label"][:] == ["b", "a"]


def test_shards_of_a_split_must_agree(tmp_path: Path) -> None:
    write(tmp_path / "train-0.parquet", [1], [0])
    write(tmp_path / "train-1.parquet", [1], ["cat"])
    with pytest.raises(InputError, match=r"columns, types and classes of train-0.*in train-1"):
        open_tables(str(tmp_path))
    for number, names in enumerate((["cat", "dog"], ["dog", "cat"])):
        features = datasets.Features(label=datasets.ClassLabel(names=names))
        table = datasets.Dataset.from_dict({"label": [0]}, features=features)
        table.to_parquet(tmp_path / f"train-{number}.parquet")
    with pytest.raises(InputError, match=r"columns, types and classes of train-0.*in train-1"):
        open_tables(str(tmp_path))


def test_a_configuration_of_a_local_data_set_is_a_folder_of_it(tmp_path: Path) -> None:
    write(tmp_path / "fog" / "test.parquet", [1], [0])
    assert greys(open_tables(str(tmp_path), "fog")["test"]) == [1]
    for config in ("rain", "..", "fog/..", str(tmp_path / "fog")):
        with pytest.raises(InputError, match="ImageData.config: expected the name of a folder in"):
            open_tables(str(tmp_path), config)


# --- what runs no code ----------------------------------------------------------------------------


class Bomb:
    """Makes a file when it is unpickled."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.mkdir, (str(self.file),)


@pytest.fixture
def no_loader(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*given: Any, **_: Any) -> None:
        raise AssertionError(f"load_dataset was called with {given}")

    monkeypatch.setattr(datasets, "load_dataset", refuse)


@pytest.mark.usefixtures("no_loader")
@pytest.mark.parametrize("name", sorted(_LOADERS | {"PANDAS", "Json"}))
def test_the_name_of_a_reader_of_files_is_no_data_set(name: str) -> None:
    with pytest.raises(
        InputError, match=f"ImageData.path: .*nothing is sought on the hub, got '{name}"
    ):
        open_tables(name)


def test_all_readers_of_the_library_are_known() -> None:
    assert set(_PACKAGED_DATASETS_MODULES) <= _LOADERS


@pytest.mark.usefixtures("no_loader")
@pytest.mark.parametrize(
    "path",
    [
        "",
        " ",
        "./nowhere",
        "no/such/folder",
        "../x",
        "a::b",
        "hf://datasets/a/b",
        "https://example.com/a",
        "s3://bucket/key",
        "zip://x::y",
        "loader.py",
        "nobody/loader.py",
        "x.parquet",
        "~nobody/x",
        "a\0b",
        "a\nb",
        "x" * 5000,
        "\udcff",
        "pets*",
        "[pets]",
        "owner//name",
        "owner/",
        "/owner",
        "-x",
    ],
)
def test_what_cannot_be_a_name_on_the_hub_is_not_sought_there(path: str) -> None:
    with pytest.raises(InputError, match="ImageData.path: expected a folder or file that exists"):
        open_tables(path)


@pytest.mark.usefixtures("no_loader")
def test_a_folder_goes_before_a_reader_of_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, write_image: WriteImage
) -> None:
    monkeypatch.chdir(tmp_path)
    write_image("pandas/train/cat/1.png")
    assert len(open_tables("pandas")["train"]) == 1


@pytest.mark.usefixtures("no_loader")
def test_nothing_that_a_folder_holds_is_executed(tmp_path: Path, write_image: WriteImage) -> None:
    folder, marker = tmp_path / "evil", tmp_path / "marker"
    write_image("evil/train/cat/1.png")
    code = f"import os; os.mkdir({str(marker)!r})"
    for name in ("evil.py", "__init__.py", "train/cat/evil.py", "conftest.py", "sitecustomize.py"):
        (folder / name).write_text(code)
    for name in ("train.pkl", "data.pickle", "train.pt"):
        (folder / name).write_bytes(pickle.dumps(Bomb(marker)))
    configs = "configs: [{config_name: default, data_files: 'https://example.com/train.csv'}]"
    (folder / "README.md").write_text(f"---\n{configs}\n---\n")
    (folder / "dataset_infos.json").write_text("{")
    assert {split: len(table) for split, table in open_tables(str(folder)).items()} == {"train": 1}
    (folder / "train" / "cat" / "1.png").unlink()
    with pytest.raises(InputError, match="expected a folder of images or of Parquet"):
        open_tables(str(folder))
    assert not marker.exists()


def test_metadata_that_describe_no_columns_are_one_error(tmp_path: Path) -> None:
    for content in (b"{", b"[]", b'{"info": {"features": {"label": {"_type": "os.system"}}}}'):
        table = pa.table({"label": [0]}).replace_schema_metadata({"huggingface": content})
        pq.write_table(table, tmp_path / "x.parquet")
        with pytest.raises(HoldfastError, match=r"x.parquet' cannot be loaded"):
            open_tables(str(tmp_path / "x.parquet"))
