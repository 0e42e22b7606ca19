import colorsys
import math

import numpy as np
import pytest
import torch
from scipy import ndimage

from holdfast.adversarial.corruptions.draws import Draws
from holdfast.adversarial.corruptions.texture import frosted_glass, plasma
from holdfast.adversarial.corruptions.weather import brightness, fog, frost, snow


def rand(*shape):
    return torch.rand(*shape, dtype=torch.float64)


def flakes(normal, mean, deviation, size, threshold, radius, sigma, degrees):
    """The layer of snow by scipy: zoomed noise above a threshold, correlated with a line."""
    layer = mean + deviation * normal
    middle = (np.array(layer.shape) - 1) / 2
    matrix = np.array([1 / size, 1 / size])
    layer = ndimage.affine_transform(
        layer, matrix, middle - matrix * middle, order=1, mode="nearest"
    )
    layer[layer < threshold] = 0
    reach = 2 * math.ceil(radius)
    line = np.zeros((2 * reach + 1, 2 * reach + 1))
    for i in range(reach + 1):
        right = math.ceil(i * math.cos(math.radians(degrees)) - 0.5)
        down = math.ceil(i * math.sin(math.radians(degrees)) - 0.5)
        line[reach + down, reach + right] += math.exp(-(i**2) / (2 * sigma**2))
    return ndimage.correlate(layer.clip(0, 1), line / line.sum(), mode="nearest")


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(
    ("shape", "severity", "layer", "keep"),
    [
        ((32, 40), 1, (0.1, 0.2, 1.0, 0.6, 8, 3), 0.95),
        ((8, 8), 5, (0.3, 0.3, 1.25, 0.65, 14, 12), 0.8),
        ((64, 64), 4, (0.25, 0.3, 2.25, 0.6, 12, 6), 0.65),
        ((224, 224), 3, (0.55, 0.3, 4.0, 0.9, 12, 8), 0.7),
    ],
)
def test_snow_whitens_and_adds_flakes_that_fall_both_ways(shape, severity, layer, keep, channels):
    images = rand(1, channels, *shape)
    draws = Draws(images, 0)
    normal = draws.normal(*shape)[0].numpy()
    degrees = float(draws.uniform()[0]) * 90 - 135
    falling = flakes(normal, *layer, degrees)
    image = images[0].numpy()
    grey = np.tensordot([0.299, 0.587, 0.114], image, 1) if channels == 3 else image[0]
    white = np.maximum(image, 1.5 * grey + 0.5)
    expected = keep * image + (1 - keep) * white + falling + np.rot90(falling, 2)
    result = snow(images, severity, Draws(images, 0))[0]
    # A number within rounding of the threshold may be a flake in one and none in the other.
    differs = (result - torch.from_numpy(expected)).abs() > 1e-6
    assert differs.double().mean() < 0.001


def test_snow_between_published_sizes_falls_as_thick():
    seen = []
    for side in (224, 340):
        images = torch.zeros(4, 1, side, side)
        seen.append(snow(images, 2, Draws(images, 0)).mean())
    assert seen[0] == pytest.approx(float(seen[1]), rel=0.05)


@pytest.mark.parametrize(
    ("side", "severity", "keep", "weight"),
    [(32, 1, 1.0, 0.2), (32, 5, 0.75, 0.45), (64, 2, 0.9, 0.4), (224, 3, 0.7, 0.7)],
)
@pytest.mark.parametrize("channels", [1, 3])
def test_frost_is_a_weighted_sum(side, severity, keep, weight, channels):
    images = rand(2, channels, side, side)
    black = torch.zeros_like(images)
    alone = frost(black, severity, Draws(images, 0))
    both = frost(images, severity, Draws(images, 0))
    assert torch.allclose(both - alone, keep * images, atol=1e-9)
    ice = alone / weight
    assert ice.min() >= 0
    assert ice.max() <= 1
    assert ((ice.mean((1, 2, 3)) > 0.45) & (ice.mean((1, 2, 3)) < 0.85)).all()
    assert (ice.std((2, 3)) > 0.03).all()


def test_frosted_glass_has_the_light_and_contrast_it_promises():
    ice = frosted_glass(Draws(torch.rand(12, 1, 4, 4), 0), 96, 120)
    grey = ice.mean(1)
    assert ((grey.mean((1, 2)) > 0.47) & (grey.mean((1, 2)) < 0.8)).all()
    assert ((grey.std((1, 2)) > 0.08) & (grey.std((1, 2)) < 0.12)).all()
    assert (ice[:, 0] <= ice[:, 2] + 1e-6).all()  # blue, never red
    assert grey.mean((1, 2)).std() > 0.03  # each image has its own


def naive_plasma(size, decay, moves):
    """The diamond-square algorithm point by point, on a torus."""
    known = np.zeros((size, size))
    step, shift = size, 1.0
    for move in moves:
        half = step // 2
        for a, y in enumerate(range(0, size, step)):
            for b, x in enumerate(range(0, size, step)):
                corners = [
                    known[(y + p) % size, (x + q) % size] for p in (0, step) for q in (0, step)
                ]
                known[y + half, x + half] = np.mean(corners) + shift * move[0, a, b]
        for a, y in enumerate(range(0, size, step)):
            for b, x in enumerate(range(0, size, step)):
                for which, (i, j) in ((1, (y, x + half)), (2, (y + half, x))):
                    around = [(half, 0), (-half, 0), (0, half), (0, -half)]
                    near = [known[(i + p) % size, (j + q) % size] for p, q in around]
                    known[i, j] = np.mean(near) + shift * move[which, a, b]
        step, shift = half, shift / decay**2
    return (known - known.min()) / (known.max() - known.min())


@pytest.mark.parametrize(("size", "rounds"), [(1, 1), (2, 1), (3, 2), (16, 4)])
def test_plasma_is_the_diamond_square_algorithm(size, rounds):
    images = rand(2, 1, 4, 4)
    draws = Draws(images, 0)
    draws.uniform(1, 1)
    moves = [2 * draws.uniform(3, 2**k, 2**k) - 1 for k in range(rounds)]
    clouds = plasma(Draws(images, 0), size, 1.7)
    for n in range(2):
        expected = naive_plasma(2**rounds, 1.7, [move[n].numpy() for move in moves])
        assert torch.allclose(clouds[n], torch.from_numpy(expected), atol=1e-6)


@pytest.mark.parametrize(
    ("shape", "severity", "thickness", "decay"),
    [
        ((32, 32), 1, 0.2, 3.0),
        ((20, 9), 5, 1.5, 1.75),
        ((64, 64), 3, 1.0, 2.5),
        ((224, 230), 5, 3.0, 1.4),
    ],
)
def test_fog_is_clouds_at_the_brightness_of_the_image(shape, severity, thickness, decay):
    images = 0.8 * rand(2, 3, *shape)
    clouds = plasma(Draws(images, 0), max(shape), decay)[:, None, : shape[0], : shape[1]]
    foggy = fog(images, severity, Draws(images, 0))
    for image, cloud, result in zip(images, clouds, foggy, strict=True):
        top = image.max()
        assert torch.allclose(result, (image + thickness * cloud) / (1 + thickness / top))
        assert result.max() <= top + 1e-9


@pytest.mark.parametrize(("side", "severity", "more"), [(6, 1, 0.05), (6, 5, 0.3), (64, 4, 0.4)])
def test_brightness_raises_the_value(side, severity, more):
    images = rand(1, 3, side, side)
    images[0, :, 0, 0] = 0  # black becomes grey
    images[0, :, 0, 1] = 1
    brighter = brightness(images, severity, Draws(images))
    for y in range(side):
        for x in range(side):
            hue, saturation, value = colorsys.rgb_to_hsv(*images[0, :, y, x].tolist())
            expected = colorsys.hsv_to_rgb(hue, saturation, min(1, value + more))
            assert brighter[0, :, y, x].tolist() == pytest.approx(expected, abs=1e-9)


def test_brightness_of_grey_images_is_a_sum():
    images = rand(2, 1, 5, 5)
    brighter = brightness(images, 3, Draws(images))
    assert torch.allclose(brighter, (images + 0.15).clamp_max(1))
