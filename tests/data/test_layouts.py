import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from scipy.io import savemat

from holdfast.contracts import HoldfastError, InputError
from holdfast.data import ImageData, ImageDataset, import_layout, layouts

WriteImage = Callable[..., np.ndarray]


def values(data: ImageDataset) -> np.ndarray:
    images = data.batch(range(len(data)))["images"] * 255
    return images.round().byte().permute(0, 2, 3, 1).numpy()


def load(folder: Path, split: Any, **settings: Any) -> ImageDataset:
    return ImageData(str(folder), **settings).load(split)


@pytest.fixture
def cub(tmp_path: Path, write_image: WriteImage) -> Path:
    """Four birds of two classes, in the form of the published archive."""
    root = tmp_path / "CUB_200_2011"
    names = [
        "001.Black_footed_Albatross/Black_Footed_Albatross_0046_18.png",
        "001.Black_footed_Albatross/Black_Footed_Albatross_0009_34.png",
        "002.Laysan_Albatross/Laysan_Albatross_0002_1027.png",
        "002.Laysan_Albatross/Laysan_Albatross_0003_1033.png",
    ]
    for seed, name in enumerate(names):
        write_image(f"CUB_200_2011/images/{name}", (20, 30, 3), seed)
        write_image(f"CUB_200_2011/segmentations/{name}", (20, 30), 50 + seed)
    (root / "images.txt").write_text("".join(f"{i} {n}\n" for i, n in enumerate(names, 1)))
    (root / "image_class_labels.txt").write_text("1 1\n2 1\n3 2\n4 2\n")
    (root / "classes.txt").write_text("1 001.Black_footed_Albatross\n2 002.Laysan_Albatross\n")
    (root / "train_test_split.txt").write_text("1 0\n2 1\n3 1\n4 0\n")
    (root / "bounding_boxes.txt").write_text(
        "1 6.0 2.0 20.0 10.0\n2 0.0 0.0 30.0 20.0\n3 1.0 3.0 5.0 4.0\n4 9.0 8.0 7.0 6.0\n"
    )
    return root


@pytest.mark.parametrize("inside", [True, False])
def test_cub(cub: Path, tmp_path: Path, write_image: WriteImage, inside: bool) -> None:
    imported = import_layout("cub-200", cub if inside else tmp_path, tmp_path / "out")

    assert imported.images == {"test": 2, "train": 2}
    assert imported.skipped == []
    train, test = (load(tmp_path / "out", split) for split in ("train", "test"))
    assert train.classes == ("Black footed Albatross", "Laysan Albatross")
    assert train.labels.tolist() == test.labels.tolist() == [0, 1]
    expected = [write_image(f"{seed}.png", (20, 30, 3), seed) for seed in (1, 2)]
    assert np.array_equal(values(train), np.stack(expected))
    batch = test.batch([0, 1])
    assert batch["boxes"].tolist() == [[6.0, 2.0, 26.0, 12.0], [9.0, 8.0, 16.0, 14.0]]
    mask = write_image("mask.png", (20, 30), 50)
    torch.testing.assert_close(batch["masks"][0], torch.from_numpy(mask / 255).float())


def test_cub_without_segmentations_has_no_masks(cub: Path, tmp_path: Path) -> None:
    (cub / "segmentations").rename(tmp_path / "elsewhere")
    import_layout("cub-200", cub, tmp_path / "out")
    assert load(tmp_path / "out", "train").batch([0]).keys() == {"images", "labels", "boxes"}


def edit(file: Path, old: str, new: str) -> None:
    content = file.read_text()
    assert old in content
    file.write_text(content.replace(old, new))


BROKEN = [
    ("images.txt", "1033.png", "1034.png", r"images.txt, row 4: there is no file .*_1034.png"),
    ("images.txt", "3 002", "3 7 002", r"images.txt, row 3: expected 2 values, got '3 7 002"),
    ("images.txt", "3 002", "9 002", "images.txt, row 3: image 9 has no row in image_class_labels"),
    ("image_class_labels.txt", "3 2", "3 5", r"labels.txt, row 3: class '5' is none of classes"),
    ("image_class_labels.txt", "3 2", "3 1", r"labels.txt, row 3: class 001.Black.* for 002.Lays"),
    ("train_test_split.txt", "2 1", "2 x", r"split.txt, row 2: expected 0 or 1, got 'x'"),
    ("bounding_boxes.txt", "3 1.0", "3 one", r"boxes.txt, row 3: expected numbers, got 'one 3.0"),
    ("bounding_boxes.txt", "3 1.0", "3 nan", r"boxes.txt, row 3: expected numbers, got 'nan 3.0"),
    ("bounding_boxes.txt", "5.0 4.0", "5.0", r"boxes.txt, row 3: expected 5 values"),
    ("bounding_boxes.txt", "5.0 4.0", "0.0 4.0", r"row 3: box 1, 3, 1, 7 holds no pixel"),
    ("bounding_boxes.txt", "5.0 4.0", "5.0 40.0", r"row 3: box 1, 3, 6, 43 is not inside .*30×20"),
    ("bounding_boxes.txt", "3 1.0", "3 -1.5", r"boxes.txt, row 3: box -1.5, .* is not inside"),
]


@pytest.mark.parametrize(("name", "old", "new", "message"), BROKEN)
def test_what_is_broken_is_named_or_skipped_and_counted(
    cub: Path, tmp_path: Path, name: str, old: str, new: str, message: str
) -> None:
    edit(cub / name, old, new)

    with pytest.raises(HoldfastError, match=message):
        import_layout("cub-200", cub, tmp_path / "out")
    assert list((tmp_path / "out").rglob("*")) == []  # nor anything half written

    imported = import_layout("cub-200", cub, tmp_path / "out", skip_broken=True)
    assert sum(imported.images.values()) == 3
    assert len(imported.skipped) == 1
    assert str(imported).endswith("1 broken skipped")
    assert re.search(message, imported.skipped[0])
    assert sum(len(load(tmp_path / "out", split)) for split in ("train", "test")) == 3


@pytest.mark.parametrize("folder", ["images", "segmentations"])
@pytest.mark.parametrize("content", [b"nonsense", b""])
def test_an_unreadable_image_is_named_or_skipped(
    cub: Path, tmp_path: Path, folder: str, content: bytes
) -> None:
    broken = cub / folder / "002.Laysan_Albatross/Laysan_Albatross_0002_1027.png"
    broken.write_bytes(content)
    with pytest.raises(HoldfastError, match=rf"images.txt, row 3: .*{folder}.*1027.png cannot be"):
        import_layout("cub-200", cub, tmp_path / "out")
    assert import_layout("cub-200", cub, tmp_path / "out", True).images == {"test": 2, "train": 1}


def test_half_an_image_is_broken(cub: Path, tmp_path: Path) -> None:
    broken = cub / "images/002.Laysan_Albatross/Laysan_Albatross_0002_1027.png"
    broken.write_bytes(broken.read_bytes()[:-500])
    with pytest.raises(HoldfastError, match=r"1027.png cannot be read: .*truncated"):
        import_layout("cub-200", cub, tmp_path / "out")


def test_a_mask_of_another_size_is_broken(
    cub: Path, tmp_path: Path, write_image: WriteImage
) -> None:
    write_image(
        "CUB_200_2011/segmentations/002.Laysan_Albatross/Laysan_Albatross_0002_1027.png", (20, 31)
    )
    with pytest.raises(HoldfastError, match="row 3: a mask of 31×20 pixels for an image of 30×20"):
        import_layout("cub-200", cub, tmp_path / "out")


def test_a_box_a_pixel_over_the_border_is_cut(cub: Path, tmp_path: Path) -> None:
    edit(cub / "bounding_boxes.txt", "2 0.0 0.0 30.0 20.0", "2 -1.0 0.0 32.0 21.0")
    import_layout("cub-200", cub, tmp_path / "out")
    assert load(tmp_path / "out", "train").batch([0])["boxes"].tolist() == [[0.0, 0.0, 30.0, 20.0]]


@pytest.mark.parametrize("skip", [True, False])
def test_missing_tables_and_broken_classes_always_stop(
    cub: Path, tmp_path: Path, skip: bool
) -> None:
    edit(cub / "classes.txt", "2 002.Laysan_Albatross", "2")
    with pytest.raises(HoldfastError, match=r"classes.txt, row 2: expected 2 values, got '2'"):
        import_layout("cub-200", cub, tmp_path / "out", skip)
    (cub / "classes.txt").unlink()
    with pytest.raises(HoldfastError, match=r"classes.txt is missing"):
        import_layout("cub-200", cub, tmp_path / "out", skip)
    (cub / "images.txt").unlink()
    with pytest.raises(HoldfastError, match="images.txt is missing, by which this layout is known"):
        import_layout("cub-200", cub, tmp_path / "out", skip)


def test_nothing_left_is_refused(cub: Path, tmp_path: Path) -> None:
    (cub / "bounding_boxes.txt").write_text("")
    with pytest.raises(HoldfastError, match="there is no image to import; .*row 1: image 1 has no"):
        import_layout("cub-200", cub, tmp_path / "out", skip_broken=True)


def test_what_is_there_already_stays(cub: Path, tmp_path: Path) -> None:
    import_layout("cub-200", cub, tmp_path / "out")
    before = (tmp_path / "out/train.parquet").read_bytes()
    with pytest.raises(HoldfastError, match="parquet is there already; choose an empty folder"):
        import_layout("cub-200", cub, tmp_path / "out")
    assert (tmp_path / "out/train.parquet").read_bytes() == before


def test_unknown_layouts_and_folders_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="layout: expected one of cub-200, .*got 'imagenet'"):
        import_layout("imagenet", tmp_path, tmp_path / "out")
    with pytest.raises(InputError, match="src: expected a folder that exists"):
        import_layout("gtsrb", tmp_path / "nowhere", tmp_path / "out")


@pytest.fixture
def tiny(tmp_path: Path, write_image: WriteImage) -> Path:
    """Two classes of Tiny ImageNet, three images to train on and two of "val"."""
    root = tmp_path / "tiny-imagenet-200"
    (root / "val").mkdir(parents=True)
    (root / "wnids.txt").write_text("n02124075\nn01443537\n")
    (root / "words.txt").write_text(
        "n00001740\tentity\nn01443537\tgoldfish, Carassius auratus\nn02124075\tEgyptian cat\n"
    )
    for seed, (key, number) in enumerate((("n02124075", 0), ("n02124075", 7), ("n01443537", 0))):
        name = f"tiny-imagenet-200/train/{key}/images/{key}_{number}.JPEG"
        write_image(name, (64, 64, 3), seed)
    (root / "train/n02124075/n02124075_boxes.txt").write_text(
        "n02124075_0.JPEG\t0\t10\t63\t58\nn02124075_7.JPEG\t5\t6\t7\t8\n"
    )
    (root / "train/n01443537/n01443537_boxes.txt").write_text("n01443537_0.JPEG\t0\t0\t63\t63\n")
    for number in (0, 1):
        write_image(f"tiny-imagenet-200/val/images/val_{number}.JPEG", (64, 64), 10 + number)
    (root / "val/val_annotations.txt").write_text(
        "val_0.JPEG\tn01443537\t0\t32\t44\t62\nval_1.JPEG\tn02124075\t52\t55\t57\t59\n"
    )
    return root


def test_tiny_imagenet(tiny: Path, tmp_path: Path) -> None:
    imported = import_layout("tiny-imagenet", tiny, tmp_path / "out")

    assert imported.images == {"train": 3, "test": 2}
    train, test = (load(tmp_path / "out", split, channels=3) for split in ("train", "test"))
    assert train.classes == test.classes == ("Egyptian cat", "goldfish")
    assert train.labels.tolist() == [0, 0, 1]
    assert test.labels.tolist() == [1, 0]
    assert train.batch([0, 2])["boxes"].tolist() == [
        [0.0, 10.0, 64.0, 59.0],
        [0.0, 0.0, 64.0, 64.0],
    ]
    assert test.batch([0])["boxes"].tolist() == [[0.0, 32.0, 45.0, 63.0]]
    written = np.asarray(Image.open(tiny / "train/n02124075/images/n02124075_7.JPEG"))
    assert np.array_equal(values(train)[1], written)


def test_classes_of_one_name_are_told_apart(tiny: Path, tmp_path: Path) -> None:
    (tiny / "words.txt").write_text("n01443537\tcrane, bird\nn02124075\tcrane\n")
    import_layout("tiny-imagenet", tiny, tmp_path / "out")
    classes = load(tmp_path / "out", "train").classes
    assert classes == ("crane (n02124075)", "crane (n01443537)")


def test_a_wrong_label_of_tiny_imagenet_is_named(tiny: Path, tmp_path: Path) -> None:
    edit(tiny / "val/val_annotations.txt", "n02124075", "n99999999")
    with pytest.raises(
        HoldfastError, match="val_annotations.txt, row 2: class 'n99999999' is none"
    ):
        import_layout("tiny-imagenet", tiny, tmp_path / "out")
    assert import_layout("tiny-imagenet", tiny, tmp_path / "out", True).images["test"] == 1


HEADER = "Filename;Width;Height;Roi.X1;Roi.Y1;Roi.X2;Roi.Y2;ClassId\n"


@pytest.fixture
def gtsrb(tmp_path: Path, write_image: WriteImage) -> Path:
    """Two classes of traffic signs, in the form of the published archives."""
    root = tmp_path / "GTSRB"
    for seed, label in enumerate((0, 42)):
        folder = f"{label:05d}"
        write_image(f"GTSRB/Final_Training/Images/{folder}/00000_00000.ppm", (30, 29, 3), seed)
        (root / f"Final_Training/Images/{folder}/GT-{folder}.csv").write_text(
            f"{HEADER}00000_00000.ppm;29;30;5;6;24;25;{label}\n"
        )
    write_image("GTSRB/Final_Test/Images/00000.ppm", (54, 53, 3), 5)
    (root / "Final_Test/Images/GT-final_test.test.csv").write_text("Filename;Width;Height\n")
    (root / "Final_Test/Images/GT-final_test.csv").write_text(
        f"{HEADER}00000.ppm;53;54;6;5;48;49;16\n"
    )
    return root


def test_gtsrb(gtsrb: Path, tmp_path: Path, write_image: WriteImage) -> None:
    imported = import_layout("gtsrb", gtsrb, tmp_path / "out")

    assert imported.images == {"train": 2, "test": 1}
    train, test = (load(tmp_path / "out", split) for split in ("train", "test"))
    assert len(train.classes) == 43
    assert train.labels.tolist() == [0, 42]
    assert test.labels.tolist() == [16]
    assert train.batch([0])["boxes"].tolist() == [[5.0, 6.0, 24.0, 25.0]]
    assert np.array_equal(values(train)[1], write_image("again.png", (30, 29, 3), 1))


def test_the_labels_of_the_test_signs_may_lie_elsewhere(gtsrb: Path, tmp_path: Path) -> None:
    truth = gtsrb / "Final_Test/Images/GT-final_test.csv"
    truth.rename(gtsrb / truth.name)
    assert import_layout("gtsrb", gtsrb, tmp_path / "out").images["test"] == 1
    (gtsrb / truth.name).unlink()
    with pytest.raises(HoldfastError, match=r"GT-final_test.csv is missing"):
        import_layout("gtsrb", gtsrb, tmp_path / "again")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("ClassId", "Class", r"GT-00042.csv: no column ClassId; its columns are Filename, Width"),
        (";42", ";41", r"GT-00042.csv, row 2: class 41 in folder 00042"),
        (";42", ";", r"GT-00042.csv, row 2: expected numbers"),
        (";42", "", r"GT-00042.csv, row 2: expected 6 values"),
        ("24;25", "240;25", r"GT-00042.csv, row 2: box 5, 6, 240, 25 is not inside"),
    ],
)
def test_broken_tables_of_signs_are_named(
    gtsrb: Path, tmp_path: Path, old: str, new: str, message: str
) -> None:
    edit(gtsrb / "Final_Training/Images/00042/GT-00042.csv", old, new)
    with pytest.raises(HoldfastError, match=message):
        import_layout("gtsrb", gtsrb, tmp_path / "out")


def test_a_class_of_test_signs_that_does_not_exist_is_named(gtsrb: Path, tmp_path: Path) -> None:
    edit(gtsrb / "Final_Test/Images/GT-final_test.csv", ";16", ";43")
    with pytest.raises(
        HoldfastError, match="GT-final_test.csv, row 2: class 43 is none of 0 to 42"
    ):
        import_layout("gtsrb", gtsrb, tmp_path / "out")


def test_a_tenth_of_the_tracks_is_held_out(
    gtsrb: Path, tmp_path: Path, write_image: WriteImage
) -> None:
    """Of eleven tracks of two pictures the first and the last: a tenth, rounded up."""
    folder = gtsrb / "Final_Training/Images/00042"
    names = [f"{track:05d}_{picture:05d}.ppm" for track in range(11) for picture in range(2)]
    for name in names:
        write_image(f"GTSRB/Final_Training/Images/00042/{name}", (30, 29, 3), 1)
    rows = "".join(f"{name};29;30;5;6;24;25;42\n" for name in names)
    (folder / "GT-00042.csv").write_text(HEADER + rows)
    imported = import_layout("gtsrb-tracks", gtsrb, tmp_path / "out")
    assert imported.images == {"train": 18, "validation": 5, "test": 1}
    held = pq.read_table(tmp_path / "out/validation.parquet")["image"].to_pylist()
    expected = [names[n].replace(".ppm", ".png") for n in (0, 1, 20, 21)]
    assert [image["path"] for image in held[1:]] == expected
    (folder / "GT-00042.csv").write_text(f"{HEADER}plain.ppm;29;30;5;6;24;25;42\n")
    with pytest.raises(HoldfastError, match=r"row 2: expected TRACK_PICTURE.ppm, got 'plain.ppm'"):
        import_layout("gtsrb-tracks", gtsrb, tmp_path / "again")


def test_the_held_out_tracks_make_the_papers_numbers() -> None:
    """The pictures of each class in the official training set; one track lacks a picture."""
    text = (
        "210 2220 2250 1410 1980 1860 420 1440 1410 1470 2010 1320 2100 2160 780 630 420 1110 1200 "
        "210 360 330 390 510 270 1500 600 240 540 270 450 780 240 689 420 1200 390 210 2070 300 "
        "360 240 240"
    )
    pictures = [int(count) for count in text.split()]
    assert sum(pictures) == 39_209
    tracks = [-(-count // 30) for count in pictures]
    held = sum(30 * len([t for t in range(n) if t % layouts._TRACKS == 0]) for n in tracks)
    assert (39_209 - held, held) == (34_799, 4_410)


@pytest.fixture
def flowers(tmp_path: Path, write_image: WriteImage) -> Path:
    """Five flowers, one of them with a trimap."""
    for number in (1, 80, 81, 1281, 1360):
        write_image(f"17flowers/jpg/image_{number:04d}.jpg", (20, 24, 3), number)
    trimap = np.zeros((20, 24), dtype=np.uint8)
    trimap[5:9, 6:10], trimap[0:3], trimap[15:] = 1, 2, 3
    image = Image.fromarray(trimap, "P")
    image.putpalette([0, 0, 0, 128, 0, 0, 0, 128, 0, 128, 128, 128])
    (tmp_path / "17flowers/trimaps").mkdir()
    image.save(tmp_path / "17flowers/trimaps/image_0081.png")
    savemat(
        tmp_path / "17flowers/datasplits.mat",
        {
            "trn1": np.array([[81, 1]], dtype=np.uint16),
            "val1": np.array([[1281]], dtype=np.uint16),
            "tst1": np.array([[1360, 80]], dtype=np.uint16),
            "trn2": np.array([[80]], dtype=np.uint16),
        },
    )
    return tmp_path / "17flowers"


def test_flowers(flowers: Path, tmp_path: Path) -> None:
    imported = import_layout("flower-17", flowers, tmp_path / "out")

    assert imported.images == {"train": 2, "validation": 1, "test": 2}
    train, test = (load(tmp_path / "out", split) for split in ("train", "test"))
    assert (train.classes[0], train.classes[16]) == ("daffodil", "pansy")
    assert train.labels.tolist() == [1, 0]
    assert test.labels.tolist() == [16, 0]
    masks = train.batch([0, 1])["masks"]
    expected = torch.zeros(20, 24)
    expected[5:9, 6:10] = 1
    assert torch.equal(masks[0], expected)
    assert masks[1].isnan().all()
    own = load(tmp_path / "out", "test", test_split="validation")
    assert own.labels.tolist() == [16]


def test_broken_flowers_are_named(flowers: Path, tmp_path: Path) -> None:
    (flowers / "trimaps/image_0081.png").write_bytes(b"nonsense")
    with pytest.raises(HoldfastError, match=r"image_0081.png cannot be read"):
        import_layout("flower-17", flowers, tmp_path / "out")
    savemat(flowers / "datasplits.mat", {"trn1": [[1361]], "val1": [[1]], "tst1": [[80]]})
    with pytest.raises(HoldfastError, match="trn1, entry 1: image 1361 is none of 1 to 1360"):
        import_layout("flower-17", flowers, tmp_path / "out")
    savemat(flowers / "datasplits.mat", {"trn1": [[1]], "tst1": [[80]]})
    with pytest.raises(HoldfastError, match="datasplits.mat: no variable val1"):
        import_layout("flower-17", flowers, tmp_path / "out")
    (flowers / "datasplits.mat").write_bytes(b"nonsense")
    with pytest.raises(HoldfastError, match="datasplits.mat cannot be read"):
        import_layout("flower-17", flowers, tmp_path / "out")
    (flowers / "datasplits.mat").unlink()
    with pytest.raises(HoldfastError, match="datasplits.mat is missing"):
        import_layout("flower-17", flowers, tmp_path / "out")


def test_the_papers_split_of_flowers(flowers: Path) -> None:
    """72 and 8 of each class, drawn as the public code does with its seed."""
    layout = layouts.LAYOUTS["flower-17-72-8"](flowers)
    found = [find() for find in layout.images]
    train, test = ([one for one in found if one.split == split] for split in ("train", "test"))
    assert (len(train), len(test)) == (1224, 136)
    assert np.bincount([one.label for one in train]).tolist() == [72] * 17
    assert len({str(one.image) for one in found}) == 1360
    # The public code once more: folders sorted as text, shuffled, the first 72 of each to train on.
    files = [
        (k, f"image_{80 * k + n:04d}.jpg")
        for k in map(int, sorted(map(str, range(17))))
        for n in range(1, 81)
    ]
    np.random.seed(4557077)
    shuffled = [files[place] for place in np.random.permutation(1360)]
    counts, expected = [0] * 17, []
    for label, name in shuffled:
        if counts[label] >= 72:
            expected.append((label, name))
        counts[label] += 1
    assert [(one.label, one.image.name) for one in test] == expected  # type: ignore[union-attr]


@pytest.fixture
def cifar(tmp_path: Path) -> Path:
    """Two corruptions of two images at five severities."""
    root = tmp_path / "CIFAR-10-C"
    root.mkdir()
    np.save(root / "labels.npy", np.array([3, 8] * 5, dtype=np.uint8))
    for seed, name in enumerate(("fog", "gaussian_noise")):
        pixels = np.random.default_rng(seed).integers(0, 256, (10, 32, 32, 3), dtype=np.uint8)
        np.save(root / f"{name}.npy", pixels)
    return root


def test_cifar_c(cifar: Path, tmp_path: Path) -> None:
    imported = import_layout("cifar-10-c", cifar, tmp_path / "out")

    assert len(imported.images) == 10
    assert set(imported.images.values()) == {2}
    for corruption in ("fog", "gaussian_noise"):
        pixels = np.load(cifar / f"{corruption}.npy")
        for severity in range(1, 6):
            data = load(tmp_path / f"out/{corruption}/{severity}", "test")
            assert np.array_equal(values(data), pixels[2 * severity - 2 : 2 * severity])
            assert data.labels.tolist() == [3, 8]
            assert data.classes[8] == "ship"


def test_broken_arrays_of_cifar_c_are_named(cifar: Path, tmp_path: Path) -> None:
    np.save(cifar / "labels.npy", np.array([3, 8, 3, 10, 3, 8, 3, 8, 3, 8]))
    with pytest.raises(HoldfastError, match="fog.npy, row 3: class 10 is none of 0 to 9"):
        import_layout("cifar-10-c", cifar, tmp_path / "out")
    np.save(cifar / "labels.npy", np.arange(9))
    with pytest.raises(HoldfastError, match=r"labels.npy: expected one label an image.* \(9,\)"):
        import_layout("cifar-10-c", cifar, tmp_path / "out")
    np.save(cifar / "labels.npy", np.arange(5))
    with pytest.raises(HoldfastError, match=r"fog.npy: expected uint8 \(5, 32.* \(10, 32, 32, 3\)"):
        import_layout("cifar-10-c", cifar, tmp_path / "out")
    (cifar / "labels.npy").write_bytes(b"nonsense")
    with pytest.raises(HoldfastError, match="labels.npy cannot be read"):
        import_layout("cifar-10-c", cifar, tmp_path / "out")


# --- paths that leave the source folder ----------------------------------------------------------


@pytest.fixture
def secret(tmp_path: Path, write_image: WriteImage) -> Path:
    """A picture that lies beside the source, and is none of its business."""
    write_image("elsewhere/secret.png", (20, 30, 3), 99)
    return tmp_path / "elsewhere" / "secret.png"


@pytest.mark.parametrize("absolute", [False, True])
def test_a_bird_outside_of_the_source_is_refused(cub: Path, secret: Path, absolute: bool) -> None:
    """Even where the classes are named so that it fits."""
    name = str(secret) if absolute else "../../elsewhere/secret.png"
    edit(cub / "images.txt", "002.Laysan_Albatross/Laysan_Albatross_0002_1027.png", name)
    edit(cub / "classes.txt", "002.Laysan_Albatross", "/" if absolute else "..")
    edit(cub / "images.txt", "4 002.Laysan_Albatross", f"4 {'/' if absolute else '..'}")
    with pytest.raises(HoldfastError, match=r"images\.txt, row 3: .* leads out of"):
        import_layout("cub-200", cub, cub.parent / "out")
    assert not (cub.parent / "out").exists()


def test_a_way_out_and_in_again_is_refused(cub: Path) -> None:
    edit(cub / "images.txt", "3 002.", "3 002.Laysan_Albatross/../../images/002.")
    with pytest.raises(HoldfastError, match="row 3: .* leads out of"):
        import_layout("cub-200", cub, cub.parent / "out")


@pytest.mark.parametrize("name", [".", "/", "a\0b", "x" * 5_000])
def test_a_bird_without_a_name_is_broken(cub: Path, name: str) -> None:
    old = "002.Laysan_Albatross/Laysan_Albatross_0002_1027.png"
    edit(cub / "images.txt", old, name if name in "./" else f"002.Laysan_Albatross/{name}.png")
    with pytest.raises(HoldfastError, match="row 3"):
        import_layout("cub-200", cub, cub.parent / "out")


@pytest.mark.parametrize("folder", ["images", "segmentations"])
def test_links_out_of_the_source_are_refused_and_others_followed(
    cub: Path, secret: Path, folder: str
) -> None:
    bird = cub / folder / "002.Laysan_Albatross/Laysan_Albatross_0002_1027.png"
    bird.rename(bird.with_name("real.png"))
    bird.symlink_to("real.png")
    import_layout("cub-200", cub, cub.parent / "followed")
    bird.unlink()
    bird.symlink_to(secret)
    with pytest.raises(HoldfastError, match=r"row 3: .*1027\.png leads out of"):
        import_layout("cub-200", cub, cub.parent / "out")
    bird.unlink()
    bird.symlink_to(bird.name)
    with pytest.raises(HoldfastError, match="row 3"):
        import_layout("cub-200", cub, cub.parent / "out")


@pytest.mark.parametrize("table", ["images.txt", "classes.txt", "bounding_boxes.txt"])
def test_tables_that_are_links_out_pipes_or_folders_are_refused(
    cub: Path, tmp_path: Path, table: str
) -> None:
    (cub / table).rename(tmp_path / "moved.txt")
    (cub / table).symlink_to(tmp_path / "moved.txt")
    with pytest.raises(HoldfastError, match=rf"{table} leads out of"):
        import_layout("cub-200", cub, tmp_path / "out")
    (cub / table).unlink()
    os.mkfifo(cub / table)
    with pytest.raises(HoldfastError, match="missing"):
        import_layout("cub-200", cub, tmp_path / "out")
    (cub / table).unlink()
    (cub / table).mkdir()
    with pytest.raises(HoldfastError, match="missing"):
        import_layout("cub-200", cub, tmp_path / "out")


def test_signs_and_validation_images_outside_of_the_source(
    gtsrb: Path, tiny: Path, tmp_path: Path, secret: Path
) -> None:
    assert secret.is_file()
    table = next(gtsrb.rglob("GT-0*.csv"))
    lines = table.read_text().splitlines()
    lines[1] = f"../../../../../elsewhere/secret.png;{lines[1].partition(';')[2]}"
    table.write_text("\n".join(lines))
    with pytest.raises(HoldfastError, match="row 2: .* leads out of"):
        import_layout("gtsrb", gtsrb, tmp_path / "out")
    table = next(tiny.rglob("val_annotations.txt"))
    lines = table.read_text().splitlines()
    lines[0] = f"../../../elsewhere/secret.png\t{lines[0].partition(chr(9))[2]}"
    table.write_text("\n".join(lines))
    with pytest.raises(HoldfastError, match="row 1: .* leads out of"):
        import_layout("tiny-imagenet", tiny, tmp_path / "out")


def test_a_corruption_that_is_called_like_a_way_out(cifar: Path, tmp_path: Path) -> None:
    file = next(path for path in cifar.rglob("*.npy") if path.name != "labels.npy")
    file.rename(file.with_name("...npy"))
    with pytest.raises(HoldfastError, match="is no name of a split"):
        import_layout("cifar-10-c", file.parent, tmp_path / "a" / "out")


@pytest.mark.parametrize(
    "labels",
    [
        np.array([0.5] * 5),
        np.array([np.nan] * 5),
        np.array(["a"] * 5),
        np.array([None] * 5),
        np.array([-1] * 5),
        np.array([2**62] * 5),
        np.array(7),
    ],
    ids=repr,
)
def test_labels_that_are_none(cifar: Path, tmp_path: Path, labels: np.ndarray) -> None:
    file = next(cifar.rglob("labels.npy"))
    count = len(np.load(file))
    if labels.ndim:
        labels = np.repeat(labels, count // 5)
    np.save(file, labels, allow_pickle=True)
    with pytest.raises(HoldfastError):
        import_layout("cifar-10-c", file.parent, tmp_path / "out")


@pytest.mark.parametrize(
    "header",
    ["Filename;Width\n", "a\0b\n", f"{'x' * 200_000}\n", "\n", '"', ""],
    ids=lambda h: h[:9],
)
def test_tables_of_signs_that_are_none(gtsrb: Path, tmp_path: Path, header: str) -> None:
    next(gtsrb.rglob("GT-0*.csv")).write_text(header)
    with pytest.raises(HoldfastError, match=r"GT-0"):
        import_layout("gtsrb", gtsrb, tmp_path / "out")


@pytest.mark.parametrize(
    "wrong", [[np.nan], [np.inf], [0.5], ["a"], {"a": 1}, [2**62], []], ids=repr
)
def test_splits_of_flowers_that_are_none(flowers: Path, tmp_path: Path, wrong: Any) -> None:
    file = next(flowers.rglob("datasplits.mat"))
    savemat(file, {"trn1": wrong, "val1": [[1]], "tst1": [[2**40]]})
    with pytest.raises(HoldfastError):
        import_layout("flower-17", flowers, tmp_path / "out")


def test_folders_that_cannot_be(tmp_path: Path) -> None:
    for path in ("x" * 5_000, "a\0b", "~nobody-of-this-name/data"):
        with pytest.raises(InputError, match="src: "):
            import_layout("cub-200", path, tmp_path / "out")
        with pytest.raises(HoldfastError):
            import_layout("cub-200", tmp_path, path)
