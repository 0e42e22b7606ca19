from typing import Any

import datasets
import numpy as np
import pytest
import torch

from holdfast.contracts import InputError
from holdfast.data.columns import (
    MASKS,
    SALIENCY,
    class_names,
    encoded_images,
    find_column,
    find_planes,
    read_boxes,
    read_labels,
)

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


@pytest.mark.parametrize("kind", ["int64", "uint8", "int16"])
def test_labels_of_any_integer_type_are_read(kind: str) -> None:
    features = datasets.Features(label=datasets.Value(kind))
    table = datasets.Dataset.from_dict({"label": [3, 0, 2]}, features=features)
    labels = read_labels(table, "label")
    assert labels.dtype == torch.int64
    assert labels.tolist() == [3, 0, 2]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (["cat", "cow"], "labels: expected one of cat, dog, got 'cow' in row 1"),
        (["cat", None], "labels: expected one class a row, got none in row 1"),
        ([0.0, 1.0], "label_column: expected a column of integers.* got 'label' of type double"),
        ([0, None], "labels: expected one class a row, got none in row 1"),
    ],
)
def test_labels_that_are_no_classes_are_refused(values: list[Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        read_labels(datasets.Dataset.from_dict({"label": values}), "label", ("cat", "dog"))


@pytest.mark.parametrize("kind", ["string", "large_string"])
def test_names_are_read_as_classes(kind: str) -> None:
    features = datasets.Features(label=datasets.Value(kind))
    table = datasets.Dataset.from_dict({"label": ["dog", "cat", "dog"]}, features=features)
    assert read_labels(table, "label", ("ape", "cat", "dog")).tolist() == [2, 1, 2]


def test_classes_have_their_names_or_numbers() -> None:
    table = table_of(named=NAMED, whole=WHOLE)
    others = [datasets.Dataset.from_dict({"whole": values}) for values in ([0, 1], [3])]
    nothing = others[0].select([])
    assert class_names([table, *others], "named") == ("cat", "dog")
    assert class_names([table, *others, nothing], "whole") == ("0", "1", "2", "3")


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        (["dog", "cat"], ["dog", "ape"], ("ape", "cat", "dog")),
        (["10", "9"], ["0", "10"], ("0", "9", "10")),
        (["10", "9"], ["x"], ("10", "9", "x")),
    ],
)
def test_classes_are_the_names_of_all_splits_in_order(
    first: list[str], second: list[str], expected: tuple[str, ...]
) -> None:
    tables = [datasets.Dataset.from_dict({"label": names}) for names in (first, second)]
    assert class_names(tables, "label") == expected


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


@pytest.mark.parametrize("bad", [[1, 2, 3], None, [1, 2, 3, None], [0.0, 0.0, 1.0, np.inf]])
def test_a_box_that_is_not_four_numbers_is_refused(bad: Any) -> None:
    table = datasets.Dataset.from_dict({"bbox": [[0.0, 1.0, 2.0, 3.0], bad]})
    with pytest.raises(InputError, match=r"bbox: expected four finite numbers.*in row 1"):
        read_boxes(table)
