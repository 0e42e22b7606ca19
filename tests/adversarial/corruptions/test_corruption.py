"""What holds for all nineteen corruptions, and which constants an image gets."""

from itertools import pairwise

import pytest
import torch
from sklearn.datasets import load_sample_image
from torch import nn

from holdfast.adversarial import (
    CORRUPTIONS,
    ECCV2020_CORRUPTIONS,
    EXTRA_CORRUPTIONS,
    Corruption,
    corrupt,
)
from holdfast.adversarial.corruptions.severity import published
from holdfast.contracts import InputError

EVERY = CORRUPTIONS + EXTRA_CORRUPTIONS
FIXED = {
    "gaussian_blur",
    "saturate",
    "defocus_blur",
    "zoom_blur",
    "brightness",
    "contrast",
    "pixelate",
    "jpeg_compression",
}
KEEPS_CONSTANTS = {
    "gaussian_blur",
    "defocus_blur",
    "glass_blur",
    "motion_blur",
    "zoom_blur",
    "contrast",
    "elastic_transform",
    "pixelate",
}
# Those whose published constants trade one thing for another: σ for a second shuffle, a bold bend
# for a fine one, the image's light for the frost's.
# Spatter goes from water to mud, saturation from less of it to more.
TRADING = {"glass_blur", "elastic_transform", "frost", "spatter", "saturate"}


def photographs(count, size):
    """Pieces of a photograph of a flower, and of one of a temple, of that size."""
    pieces = []
    for name in ("flower.jpg", "china.jpg"):
        picture = torch.tensor(load_sample_image(name) / 255.0).float().permute(2, 0, 1)
        tiles = picture.unfold(1, size, 100).unfold(2, size, 100)
        pieces.append(tiles.flatten(1, 2).transpose(0, 1))
    images = torch.cat(pieces)
    return images[:: len(images) // count]


def test_the_names_are_those_of_the_paper_in_its_order():
    assert len(set(CORRUPTIONS)) == 15
    assert CORRUPTIONS[0] == "gaussian_noise"
    assert CORRUPTIONS[7:10] == ("snow", "frost", "fog")
    assert CORRUPTIONS[-1] == "jpeg_compression"
    assert EXTRA_CORRUPTIONS == ("speckle_noise", "gaussian_blur", "spatter", "saturate")


def test_the_rows_of_the_table_of_eccv_2020():
    rows = "GN SN IN DB Gl-B MB ZB S F B C E P J Sp-N"
    names = {
        "GN": "gaussian_noise",
        "SN": "shot_noise",
        "IN": "impulse_noise",
        "DB": "defocus_blur",
        "Gl-B": "glass_blur",
        "MB": "motion_blur",
        "ZB": "zoom_blur",
        "S": "snow",
        "F": "fog",
        "B": "brightness",
        "C": "contrast",
        "E": "elastic_transform",
        "P": "pixelate",
        "J": "jpeg_compression",
        "Sp-N": "speckle_noise",
    }
    assert tuple(names[row] for row in rows.split()) == ECCV2020_CORRUPTIONS


@pytest.mark.parametrize(
    ("side", "constants", "scale"),
    [
        (8, 32, 1),
        (32, 32, 1),
        (45, 32, 45 / 32),
        (46, 64, 46 / 64),
        (64, 64, 1),
        (119, 64, 119 / 64),
        (120, 224, 120 / 224),
        (224, 224, 1),
        (448, 224, 2),
    ],
)
def test_an_image_gets_the_constants_published_for_the_nearest_side(side, constants, scale):
    table = {known: [(known, severity) for severity in range(1, 6)] for known in (32, 64, 224)}
    images = torch.zeros(1, 1, side, 3 * side)
    assert published(images, table, 4) == ((constants, 4), pytest.approx(scale))
    assert published(images.mT, table, 1) == ((constants, 1), pytest.approx(scale))


@pytest.mark.parametrize("severity", [1, 3, 5])
@pytest.mark.parametrize("shape", [(2, 1, 8, 8), (2, 3, 17, 12), (1, 2, 5, 5), (1, 3, 70, 90)])
@pytest.mark.parametrize("name", EVERY)
def test_any_size_and_number_of_channels(name, shape, severity):
    images = torch.rand(shape)
    given = images.clone()
    corrupted = corrupt(images, name, severity, seed=0)
    assert torch.equal(images, given)
    assert corrupted.shape == images.shape
    assert corrupted.dtype == images.dtype
    assert corrupted.isfinite().all()
    assert corrupted.min() >= 0
    assert corrupted.max() <= 1
    # Impulses may miss each of a few pixels, and drops may; what has no colour has no saturation.
    missed = (name == "impulse_noise" and severity == 1) or name == "spatter"
    if not missed and (name != "saturate" or shape[1] == 3):
        assert not torch.equal(corrupted, images)


@pytest.mark.parametrize("name", EVERY)
def test_images_of_a_pixel_or_a_line(name):
    for shape in [(1, 3, 1, 1), (2, 1, 2, 3), (1, 3, 1, 40), (1, 1, 200, 2)]:
        for severity in (1, 5):
            corrupted = corrupt(torch.rand(shape), name, severity)
            assert corrupted.shape == shape
            assert corrupted.isfinite().all()


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("name", EVERY)
def test_any_precision(name, dtype):
    images = torch.rand(1, 3, 16, 16).to(dtype)
    corrupted = corrupt(images, name, 3, seed=0)
    assert corrupted.dtype == dtype
    single = corrupt(images.float(), name, 3, seed=0)
    assert (corrupted.float() - single).abs().max() < (0.004 if dtype == torch.bfloat16 else 1e-3)


@pytest.mark.parametrize("name", EVERY)
def test_with_a_seed_a_corruption_is_the_image_s_own(name):
    images = torch.rand(4, 3, 12, 10)
    before = torch.get_rng_state()
    together = corrupt(images, name, 4, seed=3)
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(corrupt(images, name, 4, seed=3), together)
    order = torch.tensor([2, 0, 3, 1])
    assert torch.allclose(corrupt(images[order], name, 4, seed=3), together[order], atol=1e-6)
    assert torch.allclose(corrupt(images[1:2], name, 4, seed=3), together[1:2], atol=1e-6)
    other = corrupt(images, name, 4, seed=4)
    assert torch.equal(other, together) == (name in FIXED)


@pytest.mark.parametrize("name", EVERY)
def test_without_a_seed_twins_are_corrupted_apart(name):
    images = torch.rand(1, 3, 12, 10).expand(2, -1, -1, -1)
    torch.manual_seed(0)
    first = corrupt(images, name, 4)
    assert torch.allclose(first[0], first[1]) == (name in FIXED)
    torch.manual_seed(0)
    assert torch.equal(corrupt(images, name, 4), first)


@pytest.mark.parametrize("severity", range(1, 6))
@pytest.mark.parametrize("name", sorted(KEEPS_CONSTANTS))
def test_a_constant_image_stays(name, severity):
    for level in (0.0, 0.4, 1.0):
        images = torch.full((1, 3, 20, 24), level)
        assert torch.allclose(corrupt(images, name, severity), images, atol=1e-5)


@pytest.mark.parametrize("size", [32, 64, 96])
@pytest.mark.parametrize("name", [name for name in EVERY if name not in TRADING])
def test_the_distance_grows_with_severity(name, size):
    images = photographs(8, size)
    distances = [
        (corrupt(images, name, severity, seed=0) - images).flatten(1).norm(dim=1).mean()
        for severity in range(1, 6)
    ]
    for less, more in pairwise(distances):
        # Motion blur's third and fourth severity differ for CIFAR in what is all but cut off.
        assert more > less * (0.999 if name == "motion_blur" else 1)


@pytest.mark.parametrize(
    ("name", "size"), [("glass_blur", 32), ("frost", 32), ("frost", 64), ("frost", 96)]
)
def test_the_last_severity_is_worse_than_the_first(name, size):
    images = photographs(6, size)
    first, last = (corrupt(images, name, severity, seed=0) for severity in (1, 5))
    assert (last - images).square().sum() > 1.05 * (first - images).square().sum()


@pytest.mark.parametrize("name", EVERY)
def test_the_attack_is_the_function(name):
    images, labels = torch.rand(2, 3, 9, 9, requires_grad=True), torch.tensor([0, 1])
    attack = Corruption(name, 2, seed=5)
    attacked = attack(nn.Flatten(), images, labels)
    assert not attacked.requires_grad
    assert torch.equal(attacked, corrupt(images, name, 2, seed=5))
    assert repr(attack) == f"Corruption(name={name!r}, severity=2, seed=5)"


def test_refuses_bad_input(own_errors):
    images = torch.rand(2, 3, 8, 8)
    with pytest.raises(InputError, match=r"^name: expected one of gaussian_noise, .* got 'rain'"):
        corrupt(images, "rain", 1)
    with pytest.raises(InputError, match="Corruption.name"):
        Corruption("rain", 1)
    for severity in (0, 6, 2.5, "3"):
        with pytest.raises(InputError, match=r"severity: expected a whole number from 1 to 5"):
            corrupt(images, "fog", severity)
        with pytest.raises(InputError, match=r"Corruption.severity"):
            Corruption("fog", severity)
    with pytest.raises(InputError, match=r"images: expected values in \[0, 1\]"):
        corrupt(255 * images, "fog", 1)
    with pytest.raises(InputError, match="images"):
        corrupt(images[0], "fog", 1)
    with pytest.raises(InputError, match="labels"):
        Corruption("fog", 1)(nn.Flatten(), images, torch.tensor([0]))
