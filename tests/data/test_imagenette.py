from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from holdfast.cli import main
from holdfast.contracts import HoldfastError, InputError
from holdfast.data import ImageData, import_layout

WriteImage = Callable[..., np.ndarray]
TENCH, CHURCH = "n01440764", "n03028079"


def annotation(wnid: str, *boxes: tuple[int, ...], size: tuple[int, int] = (100, 60)) -> str:
    corners = ("xmin", "ymin", "xmax", "ymax")
    objects = "".join(
        f"<object><name>{wnid}</name><pose>Unspecified</pose><bndbox>"
        + "".join(f"<{n}>{v}</{n}>" for n, v in zip(corners, box, strict=True))
        + "</bndbox></object>"
        for box in boxes
    )
    width, height = size
    return (
        f"<annotation><folder>{wnid}</folder><filename>x</filename><size><width>{width}</width>"
        f"<height>{height}</height><depth>3</depth></size>{objects}</annotation>\n"
    )


@pytest.fixture
def nette(tmp_path: Path, write_image: WriteImage) -> Path:
    """Four images of 50×30 pixels, made of photographs of 100×60; three have annotations."""
    for name in (
        f"train/{TENCH}/{TENCH}_10.JPEG",
        f"train/{CHURCH}/{CHURCH}_7.JPEG",
        f"train/{CHURCH}/ILSVRC2012_val_00000003.JPEG",
        f"val/{TENCH}/{TENCH}_11.JPEG",
    ):
        write_image(f"src/imagenette2-320/{name}", (30, 50, 3), 1)
    boxes = tmp_path / "ILSVRC/Annotations/CLS-LOC"
    for name, text in {
        f"train/{TENCH}/{TENCH}_10.xml": annotation(TENCH, (0, 10, 40, 30), (20, 0, 100, 60)),
        "val/ILSVRC2012_val_00000003.xml": annotation(CHURCH, (10, 6, 30, 40)),
        f"train/{TENCH}/{TENCH}_11.xml": annotation(TENCH, (2, 4, 6, 8), size=(50, 30)),
        f"train/{TENCH}/{TENCH}_99.xml": "<of no image",
    }.items():
        (boxes / name).parent.mkdir(parents=True, exist_ok=True)
        (boxes / name).write_text(text)
    return tmp_path / "src"


def boxes_of(folder: Path, split: str) -> list[list[float]]:
    data = ImageData(str(folder)).load(split)  # type: ignore[arg-type]
    return data.batch(range(len(data))).get("boxes", np.empty(0)).tolist()


def test_boxes_come_from_the_annotations(nette: Path, tmp_path: Path) -> None:
    imported = import_layout("imagenette", nette, tmp_path / "out", boxes=tmp_path / "ILSVRC")
    assert imported.images == {"train": 3, "test": 1}
    train = ImageData(str(tmp_path / "out")).load("train")
    assert train.classes == ("tench", "church")
    assert train.labels.tolist() == [0, 1, 1]
    first, second, third = boxes_of(tmp_path / "out", "train")
    assert sorted([second, third], key=str)[0] == [5.0, 3.0, 15.0, 20.0]
    assert first == [10.0, 0.0, 50.0, 30.0]  # the larger of two, at half the size
    assert np.isnan([second, third]).sum() == 4  # one church has no annotation
    assert boxes_of(tmp_path / "out", "test") == [[2.0, 4.0, 6.0, 8.0]]


def test_annotations_may_lie_beside_the_images_or_nowhere(nette: Path, tmp_path: Path) -> None:
    assert import_layout("imagenette", nette, tmp_path / "none").images["train"] == 3
    assert boxes_of(tmp_path / "none", "test") == []
    (tmp_path / "ILSVRC/Annotations").rename(nette / "Annotations")
    import_layout("imagenette", nette, tmp_path / "out")
    assert boxes_of(tmp_path / "out", "test") == [[2.0, 4.0, 6.0, 8.0]]


def test_the_command_takes_the_folder_of_boxes(nette: Path, tmp_path: Path) -> None:
    folders = [str(nette), str(tmp_path / "out"), "--boxes", str(tmp_path / "ILSVRC")]
    main(["data", "import", "imagenette", *folders])
    assert boxes_of(tmp_path / "out", "test") == [[2.0, 4.0, 6.0, 8.0]]


LAUGHS = "".join(f'<!ENTITY l{n} "{f"&l{n - 1};" * 10}">' for n in range(1, 10))
GOOD = annotation(TENCH, (0, 10, 40, 30))


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (f'<!DOCTYPE a [<!ENTITY l0 "ha">{LAUGHS}]><annotation>&l9;</annotation>', "document type"),
        (f'<!DOCTYPE a [<!ENTITY x SYSTEM "file:///etc/passwd">]>{GOOD}', "document type"),
        (f'<!DOCTYPE a SYSTEM "http://127.0.0.1/a.dtd">{GOOD}', "document type"),
        (GOOD.replace("<width>100", "<width>&x;"), "undefined entity"),
        (GOOD[:-20], "cannot be read: "),
        ("", "cannot be read: no element found"),
        ('<?xml version="1.0" encoding="nonsense"?><annotation/>', "cannot be read: "),
        ("<html/>", "expected an annotation, got 'html'"),
        ("<a>" * 60_000, "cannot be read: |bytes, more than annotations have"),
        ("<a>" * 80_000, "240,000 bytes, more than annotations have"),
        (GOOD.replace("<xmin>0", "<xmin>left"), "expected a number as bndbox/xmin, got 'left'"),
        (GOOD.replace("<xmin>0", "<xmin>nan"), "expected a number as bndbox/xmin, got 'nan'"),
        (GOOD.replace("<xmax>40", "<xmax>0"), "holds no pixel"),
        (GOOD.replace("<xmax>40", "<xmax>4000"), "is not inside its image of 50×30"),
        (annotation(CHURCH, (0, 10, 40, 30)), f"no object of class {TENCH}"),
        (annotation(TENCH, (0, 10, 40, 30), size=(0, 60)), "size/width is 0"),
        (annotation(TENCH, (0, 10, 40, 30), size=(60, 60)), "of other proportions than 50×30"),
    ],
)
def test_hostile_and_broken_annotations_are_named_or_skipped(
    nette: Path, tmp_path: Path, text: str, says: str
) -> None:
    file = tmp_path / f"ILSVRC/Annotations/CLS-LOC/train/{TENCH}/{TENCH}_10.xml"
    file.write_text(text)
    with pytest.raises(HoldfastError, match=says) as fault:
        import_layout("imagenette", nette, tmp_path / "out", boxes=tmp_path / "ILSVRC")
    assert str(file) in str(fault.value)
    skipped = import_layout("imagenette", nette, tmp_path / "o", True, tmp_path / "ILSVRC")
    assert skipped.images == {"train": 2, "test": 1}


def test_an_annotation_that_is_a_link_out_is_refused(nette: Path, tmp_path: Path) -> None:
    file = tmp_path / f"ILSVRC/Annotations/CLS-LOC/train/{TENCH}/{TENCH}_10.xml"
    file.rename(tmp_path / "secret.xml")
    file.symlink_to(tmp_path / "secret.xml")
    with pytest.raises(HoldfastError, match="leads out of"):
        import_layout("imagenette", nette, tmp_path / "out", boxes=tmp_path / "ILSVRC")


@pytest.mark.usefixtures("own_errors")
def test_folders_that_do_not_fit_are_refused(nette: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="boxes: expected a folder that exists"):
        import_layout("imagenette", nette, tmp_path / "out", boxes=tmp_path / "nowhere")
    with pytest.raises(HoldfastError, match="holds no annotations"):
        import_layout("imagenette", nette, tmp_path / "out", boxes=nette)
    with pytest.raises(InputError, match="boxes: expected none: this layout has its own"):
        import_layout("gtsrb", nette, tmp_path / "out", boxes=tmp_path / "ILSVRC")
    with pytest.raises(HoldfastError, match="the folders of images"):
        import_layout("imagenette", tmp_path / "ILSVRC", tmp_path / "out")
