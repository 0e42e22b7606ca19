import os
from collections.abc import Callable
from pathlib import Path

import pytest

from holdfast.contracts import HoldfastError, InputError
from holdfast.data.folders import image_files, parquet_files, split_of

Touch = Callable[..., Path]


@pytest.fixture
def touch(tmp_path: Path) -> Callable[..., Path]:
    """Make empty files in a folder, and return that."""

    def make(*names: str) -> Path:
        for name in names:
            (tmp_path / "set" / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / "set" / name).touch()
        return tmp_path / "set"

    return make


def listed(folder: Path, *named: str) -> dict[str, list[str]]:
    """By split, the files by their paths, in order."""
    found = image_files(folder, named)
    return {
        split: [file.relative_to(folder).as_posix() for files in classes.values() for file in files]
        for split, classes in found.items()
    }


@pytest.mark.parametrize(
    ("name", "split"),
    [
        ("train", "train"),
        ("Training", "train"),
        ("TRAIN", "train"),
        ("training_set", "train"),
        ("TestSet", "test"),
        ("test set", "test"),
        ("Testing", "test"),
        ("eval", "test"),
        ("val", "validation"),
        ("valid", "validation"),
        ("Validation", "validation"),
        ("dev", "validation"),
        ("trains", None),
        ("test_tube", None),
        ("training shoes", None),
        ("set", None),
    ],
)
def test_splits_are_known_by_a_list_of_names(name: str, split: str | None) -> None:
    assert split_of(name) == split


@pytest.mark.parametrize(
    ("train", "test"), [("train", "test"), ("Train", "Test"), ("Training", "testing_set")]
)
def test_a_class_may_be_called_as_a_split_is(touch: Touch, train: str, test: str) -> None:
    folder = touch(
        f"{train}/cat/1.png", f"{train}/test/2.png", f"{train}/testify/3.png", f"{test}/train/4.png"
    )
    assert listed(folder) == {
        "train": [f"{train}/cat/1.png", f"{train}/test/2.png", f"{train}/testify/3.png"],
        "test": [f"{test}/train/4.png"],
    }
    assert list(image_files(folder)["train"]) == ["cat", "test", "testify"]


def test_folders_of_classes_alone_are_all_to_train_on(touch: Touch) -> None:
    folder = touch("test_tube/1.png", "valve/2.png", "trainer/3.png")
    assert listed(folder) == {"train": ["test_tube/1.png", "trainer/3.png", "valve/2.png"]}


def test_numbers_go_by_value_and_files_by_name(touch: Touch) -> None:
    folder = touch(*(f"train/{n}/{m}.png" for n in (10, 2, 0) for m in ("10", "2", "B", "a")))
    order = ["10", "2", "B", "a"]
    assert listed(folder)["train"] == [f"train/{n}/{m}.png" for n in (0, 2, 10) for m in order]


def test_the_user_may_name_splits(touch: Touch) -> None:
    folder = touch("2023/cat/1.png", "2024/cat/2.png")
    assert listed(folder, "2023", "2024") == {
        "2023": ["2023/cat/1.png"],
        "2024": ["2024/cat/2.png"],
    }


def test_all_names_that_a_glob_or_an_address_would_take_apart(touch: Touch) -> None:
    names = ["[ab]", "a::b", "star*", "what?", "a#b", "zip:", "ünï", "with space", "%20", "{x}"]
    folder = touch(*(f"train/{name}/{name}.png" for name in names))
    assert list(image_files(folder)["train"]) == sorted(names)
    assert listed(folder)["train"] == [f"train/{name}/{name}.png" for name in sorted(names)]


def test_the_same_name_in_two_spellings_of_unicode_is_one_class(touch: Touch) -> None:
    found = image_files(touch("train/caf\u00e9/1.png", "test/cafe\u0301/2.png"))
    assert list(found["train"]) == list(found["test"]) == ["caf\u00e9"]


def test_what_stands_beside_images_is_not_read(touch: Touch) -> None:
    beside = [f"train/cat/1.{ending}" for ending in ("txt", "json", "csv", "xml", "XML", "yaml")]
    clutter = [
        "__MACOSX/train/cat/1.png",
        "train/__MACOSX/cat/1.png",
        "train/cat/._1.png",
        "train/cat/Thumbs.db",
        "train/cat/.DS_Store",
        "train/.ipynb_checkpoints/1.png",
        "train/cat/1.png:Zone.Identifier",
        "train/cat/labels/1.txt",
        "train/metadata.csv",
        "train/features.npy",
        "README",
        "sheet.png",
        "docs/paper.pdf",
    ]
    folder = touch("train/cat/1.png", "train/dog/2.JPEG", "test/cat/3.avif", *beside, *clutter)
    (folder / "train" / "empty").mkdir()
    assert listed(folder) == {
        "train": ["train/cat/1.png", "train/dog/2.JPEG"],
        "test": ["test/cat/3.avif"],
    }
    assert list(image_files(folder)["train"]) == ["cat", "dog"]


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (
            ["cat/1.png", "dog/1.png", "test/1.png"],
            "test beside cat, dog in",
        ),
        (["train/a/1.png", "test/a/1.png", "more/b/1.png"], "test, train beside more in"),
        (["train/a/1.png", "Training/a/2.png"], "Training and train, both the split 'train'"),
        (
            ["train/a/b/1.png", "train/a/c/2.png"],
            "as 'b' and 'a' could both be the .*a/b/1.png, deeper than",
        ),
        (["pets/train/a/1.png", "pets/test/a/1.png"], "pets/test/a/1.png, deeper than"),
        (
            ["train/a/1.png", "train/1.png"],
            "got 1.png, which lies in no folder of a class",
        ),
        (["a/1.png", "b/2.png", "1.png"], "got 1.png, which lies in no folder of a class"),
        (["train/a/1.heic", "train/b/1.png"], "got a/1.heic in"),
        (["train/a/1.svg", "train/b/1.png"], "got a/1.svg in"),
        (["train/a/0001", "train/b/1.png"], "got a/0001 in"),
        (["train/a/1.npy"], "got a/1.npy in"),
        (["notes.txt"], "expected a folder of images or of Parquet files"),
        (["train/a/notes.txt"], "expected a folder of images or of Parquet files"),
    ],
)
def test_what_can_be_read_in_two_ways_is_refused(
    touch: Touch, names: list[str], message: str
) -> None:
    with pytest.raises(InputError, match=f"ImageData.path: .*({message})") as caught:
        image_files(touch(*names))
    assert "\n" not in str(caught.value)


def test_a_split_without_classes_is_listed_as_such(touch: Touch) -> None:
    found = image_files(touch("train/cat/1.png", "train/dog/1.png", "test/1.png", "test/2.png"))
    assert [file.name for file in found["test"][None]] == ["1.png", "2.png"]
    assert list(found["train"]) == ["cat", "dog"]


def test_links_are_followed_and_never_in_a_circle(touch: Touch, tmp_path: Path) -> None:
    folder = touch("train/cat/1.png", "train/dog/2.png")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    for number in range(2):
        (elsewhere / f"{number}.png").touch()
    (folder / "test").symlink_to(folder / "train")
    (folder / "train" / "owl").symlink_to(elsewhere)
    (folder / "train" / "cat" / "3.png").symlink_to(elsewhere / "0.png")
    for place in ("train/loop", "train/cat/loop", "loop"):
        (folder / place).symlink_to(folder)
    expected = ["cat/1.png", "cat/3.png", "dog/2.png", "owl/0.png", "owl/1.png"]
    assert listed(folder) == {
        split: [f"{split}/{name}" for name in expected] for split in ("train", "test")
    }
    # Two folders, each with a link to the other, below a class.
    for one, two in (("x", "y"), ("y", "x")):
        (tmp_path / one).mkdir()
        (tmp_path / one / "over").symlink_to(tmp_path / two)
    (folder / "train" / "cat" / "x").symlink_to(tmp_path / "x")
    assert listed(folder)["train"][0] == "train/cat/1.png"


def test_a_link_to_nothing_and_what_is_no_file_are_refused(touch: Touch) -> None:
    folder = touch("train/cat/1.png")
    os.mkfifo(folder / "train" / "cat" / "2.png")
    with pytest.raises(InputError, match="2.png, no regular file in"):
        image_files(folder)
    (folder / "train" / "cat" / "2.png").unlink()
    os.mkfifo(folder / "train.parquet")
    with pytest.raises(InputError, match=r"train.parquet, no regular file in"):
        parquet_files(folder)
    (folder / "train.parquet").unlink()
    (folder / "train" / "dog").symlink_to(folder / "nowhere")
    with pytest.raises(InputError, match="dog, a link to nothing in"):
        image_files(folder)
    (folder / "train" / "dog").unlink()
    (folder / "train" / "dog").symlink_to("dog")
    with pytest.raises(InputError, match="dog, a link to nothing in"):
        image_files(folder)


def test_names_that_are_no_text_are_refused_in_text(touch: Touch) -> None:
    folder = touch("train/cat/1.png")
    os.makedirs(os.fsencode(folder) + b"/train/\xff\xfe")
    open(os.fsencode(folder) + b"/train/\xff\xfe/1.png", "wb").close()
    with pytest.raises(HoldfastError, match="expected names in UTF-8") as caught:
        image_files(folder)
    str(caught.value).encode()


# --- Parquet --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["train.parquet", "test.parquet"], {"train": ["train"], "test": ["test"]}),
        (["Test.parquet", "TRAIN.PARQUET"], {"train": ["TRAIN"], "test": ["Test"]}),
        (
            ["train-00001-of-00002.parquet", "train-00000-of-00002.parquet", "val.parquet"],
            {"train": ["train-00000-of-00002", "train-00001-of-00002"], "validation": ["val"]},
        ),
        (
            ["data/train-00000-of-00001-0a1b2c.parquet", "data/test-00000-of-00001-f.parquet"],
            {"train": ["train-00000-of-00001-0a1b2c"], "test": ["test-00000-of-00001-f"]},
        ),
        (["train/10.parquet", "train/9.parquet"], {"train": ["9", "10"]}),
        (["train/x.parquet", "test/y.parquet"], {"train": ["x"], "test": ["y"]}),
        (["train_2.parquet", "train_10.parquet"], {"train": ["train_2", "train_10"]}),
        (["flowers.parquet"], {"train": ["flowers"]}),
        (["0001.parquet", "0000.parquet"], {"train": ["0000", "0001"]}),
        (["[x]/train.parquet", "train.parquet", ".test.parquet"], {"train": ["train"]}),
        (["train.parquet", "cat/1.png"], {"train": ["train"]}),
        (["cat/1.png"], {}),
    ],
)
def test_parquet_files_are_of_the_split_that_names_them(
    touch: Touch, names: list[str], expected: dict[str, list[str]]
) -> None:
    found = parquet_files(touch(*names))
    assert {split: [file.stem for file in files] for split, files in found.items()} == expected
    assert list(found) == list(expected)


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["train-00000-of-00002.parquet"], "each shard of a split once"),
        (["train/0-of-2.parquet", "train/2-of-2.parquet"], "each shard of a split once"),
        (["train-0-of-1.parquet", "train-1-of-2.parquet"], "each shard of a split once"),
        (["train.parquet", "other.parquet"], "one file, or numbered files, .*no other Parquet"),
        (["train.parquet", "training.parquet"], "one file, or numbered files"),
        (["my_train.parquet", "my_test.parquet"], "files named by their splits"),
        (["train/1.parquet", "Train/1.parquet"], "two folders of the split 'train'"),
    ],
)
def test_parquet_that_belongs_to_no_split_for_certain_is_refused(
    touch: Touch, names: list[str], message: str
) -> None:
    with pytest.raises(InputError, match=f"ImageData.path: .*{message}"):
        parquet_files(touch(*names))


def test_the_user_may_name_the_splits_of_files(touch: Touch) -> None:
    found = parquet_files(touch("fold1.parquet", "fold2.parquet"), ["fold1", "fold2"])
    assert {split: [file.stem for file in files] for split, files in found.items()} == {
        "fold1": ["fold1"],
        "fold2": ["fold2"],
    }
