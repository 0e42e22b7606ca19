import os
import platform
import signal
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from holdfast.contracts import HoldfastError
from holdfast.data import ImageData, Imported
from holdfast.data.importing import BrokenError, Found, Layout, write_layout


def found(number: int, **settings: object) -> Callable[[], Found]:
    pixels = np.full((4, 5, 3), number % 256, dtype=np.uint8)
    place = f"table, row {number}"
    return lambda: Found("train", place, pixels, number % 2, **settings)  # type: ignore[arg-type]


def broken() -> Found:
    raise BrokenError("table, row 7: nonsense")


def test_many_images_keep_their_order_over_groups_of_rows(tmp_path: Path) -> None:
    boxes = [(0.0, 0.0, 1.0 + number % 4, 2.0) for number in range(600)]
    finds = [found(number, box=box) for number, box in enumerate(boxes)]

    write_layout(Layout(("even", "odd"), finds, boxes=True), tmp_path, skip_broken=False)

    assert pq.ParquetFile(tmp_path / "train.parquet").num_row_groups == 3
    data = ImageData(str(tmp_path)).load("train")
    batch = data.batch(range(600))
    assert data.classes == ("even", "odd")
    assert (batch["images"][:, 0, 0, 0] * 255).round().tolist() == [n % 256 for n in range(600)]
    assert batch["labels"].tolist() == [n % 2 for n in range(600)]
    assert batch["boxes"].tolist() == [list(box) for box in boxes]


@pytest.mark.parametrize(
    ("box", "expected"),
    [
        ((0.0, 0.0, 5.0, 4.0), [0.0, 0.0, 5.0, 4.0]),
        ((-1.0, -0.5, 6.0, 5.0), [0.0, 0.0, 5.0, 4.0]),
        ((-1.1, 0.0, 5.0, 4.0), None),
        ((0.0, 0.0, 6.1, 4.0), None),
        ((0.0, 0.0, 5.0, 5.1), None),
        ((3.0, 0.0, 3.0, 4.0), None),
        ((0.0, 3.0, 5.0, 1.0), None),
        ((0.0, 0.0, float("nan"), 4.0), None),
    ],
)
def test_boxes_are_cut_at_the_border_or_broken(
    tmp_path: Path, box: tuple[float, float, float, float], expected: list[float] | None
) -> None:
    layout = Layout(("one", "two"), [found(0, box=box, box_place="boxes, row 9")], boxes=True)
    if expected is None:
        with pytest.raises(HoldfastError, match="boxes, row 9: box "):
            write_layout(layout, tmp_path, skip_broken=False)
        return
    write_layout(layout, tmp_path, skip_broken=False)
    assert ImageData(str(tmp_path)).load("train").batch([0])["boxes"].tolist() == [expected]


def test_an_error_late_leaves_nothing_behind(tmp_path: Path) -> None:
    finds = [*(found(number) for number in range(300)), broken]
    with pytest.raises(HoldfastError, match="table, row 7: nonsense"):
        write_layout(Layout(("even", "odd"), finds), tmp_path / "out", skip_broken=False)
    assert list(tmp_path.iterdir()) == []

    imported = write_layout(Layout(("even", "odd"), finds), tmp_path / "out", skip_broken=True)

    assert imported == Imported(tmp_path / "out", {"train": 300}, ["table, row 7: nonsense"])


def content(folder: Path) -> dict[str, bytes]:
    return {str(f.relative_to(folder)): f.read_bytes() for f in folder.rglob("*") if f.is_file()}


def test_a_killed_import_leaves_nothing_that_looks_whole(tmp_path: Path) -> None:
    finds = [found(number) for number in range(600)]
    write_layout(Layout(("even", "odd"), finds), tmp_path / "whole", skip_broken=False)

    def kill() -> Found:
        os.kill(os.getpid(), signal.SIGKILL)
        raise AssertionError

    child = os.fork()
    if child == 0:
        write_layout(Layout(("even", "odd"), [*finds, kill]), tmp_path / "out", skip_broken=False)
        os._exit(0)
    assert os.waitpid(child, 0)[1] == signal.SIGKILL
    left = tmp_path / f".out.{platform.node()}.{child}"
    assert left.is_dir()
    assert not (tmp_path / "out").exists()

    write_layout(Layout(("even", "odd"), finds), tmp_path / "out", skip_broken=False)

    assert not left.exists()
    assert content(tmp_path / "out") == content(tmp_path / "whole")


def test_an_import_that_is_stopped_removes_what_it_wrote(tmp_path: Path) -> None:
    def stop() -> Found:
        raise KeyboardInterrupt

    layout = Layout(("even", "odd"), [*(found(number) for number in range(300)), stop])
    with pytest.raises(KeyboardInterrupt):
        write_layout(layout, tmp_path / "out", skip_broken=False)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["notes.txt", "train.parquet", ".hidden"])
def test_a_folder_that_holds_something_stays_as_it_is(tmp_path: Path, name: str) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / name).write_text("mine")
    with pytest.raises(HoldfastError, match="is there already; choose an empty folder"):
        write_layout(Layout(("even", "odd"), [found(0)]), tmp_path / "out", skip_broken=False)
    assert content(tmp_path) == {f"out/{name}": b"mine"}


def test_a_file_and_a_name_too_long_are_refused(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("mine")
    layout = Layout(("even", "odd"), [found(0)])
    for path in (tmp_path / "out", tmp_path / "out" / "deeper", tmp_path / ("x" * 300)):
        with pytest.raises(HoldfastError):
            write_layout(layout, path, skip_broken=False)
    assert content(tmp_path) == {"out": b"mine"}


@pytest.mark.parametrize(
    "split", ["../out", "/tmp/x", "a//b", "", ".", "a/../b", "a\0b", "x" * 300]
)
def test_a_split_writes_into_its_folder_alone(tmp_path: Path, split: str) -> None:
    found = Found(split, "row 1", np.zeros((4, 4, 3), dtype=np.uint8), 0)
    with pytest.raises(HoldfastError, match="is no name of a split"):
        write_layout(Layout(("one",), [lambda: found]), tmp_path / "in" / "out", False)
    assert content(tmp_path) == {}
