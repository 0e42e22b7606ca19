import math

import numpy as np
import pytest
import torch
from scipy import ndimage

from holdfast.adversarial.corruptions.draws import Draws
from holdfast.adversarial.corruptions.spatter import edges, spatter

WATER = [
    ((32, 40), 1, (0.62, 0.1, 0.7, 0.7, 0.5)),
    ((32, 40), 2, (0.65, 0.1, 0.8, 0.7, 0.5)),
    ((32, 40), 3, (0.65, 0.3, 1.0, 0.69, 0.5)),
    ((12, 17), 3, (0.65, 0.3, 1.0, 0.69, 0.5)),
    ((70, 64), 1, (0.62, 0.1, 0.7, 0.7, 0.6)),
    ((70, 64), 2, (0.65, 0.1, 0.8, 0.7, 0.6)),
    ((70, 64), 3, (0.65, 0.3, 1.0, 0.69, 0.6)),
    ((224, 230), 1, (0.65, 0.3, 4.0, 0.69, 0.6)),
    ((224, 230), 2, (0.65, 0.3, 3.0, 0.68, 0.6)),
    ((224, 230), 3, (0.65, 0.3, 2.0, 0.68, 0.5)),
]
MUD = [
    ((32, 40), 4, (0.65, 0.1, 0.7, 0.69, 0.6)),
    ((32, 40), 5, (0.65, 0.1, 0.5, 0.68, 0.6)),
    ((70, 64), 4, (0.65, 0.1, 0.7, 0.68, 0.6)),
    ((70, 64), 5, (0.65, 0.1, 0.5, 0.67, 0.6)),
    ((224, 230), 4, (0.65, 0.3, 1.0, 0.65, 1.5)),
    ((224, 230), 5, (0.67, 0.4, 1.0, 0.65, 1.5)),
]


def smooth(plane, sigma):
    return ndimage.gaussian_filter(plane, sigma, mode="nearest", truncate=4)


def liquid_of(images, mean, deviation, size):
    drawn = Draws(images, 3).normal(*images.shape[2:])[0].numpy()
    return smooth(mean + deviation * drawn, size)


def canny(levels, low=50, high=150):
    """Crests of the gradient, pixel by pixel, and a walk along them from the strong ones."""
    kernel = np.array([[-1, 0, 1], [-2, 0, 2], [-1, 0, 1]])
    across, down = (ndimage.correlate(levels, k, mode="nearest") for k in (kernel, kernel.T))
    length = np.pad(np.abs(across) + np.abs(down), 1)
    crests = set()
    for (y, x), dx in np.ndenumerate(across):
        dy, here = down[y, x], length[y + 1, x + 1]
        angle = math.degrees(math.atan2(abs(dy), abs(dx)))
        if angle < 22.5:
            before, after = (0, -1), (0, 1)
        elif angle > 67.5:
            before, after = (-1, 0), (1, 0)
        elif dx * dy < 0:
            before, after = (-1, 1), (1, -1)
        else:
            before, after = (-1, -1), (1, 1)
        first, second = (length[y + 1 + v, x + 1 + u] for v, u in (before, after))
        straight = 0 in before
        if here > low and here > first and (here >= second if straight else here > second):
            crests.add((y, x))
    walk = [place for place in crests if length[place[0] + 1, place[1] + 1] > high]
    found = set(walk)
    while walk:
        y, x = walk.pop()
        near = {(y + v, x + u) for v in (-1, 0, 1) for u in (-1, 0, 1)} & crests - found
        found |= near
        walk += near
    return np.array([[(y, x) in found for x in range(levels.shape[1])] for y in range(len(levels))])


def equalized(levels):
    values = levels.ravel()
    lowest = (values == values.min()).sum()
    if lowest == values.size:
        return levels
    ranks = np.array([(values <= value).sum() - lowest for value in range(21)])
    return np.rint(255 * ranks / (values.size - lowest))[levels.astype(int)]


@pytest.mark.parametrize(("shape", "severity", "constants"), WATER)
def test_water_is_a_relief_of_turquoise(shape, severity, constants):
    mean, deviation, size, threshold, strength = constants
    images = 0.3 * torch.rand(1, 3, *shape, dtype=torch.float64)
    liquid = liquid_of(images, mean, deviation, size)
    wet = np.floor(255 * np.where(liquid < threshold, 0, liquid)).clip(0, 255)
    rims = edges(torch.from_numpy(wet)[None, None])[0, 0].numpy()
    if max(shape) < 100:
        assert np.array_equal(rims, canny(wet))
    away = np.minimum(ndimage.distance_transform_edt(~rims), 20)
    deep = np.floor(ndimage.uniform_filter(away, 3, mode="mirror") + 1e-4)
    kernel = np.array([[-2, -1, 0], [-1, 1, 1], [0, 1, 2]])
    shaded = ndimage.correlate(equalized(deep), kernel, mode="mirror").clip(0, 255)
    layer = wet * np.rint(ndimage.uniform_filter(shaded, 3, mode="mirror"))
    colour = np.array([175, 238, 238])[:, None, None] / 255
    expected = images[0].numpy() + strength * layer / layer.max() * colour
    result = spatter(images, severity, Draws(images, 3))[0].numpy()
    away_from = np.abs(result - expected)
    # Means of nine that are whole numbers may be rounded to either side.
    assert (away_from > 1e-6).mean() < 0.02
    assert away_from.max() < 0.05


@pytest.mark.parametrize(("shape", "severity", "constants"), MUD)
def test_mud_covers_with_brown(shape, severity, constants):
    mean, deviation, size, threshold, softness = constants
    images = torch.rand(1, 3, *shape, dtype=torch.float64)
    liquid = liquid_of(images, mean, deviation, size)
    layer = smooth((liquid > threshold).astype(float), softness)
    layer[layer < 0.8] = 0
    assert 0 < (layer > 0).mean() < 0.6
    colour = np.array([63, 42, 20])[:, None, None] / 255
    expected = (1 - layer) * images[0].numpy() + layer * colour
    result = spatter(images, severity, Draws(images, 3))[0].numpy()
    np.testing.assert_allclose(result, expected, atol=1e-6)


@pytest.mark.parametrize("severity", [2, 5])
def test_grey_is_splashed_as_grey(severity):
    images = torch.full((1, 1, 40, 33), 0.2)
    grey = spatter(images, severity, Draws(images, 0))
    coloured = spatter(images.expand(-1, 3, -1, -1), severity, Draws(images, 0))
    weights = torch.tensor([0.299, 0.587, 0.114]).view(1, 3, 1, 1)
    assert torch.allclose(grey, (weights * coloured).sum(1, keepdim=True), atol=1e-5)


def test_drops_grow_with_the_image():
    small, large = torch.ones(1, 3, 64, 80), torch.ones(1, 3, 112, 140)
    muddy = [spatter(images, 5, Draws(small, 0)) for images in (small, large)]
    covered = [(1 - one).mean().item() for one in muddy]
    assert covered[0] > 0.05
    assert covered[0] == pytest.approx(covered[1], rel=0.05)


def test_edges_of_crests_that_hang_together():
    torch.manual_seed(0)
    for size in (0.7, 1.5):
        noise = smooth(np.random.default_rng(0).normal(0.6, 0.4, (30, 41)), size).clip(0, 1)
        levels = np.floor(255 * noise)
        found = edges(torch.from_numpy(levels)[None, None])[0, 0].numpy()
        assert found.any()
        assert np.array_equal(found, canny(levels))
