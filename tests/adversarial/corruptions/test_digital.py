from io import BytesIO

import numpy as np
import pytest
import torch
from matplotlib.colors import hsv_to_rgb, rgb_to_hsv
from PIL import Image
from scipy import ndimage

from holdfast.adversarial.corruptions.digital import (
    contrast,
    elastic_transform,
    jpeg_compression,
    pixelate,
    saturate,
)
from holdfast.adversarial.corruptions.draws import Draws


def rand(*shape):
    return torch.rand(*shape, dtype=torch.float64)


@pytest.mark.parametrize(
    ("side", "severity", "keep"), [(8, 1, 0.75), (32, 5, 0.15), (224, 5, 0.05)]
)
def test_contrast_draws_to_the_mean_of_each_channel(side, severity, keep):
    images = rand(2, 3, side, side + 1)
    flat = contrast(images, severity, Draws(images))
    for image, result in zip(images.flatten(0, 1), flat.flatten(0, 1), strict=True):
        mean = image.numpy().mean()
        assert np.allclose(result.numpy(), mean + keep * (image.numpy() - mean))


@pytest.mark.parametrize(
    ("shape", "severity", "height", "sigma", "shift"),
    [
        ((32, 32), 1, 0, 0, 2.56),
        ((32, 41), 2, 1.6, 6.4, 2.24),
        ((32, 32), 5, 3.2, 0.96, 0.96),
        ((16, 16), 5, 3.2 / 4, 0.96 / 2, 0.96 / 2),
        ((64, 64), 2, 3.2, 19.2, 3.84),
        ((224, 224), 1, 488, 170.8, 24.4),
        ((224, 224), 5, 29.28, 2.44, 4.88),
    ],
)
def test_elastic_transform_samples_twice(shape, severity, height, sigma, shift):
    images = rand(1, 2, *shape)
    draws = Draws(images, 0)
    corners = (2 * draws.uniform(3, 2)[0].numpy() - 1) * shift
    field = 2 * draws.uniform(2, *shape)[0].numpy() - 1
    middle, reach = np.array([shape[1] // 2, shape[0] // 2]), min(shape) // 3
    before = middle + reach * np.array([[1, 1], [1, -1], [-1, -1]])
    back = np.linalg.inv(np.c_[before + corners, np.ones(3)]) @ before
    rows, columns = np.mgrid[: shape[0], : shape[1]]
    x, y = np.moveaxis(np.dstack([columns, rows, np.ones(shape)]) @ back, 2, 0)
    across, down = (
        height
        * (ndimage.gaussian_filter(part, sigma, mode="reflect", truncate=3) if sigma else part)
        for part in field
    )
    result = elastic_transform(images, severity, Draws(images, 0))[0]
    for plane, got in zip(images[0].numpy(), result, strict=True):
        plane = ndimage.map_coordinates(plane, [y, x], order=1, mode="mirror")
        places = [rows + down, columns + across]
        expected = ndimage.map_coordinates(plane, places, order=1, mode="reflect")
        assert torch.allclose(got, torch.from_numpy(expected), atol=1e-6)


@pytest.mark.parametrize("severity", range(1, 6))
@pytest.mark.parametrize(
    ("shape", "shares"),
    [
        ((32, 32), (0.95, 0.9, 0.85, 0.75, 0.65)),
        ((16, 9), (0.95, 0.9, 0.85, 0.75, 0.65)),
        ((64, 70), (0.9, 0.8, 0.7, 0.6, 0.5)),
        ((224, 224), (0.6, 0.5, 0.4, 0.3, 0.25)),
    ],
)
def test_pixelate_is_pillow_s_box_filter_both_ways(shape, shares, severity):
    images = torch.rand(1, 1, *shape)
    height, width = (int(side * shares[severity - 1]) for side in shape)
    picture = Image.fromarray(images[0, 0].numpy())
    small = picture.resize((width, height), Image.Resampling.BOX)
    expected = np.asarray(small.resize(picture.size, Image.Resampling.BOX))
    coarse = pixelate(images, severity, Draws(images))[0, 0]
    assert np.allclose(coarse.numpy(), expected, atol=1e-6)


@pytest.mark.parametrize("severity", [1, 5])
@pytest.mark.parametrize(
    ("shape", "qualities"),
    [
        ((3, 32, 32), (80, 65, 58, 50, 40)),
        ((1, 8, 8), (80, 65, 58, 50, 40)),
        ((3, 50, 71), (65, 58, 50, 40, 25)),
        ((3, 224, 130), (25, 18, 15, 10, 7)),
    ],
)
def test_jpeg_compression_is_pillow_s(shape, qualities, severity):
    smooth = ndimage.gaussian_filter(np.random.default_rng(0).random((2, *shape)), (0, 0, 2, 2))
    images = torch.from_numpy((smooth - smooth.min()) / np.ptp(smooth))
    result = jpeg_compression(images, severity, Draws(images))
    for image, got in zip(images, result, strict=True):
        levels = (255 * image).round().byte().permute(1, 2, 0).numpy()
        file = BytesIO()
        Image.fromarray(levels.squeeze()).save(file, "JPEG", quality=qualities[severity - 1])
        expected = np.atleast_3d(np.asarray(Image.open(file))).transpose(2, 0, 1)
        away = np.abs(255 * got.numpy() - expected)
        assert away.max() <= 2  # decoders may round apart
        assert away.mean() < 0.1


def test_jpeg_compression_of_two_channels_is_that_of_each():
    images = rand(2, 2, 12, 12)
    together = jpeg_compression(images, 4, Draws(images))
    for channel in range(2):
        alone = jpeg_compression(images[:, channel : channel + 1], 4, Draws(images))
        assert torch.equal(together[:, channel : channel + 1], alone)


@pytest.mark.parametrize(
    ("shape", "constants"),
    [
        ((6, 9), ((0.3, 0), (0.1, 0), (1.5, 0), (2, 0.1), (2.5, 0.2))),
        ((64, 50), ((0.3, 0), (0.1, 0), (2, 0), (5, 0.1), (30, 0.2))),
        ((120, 121), ((0.3, 0), (0.1, 0), (2, 0), (5, 0.1), (20, 0.2))),
    ],
)
def test_saturate_is_a_change_in_hsv(shape, constants):
    images = rand(2, 3, *shape)
    images[0, :, :2] = images[0, :1, :2]  # grey
    images[0, :, 2] = 0
    for severity, (factor, more) in enumerate(constants, start=1):
        result = saturate(images, severity, Draws(images))
        hsv = rgb_to_hsv(images.permute(0, 2, 3, 1).numpy())
        hsv[..., 1] = np.clip(factor * hsv[..., 1] + more, 0, 1)
        expected = torch.from_numpy(hsv_to_rgb(hsv)).permute(0, 3, 1, 2)
        assert torch.allclose(result, expected, atol=1e-9)


def test_what_has_no_colour_is_not_saturated():
    for channels in (1, 2, 4):
        images = rand(1, channels, 5, 4)
        assert torch.equal(saturate(images, 5, Draws(images)), images)
