from typing import Any

import datasets
import numpy as np
import pytest
import torch

from holdfast.contracts import InputError
from holdfast.data.columns import (
    MASKS,
    PARQUET,
    SALIENCY,
    encoded_images,
    find_column,
    find_planes,
    read_boxes,
)
from holdfast.data.images import open_image

IMAGE, NAMED, WHOLE = (
    datasets.Image(decode=False),
    datasets.ClassLabel(names=["cat", "dog"]),
    datasets.Value("int64"),
)
ENTRY = {"bytes": b"png", "path": None}


def table_of(**features: Any) -> datasets.Dataset:
    values = {name: [ENTRY if feature is IMAGE else 1] for name, feature in features.items()}
    return datasets.Dataset.from_dict(values, features=datasets.Features(features))


@pytest.mark.parametrize(
    ("features", "image", "label"),
    [
        ({"photo": IMAGE, "species": NAMED}, "photo", "species"),
        ({"image": WHOLE, "photo": IMAGE, "label": WHOLE, "kind": NAMED}, "photo", "kind"),
        ({"mask": IMAGE, "image": IMAGE, "of": NAMED, "label": NAMED}, "image", "label"),
        ({"img": IMAGE, "coarse_label": NAMED, "fine_label": NAMED}, "img", "fine_label"),
        ({"img": WHOLE, "labels": WHOLE}, "img", "labels"),
        ({"image": WHOLE, "img": WHOLE, "label": WHOLE, "fine_label": WHOLE}, "image", "label"),
    ],
)
def test_columns_are_found_by_type_then_by_name(
    features: dict[str, Any], image: str, label: str
) -> None:
    table = table_of(**features)
    assert find_column(table, "image_column", None, "here") == image
    assert find_column(table, "label_column", None, "here") == label


def test_the_column_that_the_user_names_is_taken() -> None:
    table = table_of(image=IMAGE, mask=IMAGE, label=NAMED, odd=WHOLE)
    assert find_column(table, "image_column", "mask", "here") == "mask"
    assert find_column(table, "label_column", "odd", "here") == "odd"


@pytest.mark.parametrize(
    ("features", "argument", "wanted", "message"),
    [
        ({"a": WHOLE, "b": WHOLE}, "image_column", None, "here has no Image column; .* are a, b,"),
        ({"a": WHOLE, "b": IMAGE}, "label_column", None, "here has no ClassLabel column; .* a, b,"),
        ({"a": IMAGE, "b": IMAGE}, "image_column", None, "does not say which of several; .* a, b,"),
        ({"a": IMAGE, "b": NAMED}, "label_column", "c", "a column; .* are a, b, got 'c'"),
    ],
)
def test_a_column_that_is_not_there_is_refused(
    features: dict[str, Any], argument: str, wanted: str | None, message: str
) -> None:
    with pytest.raises(InputError, match=rf"ImageData\.{argument}: .*{message}"):
        find_column(table_of(**features), argument, wanted, "here")


@pytest.mark.parametrize("values", [[ENTRY], [{"bytes": b"png"}], [b"png"]])
def test_encoded_images_of_any_form_are_cast(values: list[Any]) -> None:
    table = datasets.Dataset.from_dict({"image": values, "more": [1]})
    assert list(encoded_images(table, "image")) == [{"image": ENTRY}]


@pytest.mark.usefixtures("own_errors")
def test_what_is_no_image_is_refused() -> None:
    with pytest.raises(InputError, match="image_column: expected a column of encoded images, got"):
        encoded_images(datasets.Dataset.from_dict({"image": [1, 2]}), "image")


PLANE = datasets.Sequence(datasets.Sequence(datasets.Value("float32")))


@pytest.mark.parametrize(
    "feature",
    [
        datasets.Image(),
        datasets.Image(decode=False),
        datasets.Value("binary"),
        PLANE,
        datasets.Array2D(shape=(2, 3), dtype="uint8"),
        {"bytes": datasets.Value("binary"), "path": datasets.Value("string")},
    ],
)
def test_planes_are_images_or_lists_of_lists(feature: Any) -> None:
    features = datasets.Features(masks=feature, other=PLANE)
    table = datasets.Dataset.from_dict({"masks": [], "other": []}, features=features)
    assert find_planes(table, MASKS) == "masks"
    assert find_planes(table, SALIENCY) is None


@pytest.mark.parametrize("values", [[1], ["1 0 1"], [[1, 0]], [[["1"]]]])
def test_a_column_of_other_things_is_not_taken_for_masks(values: list[Any]) -> None:
    assert find_planes(datasets.Dataset.from_dict({"mask": values}), MASKS) is None


def test_masks_are_not_taken_for_images() -> None:
    table = table_of(photo=IMAGE, mask=IMAGE, saliency=IMAGE, of=NAMED)
    assert find_column(table, "image_column", None, "here") == "photo"


@pytest.mark.parametrize("name", ["bbox", "boxes", "box"])
@pytest.mark.parametrize("kind", [np.float32, np.int64])
@pytest.mark.parametrize("fixed", [True, False])
def test_boxes_are_read(name: str, kind: type, fixed: bool) -> None:
    boxes = np.arange(8).reshape(2, 4).astype(kind)
    value = datasets.Value(np.dtype(kind).name)
    sequence = datasets.Sequence(value, length=4 if fixed else -1)
    table = datasets.Dataset.from_dict(
        {name: boxes.tolist()}, features=datasets.Features({name: sequence})
    )
    read = read_boxes(table)
    assert read is not None
    assert read.dtype == torch.float32
    assert read.tolist() == boxes.tolist()


@pytest.mark.parametrize("values", [[1, 2], ["1 2 3 4"], [[[1, 2, 3, 4]]]])
def test_a_column_that_holds_no_list_of_numbers_is_not_taken_for_boxes(values: list[Any]) -> None:
    assert read_boxes(datasets.Dataset.from_dict({"bbox": values})) is None
    assert read_boxes(datasets.Dataset.from_dict({"other": [[1, 2, 3, 4]]})) is None


@pytest.mark.parametrize("box_format", ["xyxy", "xywh", "cxcywh"])
def test_a_row_may_have_no_box(box_format: Any) -> None:
    table = datasets.Dataset.from_dict({"bbox": [None, [4.0, 4.0, 6.0, 6.0], None]})
    boxes = read_boxes(table, box_format)
    assert boxes is not None
    assert boxes.isnan().all(1).tolist() == [True, False, True]
    shares = datasets.Dataset.from_dict({"bbox": [None, [0.1, 0.1, 0.5, 0.6]]})
    with pytest.raises(InputError, match=r"0\.1, 0\.1, 0\.5, 0\.6 in row 1, and none above 1"):
        read_boxes(shares, box_format)


def test_a_column_without_any_value_is_not_there() -> None:
    boxes = datasets.Sequence(datasets.Value("float32"), length=4)
    features = datasets.Features(bbox=boxes, mask=datasets.Image(), saliency=PLANE)
    nothing = {name: [None, None] for name in features}
    table = datasets.Dataset.from_dict(nothing, features=features)
    assert read_boxes(table) is None
    assert find_planes(table, MASKS) is None
    assert find_planes(table, SALIENCY) is None


@pytest.mark.parametrize("bad", [[1, 2, 3], [], [1, 2, 3, None], [0.0, 0.0, 1.0, np.inf]])
def test_a_box_that_is_not_four_numbers_is_refused(bad: Any) -> None:
    table = datasets.Dataset.from_dict({"bbox": [[0.0, 1.0, 2.0, 3.0], bad]})
    with pytest.raises(InputError, match=r"bbox: expected four finite numbers.*in row 1"):
        read_boxes(table)


def test_boxes_of_other_formats_are_converted() -> None:
    table = datasets.Dataset.from_dict({"bbox": [[10, 20, 4, 6], [50, 40, 10, 10]]})
    read = {name: read_boxes(table, name) for name in ("xywh", "cxcywh")}  # type: ignore[arg-type]
    assert read["xywh"].tolist() == [[10, 20, 14, 26], [50, 40, 60, 50]]
    assert read["cxcywh"].tolist() == [[8, 17, 12, 23], [45, 35, 55, 45]]


@pytest.mark.parametrize(
    ("boxes", "box_format", "message"),
    [
        (
            [[0, 0, 9, 9], [50, 4, 20, 30]],
            "xyxy",
            "x0, y0, x1, y1, none below .* 20, 30 in row 1",
        ),
        ([[0, 0, 9, 9], [4, 50, 20, 30]], "xyxy", "--data.box_format says what, got 4, 50, 20, 30"),
        ([[5, 5, 4, -1]], "xywh", "x, y, width, height, none below 0 wide or high"),
        ([[0.1, 0.2, 0.5, 1.0], [0, 0, 1, 1]], "xyxy", "pixels, not shares of the image, got 0.1,"),
        ([[0, 0, 1, 1]], "xywh", "pixels, not shares of the image"),
    ],
)
def test_boxes_that_cannot_be_are_refused(
    boxes: list[list[float]], box_format: Any, message: str
) -> None:
    with pytest.raises(InputError, match=f"bbox: expected .*{message}"):
        read_boxes(datasets.Dataset.from_dict({"bbox": boxes}), box_format)


def test_empty_boxes_are_boxes() -> None:
    assert (
        read_boxes(datasets.Dataset.from_dict({"bbox": [[5, 5, 5, 5], [0, 0, 0, 0]]})) is not None
    )


@pytest.mark.parametrize("kind", ["uint8", "int64"])
@pytest.mark.parametrize("shape", [(3, 2), (3, 2, 1), (3, 2, 3)])
def test_whole_numbers_are_the_levels_of_pixels(kind: str, shape: tuple[int, ...]) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (2, *shape))
    feature: Any = datasets.Value(kind)
    for _ in shape:
        feature = datasets.Sequence(feature)
    features = datasets.Features(image=feature)
    table = datasets.Dataset.from_dict({"image": pixels.tolist()}, features=features)
    read = [open_image(row["image"], 0) for row in encoded_images(table, "image")]
    assert np.array_equal(np.stack(read), pixels.squeeze(3) if shape[2:] == (1,) else pixels)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ([[0, 256]], "got numbers from 0 to 256 in row 0"),
        ([[-1, 5]], "got numbers from -1 to 5 in row 0"),
        ([[0.0, 0.5]], "got fractions in row 0"),
        ([[True, False]], "got true and false in row 0"),
        ([[1, 2], [3]], "got no array in row 0"),
        ([[[1, 2], [3, 4]], [[1, 2], [3, 4]]], r"got a list of shape \(2, 2, 2\) in row 0"),
        (None, "in row 0"),
    ],
)
def test_numbers_whose_white_nobody_knows_are_refused(value: Any, message: str) -> None:
    table = datasets.Dataset.from_dict({"image": [value, value or [[1]]]})
    with pytest.raises(InputError, match=f"column 'image': expected whole numbers .*{message}"):
        encoded_images(table, "image")


def test_a_table_must_bring_its_images_along() -> None:
    entries = [ENTRY, {"bytes": None, "path": "/etc/secret.png"}]
    for values in (entries, ["a", "/etc/secret.png"]):
        table = from_parquet(values)
        with pytest.raises(InputError, match="column 'image': expected the content .* only the na"):
            encoded_images(table, "image")
    assert len(encoded_images(from_parquet([ENTRY, None]), "image")) == 2


def from_parquet(values: list[Any]) -> datasets.Dataset:
    info = datasets.DatasetInfo(builder_name=PARQUET)
    return datasets.Dataset.from_dict({"image": values}, info=info)
