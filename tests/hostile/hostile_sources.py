"""Sound folders, to make malformed ones of: images, tables, published layouts."""

import csv
import io
import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image
from scipy.io import savemat

__all__ = ["png", "write_sources"]


def png(seed=0, shape=(8, 8), kind="PNG"):
    """Return the bytes of a small random picture."""
    pixels = np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, kind)
    return file.getvalue()


def write_sources(root):
    """Write folders ``pictures``, ``table`` and one a layout."""
    for split in ("train", "test"):
        rows = []
        for number in range(10):
            name = str(number)
            folder = root / "pictures" / split / name
            folder.mkdir(parents=True)
            (folder / "0.png").write_bytes(png(number))
            box = [1.0, 1.0, 5.0, 6.0]
            rows.append({"image": {"bytes": png(number)}, "label": number, "bbox": box})
        (root / "table").mkdir(exist_ok=True)
        pq.write_table(pa.Table.from_pylist(rows), root / "table" / f"{split}.parquet")
    _cub(root / "cub-200")
    _tiny(root / "tiny-imagenet")
    _gtsrb(root / "gtsrb")
    _flower(root / "flower-17")
    _cifar_c(root / "cifar-10-c")


def _cub(root):
    names = [f"{c:03d}.Bird_{c}/a_{n}.png" for c in (1, 2) for n in (1, 2)]
    _images(root / "images", names)
    texts = {
        "images": [f"{i} {name}" for i, name in enumerate(names, 1)],
        "image_class_labels": ["1 1", "2 1", "3 2", "4 2"],
        "classes": ["1 001.Bird_1", "2 002.Bird_2"],
        "train_test_split": ["1 0", "2 1", "3 1", "4 0"],
        "bounding_boxes": [f"{i} 1.0 1.0 5.0 6.0" for i in range(1, 5)],
    }
    for name, lines in texts.items():
        (root / f"{name}.txt").write_text("\n".join(lines) + "\n")


def _tiny(root):
    keys = ["n01443537", "n01629819"]
    for key in keys:
        names = [f"{key}_{n}.JPEG" for n in range(2)]
        _images(root / "train" / key / "images", names)
        lines = [f"{name}\t0\t0\t5\t6" for name in names]
        (root / "train" / key / f"{key}_boxes.txt").write_text("\n".join(lines) + "\n")
    names = [f"val_{n}.JPEG" for n in range(2)]
    _images(root / "val" / "images", names)
    lines = [f"{name}\t{key}\t0\t0\t5\t6" for name, key in zip(names, keys, strict=True)]
    (root / "val" / "val_annotations.txt").write_text("\n".join(lines) + "\n")
    (root / "wnids.txt").write_text("\n".join(keys) + "\n")
    (root / "words.txt").write_text("n01443537\tgoldfish\nn01629819\tsalamander\n")


def _gtsrb(root):
    columns = ["Filename", "Width", "Height", "Roi.X1", "Roi.Y1", "Roi.X2", "Roi.Y2", "ClassId"]
    folders = {"Final_Training/Images/00000": 0, "Final_Training/Images/00001": 1}
    for folder, label in [*folders.items(), ("Final_Test/Images", 1)]:
        _images(root / folder, ["0.ppm", "1.ppm"])
        name = "GT-final_test.csv" if "Test" in folder else f"GT-{folder[-5:]}.csv"
        with (root / folder / name).open("w", newline="") as file:
            table = csv.writer(file, delimiter=";")
            table.writerow(columns)
            table.writerows([[f"{n}.ppm", 8, 8, 1, 1, 6, 6, label] for n in range(2)])


def _flower(root):
    names = [f"image_{n:04d}.jpg" for n in range(1, 1361)]
    (root / "jpg").mkdir(parents=True)
    content = png(0, (8, 8, 3), "JPEG")
    for name in names[:3] + names[80:83]:
        (root / "jpg" / name).write_bytes(content)
    splits = {"trn1": [1, 81], "val1": [2, 82], "tst1": [3, 83]}
    savemat(root / "datasplits.mat", {key: np.array([v]) for key, v in splits.items()})


def _cifar_c(root):
    root.mkdir(parents=True)
    np.save(root / "labels.npy", np.array([3, 8] * 5))
    np.save(root / "fog.npy", np.zeros((10, 32, 32, 3), dtype=np.uint8))
    (root / "note.json").write_text(json.dumps({"from": "nobody"}))


def _images(folder, names):
    folder.mkdir(parents=True)
    for seed, name in enumerate(names):
        (folder / name).parent.mkdir(exist_ok=True)
        kind = {"png": "PNG", "JPEG": "JPEG", "ppm": "PPM"}[name.rpartition(".")[2]]
        (folder / name).write_bytes(png(seed, (8, 8, 3), kind))
