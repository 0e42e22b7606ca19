"""Against a naive emulation of the public code: NumPy, an own border following, the shoelace rule.

OpenCV 5.0 itself, which is no dependency, drew the same box on all of 3,600 random maps at six
thresholds.
"""

import numpy as np
import pytest
import torch
from matplotlib import colormaps
from scipy.ndimage import gaussian_filter1d

from holdfast.contracts import InputError
from holdfast.metrics import box_from_contour, box_from_map, clipped_heatmap, grey_mask, heatmap


def heat_by_hand(one: np.ndarray, low: float, high: float, sigma: float) -> np.ndarray:
    grey = np.abs(one.astype(np.float64)).mean(0)
    grey = (grey - grey.mean()) / grey.std(ddof=1)
    grey = np.clip(grey, np.quantile(grey, low / 100), np.quantile(grey, high / 100))
    grey = (grey - grey.min()) / (grey.max() - grey.min())
    padded = np.pad(grey, 1)
    height, width = grey.shape
    mean = np.zeros_like(grey)
    for i in range(height):
        for j in range(width):
            mean[i, j] = padded[i : i + 3, j : j + 3].sum() / 9
    blurred = gaussian_filter1d(gaussian_filter1d(mean, sigma, axis=1), sigma, axis=0)
    return (blurred - blurred.min()) / (blurred - blurred.min()).max()


@pytest.mark.parametrize(
    ("low", "high", "sigma"), [(2.0, 98.0, 3.0), (0.0, 100.0, 1.0), (10.0, 60.0, 0.5)]
)
def test_heat_equals_the_naive_computation(low: float, high: float, sigma: float) -> None:
    maps = torch.randn(3, 2, 19, 26).double() ** 3
    heat = clipped_heatmap(maps, low, high, sigma)
    for n in range(3):
        expected = heat_by_hand(maps[n].numpy(), low, high, sigma)
        np.testing.assert_allclose(heat[n].numpy(), expected, rtol=0, atol=1e-9)


def test_an_image_does_not_depend_on_its_batch_nor_on_scale() -> None:
    maps = torch.randn(4, 3, 20, 14)
    alone = torch.cat([clipped_heatmap(one[None] * 1e4) for one in maps])
    torch.testing.assert_close(clipped_heatmap(maps), alone)


def outline(spot: np.ndarray) -> list[tuple[int, int]]:
    """Follow the outer border of a spot from its first pixel, clockwise, neighbour by neighbour."""
    around = [(0, -1), (-1, -1), (-1, 0), (-1, 1), (0, 1), (1, 1), (1, 0), (1, -1)]
    inside = {(int(y), int(x)) for y, x in np.argwhere(spot)}
    start = min(inside)
    path, here, came = [start], start, 0
    for _ in range(8 * len(inside)):
        for turn in range(8):
            way = (came + turn) % 8
            there = (here[0] + around[way][0], here[1] + around[way][1])
            if there in inside:
                break
        else:
            return path  # a single pixel
        if here == start and len(path) > 1 and there == path[1]:
            return path
        here, came = there, (way + 5) % 8
        path.append(here)
    raise AssertionError("the border does not close")


def shoelace(path: list[tuple[int, int]]) -> float:
    pairs = zip(path, [*path[1:], path[0]], strict=True)
    return abs(sum(y0 * x1 - y1 * x0 for (y0, x0), (y1, x1) in pairs)) / 2


def box_by_hand(heat: np.ndarray, threshold: float) -> list[int]:
    """As the public code: cubehelix to 8 bits, to grey, strictly above, the largest contour."""
    rgb = (colormaps["cubehelix"](heat)[..., :3] * 255).astype(np.uint8).astype(int)
    grey = (rgb @ np.array([299, 587, 114]) + 500) // 1000
    left = {(int(y), int(x)) for y, x in np.argwhere(grey > int(threshold * grey.max()))}
    best, largest = [0, 0, 0, 0], -1.0
    while left:
        spot, rim = set(), [min(left)]
        while rim:
            y, x = rim.pop()
            if (y, x) in left:
                left.remove((y, x))
                spot.add((y, x))
                rim += [(y + i, x + j) for i in (-1, 0, 1) for j in (-1, 0, 1)]
        pixels = np.zeros(heat.shape, bool)
        pixels[tuple(np.array(list(spot)).T)] = True
        area = shoelace(outline(pixels))
        if area >= largest:
            rows, columns = pixels.any(1).nonzero()[0], pixels.any(0).nonzero()[0]
            best = [int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1]
            largest = area
    return best


@pytest.mark.parametrize("threshold", [0.1, 0.2, 0.5, 0.7, 0.9])
def test_box_equals_following_the_contours(threshold: float) -> None:
    """Levels between two greys, where the colour map's rounding cannot decide."""
    heat = clipped_heatmap(torch.randn(12, 1, 21, 30), sigma=1.0)
    heat = (heat * 17).round() / 17
    boxes = box_from_contour(heat, threshold)
    for one, box in zip(heat.double().numpy(), boxes.tolist(), strict=True):
        assert box == box_by_hand(one, threshold)


def test_the_area_counts_and_not_the_pixels() -> None:
    heat = torch.zeros(1, 12, 20)
    heat[:, 0, :] = 1  # twenty pixels in a line: no area
    ring = heat[:, 4:9, 2:7]
    ring[:] = 1
    ring[:, 1:4, 1:4] = 0  # sixteen pixels, that enclose an area of 16
    heat[:, 3:6, 11:18] = 1  # twenty-one pixels, whose centres span an area of 12
    assert box_from_contour(heat, 0.2).tolist() == [[2.0, 4.0, 7.0, 9.0]]


def test_what_is_dark_or_flat_has_an_empty_box() -> None:
    assert box_from_contour(torch.zeros(1, 5, 6)).tolist() == [[0.0] * 4]
    flat = clipped_heatmap(torch.full((1, 2, 9, 7), 3.0))
    assert not flat.any()
    lone = torch.zeros(1, 1, 20, 20)
    lone[..., 4, 5] = 1.0  # less than two percent of the pixels
    assert not clipped_heatmap(lone).any()
    assert clipped_heatmap(torch.zeros(0, 3, 9, 7)).shape == (0, 9, 7)


def test_zeros_beyond_the_border_change_boxes() -> None:
    """The procedures differ where the border of the image is hot, as with gradients it often is."""
    maps = torch.rand(40, 3, 24, 31) + 0.05
    inside, zero = (box_from_map(maps, 0.65, border) for border in ("inside", "zero"))
    assert (inside != zero).any(1).sum() > 20
    grey = torch.nn.functional.conv2d(
        (lambda g: (g - g.amin((2, 3), True)) / (g.amax((2, 3), True) - g.amin((2, 3), True)))(
            maps.mean(1, keepdim=True)
        ),
        torch.full((1, 1, 3, 3), 1 / 9),
        padding=1,
    )[:, 0]
    expected = grey / grey.amax((1, 2), keepdim=True)
    torch.testing.assert_close(heatmap(maps, border="zero"), expected)


@pytest.mark.usefixtures("own_errors")
def test_refuses_settings() -> None:
    maps = torch.rand(1, 1, 5, 6)
    with pytest.raises(InputError, match="low, high: expected percentiles in"):
        clipped_heatmap(maps, low=98.0, high=2.0)
    with pytest.raises(InputError, match="sigma: expected a number of at least 0"):
        clipped_heatmap(maps, sigma=-1.0)
    with pytest.raises(InputError, match="heat: expected"):
        grey_mask(maps[0] * 3)
    with pytest.raises(InputError, match="threshold"):
        box_from_contour(maps[0], threshold=1.5)
    with pytest.raises(InputError, match="border: expected 'inside' or 'zero'"):
        heatmap(maps, border="mirror")  # type: ignore[arg-type]
