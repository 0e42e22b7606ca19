"""What the harness of faults starts from: a trained run, and a data set to import."""

from pathlib import Path

import pytest
from PIL import Image

TINY = ("--data.limit=60", "--batch_size=20", "--trainer.max_epochs=6", "--quiet")


@pytest.fixture(scope="module")
def trained(command, tmp_path_factory) -> Path:
    """A run that was trained."""
    run = tmp_path_factory.mktemp("trained") / "run"
    done = command("train", "digits/natural", *TINY, "--out", run)
    assert done.status == 0, done.stderr
    return run


@pytest.fixture(scope="module")
def archive(tmp_path_factory) -> Path:
    """Tiny ImageNet as it is published, but tinier."""
    root = tmp_path_factory.mktemp("published") / "tiny-imagenet-200"
    (root / "val" / "images").mkdir(parents=True)
    names = ("n01443537", "n01629819")
    (root / "wnids.txt").write_text("\n".join(names))
    (root / "words.txt").write_text("\n".join(f"{name}\tanimal {name[-1]}" for name in names))
    rows = []
    for number, name in enumerate(names):
        (root / "train" / name / "images").mkdir(parents=True)
        boxes = []
        for place in range(200):
            file = f"{name}_{place}.JPEG"
            color = (place, 100 * number, 50)
            Image.new("RGB", (64, 64), color).save(root / "train" / name / "images" / file)
            boxes.append(f"{file}\t1\t2\t30\t40")
        (root / "train" / name / f"{name}_boxes.txt").write_text("\n".join(boxes))
        Image.new("RGB", (64, 64)).save(root / "val" / "images" / f"val_{number}.JPEG")
        rows.append(f"val_{number}.JPEG\t{name}\t1\t2\t30\t40")
    (root / "val" / "val_annotations.txt").write_text("\n".join(rows))
    return root
