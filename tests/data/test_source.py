import io
import socket
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import datasets
import jsonargparse
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from torch.utils.data import default_collate
from torchvision.transforms import v2

from holdfast.contracts import HoldfastError, InputError
from holdfast.data import (
    Augmentation,
    ImageData,
    ImageDataset,
    as_expected,
    contact_sheet,
    imagenet_classes,
    source,
)
from holdfast.data.images import DecodedImages, EncodedImages
from holdfast.preprocessing import Preprocessing

WriteImage = Callable[..., np.ndarray]


def png(pixels: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def noise(count: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, *shape), dtype=np.uint8)


def write_plain_parquet(path: Path, pixels: np.ndarray, labels: Any, **columns: Any) -> None:
    """Write a table as other tools do, without a word on its types."""
    entries = [{"bytes": png(image), "path": None} for image in pixels]
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table({"image": entries, "label": labels, **columns}), path)


def values(data: ImageDataset) -> np.ndarray:
    """All pixels as they were written, (N, H, W, C)."""
    images = data.batch(range(len(data)))["images"] * 255
    return images.round().byte().permute(0, 2, 3, 1).numpy()


@pytest.fixture
def folder(tmp_path: Path, write_image: WriteImage) -> Path:
    for number in range(3):
        write_image(f"pets/train/cat/{number}.png", seed=number)
        write_image(f"pets/train/dog/{number}.png", seed=10 + number)
    write_image("pets/test/dog/0.png", seed=20)
    write_image("pets/test/cat/0.png", seed=21)
    return tmp_path / "pets"


def test_digits_are_grey_and_16_pixels_wide_unless_told() -> None:
    assert ImageData() == ImageData("digits")
    assert ImageData().load("train").shape == (1, 16, 16)
    assert len(ImageData().load("test")) == 500
    assert ImageData(size=8, channels=3, limit=5).load("test").shape == (3, 8, 8)


def test_a_folder_of_images(folder: Path, write_image: WriteImage) -> None:
    train, test = (ImageData(str(folder)).load(split) for split in ("train", "test"))

    assert repr(train) == "ImageDataset(pets: 6 images 3×6×6, 2 classes)"
    assert train.classes == test.classes == ("cat", "dog")
    assert train.labels.tolist() == [0, 0, 0, 1, 1, 1]
    expected = [write_image("again.png", seed=seed) for seed in (0, 1, 2, 10, 11, 12)]
    assert np.array_equal(values(train), np.stack(expected))
    assert test.labels.tolist() == [0, 1]


def test_a_folder_is_read_without_network_and_nothing_is_written_to_it(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("the network was used")

    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    before = sorted(folder.rglob("*"))

    assert len(ImageData(str(folder)).load("train")) == 6
    assert sorted(folder.rglob("*")) == before


@pytest.mark.parametrize("layout", ["train.parquet", "data/train-00000-of-00001.parquet"])
def test_a_folder_of_plain_parquet(tmp_path: Path, layout: str) -> None:
    pixels = noise(4, 5, 5, 3)
    write_plain_parquet(tmp_path / "set" / layout, pixels, [0, 1, 0, 1])
    write_plain_parquet(tmp_path / "set" / layout.replace("train", "test"), pixels[:2], [3, 1])

    train, test = (ImageData(str(tmp_path / "set")).load(split) for split in ("train", "test"))

    assert np.array_equal(values(train), pixels)
    assert train.labels.tolist() == [0, 1, 0, 1]
    assert test.labels.tolist() == [3, 1]
    # Class 3 is in the test split alone, and still both have the same classes.
    assert train.classes == test.classes == ("0", "1", "2", "3")


def test_parquet_that_names_its_types(tmp_path: Path) -> None:
    pixels = noise(2, 5, 5)
    features = datasets.Features(
        photo=datasets.Image(), species=datasets.ClassLabel(names=["oak", "elm", "ash"])
    )
    table = datasets.Dataset.from_dict({"photo": list(pixels), "species": [1, 0]}, features)
    table.to_parquet(tmp_path / "trees.parquet")

    data = ImageData(str(tmp_path / "trees.parquet")).load("train")

    assert repr(data) == "ImageDataset(trees: 2 images 1×5×5, 3 classes)"
    assert data.classes == ("oak", "elm", "ash")
    assert np.array_equal(values(data)[..., 0], pixels)
    assert data.labels.tolist() == [1, 0]


def test_boxes_come_along_and_scale(tmp_path: Path) -> None:
    box = [[2.0, 4.0, 6.0, 8.0], [0.0, 0.0, 10.0, 20.0]]
    write_plain_parquet(tmp_path / "boxed.parquet", noise(2, 20, 10), [0, 1], bbox=box)
    path = str(tmp_path / "boxed.parquet")

    # Twice as wide, half as high.
    assert ImageData(path).load("train").batch([1, 0])["boxes"].tolist() == box[::-1]
    squashed = ImageData(path, size=20, fit="squash").load("train").batch([0])["boxes"]
    assert squashed.tolist() == [[4.0, 4.0, 12.0, 8.0]]
    # Twice as wide and as high, less ten rows above and below.
    cropped = ImageData(path, size=20).load("train").batch([0, 1])["boxes"]
    assert cropped.tolist() == [[4.0, 0.0, 12.0, 6.0], [0.0, 0.0, 20.0, 20.0]]


def test_boxes_follow_the_limit(tmp_path: Path) -> None:
    marks = np.arange(50, dtype=np.uint8)
    boxes = [[0.0, 0.0, 2.0, mark / 16] for mark in marks]
    pixels = np.broadcast_to(marks[:, None, None], (50, 4, 4))
    write_plain_parquet(tmp_path / "x.parquet", pixels, marks, bbox=boxes)

    batch = ImageData(str(tmp_path / "x.parquet"), limit=20).load("train").batch(range(20))

    drawn = (batch["images"][:, 0, 0, 0] * 255).round()
    assert len(drawn.unique()) == 20
    assert torch.equal(drawn.long(), batch["labels"])
    assert torch.equal(drawn, batch["boxes"][:, 3] * 16)


def test_a_limit_draws_at_random_and_a_larger_one_the_same_and_more() -> None:
    some, more, other = (
        ImageData(limit=limit, seed=seed).load("test").batch(range(50))["images"]
        for limit, seed in ((50, 0), (200, 0), (50, 1))
    )
    assert torch.equal(some, more)
    assert not torch.equal(some, other)
    first = ImageData().load("test").batch(range(50))["images"]
    assert not torch.equal(some, first)
    assert torch.equal(ImageData(limit=500).load("test").batch(range(50))["images"], first)


def test_what_is_too_large_for_memory_is_read_on_demand(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = ImageData(str(folder), size=9)
    kept = data.load("train")
    monkeypatch.setattr(source, "_KEPT_IN_MEMORY", 6 * 3 * 9 * 9 - 1)
    streamed = data.load("train")

    assert isinstance(kept._images, DecodedImages)
    assert isinstance(streamed._images, EncodedImages)
    assert np.array_equal(values(kept), values(streamed))
    assert torch.equal(kept[3]["images"], streamed[3]["images"])


def test_other_split_and_column_names(tmp_path: Path) -> None:
    for split in ("train", "validation"):
        write_plain_parquet(
            tmp_path / f"set/{split}.parquet", noise(3, 4, 4), [0, 1, 2], odd=[0, 0, 1]
        )
    data = ImageData(str(tmp_path / "set"), test_split="validation", label_column="odd")
    assert data.load("test").labels.tolist() == [0, 0, 1]


def test_it_is_an_option_of_a_command() -> None:
    parser = jsonargparse.ArgumentParser()
    parser.add_argument("--data", type=ImageData)
    given = parser.parse_args(["--data.path=x/y", "--data.channels=3", "--data.limit=7"])
    assert parser.instantiate_classes(given).data == ImageData("x/y", channels=3, limit=7)
    text = io.StringIO()
    parser.print_help(text)
    assert "Side in pixels of the square, or height and width, that every image is" in " ".join(
        text.getvalue().split()
    )


@pytest.mark.usefixtures("own_errors")
@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"limit": 0}, "ImageData.limit: expected a number above 0, got 0"),
        ({"size": -1}, "ImageData.size: expected a side or height and width, .* got .-1, -1."),
        ({"size": 0}, "ImageData.size: expected a side or height and width, .* got .0, 0."),
        ({"size": (8, 9, 3)}, r"ImageData.size: expected .* got \(8, 9, 3\)"),
        ({"size": 8.5}, "ImageData.size: expected .* got .*8.5"),
        ({"resize": (8, 0)}, r"ImageData.resize: expected a side or height .* got \(8, 0\)"),
        ({"fit": "stretch"}, "ImageData.fit: expected .*crop.* or .*squash.*, got 'stretch'"),
        ({"interpolation": "linear"}, "ImageData.interpolation: expected .*nearest.* got 'lin"),
        ({"channels": 2}, "ImageData.channels: expected 1.* 3 or None, got 2"),
        ({"box_format": "coco"}, "ImageData.box_format: expected .*xywh.* got 'coco'"),
    ],
)
def test_settings_out_of_range_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        ImageData(**settings)


@pytest.mark.parametrize("path", ["./nowhere", "/nowhere/at/all", "no/such/folder", "x.parquet"])
def test_a_path_that_does_not_exist_is_refused(path: str) -> None:
    with pytest.raises(InputError, match="ImageData.path: expected a folder or file that exists"):
        ImageData(path).load("train")


@pytest.mark.parametrize("path", ["nowhere", "nobody/nowhere"])
def test_a_name_that_the_hub_does_not_give_is_one_clear_error(path: str) -> None:
    with pytest.raises(HoldfastError, match=f"'{path}' .*sought on the Hugging Face hub.*cannot"):
        ImageData(path).load("train")


def test_a_file_of_another_kind_is_refused(write_image: WriteImage, tmp_path: Path) -> None:
    write_image("one.png")
    with pytest.raises(InputError, match="ImageData.path: expected a Parquet file"):
        ImageData(str(tmp_path / "one.png")).load("train")


def test_a_folder_without_data_is_refused(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="ImageData.path: expected a folder of images or of Parq"):
        ImageData(str(tmp_path / "empty")).load("train")
    (tmp_path / "empty" / "notes.txt").write_text("no image")
    with pytest.raises(InputError, match="ImageData.path: expected a folder of images or of Parq"):
        ImageData(str(tmp_path / "empty")).load("train")


def test_images_without_classes_are_refused(write_image: WriteImage, tmp_path: Path) -> None:
    write_image("flat/train/0.png")
    with pytest.raises(InputError, match="ImageData.path: .*flat/train/0.png', which lies in no f"):
        ImageData(str(tmp_path / "flat")).load("train")


def test_a_broken_parquet_file_is_one_clear_error(tmp_path: Path) -> None:
    (tmp_path / "x.parquet").write_bytes(b"nonsense")
    with pytest.raises(HoldfastError, match=r"x.parquet' cannot be loaded: .*arquet"):
        ImageData(str(tmp_path / "x.parquet")).load("train")


def test_an_empty_split_is_refused(tmp_path: Path) -> None:
    write_plain_parquet(tmp_path / "x.parquet", noise(2, 4, 4), [0, 1])
    pq.ParquetWriter(tmp_path / "x.parquet", pq.read_schema(tmp_path / "x.parquet")).close()
    with pytest.raises(HoldfastError, match="no (images|data)"):
        ImageData(str(tmp_path / "x.parquet")).load("train")


def test_a_missing_split_is_refused_and_the_others_named(tmp_path: Path) -> None:
    for split in ("train", "validation"):
        write_plain_parquet(tmp_path / f"set/{split}.parquet", noise(3, 4, 4), [0, 1, 2])
    with pytest.raises(
        InputError, match=r"ImageData.test_split: .*which has train, validation, got 'test'"
    ):
        ImageData(str(tmp_path / "set")).load("test")
    with pytest.raises(
        InputError, match="train_split: expected a split of digits, which has train"
    ):
        ImageData(train_split="all").load("train")


@pytest.mark.usefixtures("own_errors")
def test_a_split_is_train_validation_or_test() -> None:
    with pytest.raises(InputError, match="split: expected 'train', 'validation' or 'test', got"):
        ImageData().load("valid")  # type: ignore[arg-type]


def test_an_unreadable_image_is_named(folder: Path) -> None:
    (folder / "train/dog/1.png").write_bytes(b"nonsense")
    with pytest.raises(HoldfastError, match=r"image 4 \(.*train/dog/1.png\) cannot be read"):
        ImageData(str(folder)).load("train")


def test_sizes_that_differ_ask_for_a_size(folder: Path, write_image: WriteImage) -> None:
    write_image("pets/train/dog/1.png", shape=(7, 9, 3))
    with pytest.raises(
        InputError, match=r"ImageData.size: expected a size to bring all.*dog/1.png"
    ):
        ImageData(str(folder)).load("train")
    assert ImageData(str(folder), size=5).load("train").shape == (3, 5, 5)


@pytest.mark.parametrize(("wrong", "names"), [(-1, None), (2, ["a", "b"])])
def test_labels_outside_the_classes_are_refused(
    tmp_path: Path, wrong: int, names: list[str] | None
) -> None:
    path = tmp_path / "x.parquet"
    write_plain_parquet(path, noise(3, 4, 4), [0, 1, wrong])
    if names:
        kinds = datasets.Features(image=datasets.Image(), label=datasets.ClassLabel(names=names))
        plain = pq.read_table(path)
        pq.write_table(plain.replace_schema_metadata(kinds.arrow_schema.metadata), path)
    with pytest.raises(
        InputError, match=f"labels: expected classes from 0 to 1, got {wrong} in row 2"
    ):
        ImageData(str(path)).load("train")


def test_masks_and_saliency_come_along_and_scale(tmp_path: Path) -> None:
    pixels, shape = noise(3, 20, 10), np.zeros((20, 10), dtype=np.uint8)
    shape[4:12, 2:6] = 255
    masks = [{"bytes": png(shape), "path": None}, None, {"bytes": png(255 - shape), "path": None}]
    saliency = np.linspace(-1, 1, 600, dtype=np.float32).reshape(3, 20, 10)
    write_plain_parquet(
        tmp_path / "m.parquet", pixels, [0, 1, 0], mask=masks, saliency=saliency.tolist()
    )
    path = str(tmp_path / "m.parquet")

    batch = ImageData(path).load("train").batch([2, 0, 1])

    assert torch.equal(batch["masks"][1], torch.from_numpy(shape / 255).float())
    assert torch.equal(batch["masks"][0], 1 - batch["masks"][1])
    assert batch["masks"][2].isnan().all()
    torch.testing.assert_close(batch["saliency"], torch.from_numpy(saliency[[2, 0, 1]]))
    halved = ImageData(path, size=10, fit="squash").load("train").batch([0])["masks"]
    assert halved.shape == (1, 10, 10)
    assert halved[0, 2:6, 2:6].min() > 0.8
    assert (halved > 0.5).sum() == 16
    cropped = ImageData(path, size=10).load("train").batch([0])
    assert torch.equal(cropped["masks"][0], torch.from_numpy(shape[5:15] / 255).float())
    torch.testing.assert_close(cropped["saliency"][0], torch.from_numpy(saliency[0, 5:15]))
    assert np.array_equal((cropped["images"][0, 0] * 255).round().byte(), pixels[0, 5:15])


def test_masks_follow_the_limit_and_may_be_read_on_demand(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    marks = np.arange(30, dtype=np.uint8)
    pixels = np.broadcast_to(marks[:, None, None], (30, 4, 4))
    saliency = pixels.astype(np.float32).tolist()
    write_plain_parquet(tmp_path / "x.parquet", pixels, marks, saliency=saliency)
    kept = ImageData(str(tmp_path / "x.parquet"), limit=9).load("train").batch(range(9))
    monkeypatch.setattr(source, "_KEPT_IN_MEMORY", 0)
    streamed = ImageData(str(tmp_path / "x.parquet"), limit=9).load("train").batch(range(9))

    assert torch.equal(kept["saliency"][:, 0, 0], kept["labels"].float())
    for name, values in kept.items():
        assert torch.equal(values, streamed[name])


def test_a_mask_of_another_size_than_its_image_is_refused(tmp_path: Path) -> None:
    masks = [{"bytes": png(image), "path": None} for image in noise(2, 5, 4)]
    write_plain_parquet(tmp_path / "x.parquet", noise(2, 4, 5), [0, 1], mask=masks)
    with pytest.raises(InputError, match=r"masks: .* \(4, 5\), got \(5, 4\) pixels for image 0"):
        ImageData(str(tmp_path / "x.parquet")).load("train")


def test_labels_may_be_names(tmp_path: Path) -> None:
    write_plain_parquet(tmp_path / "set/train.parquet", noise(3, 4, 4), ["dog", "ape", "dog"])
    write_plain_parquet(tmp_path / "set/test.parquet", noise(2, 4, 4), ["cat", "dog"])
    train, test = (ImageData(str(tmp_path / "set")).load(split) for split in ("train", "test"))
    assert train.classes == test.classes == ("ape", "cat", "dog")
    assert train.labels.tolist() == [2, 0, 2]
    assert test.labels.tolist() == [1, 2]


@pytest.mark.parametrize("validation", [0.1, 130])
@pytest.mark.parametrize("seed", [0, 5])
def test_validation_is_what_training_leaves_out(validation: int | float, seed: int) -> None:
    data = ImageData("digits", validation=validation, seed=seed)
    held, train, everything = data.load("validation"), data.load("train"), ImageData().load("train")

    assert len(held) == 130
    assert len(held) + len(train) == len(everything)
    parts = torch.cat([d.batch(range(len(d)))["images"].flatten(1) for d in (held, train)])
    whole = everything.batch(range(len(everything)))["images"].flatten(1)
    assert sorted(parts.tolist()) == sorted(whole.tolist())
    assert held.labels.bincount().min() >= 12
    again = data.load("validation")
    assert torch.equal(again.batch(range(130))["images"], held.batch(range(130))["images"])
    assert len(data.load("test")) == 500
    assert repr(held) == "ImageDataset(digits: 130 images 1×16×16, 10 classes)"


def test_a_limit_holds_for_what_is_left_to_train_on_and_for_validation() -> None:
    data = ImageData("digits", validation=100, limit=50)
    held, train = data.load("validation"), data.load("train")
    assert len(held) == len(train) == 50
    pictures = {tuple(image.flatten().tolist()) for image in held.batch(range(50))["images"]}
    assert not pictures & {
        tuple(image.flatten().tolist()) for image in train.batch(range(50))["images"]
    }


def test_balance_repeats_the_images_of_small_classes_to_train_on(tmp_path: Path) -> None:
    labels = [0] * 6 + [1] * 2 + [2]
    for split in ("train", "test"):
        write_plain_parquet(tmp_path / f"set/{split}.parquet", noise(9, 4, 4), labels)
    data = ImageData(str(tmp_path / "set"), balance=5)
    assert data.load("train").labels.bincount().tolist() == [6, 5, 5]
    assert len(data.load("train").batch(range(16))["images"].flatten(1).unique(dim=0)) == 9
    assert data.load("test").labels.bincount().tolist() == [6, 2, 1]


def test_only_training_is_augmented() -> None:
    data = ImageData("digits", validation=100, augmentation=Augmentation(flip=True))
    assert data.load("train").augmentation == Augmentation(flip=True)
    assert data.load("validation").augmentation is None
    assert data.load("test").augmentation is None


def test_without_the_new_settings_nothing_changes() -> None:
    before = torch.get_rng_state()
    data = ImageData("digits", limit=64).load("train")
    rows = torch.randperm(1297, generator=torch.Generator().manual_seed(0))[:64]
    whole = ImageData("digits").load("train").batch(rows)
    assert torch.equal(data.batch(range(64))["images"], whole["images"])
    sampled = torch.stack([sample["images"] for sample in data])
    assert torch.equal(sampled, whole["images"])
    assert torch.equal(torch.get_rng_state(), before)


def test_augmentation_and_validation_are_options_of_a_command() -> None:
    parser = jsonargparse.ArgumentParser()
    parser.add_argument("--data", type=ImageData)
    given = {"augmentation": {"flip": True, "crop": 4, "rotation": 10}, "validation": 50}
    read = parser.instantiate_classes(parser.parse_object({"data": given})).data
    assert read == ImageData(
        augmentation=Augmentation(flip=True, crop=4, rotation=10.0), validation=50
    )
    read = parser.instantiate_classes(parser.parse_args(["--data.validation=0.25"])).data
    assert read.validation == 0.25


@pytest.mark.usefixtures("own_errors")
def test_validation_that_cannot_be_is_refused() -> None:
    with pytest.raises(InputError, match="ImageData.validation: expected how many images to hold"):
        ImageData().load("validation")
    with pytest.raises(InputError, match="ImageData.validation: expected a share below 1"):
        ImageData(validation=1.5)
    with pytest.raises(InputError, match="ImageData.validation: expected at least 1 and fewer"):
        ImageData(validation=1297).load("train")
    with pytest.raises(InputError, match="ImageData.balance: expected a number above 0"):
        ImageData(balance=0)


@pytest.mark.parametrize("kept", [2**30, 0])
def test_photographs_are_cropped_as_torchvision_does(
    tmp_path: Path, write_image: WriteImage, monkeypatch: pytest.MonkeyPatch, kept: int
) -> None:
    shapes = [(50, 61, 3), (61, 50, 3), (20, 90, 3), (33, 33, 3)]
    for number, shape in enumerate(shapes):
        write_image(f"pets/train/{'cat' if number < 2 else 'dog'}/{number}.png", shape, seed=number)
    monkeypatch.setattr(source, "_KEPT_IN_MEMORY", kept)
    settings = {"size": 32, "resize": 40, "interpolation": "bicubic"}
    data = ImageData(str(tmp_path / "pets"), **settings)  # type: ignore[arg-type]
    files = sorted((tmp_path / "pets/train").rglob("*.png"))

    images = data.load("train").batch(range(4))["images"]

    bicubic = v2.InterpolationMode.BICUBIC
    transform = v2.Compose([v2.Resize(40, interpolation=bicubic), v2.CenterCrop(32)])
    expected = torch.stack([v2.functional.pil_to_tensor(transform(Image.open(f))) for f in files])
    assert torch.equal(images, expected / 255)
    assert torch.equal(data.read(files), images)


def test_sizes_that_are_no_squares() -> None:
    loaded = ImageData("digits", size=(12, 20), limit=5).load("train")
    assert loaded.shape == (1, 12, 20)
    assert loaded.batch([0])["images"].shape == (1, 1, 12, 20)
    parser = jsonargparse.ArgumentParser()
    parser.add_argument("--data", type=ImageData)
    read = parser.instantiate_classes(parser.parse_args(["--data.size=[12, 20]"])).data
    assert read == ImageData(size=(12, 20))
    read = parser.instantiate_classes(parser.parse_args(["--data.size=9", "--data.resize=12"])).data
    assert read == ImageData(size=9, resize=12)


def test_a_resize_needs_a_size(tmp_path: Path) -> None:
    write_plain_parquet(tmp_path / "x.parquet", noise(2, 4, 4), [0, 1])
    with pytest.raises(InputError, match="ImageData.size: expected the size to cut out"):
        ImageData(str(tmp_path / "x.parquet"), resize=8).load("train")


def test_what_a_model_expects_fills_what_is_not_said() -> None:
    expected = Preprocessing((24, 24), resize=28, mode="crop", interpolation="bicubic", channels=3)
    filled = as_expected(ImageData("x", limit=3), expected)
    assert filled == ImageData(
        "x", limit=3, size=(24, 24), resize=28, fit="crop", interpolation="bicubic", channels=3
    )
    assert as_expected(filled, Preprocessing((8, 8), mode="squash", channels=1)) == filled
    # What is said stays, and a resize goes with its own size and fit.
    same = as_expected(ImageData("x", size=24, channels=1, interpolation="box"), expected)
    assert (same.size, same.resize, same.channels, same.interpolation) == (24, 28, 1, "box")
    assert as_expected(ImageData("x", resize=24), expected).resize == 24
    assert as_expected(ImageData("x", size=32), expected).resize is None
    assert as_expected(ImageData("x", fit="squash"), expected).resize is None
    assert as_expected(ImageData("x"), replace(expected, resize=None)).resize is None


def test_images_that_were_cropped_before_are_not_cropped_again_in_silence(tmp_path: Path) -> None:
    pixels = noise(3, 16, 16)
    write_plain_parquet(tmp_path / "x.parquet", pixels, [0, 1, 0])
    data = ImageData(str(tmp_path / "x.parquet"), size=16, resize=20)
    with pytest.warns(
        UserWarning, match="are 16×16 already, .* once more; .* resize=16 takes them"
    ):
        data.load("train")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        loaded = replace(data, resize=16).load("train")
        ImageData("digits", size=6, resize=7, limit=5).load("train")
    assert np.array_equal(values(loaded)[..., 0], pixels)


def test_ids_and_names_beside_labels_find_the_logits(tmp_path: Path) -> None:
    # The first is called by the name that two logits have.
    columns = {
        "wnid": ["n02012849", "n01440764", "n02012849"],
        "name": ["crane", "tench", "crane"],
        "file": ["a", "b", "c"],
    }
    write_plain_parquet(tmp_path / "x.parquet", noise(3, 4, 4), [1, 0, 1], **columns)
    data = ImageData(str(tmp_path / "x.parquet")).load("train")
    assert data.synonyms == (("n01440764", "tench"), ("n02012849", "crane"))

    names = tuple(imagenet_classes().values())
    matched = data.for_model(names)

    assert matched.labels.tolist() == [134, 0, 134]
    assert matched.classes == names
    assert torch.equal(matched.batch([0, 2])["labels"], torch.tensor([134, 134]))
    assert torch.equal(matched.batch([1])["images"], data.batch([1])["images"])
    assert data.labels.tolist() == [1, 0, 1]
    again = matched.for_model(names)
    assert again.labels.tolist() == [134, 0, 134]


def test_what_is_one_a_row_is_no_name_of_a_class(tmp_path: Path) -> None:
    columns = {"name": ["a", "b", "c"], "class": [1, 0, 1], "wnid": ["n02012849", None, None]}
    write_plain_parquet(tmp_path / "x.parquet", noise(3, 4, 4), [1, 0, 1], **columns)
    data = ImageData(str(tmp_path / "x.parquet")).load("train")
    assert data.synonyms == ((), ("n02012849",))


def test_folders_are_matched_by_name_and_not_by_the_alphabet(folder: Path) -> None:
    data = ImageData(str(folder)).load("train")
    assert data.for_model(("dog", "ape", "cat")).labels.tolist() == [2, 2, 2, 0, 0, 0]
    assert data.for_model(data.classes).labels.tolist() == data.labels.tolist()
    with pytest.raises(HoldfastError, match="2 classes, in alphabetical order: 'cat', 'dog'; "):
        data.for_model(2)
    (folder.parent / "order.txt").write_text("dog\ncat\n")
    for mapping, expected in (("index", [0, 1]), (str(folder.parent / "order.txt"), [1, 0])):
        data = ImageData(str(folder), mapping=mapping).load("test")
        assert data.for_model(2).labels.tolist() == expected
        assert data.for_model(2).classes == ("0", "1")


def test_a_table_that_names_its_classes_has_an_order_of_its_own(tmp_path: Path) -> None:
    features = datasets.Features(
        image=datasets.Image(), label=datasets.ClassLabel(names=["oak", "elm"])
    )
    table = datasets.Dataset.from_dict({"image": list(noise(2, 5, 5)), "label": [1, 0]}, features)
    table.to_parquet(tmp_path / "named.parquet")
    data = ImageData(str(tmp_path / "named.parquet")).load("train")
    assert data.for_model(2).labels.tolist() == [1, 0]
    write_plain_parquet(tmp_path / "words.parquet", noise(2, 4, 4), ["oak", "elm"])
    with pytest.raises(HoldfastError, match="in alphabetical order: 'elm', 'oak'"):
        ImageData(str(tmp_path / "words.parquet")).load("train").for_model(2)


def test_splits_are_found_by_any_of_their_names(tmp_path: Path, write_image: WriteImage) -> None:
    for name in (
        "Training/cat/1.png",
        "Training/test/2.png",
        "Testing/test/3.png",
        "val/cat/4.png",
    ):
        write_image(f"pets/{name}", seed=len(name))
    path = str(tmp_path / "pets")
    train, test = (ImageData(path).load(split) for split in ("train", "test"))
    assert (len(train), len(test)) == (2, 1)
    assert train.classes == test.classes == ("cat", "test")
    assert train.labels.tolist() == [0, 1]
    assert test.labels.tolist() == [1]
    for name in ("val", "validation", "valid"):
        assert ImageData(path, test_split=name).load("test").labels.tolist() == [0]
    with pytest.raises(InputError, match="test_split: .*which has train, validation, test, got 'x"):
        ImageData(path, test_split="x").load("test")


def test_splits_may_have_names_of_ones_own(tmp_path: Path, write_image: WriteImage) -> None:
    for name in ("2023/a/1.png", "2023/b/1.png", "2024/b/1.png"):
        write_image(f"pets/{name}")
    data = ImageData(str(tmp_path / "pets"), train_split="2023", test_split="2024")
    assert data.load("train").labels.tolist() == [0, 1]
    assert data.load("test").labels.tolist() == [1]


def test_images_to_test_on_may_lack_classes(folder: Path, write_image: WriteImage) -> None:
    for name in ("cat", "dog"):
        (folder / "test" / name / "0.png").unlink()
    write_image("pets/test/1.png")
    assert len(ImageData(str(folder)).load("train")) == 6
    with pytest.raises(InputError, match="ImageData.path: .*test/1.png', which lies in no folder"):
        ImageData(str(folder)).load("test")


def test_one_class_is_refused(tmp_path: Path, write_image: WriteImage) -> None:
    write_image("pets/train/cat/1.png")
    with pytest.raises(InputError, match="ImageData.path: .*two classes, got .*all of class 'cat'"):
        ImageData(str(tmp_path / "pets")).load("train")
    # A split may have one, if the other has more.
    write_image("pets/test/dog/1.png")
    assert ImageData(str(tmp_path / "pets")).load("train").classes == ("cat", "dog")
    write_plain_parquet(tmp_path / "x.parquet", noise(2, 4, 4), [0, 0])
    with pytest.raises(InputError, match="ImageData.path: .*two classes, got .*all of class '0'"):
        ImageData(str(tmp_path / "x.parquet")).load("train")


def test_parquet_that_orders_its_classes_otherwise_is_tested_by_name(tmp_path: Path) -> None:
    for split, names, labels in (
        ("train", ["cat", "dog"], [0, 1]),
        ("test", ["dog", "cat"], [0, 1]),
    ):
        kinds = datasets.Features(image=datasets.Image(), label=datasets.ClassLabel(names=names))
        content = {"image": list(noise(2, 5, 5)), "label": labels}
        datasets.Dataset.from_dict(content, kinds).to_parquet(tmp_path / f"{split}.parquet")
    train, test = (ImageData(str(tmp_path)).load(split) for split in ("train", "test"))
    assert train.classes == test.classes == ("cat", "dog")
    assert (train.labels.tolist(), test.labels.tolist()) == ([0, 1], [1, 0])


def test_the_same_path_with_other_content_is_other_data(tmp_path: Path) -> None:
    for seed in (0, 1):
        pixels = noise(2, 4, 4) if seed else noise(4, 4, 4)[2:]
        write_plain_parquet(tmp_path / "set" / "train.parquet", pixels, [seed, 1 - seed])
        loaded = ImageData(str(tmp_path / "set")).load("train")
        assert np.array_equal(values(loaded)[..., 0], pixels)
        assert loaded.labels.tolist() == [seed, 1 - seed]


@pytest.mark.parametrize("kept", [2**30, 0])
def test_boxes_outside_their_images_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kept: int
) -> None:
    monkeypatch.setattr(source, "_KEPT_IN_MEMORY", kept)
    path = tmp_path / "x.parquet"
    # x, y, width and height: 12 wide from 8 on is more than 10, taken as corners it is not.
    boxes = [[0, 0, 11, 20], [2, 3, 8, 12]]
    write_plain_parquet(path, noise(2, 20, 10), [0, 1], bbox=boxes)
    batch = ImageData(str(path), box_format="xywh").load("train").batch([1])
    assert batch["boxes"].tolist() == [[2, 3, 10, 15]]
    assert ImageData(str(path)).load("train").batch([1])["boxes"].tolist() == [[2, 3, 8, 12]]
    write_plain_parquet(path, noise(2, 20, 10), [0, 1], bbox=[[0, 0, 5, 5], [2, 3, 8, 22]])
    with pytest.raises(InputError, match="boxes: .*of 10×20; --data.box_format .*, 22 for image 1"):
        ImageData(str(path)).load("train").batch([0, 1])


def test_arrays_are_images(tmp_path: Path) -> None:
    pixels = noise(2, 4, 5)
    table = pa.table({"image": pixels.tolist(), "label": [0, 1]})
    pq.write_table(table, tmp_path / "x.parquet")
    loaded = ImageData(str(tmp_path / "x.parquet")).load("train")
    assert loaded.shape == (1, 4, 5)
    assert np.array_equal(values(loaded)[..., 0], pixels)


def test_rows_may_lack_boxes_masks_and_saliency(tmp_path: Path) -> None:
    plane = [[0.0, 1.0, 0.5, 0.25]] * 3
    write_plain_parquet(
        tmp_path / "train.parquet",
        noise(4, 3, 4),
        [0, 1, 0, 1],
        bbox=[None, [1, 0, 3, 2], None, [0, 0, 4, 3]],
        mask=[plane, None, None, plane],
        saliency=[plane, plane, None, None],
    )
    augmented = ImageData(str(tmp_path), augmentation=Augmentation(flip=True, rotation=10.0))
    data = augmented.load("train")
    expected = {"boxes": [1, 0, 1, 0], "masks": [0, 1, 1, 0], "saliency": [0, 0, 1, 1]}
    for samples in (data.batch(range(4)), default_collate(data.__getitems__([0, 1, 2, 3]))):
        for name, lacking in expected.items():
            values = samples[name].flatten(1)  # type: ignore[literal-required]
            assert values.isnan().all(1).int().tolist() == lacking, name
            assert values.isnan().any(1).int().tolist() == lacking, name
    assert contact_sheet(augmented).size[0] > 0
    # Of the two images to test on none has a mask: the data has none.
    write_plain_parquet(
        tmp_path / "test.parquet",
        noise(2, 3, 4),
        [0, 1],
        bbox=[None, None],
        mask=[None, None],
        saliency=[None, plane],
    )
    assert set(augmented.load("test").batch([0])) == {"images", "labels", "saliency"}
