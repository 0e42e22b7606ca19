"""What cameras and files do to pictures: contrast, colours, distortion, coarse pixels, JPEG."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F
from torchvision.io import decode_jpeg, encode_jpeg

from holdfast.adversarial.corruptions.draws import Draws
from holdfast.adversarial.corruptions.severity import published

__all__ = ["contrast", "elastic_transform", "jpeg_compression", "pixelate", "saturate"]

# What remains of each value's distance to the mean.
_CONTRAST_LARGE = (0.4, 0.3, 0.2, 0.1, 0.05)
_CONTRAST = {32: (0.75, 0.5, 0.4, 0.3, 0.15), 64: _CONTRAST_LARGE, 224: _CONTRAST_LARGE}
# Height of the random field, standard deviation of the Gaussian that smooths it, and furthest
# shift of the affine map's corners, all in pixels.
_ELASTIC = {
    32: ((0, 0, 2.56), (1.6, 6.4, 2.24), (2.56, 1.92, 1.92), (3.2, 1.28, 1.6), (3.2, 0.96, 0.96)),
    64: (
        (0, 0, 5.12),
        (3.2, 19.2, 3.84),
        (6.4, 5.12, 3.84),
        (6.4, 1.92, 1.92),
        (10.24, 1.92, 1.28),
    ),
    224: (
        (488, 170.8, 24.4),
        (488, 19.52, 48.8),
        (12.2, 2.44, 4.88),
        (17.08, 2.44, 4.88),
        (29.28, 2.44, 4.88),
    ),
}
# The share of height and width that remains.
_PIXELATE = {
    32: (0.95, 0.9, 0.85, 0.75, 0.65),
    64: (0.9, 0.8, 0.7, 0.6, 0.5),
    224: (0.6, 0.5, 0.4, 0.3, 0.25),
}
# libjpeg's quality.
_JPEG = {32: (80, 65, 58, 50, 40), 64: (65, 58, 50, 40, 25), 224: (25, 18, 15, 10, 7)}
# Factor of the saturation of each pixel, and what is added to it.
_SATURATE = {
    32: ((0.3, 0.0), (0.1, 0.0), (1.5, 0.0), (2.0, 0.1), (2.5, 0.2)),
    64: ((0.3, 0.0), (0.1, 0.0), (2.0, 0.0), (5.0, 0.1), (30.0, 0.2)),
    224: ((0.3, 0.0), (0.1, 0.0), (2.0, 0.0), (5.0, 0.1), (20.0, 0.2)),
}
# How far the channels of red are below its value, as a share of the range.
_RED = torch.tensor([0.0, 1.0, 1.0]).view(3, 1, 1)


def contrast(
    images: Float[Tensor, "n c h w"], severity: int, draws: Draws
) -> Float[Tensor, "n c h w"]:
    """Draw all values towards the mean of their channel.

    Examples
    --------
    >>> images = torch.tensor([[[[0.0, 1.0]]]])
    >>> contrast(images, 2, Draws(images))
    tensor([[[[0.2500, 0.7500]]]])
    """
    keep, _ = published(images, _CONTRAST, severity)
    mean = images.mean((2, 3), keepdim=True)
    return mean + keep * (images - mean)


def elastic_transform(
    images: Float[Tensor, "n c h w"], severity: int, draws: Draws
) -> Float[Tensor, "n c h w"]:
    """Stretch and shear the image by a random affine map, then bend it by a smooth random field.

    References
    ----------
    Simard, Steinkraus and Platt, Best Practices for Convolutional Neural Networks Applied to Visual
    Document Analysis (ICDAR 2003).

    Examples
    --------
    >>> grey = torch.full((1, 1, 8, 8), 0.5)
    >>> elastic_transform(grey, 5, Draws(grey)).allclose(grey)
    True
    """
    (height_of_field, sigma, shift), scale = published(images, _ELASTIC, severity)
    height, width = images.shape[-2:]
    scale *= min(1, min(height, width) / 32)  # small digits are not to be torn apart
    corners = draws.uniform(3, 2, low=-1.0, high=1.0) * shift * scale
    field = draws.uniform(2, height, width, low=-1.0, high=1.0)
    # The smoothed field falls as its standard deviation grows, so once more for the same shape.
    field = _smoothed(field, sigma * scale) * height_of_field * scale**2
    stretched = _sampled(images, _affine(corners, height, width), mirror_pixels=False)
    across, down = field.unbind(1)
    rows, columns = _places(height, width, images)
    return _sampled(stretched, torch.stack([columns + across, rows + down], 3), mirror_pixels=True)


def pixelate(
    images: Float[Tensor, "n c h w"], severity: int, draws: Draws
) -> Float[Tensor, "n c h w"]:
    """Make the image smaller by averaging, and large again by repeating.

    Examples
    --------
    >>> images = torch.arange(16.0).view(1, 1, 4, 4) / 16
    >>> pixelate(images, 5, Draws(images))[0, 0, :2]  # two by two, of four
    tensor([[0.1562, 0.1562, 0.2812, 0.2812],
            [0.1562, 0.1562, 0.2812, 0.2812]])
    """
    share, _ = published(images, _PIXELATE, severity)
    down, across = (_coarse(side, share).to(images) for side in images.shape[-2:])
    return down @ images @ across.T


def jpeg_compression(
    images: Float[Tensor, "n c h w"], severity: int, draws: Draws
) -> Float[Tensor, "n c h w"]:
    """Write the image as a JPEG file of low quality, and read it.

    Three channels are a colour file, its colour at half the resolution as usual; otherwise each is
    a grey file of its own.

    Examples
    --------
    >>> grey = torch.full((1, 1, 8, 8), 0.6)
    >>> jpeg_compression(grey, 1, Draws(grey)).unique()
    tensor([0.6000])
    """
    quality, _ = published(images, _JPEG, severity)
    pictures = images if images.shape[1] == 3 else images.flatten(0, 1)[:, None]
    # On the CPU always: another codec would give other values.
    files = encode_jpeg(list((255 * pictures).round().byte().cpu()), quality)
    read = torch.stack([decode_jpeg(file) for file in files])
    return read.to(images).div(255).view_as(images)


def saturate(
    images: Float[Tensor, "n c h w"], severity: int, draws: Draws
) -> Float[Tensor, "n c h w"]:
    """Change the saturation of each pixel, and keep hue and value: paler, then more colourful.

    Grey is taken for a red without saturation, as published: the last two severities redden it.
    Images of other than three channels have no colour, and stay as they are.

    Examples
    --------
    >>> brown = torch.tensor([0.5, 0.25, 0.25]).view(1, 3, 1, 1)
    >>> saturate(brown, 3, Draws(brown)).flatten()
    tensor([0.5000, 0.1250, 0.1250])
    """
    (factor, more), _ = published(images, _SATURATE, severity)
    if images.shape[1] != 3:
        return images
    value = images.amax(1, keepdim=True)
    range_ = value - images.amin(1, keepdim=True)
    # In HSV saturation is range over value; a pixel lies by its hue in between.
    hue = torch.where(range_ > 0, (value - images) / range_, _RED.to(images))
    saturation = torch.where(value > 0, range_ / value, 0)
    return value * (1 - (factor * saturation + more).clamp(0, 1) * hue)


def _affine(corners: Tensor, height: int, width: int) -> Tensor:
    """Where the map that moves three points by ``corners``, ``(N, 3, 2)``, takes each pixel from.

    The points are corners of a square about the centre, with sides of two thirds of the shorter
    side. ``(N, H, W, 2)``, in pixels, x before y.
    """
    middle = torch.tensor([width // 2, height // 2], device=corners.device, dtype=torch.float64)
    reach = max(1, min(height, width) // 3)
    before = middle + reach * middle.new_tensor([[1, 1], [1, -1], [-1, -1]])
    after = before + corners
    solved = torch.linalg.solve(F.pad(after, (0, 1), value=1.0), before.expand_as(after))
    rows, columns = _places(height, width, after)
    places = torch.stack([columns, rows, torch.ones_like(rows)], 2)
    return (places.flatten(0, 1) @ solved).view(-1, height, width, 2).to(corners)


def _places(height: int, width: int, like: Tensor) -> tuple[Tensor, Tensor]:
    """Row and column of each pixel."""
    rows, columns = (torch.arange(side, device=like.device).to(like) for side in (height, width))
    return rows[:, None].expand(height, width), columns.expand(height, width)


def _sampled(images: Tensor, places: Tensor, *, mirror_pixels: bool) -> Tensor:
    """Images read bilinearly at ``places``; the mirror repeats the pixels at the edge, or not."""
    size = places.new_tensor([images.shape[-1], images.shape[-2]])
    if mirror_pixels:
        grid = (2 * places + 1) / size - 1
    else:
        grid = 2 * places / (size - 1).clamp_min(1) - 1
    return F.grid_sample(images, grid, padding_mode="reflection", align_corners=not mirror_pixels)


def _smoothed(field: Tensor, sigma: float) -> Tensor:
    """Random fields through a Gaussian filter, cut at three standard deviations, mirrored."""
    height, width = (_gaussian(side, sigma).to(field) for side in field.shape[-2:])
    return height @ field @ width.T


def _gaussian(size: int, sigma: float) -> Tensor:
    """Write the filter as a matrix; unlike a convolution, it may reach past the size many times."""
    reach = int(3 * sigma + 0.5)
    taps = torch.arange(-reach, reach + 1)
    weights = torch.exp(-taps.double().square() / (2 * max(sigma, 1e-6) ** 2))
    places = (torch.arange(size)[:, None] + taps) % (2 * size)
    places = torch.minimum(places, 2 * size - 1 - places)
    matrix = torch.zeros(size, size, dtype=torch.float64)
    return matrix.scatter_add_(1, places, (weights / weights.sum()).expand(size, -1))


def _coarse(size: int, share: float) -> Tensor:
    """Make the matrix that averages ``size`` pixels into fewer, and repeats those.

    Each of the fewer is the mean of the pixels whose centre lies in it; where one lies on the edge
    between two, it counts to the first, but is painted as the second, as in Pillow.
    """
    fewer = max(1, int(size * share))
    centres = (2 * torch.arange(size) + 1) * fewer
    counted, painted = (centres - 1) // (2 * size), centres // (2 * size)
    members = (counted == torch.arange(fewer)[:, None]).double()
    return (members / members.sum(1, keepdim=True))[painted]
