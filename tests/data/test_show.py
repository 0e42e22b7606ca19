from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from holdfast.contracts import InputError
from holdfast.data import ImageData, contact_sheet, describe
from holdfast.data.show import _GAP, _GREEN, _LINE, _MARGIN, _RED, _SIDE

WriteImage = Callable[..., np.ndarray]


@pytest.fixture
def folder(tmp_path: Path, write_image: WriteImage) -> Path:
    for number, shape in enumerate([(6, 6, 3), (6, 6), (8, 4, 3)]):
        write_image(f"set/Train/10/{number}.png", shape)
    write_image("set/Train/9/0.png")
    write_image("set/Test/9/0.png", (6, 6, 4))
    return tmp_path / "set"


def test_a_folder_in_words(folder: Path) -> None:
    found = describe(ImageData(str(folder)))
    assert found.kind == "a folder of images"
    assert found.classes == ("9", "10")
    assert list(found.splits) == ["train", "test"]
    train, test = found.splits.values()
    assert (train.images, train.per_class, test.per_class) == (4, (1, 3), (1, 0))
    assert train.sizes == {(6, 6): 3, (8, 4): 1}
    assert train.channels == {"colour": 3, "grey": 1}
    assert test.channels == {"transparent": 1}
    assert (train.boxes, train.masks, train.saliency, train.faults) == (None, None, None, ())
    assert str(found).splitlines()[1:] == [
        "",
        "train: 4 images, 3 of 6×6, 1 of 8×4",
        "  3 colour, 1 grey",
        "  no boxes; no masks; no saliency",
        "test: 1 images, all 6×6 (height × width)",
        "  all transparent",
        "  no boxes; no masks; no saliency",
        "",
        "2 classes, in the order of the alphabet, or by value if all are numbers:",
        "      0  9   train 1, test 1",
        "      1  10  train 3, test 0",
    ]


def test_what_is_wrong_is_told_among_the_rest(folder: Path, write_image: WriteImage) -> None:
    for number in range(7):
        (folder / f"Train/9/{number}.png").write_bytes(b"nonsense")
    (folder / "Test/9/0.png").unlink()
    write_image("set/Test/0.png")
    found = describe(ImageData(str(folder)))
    faults = found.splits["train"].faults
    assert len(faults) == 6
    assert "9/0.png) cannot be read" in faults[0]
    assert faults[-1] == "2 more images"
    assert found.splits["test"].faults == ("labels, as there are none",)
    assert found.splits["test"].per_class == ()
    contact_sheet(ImageData(str(folder)))
    with pytest.raises(InputError, match="ImageData.path"):
        describe(ImageData(str(folder / "nowhere")))


def test_a_table_in_words(tmp_path: Path) -> None:
    write_marked(tmp_path / "test.parquet", [[2, 2, 4, 4]])
    found = describe(ImageData(str(tmp_path), box_format="xywh"))
    assert (found.kind, found.classes) == ("Parquet", ("cat",))
    test = found.splits["test"]
    assert (test.boxes, test.masks, test.saliency) == ("box", "mask", None)
    assert "1 classes (a classifier needs two)" in str(found)
    write_marked(tmp_path / "test.parquet", [[5, 5, 4, 4]])
    test = describe(ImageData(str(tmp_path))).splits["test"]
    assert test.boxes is None
    assert "box: expected x0, y0, x1, y1, none below 0 wide" in test.faults[0]


def test_the_sheet_shows_images_boxes_and_masks(tmp_path: Path) -> None:
    write_marked(tmp_path / "train.parquet", [[2, 2, 4, 4]])
    sheet = np.asarray(contact_sheet(ImageData(str(tmp_path), box_format="xywh"))).astype(int)
    assert sheet.shape[0] == _LINE + _SIDE + _GAP
    first = sheet[_LINE : _LINE + _SIDE, _MARGIN : _MARGIN + _SIDE]
    scale = _SIDE // 8
    red = (first == _RED).all(2)
    rows, columns = np.flatnonzero(red.any(1)), np.flatnonzero(red.any(0))
    assert (rows[0], rows[-1] + 1) == (columns[0], columns[-1] + 1) == (2 * scale, 6 * scale)
    assert np.abs(first[-3, -3] - (np.array(_GREEN) + 255) // 2).max() <= 2
    assert (first[3, 3] == 255).all()


def write_marked(file: Path, boxes: list[list[int]]) -> None:
    """Write a white image of 8×8 pixels whose last row and column are its mask."""
    mask = np.zeros((8, 8), dtype=np.uint8)
    mask[7, :] = mask[:, 7] = 1
    white = np.full((8, 8, 3), 255, dtype=np.uint8)
    columns = {"image": [white.tolist()], "label": ["cat"], "box": boxes, "mask": [mask.tolist()]}
    pq.write_table(pa.table(columns), file)


def test_many_classes_and_labels_without_images(tmp_path: Path) -> None:
    white = np.full((2, 2), 255, dtype=np.uint8).tolist()
    labels = [*range(0, 60, 2), 99]
    table = pa.table({"image": [white] * len(labels), "label": labels})
    pq.write_table(table, tmp_path / "x.parquet")
    found = describe(ImageData(str(tmp_path / "x.parquet")))
    assert len(found.classes) == 100
    assert str(found).endswith("  69 of them have no images")
    sheet = contact_sheet(ImageData(str(tmp_path / "x.parquet")))
    assert sheet.height == 2 * _LINE + 24 * (_SIDE + _GAP)


def test_a_sheet_is_an_image(tmp_path: Path, folder: Path) -> None:
    sheet = contact_sheet(ImageData(str(folder)))
    assert isinstance(sheet, Image.Image)
    assert sheet.mode == "RGB"
