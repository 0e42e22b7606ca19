from typing import Any

import datasets
import numpy as np
import pyarrow as pa
import pytest
import torch

from holdfast.contracts import InputError
from holdfast.data.labels import class_names, in_order, read_labels


def named_by(names: list[str], labels: list[int]) -> datasets.Dataset:
    features = datasets.Features(label=datasets.ClassLabel(names=names))
    return datasets.Dataset.from_dict({"label": labels}, features=features)


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        ([str(n) for n in range(12)][::-1], tuple(str(n) for n in range(12))),
        (["b", "B", "a", "10", "9"], ("10", "9", "B", "a", "b")),
        (["1", "01", "001", "2"], ("001", "01", "1", "2")),
        (["²", "1", "10", "9"], ("1", "10", "9", "²")),
    ],
)
def test_numbers_go_by_value_and_names_by_the_alphabet(
    names: list[str], expected: tuple[str, ...]
) -> None:
    assert in_order(names) == expected
    assert in_order(names[::-1]) == expected


def test_labels_follow_the_names_where_another_split_orders_them_otherwise() -> None:
    train, test = named_by(["cat", "dog"], [0, 1, 1]), named_by(["dog", "owl", "cat"], [0, 1, 2])
    classes = class_names([train, test], "label")
    assert classes == ("cat", "dog", "owl")
    assert read_labels(train, "label", classes).tolist() == [0, 1, 1]
    assert read_labels(test, "label", classes).tolist() == [1, 2, 0]


def test_a_split_may_name_what_the_other_has_a_type_for() -> None:
    train = named_by(["dog", "cat"], [0, 1])
    test = datasets.Dataset.from_dict({"label": ["cat", "ape", "dog"]})
    classes = class_names([train, test], "label")
    assert classes == ("dog", "cat", "ape")
    assert read_labels(test, "label", classes).tolist() == [1, 2, 0]


@pytest.mark.parametrize(
    ("first", "second", "message"),
    [
        ([0, 1], ["a", "b"], "labels: expected names in all of them, or numbers, got int64 and st"),
        (["a", " "], ["b"], "labels: expected the name of a class in each row, got an empty name"),
        ([0, 2**40], [1], "labels: expected classes from 0 on and below 100,000, .* 1099511627776"),
        ([0.0, np.nan], [1.0], "label_column: expected a column of integers or names.*double"),
        ([0, None], [1], "labels: expected one class a row, got none in row 1"),
    ],
)
def test_what_numbers_no_classes_is_refused(
    first: list[Any], second: list[Any], message: str
) -> None:
    tables = [datasets.Dataset.from_dict({"label": values}) for values in (first, second)]
    with pytest.raises(InputError, match=message):
        class_names(tables, "label")


def test_labels_beyond_64_bits_with_a_sign_do_not_become_negative() -> None:
    labels = pa.array([0, 2**64 - 1], pa.uint64())
    table = datasets.Dataset(pa.table({"label": labels}))
    with pytest.raises(InputError, match="labels: expected classes from 0 on and below 100,000"):
        class_names([table], "label")


def test_negative_labels_are_refused() -> None:
    table = datasets.Dataset.from_dict({"label": [-1, -3]})
    with pytest.raises(InputError, match="labels: expected classes from 0 .* -1 in row 0"):
        read_labels(table, "label", class_names([table], "label"))


@pytest.mark.parametrize("kind", ["int64", "uint8", "int16"])
def test_labels_of_any_integer_type_are_read(kind: str) -> None:
    features = datasets.Features(label=datasets.Value(kind))
    table = datasets.Dataset.from_dict({"label": [3, 0, 2]}, features=features)
    labels = read_labels(table, "label", ("a", "b", "c", "d"))
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
    named = [named_by(["cat", "dog"], [0]), named_by(["cat", "dog"], [1])]
    numbered = [datasets.Dataset.from_dict({"label": values}) for values in ([0, 1], [3])]
    nothing = numbered[0].select([])
    assert class_names(named, "label") == ("cat", "dog")
    assert class_names([*numbered, nothing], "label") == ("0", "1", "2", "3")


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
