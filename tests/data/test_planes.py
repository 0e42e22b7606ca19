import io
from typing import Any

import datasets
import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms.v2 import functional as tv

from holdfast.contracts import HoldfastError
from holdfast.data.framing import Framing
from holdfast.data.planes import EncodedPlanes


def png(pixels: np.ndarray, mode: str | None = None) -> dict[str, Any]:
    buffer = io.BytesIO()
    image = Image.fromarray(pixels)
    (image.convert(mode) if mode else image).save(buffer, "PNG")
    return {"bytes": buffer.getvalue(), "path": None}


def planes_of(
    values: list[Any], kind: Any = "mask", size: tuple[int, int] = (2, 3), feature: Any = None
) -> EncodedPlanes:
    features = None if feature is None else datasets.Features(x=feature)
    table = datasets.Dataset.from_dict({"x": values}, features=features)
    framing = Framing(size, fit="squash")
    return EncodedPlanes(table, "x", list(range(len(values))), framing, kind)


SHAPE = np.array([[0, 1, 1], [0, 0, 1]], dtype=np.uint8)


@pytest.mark.parametrize(
    ("value", "feature"),
    [
        (png(SHAPE * 255), datasets.Image()),
        (png(SHAPE * 255), datasets.Image(decode=False)),
        (png(SHAPE * 255)["bytes"], None),
        (png(SHAPE), datasets.Image()),
        (png(SHAPE * 255, "1"), datasets.Image()),
        (png(SHAPE * 255, "RGB"), datasets.Image()),
        (SHAPE.tolist(), None),
        ((SHAPE * 255).tolist(), None),
        (SHAPE.astype(bool).tolist(), None),
        (SHAPE, datasets.Array2D(shape=(2, 3), dtype="uint8")),
    ],
)
def test_masks_of_any_form_are_the_same(value: Any, feature: Any) -> None:
    planes = planes_of([value], feature=feature)
    values, sizes = planes.read([0])
    assert values.tolist() == [SHAPE.tolist()]
    assert values.dtype == torch.float32
    assert sizes.tolist() == [[2, 3]]


def test_soft_masks_keep_their_shades() -> None:
    greys = np.array([[0, 51, 102], [153, 204, 255]], dtype=np.uint8)
    values, _ = planes_of([png(greys)], feature=datasets.Image()).read([0])
    torch.testing.assert_close(values[0], torch.arange(6).view(2, 3) / 5)


def test_saliency_keeps_sign_and_size() -> None:
    numbers = [[-2.5, 0.0, 1.0], [300.0, 0.25, -1.0]]
    assert planes_of([numbers], "saliency").read([0])[0].tolist() == [numbers]
    greys = np.array([[0, 51, 0], [0, 0, 1]], dtype=np.uint8)
    values, _ = planes_of([png(greys)], "saliency", feature=datasets.Image()).read([0])
    torch.testing.assert_close(values[0], torch.tensor(greys) / 255)


@pytest.mark.parametrize("form", ["images", "lists"])
def test_planes_are_resized_as_torchvision_does(form: str) -> None:
    plane = np.random.default_rng(0).integers(0, 256, (30, 20), dtype=np.uint8)
    if form == "images":
        planes = planes_of([png(plane)], size=(8, 12), feature=datasets.Image())
    else:
        planes = planes_of([plane.tolist()], size=(8, 12))

    values, sizes = planes.read([0])

    expected = tv.resize(torch.from_numpy(plane)[None] / 255, [8, 12], antialias=True)
    torch.testing.assert_close(values, expected)
    assert sizes.tolist() == [[30, 20]]


@pytest.mark.parametrize("feature", [datasets.Image(), None])
def test_a_row_may_have_none(feature: Any) -> None:
    value = png(SHAPE) if feature else SHAPE.tolist()
    values, sizes = planes_of([None, value], feature=feature).read([1, 0])
    assert values[0].tolist() == SHAPE.tolist()
    assert values[1].isnan().all()
    assert sizes.tolist() == [[2, 3], [0, 0]]


def test_memory_holds_the_same_as_reading() -> None:
    shapes = [SHAPE.tolist(), (1 - SHAPE).tolist(), None, [[1]]]
    planes = planes_of(shapes)
    decoded = planes.decode_all()
    assert len(planes) == len(decoded) == 4
    for indices in ([], [3, 0, 0], range(4)):
        for one, other in zip(planes.read(indices), decoded.read(indices), strict=True):
            torch.testing.assert_close(one, other, equal_nan=True)


@pytest.mark.parametrize("bad", [[[1, 2], [3]], [[0.5, None]], [[0.0, np.inf]], [], [[]]])
def test_what_is_no_rectangle_of_numbers_is_refused(bad: Any) -> None:
    feature = datasets.Sequence(datasets.Sequence(datasets.Value("float32")))
    planes = planes_of([[[1.0]], bad], feature=feature)
    with pytest.raises(HoldfastError, match="mask 1 is no rectangle of finite numbers"):
        planes.read([0, 1])


def test_an_unreadable_mask_is_named() -> None:
    broken = {"bytes": b"nonsense", "path": "m/1.png"}
    planes = planes_of([png(SHAPE), broken], feature=datasets.Image(decode=False))
    with pytest.raises(HoldfastError, match=r"mask 1 \(m/1.png\) cannot be read"):
        planes.read([1])
