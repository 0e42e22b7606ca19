import math
from typing import Any

import pytest
import torch
from torch import Tensor

from holdfast.contracts import InputError, check_images
from holdfast.data import Augmentation

EVERYTHING = Augmentation(
    crop=3, flip=True, rotation=30.0, translation=0.2, projection=0.3, colour_jitter=0.4
)


def picture(height: int = 24, width: int = 32) -> dict[str, Tensor]:
    """A white disc on black, its box, its mask and its saliency."""
    y, x = torch.meshgrid(torch.arange(height) + 0.5, torch.arange(width) + 0.5, indexing="ij")
    disc = ((y - 10) ** 2 + (x - 13) ** 2 <= 36).float()
    return {
        "images": disc.expand(3, height, width).clone(),
        "labels": torch.tensor(3),
        "boxes": torch.tensor([7.0, 4.0, 19.0, 16.0]),
        "masks": disc,
        "saliency": -disc,
    }


ONE_EACH = [
    Augmentation(crop=4),
    Augmentation(flip=True),
    Augmentation(rotation=40.0),
    Augmentation(translation=0.25),
    Augmentation(projection=0.4),
]


@pytest.mark.parametrize("augment", ONE_EACH)
def test_mask_saliency_and_box_go_along_with_the_image(augment: Augmentation) -> None:
    sample = picture()
    moved = 0
    for _ in range(20):
        changed = augment(sample)
        seen = changed["images"][0] > 0.5
        # Bilinear and nearest differ at the rim, of about 2π · 6 pixels, alone.
        assert (seen != (changed["masks"] > 0.5)).sum() <= 12
        assert torch.equal(changed["saliency"], -changed["masks"])
        rows, columns = seen.nonzero().unbind(1)
        x0, y0, x1, y1 = changed["boxes"].tolist()
        assert (x0 - 1 <= columns.min(), y0 - 1 <= rows.min()) == (True, True)
        assert (x1 + 1 >= columns.max() + 1, y1 + 1 >= rows.max() + 1) == (True, True)
        # A turned box grows, by √2 at most, and a projected one shrinks with the disc.
        assert (x1 - x0) * (y1 - y0) <= 2.2 * 144
        moved += not torch.equal(changed["images"], sample["images"])
    assert moved >= 5


def test_flipping_mirrors_every_other_time() -> None:
    sample = {
        "images": torch.rand(3, 4, 6),
        "boxes": torch.tensor([1.0, 0.0, 3.0, 2.0]),
        "masks": torch.rand(4, 6),
    }
    flips = 0
    for _ in range(200):
        changed = Augmentation(flip=True)(sample)
        if torch.equal(changed["images"], sample["images"]):
            assert all(torch.equal(changed[name], sample[name]) for name in sample)
            continue
        flips += 1
        assert torch.equal(changed["images"], sample["images"].flip(-1))
        assert torch.equal(changed["masks"], sample["masks"].flip(-1))
        assert changed["boxes"].tolist() == [3.0, 0.0, 5.0, 2.0]
    assert 70 <= flips <= 130


def test_cropping_shifts_by_any_whole_number_up_to_the_padding() -> None:
    sample = {"images": torch.rand(1, 5, 7) + 0.01, "boxes": torch.tensor([1.0, 1.0, 4.0, 3.0])}
    padded = torch.nn.functional.pad(sample["images"], (2, 2, 2, 2))
    found = set()
    for _ in range(300):
        changed = Augmentation(crop=2)(sample)
        top, left = next(
            (i, j)
            for i in range(5)
            for j in range(5)
            if torch.equal(padded[:, i : i + 5, j : j + 7], changed["images"])
        )
        found.add((top, left))
        x0, y0, x1, y1 = 1 + 2 - left, 1 + 2 - top, 4 + 2 - left, 3 + 2 - top
        expected = [max(x0, 0), max(y0, 0), min(x1, 7), min(y1, 5)]
        assert changed["boxes"].tolist() == expected
    assert len(found) == 25


def test_rotation_and_translation_stay_within_their_bounds() -> None:
    height = width = 41
    image = torch.zeros(1, height, width)
    image[:, 18:23, 32:37] = 1  # 14 pixels right of the centre
    for _ in range(40):
        turned = Augmentation(rotation=30.0)({"images": image})["images"][0]
        mass = turned / turned.sum()
        y = float((mass.sum(1) * torch.arange(height)).sum()) - 20
        x = float((mass.sum(0) * torch.arange(width)).sum()) - 20
        assert math.hypot(x, y) == pytest.approx(14, abs=0.3)
        assert abs(math.degrees(math.atan2(y, x))) <= 31
        shifted = Augmentation(translation=0.1)({"images": image})["images"][0]
        mass = shifted / shifted.sum()
        assert abs(float((mass.sum(1) * torch.arange(height)).sum()) - 20) <= 4.2
        assert abs(float((mass.sum(0) * torch.arange(width)).sum()) - 34) <= 4.2


@pytest.mark.parametrize("channels", [1, 3])
def test_colours_change_and_nothing_else(channels: int) -> None:
    sample = {**picture(), "images": torch.rand(channels, 24, 32) * 0.5 + 0.25}
    changed = Augmentation(colour_jitter=0.4)(sample)
    for name in ("labels", "boxes", "masks", "saliency"):
        assert torch.equal(changed[name], sample[name])
    assert not torch.equal(changed["images"], sample["images"])
    check_images(changed["images"][None])


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("augment", [*ONE_EACH, EVERYTHING])
def test_samples_keep_their_form(augment: Augmentation, channels: int) -> None:
    sample = {**picture(), "images": torch.rand(channels, 24, 32)}
    before = {name: values.clone() for name, values in sample.items()}
    for _ in range(10):
        changed = augment(sample)
        assert changed.keys() == sample.keys()
        for name, values in changed.items():
            assert type(values) is Tensor
            assert (values.shape, values.dtype) == (before[name].shape, before[name].dtype)
            assert torch.equal(sample[name], before[name])
        check_images(changed["images"][None])
        x0, y0, x1, y1 = changed["boxes"].tolist()
        assert 0 <= x0 <= x1 <= 32
        assert 0 <= y0 <= y1 <= 24


def test_nothing_asked_for_changes_nothing() -> None:
    sample = picture()
    changed = Augmentation()(sample)
    assert all(torch.equal(changed[name], sample[name]) for name in sample)


def test_draws_come_from_the_global_generator() -> None:
    results = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        results.append(EVERYTHING(picture())["images"])
    assert torch.equal(results[0], results[1])
    assert not torch.equal(results[0], results[2])


def test_an_object_that_leaves_the_image_has_an_empty_box() -> None:
    sample = {"images": torch.rand(1, 8, 8), "boxes": torch.tensor([0.0, 0.0, 1.0, 1.0])}
    areas = []
    for _ in range(40):
        x0, y0, x1, y1 = Augmentation(crop=4)(sample)["boxes"].tolist()
        areas.append((x1 - x0) * (y1 - y0))
    assert set(areas) == {0.0, 1.0}


def test_a_mask_that_is_not_there_stays_so() -> None:
    sample = {**picture(), "masks": torch.full((24, 32), torch.nan)}
    assert EVERYTHING(sample)["masks"].isnan().all()


@pytest.mark.usefixtures("own_errors")
@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"crop": -1}, "Augmentation.crop: expected a number of at least 0, got -1"),
        ({"rotation": 200.0}, "Augmentation.rotation: expected at most 180 degrees, got 200"),
        ({"translation": 1.5}, "Augmentation.translation: expected a number from 0 to 1"),
        ({"projection": 2.0}, "Augmentation.projection: expected a number from 0 to 1"),
        ({"colour_jitter": -0.1}, "Augmentation.colour_jitter: expected a number of at least 0"),
    ],
)
def test_settings_out_of_range_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Augmentation(**settings)
