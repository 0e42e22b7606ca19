from fractions import Fraction

import numpy as np
import pytest
import torch

from holdfast.audit import remove_pixels
from holdfast.audit.removal import mean_colour, rank_by_chance, undrawn, write_edited
from holdfast.contracts import InputError
from holdfast.data import ImageData, ImageDataset
from holdfast.data.images import DecodedImages
from holdfast.data.planes import DecodedPlanes


def made_up(count=6, side=5, planes=False):
    """Colour images with a box each and, if asked for, a mask and a saliency, some missing."""
    random = np.random.default_rng(0)
    pixels = torch.from_numpy(random.integers(0, 256, (count, 3, side, side), dtype=np.uint8))
    sizes = torch.full((count, 2), side)
    more = {}
    if planes:
        masks = torch.from_numpy(random.random((count, side, side), dtype=np.float32))
        masks[0], masks[1] = 1.0, torch.nan
        saliency = torch.from_numpy(random.normal(size=(count, side, side)).astype(np.float32))
        more = {"masks": DecodedPlanes(masks, sizes), "saliency": DecodedPlanes(saliency, sizes)}
    corners = torch.from_numpy(random.random((count, 2, 2), dtype=np.float32)) * side
    boxes = corners.sort(dim=1).values.flatten(1)
    labels = torch.arange(count) % 3
    classes = ("ant", "bee", "cat", "never seen")
    return ImageDataset("made up", classes, DecodedImages(pixels, sizes), labels, boxes, **more)


@pytest.mark.parametrize("share", [0.0, 0.2, 0.3, 0.5, 0.9, 1.0])
@pytest.mark.parametrize("channels", [1, 3])
def test_equals_a_naive_loop(share, channels):
    images, maps = torch.rand(4, 3, 5, 7), torch.randn(4, channels, 5, 7)
    maps[1] = maps[1].round()  # many ties
    maps[2] = 0.0
    fill = torch.tensor([0.25, 0.5, 0.75])
    got = remove_pixels(images, maps, share, fill)
    count = round(Fraction(str(share)) * 35)  # 10 of 10.5, as an even number comes before
    for n in range(4):
        scores = [
            -sum(abs(float(maps[n, c, y, x])) for c in range(channels))
            for y in range(5)
            for x in range(7)
        ]
        first = sorted(range(35), key=scores.__getitem__)[:count]  # stable: earlier pixels win
        expected = images[n].clone()
        for place in first:
            expected[:, place // 7, place % 7] = fill
        assert torch.equal(got[n], expected)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"images": torch.full((2, 1, 4, 4), 2.0)}, "images"),
        ({"maps": torch.rand(2, 1, 4, 5)}, r"maps: expected shape \(2, C, 4, 4\)"),
        ({"maps": torch.full((2, 1, 4, 4), torch.nan)}, "maps"),
        ({"share": 1.5}, "share: expected a number from 0 to 1, got 1.5"),
        ({"fill": torch.rand(3)}, r"fill: expected shape \(1,\)"),
    ],
)
def test_bad_input(change, says, own_errors):
    given = {
        "images": torch.rand(2, 1, 4, 4),
        "maps": torch.rand(2, 1, 4, 4),
        "share": 0.5,
        "fill": torch.rand(1),
    }
    with pytest.raises(InputError, match=says):
        remove_pixels(**given | change)


def test_chance_ranks_every_pixel_once_and_each_image_by_itself():
    images = torch.rand(50, 1, 6, 6)
    ranks = rank_by_chance(images, seed=3).flatten(1)
    assert torch.equal(ranks.sort(1).values, torch.arange(36).expand(50, 36))
    assert torch.equal(rank_by_chance(images[7:9], seed=3).flatten(1), ranks[7:9])
    assert not torch.equal(rank_by_chance(images, seed=4).flatten(1), ranks)
    # Nowhere do the first ten gather: each pixel is among them in about 10 of 36 images.
    among = (ranks < 10).double().mean(0)
    assert among.min() > 0.05
    assert among.max() < 0.6


def test_mean_of_each_channel():
    data = made_up(count=700)  # more than are taken at a time
    pixels = data.batch(range(700))["images"].double() * 255
    expected = [round(float(pixels[:, c].mean())) / 255 for c in range(3)]
    assert mean_colour(data).tolist() == pytest.approx(expected, abs=1e-7)


def test_writes_all_that_belongs_to_the_images(tmp_path):
    data = made_up(planes=True)
    write_edited(data, tmp_path / "train.parquet", lambda images, part: 1 - images)
    read = ImageData(str(tmp_path)).load("train")
    assert read.classes == data.classes
    before, after = data.batch(range(6)), read.batch(range(6))
    assert before.keys() == after.keys()
    torch.testing.assert_close(after.pop("images"), 1 - before.pop("images"), atol=1e-6, rtol=0)
    for name, values in before.items():
        torch.testing.assert_close(after[name], values, equal_nan=True, rtol=0, atol=0)


def test_tells_the_editor_which_images_they_are(tmp_path):
    data, asked = made_up(count=1030), []

    def edit(images, part):
        asked.append((part.start, part.stop))
        assert torch.equal(images, data.batch(range(part.start, part.stop))["images"])
        return images

    write_edited(data, tmp_path / "train.parquet", edit)
    assert asked == [(0, 344), (344, 688), (688, 1030)]


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"limit": 50},
        {"validation": 0.25},
        {"validation": 30, "limit": 60, "seed": 3},
        {"balance": 20, "limit": 70},
    ],
)
def test_the_same_images_are_drawn_from_what_was_written(settings, tmp_path):
    """What is limited, held out and repeated is the same as of the data set itself."""
    data = ImageData("digits", **settings)
    write_edited(undrawn(data).load("train"), tmp_path / "train.parquet", lambda images, _: images)
    again = ImageData(str(tmp_path), **settings)
    for split in ("train", "validation")[: 1 + ("validation" in settings)]:
        first, second = data.load(split), again.load(split)
        assert len(first) == len(second)
        every = range(len(first))
        assert torch.equal(first.batch(every)["images"], second.batch(every)["images"])
        assert torch.equal(first.labels, second.labels)
