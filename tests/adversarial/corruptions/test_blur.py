import math

import numpy as np
import pytest
import torch
from scipy import ndimage

from holdfast.adversarial.corruptions.blur import (
    defocus_blur,
    gaussian_blur,
    glass_blur,
    motion_blur,
    streak,
    zoom,
    zoom_blur,
)
from holdfast.adversarial.corruptions.draws import Draws


def rand(*shape):
    return torch.rand(*shape, dtype=torch.float64)


def each_plane(function, images):
    """The function of each channel of each image, as numpy arrays."""
    planes = [[function(plane) for plane in image] for image in images.numpy()]
    return torch.from_numpy(np.array(planes))


@pytest.mark.parametrize(
    ("shape", "deviations"),
    [
        ((9, 6), (0.4, 0.6, 0.7, 0.8, 1.0)),
        ((32, 41), (0.4, 0.6, 0.7, 0.8, 1.0)),
        ((70, 64), (0.5, 0.75, 1.0, 1.25, 1.5)),
        ((224, 225), (1.0, 2.0, 3.0, 4.0, 6.0)),
        ((300, 280), (1.25, 2.5, 3.75, 5.0, 7.5)),
    ],
)
def test_gaussian_blur_is_scipy_s(shape, deviations):
    images = rand(1, 1, *shape)
    for severity, sigma in enumerate(deviations, start=1):
        expected = ndimage.gaussian_filter(images[0, 0].numpy(), sigma, mode="nearest", truncate=4)
        blurred = gaussian_blur(images, severity, Draws(images))[0, 0]
        assert torch.allclose(blurred, torch.from_numpy(expected), atol=1e-6)


@pytest.mark.parametrize(
    ("shape", "severity", "radius", "softness", "reach"),
    [
        ((32, 32), 1, 0.3, 0.4, 1),
        ((32, 40), 4, 1.0, 0.2, 1),
        ((8, 8), 5, 1.5, 0.1, 1),
        ((64, 64), 5, 3.0, 0.1, 1),
        ((224, 224), 3, 6.0, 0.5, 1),
        ((280, 160), 5, 10 * 160 / 224, 0.5, 1),
        ((224, 225), 5, 10.0, 0.5, 2),
    ],
)
def test_defocus_blur_is_a_soft_disk(shape, severity, radius, softness, reach):
    images = rand(1, 1, *shape)
    side = int(radius) + 2
    kernel = np.zeros((2 * side + 1, 2 * side + 1))
    for y in range(-side, side + 1):
        for x in range(-side, side + 1):
            kernel[y + side, x + side] = math.hypot(y, x) <= radius
    kernel = ndimage.gaussian_filter(kernel / kernel.sum(), softness, radius=reach)
    expected = each_plane(lambda plane: ndimage.correlate(plane, kernel, mode="mirror"), images)
    assert torch.allclose(defocus_blur(images, severity, Draws(images)), expected, atol=1e-9)


def test_a_disk_larger_than_the_image_is_mirrored_again_and_again():
    images = rand(1, 1, 2, 3)
    kernel = np.zeros((5, 5))
    kernel[1:4, 1:4] = 1 / 9
    expected = ndimage.correlate(images[0, 0].numpy(), kernel, mode="mirror")
    blurred = defocus_blur(images, 5, Draws(images))[0, 0]
    assert torch.allclose(blurred, torch.from_numpy(expected), atol=1e-9)


@pytest.mark.parametrize(
    ("shape", "severity", "sigma", "reach", "times"),
    [
        ((32, 32), 1, 0.05, 1, 1),
        ((32, 35), 5, 0.4, 1, 2),
        ((5, 7), 4, 0.25, 1, 2),
        ((64, 66), 5, 0.9, 2, 2),
        ((120, 121), 5, 1.5 * 120 / 224, 2, 2),
    ],
)
def test_glass_blur_copies_neighbours_one_after_the_other(shape, severity, sigma, reach, times):
    images = rand(2, 3, *shape)
    draws = Draws(images, seed=0)
    steps = [draws.uniform(2, *shape, low=-float(reach), high=float(reach)) for _ in range(times)]
    expected = []
    for n, image in enumerate(images.numpy()):
        blurred = ndimage.gaussian_filter(image, (0, sigma, sigma), mode="nearest", truncate=4)
        for step in steps:
            down, across = np.floor(step[n].numpy()).astype(int)
            for y in range(shape[0] - reach, reach, -1):
                for x in range(shape[1] - reach, reach, -1):
                    blurred[:, y, x] = blurred[:, y + down[y, x], x + across[y, x]]
        expected.append(
            ndimage.gaussian_filter(blurred, (0, sigma, sigma), mode="nearest", truncate=4)
        )
    result = glass_blur(images, severity, Draws(images, seed=0))
    assert torch.allclose(result, torch.tensor(np.array(expected)), atol=1e-6)


def naive_streak(plane, radius, sigma, degrees):
    height, width = plane.shape
    total, weights = np.zeros_like(plane), 0.0
    for i in range(2 * math.ceil(radius) + 1):
        weight = math.exp(-(i**2) / (2 * sigma**2))
        right = math.ceil(i * math.cos(math.radians(degrees)) - 0.5)
        down = math.ceil(i * math.sin(math.radians(degrees)) - 0.5)
        for y in range(height):
            for x in range(width):
                row, column = min(max(y + down, 0), height - 1), min(max(x + right, 0), width - 1)
                total[y, x] += weight * plane[row, column]
        weights += weight
    return total / weights


@pytest.mark.parametrize("degrees", [0.0, 30.0, -45.0, -100.0, 170.0])
def test_streak_is_a_sum_along_a_line(degrees):
    images = rand(2, 3, 7, 9)
    turns = torch.tensor([degrees, 10.0])
    result = streak(images, 3.5, 2.0, turns)
    for n in range(2):
        expected = [naive_streak(p, 3.5, 2.0, float(turns[n])) for p in images[n].numpy()]
        assert torch.allclose(result[n], torch.tensor(np.array(expected)), atol=1e-9)


@pytest.mark.parametrize(
    ("shape", "severity", "radius", "sigma"),
    [((32, 32), 1, 6, 1.0), ((16, 8), 5, 9, 2.5), ((64, 64), 5, 12, 3.0)],
)
def test_motion_blur_is_a_streak_near_the_horizontal(shape, severity, radius, sigma):
    images = rand(2, 1, *shape)
    degrees = 90 * Draws(images, 0).uniform() - 45
    expected = [
        naive_streak(image[0].numpy(), radius, sigma, float(angle))
        for image, angle in zip(images, degrees, strict=True)
    ]
    blurred = motion_blur(images, severity, Draws(images, 0))[:, 0]
    assert torch.allclose(blurred, torch.tensor(np.array(expected)), atol=1e-9)


def scipy_zoom(plane, factor):
    middle = (np.array(plane.shape) - 1) / 2
    matrix = np.array([1 / factor, 1 / factor])
    return ndimage.affine_transform(
        plane, matrix, middle - matrix * middle, order=1, mode="nearest"
    )


@pytest.mark.parametrize("factor", [1.0, 1.06, 2.5])
@pytest.mark.parametrize("shape", [(8, 8), (7, 10), (1, 5)])
def test_zoom_is_about_the_centre(shape, factor):
    images = rand(2, 3, *shape)
    expected = each_plane(lambda plane: scipy_zoom(plane, factor), images)
    assert torch.allclose(zoom(images, factor), expected, atol=1e-9)


@pytest.mark.parametrize(
    ("side", "severity", "factors"),
    [
        (32, 1, np.arange(1, 1.06, 0.01)),
        (32, 5, np.arange(1, 1.26, 0.01)),
        (64, 2, np.arange(1, 1.11, 0.01)),
        (224, 3, np.arange(1, 1.21, 0.02)),
        (224, 5, np.arange(1, 1.31, 0.03)),
    ],
)
def test_zoom_blur_is_a_mean_over_zooms(side, severity, factors):
    images = rand(1, 1, side, side)
    plane = images[0, 0].numpy()
    zooms = [scipy_zoom(plane, factor) for factor in factors]
    expected = np.mean([plane, *zooms], axis=0)
    blurred = zoom_blur(images, severity, Draws(images))[0, 0]
    assert torch.allclose(blurred, torch.from_numpy(expected), atol=1e-9)
