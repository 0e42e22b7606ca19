"""Blur: Gaussian, out of focus, through frosted glass, and from a camera that moves or zooms.

Like all corruptions, they take images ``(N, C, H, W)`` in [0, 1], a severity from 1 to 5, and where
what is random comes from; see `corrupt`.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from holdfast.adversarial.corruptions.draws import Draws
from holdfast.adversarial.corruptions.severity import published

__all__ = [
    "defocus_blur",
    "gaussian_blur",
    "glass_blur",
    "mirrored",
    "motion_blur",
    "smoothed",
    "streak",
    "zoom",
    "zoom_blur",
]

# Standard deviation, in pixels.
_GAUSSIAN = {
    32: (0.4, 0.6, 0.7, 0.8, 1.0),
    64: (0.5, 0.75, 1.0, 1.25, 1.5),
    224: (1.0, 2.0, 3.0, 4.0, 6.0),
}


# Radius of the disk and standard deviation of the Gaussian that softens its edge, in pixels.
_DEFOCUS = {
    32: ((0.3, 0.4), (0.4, 0.5), (0.5, 0.6), (1.0, 0.2), (1.5, 0.1)),
    64: ((0.5, 0.6), (1.0, 0.1), (1.5, 0.1), (2.5, 0.01), (3.0, 0.1)),
    224: ((3.0, 0.1), (4.0, 0.5), (6.0, 0.5), (8.0, 0.5), (10.0, 0.5)),
}
# Standard deviation of the Gaussian and furthest shift, in pixels; how often pixels are shuffled.
_GLASS = {
    32: ((0.05, 1, 1), (0.25, 1, 1), (0.4, 1, 1), (0.25, 1, 2), (0.4, 1, 2)),
    64: ((0.1, 1, 1), (0.5, 1, 1), (0.6, 1, 2), (0.7, 2, 1), (0.9, 2, 2)),
    224: ((0.7, 1, 2), (0.9, 2, 1), (1.0, 2, 3), (1.1, 3, 2), (1.5, 4, 2)),
}
# Half the length and standard deviation of the trace, in pixels.
_MOTION = {
    32: ((6.0, 1.0), (6.0, 1.5), (6.0, 2.0), (8.0, 2.0), (9.0, 2.5)),
    64: ((10.0, 1.0), (10.0, 1.5), (10.0, 2.0), (10.0, 2.5), (12.0, 3.0)),
    224: ((10.0, 3.0), (15.0, 5.0), (15.0, 8.0), (15.0, 12.0), (20.0, 15.0)),
}
# How many zoom factors there are from 1 on, and the step from one to the next.
_ZOOM_SMALL = ((7, 0.01), (12, 0.01), (16, 0.01), (21, 0.01), (26, 0.01))
_ZOOM = {
    32: _ZOOM_SMALL,
    64: _ZOOM_SMALL,
    224: ((12, 0.01), (16, 0.01), (11, 0.02), (13, 0.02), (11, 0.03)),
}


def gaussian_blur(
    images: Float[Tensor, "n c h w"], severity: int, draws: Draws
) -> Float[Tensor, "n c h w"]:
    """Average each pixel with its neighbours by a Gaussian.

    Examples
    --------
    >>> grey = torch.full((1, 1, 8, 8), 0.5)
    >>> gaussian_blur(grey, 5, Draws(grey)).allclose(grey)
    True
    """
    sigma, scale = published(images, _GAUSSIAN, severity)
    return smoothed(images, sigma * scale)


def defocus_blur(
    images: Float[Tensor, "n c h w"], severity: int, draws: Draws
) -> Float[Tensor, "n c h w"]:
    """Spread each pixel over a disk, as a lens out of focus does.

    Examples
    --------
    >>> dot = torch.zeros(1, 1, 32, 32)
    >>> dot[..., 16, 16] = 1
    >>> int((defocus_blur(dot, 5, Draws(dot)) > 0.1).sum())  # a disk of nine pixels
    9
    """
    # Imported here, not above: kornia is slow to import, and who only attacks needs none of it.
    from kornia.filters import filter2d

    (radius, softness), scale = published(images, _DEFOCUS, severity)
    kernel = _disk(radius * scale, softness).to(images)
    padded = mirrored(images, kernel.shape[-1] // 2)
    return filter2d(padded, kernel[None], padding="valid")


def glass_blur(
    images: Float[Tensor, "n c h w"], severity: int, draws: Draws
) -> Float[Tensor, "n c h w"]:
    """Shuffle pixels among near neighbours between two slight blurs, as frosted glass does.

    Row by row from the lower right corner on, each pixel takes the value that a random neighbour
    has by then. (The published code means to swap the two, but what it swaps are views, and so it
    copies; we keep to what the published data are made with.)

    Examples
    --------
    >>> grey = torch.full((1, 1, 8, 8), 0.5)
    >>> glass_blur(grey, 5, Draws(grey)).allclose(grey)
    True
    """
    (sigma, reach, times), scale = published(images, _GLASS, severity)
    sigma, reach = sigma * scale, max(1, round(reach * scale))
    height, width = images.shape[-2:]
    shuffled = smoothed(images, sigma).flatten(2)
    for _ in range(times):
        steps = draws.uniform(2, height, width, low=-float(reach), high=float(reach)).floor().long()
        source = _sources(steps.clamp_max(reach - 1), reach)
        shuffled = shuffled.gather(2, source.flatten(1)[:, None].expand_as(shuffled))
    return smoothed(shuffled.view_as(images), sigma)


def motion_blur(
    images: Float[Tensor, "n c h w"], severity: int, draws: Draws
) -> Float[Tensor, "n c h w"]:
    """Draw each pixel out along a line within 45° of the horizontal, as a moving camera does.

    Examples
    --------
    >>> grey = torch.full((1, 1, 8, 8), 0.5)
    >>> motion_blur(grey, 5, Draws(grey)).allclose(grey)
    True
    """
    (radius, sigma), scale = published(images, _MOTION, severity)
    return streak(images, radius * scale, sigma * scale, draws.uniform(low=-45.0, high=45.0))


def zoom_blur(
    images: Float[Tensor, "n c h w"], severity: int, draws: Draws
) -> Float[Tensor, "n c h w"]:
    """Average the image with ever larger ones, as a camera that moves towards the scene.

    Examples
    --------
    >>> dot = torch.zeros(1, 1, 33, 33)
    >>> dot[..., 16, 16] = 1
    >>> zoom_blur(dot, 5, Draws(dot))[0, 0, 16, 16]  # the centre stays
    tensor(1.)
    """
    (count, step), _ = published(images, _ZOOM, severity)
    total = images + sum(zoom(images, 1 + step * k) for k in range(count))
    return total / (count + 1)


def zoom(images: Float[Tensor, "n c h w"], factor: float) -> Float[Tensor, "n c h w"]:
    """Enlarge images about their centre, bilinearly, and cut them to their size.

    Parameters
    ----------
    images : Tensor
        The images ``(N, C, H, W)``.
    factor : float
        At least 1.

    Returns
    -------
    Tensor
        The images, ``(N, C, H, W)``.

    Examples
    --------
    >>> zoom(torch.tensor([[[[0.0, 1.0, 2.0, 3.0]]]]), factor=3.0)
    tensor([[[[1.0000, 1.3333, 1.6667, 2.0000]]]])
    """
    rows, columns = (
        torch.linspace(-1 / factor, 1 / factor, side, dtype=images.dtype, device=images.device)
        for side in images.shape[-2:]
    )
    grid = torch.stack(torch.meshgrid(columns, rows, indexing="xy"), 2)[None]
    flat = images.flatten(0, 1)[None]  # one grid serves all images and channels
    return F.grid_sample(flat, grid, align_corners=True, padding_mode="border").view_as(images)


def streak(
    images: Float[Tensor, "n c h w"], radius: float, sigma: float, degrees: Float[Tensor, " n"]
) -> Float[Tensor, "n c h w"]:
    """Average along a line with the weights of half a Gaussian: the blur of a motion.

    Each pixel is a mean of those up to 2⌈radius⌉ pixels away in one direction, nearest ones
    rounded to, with weight exp(−i² / 2σ²) at distance i. Beyond the edge its last pixel goes on.

    Parameters
    ----------
    images : Tensor
        The images ``(N, C, H, W)``.
    radius : float
        Half the length of the line, in pixels.
    sigma : float
        The standard deviation σ, in pixels.
    degrees : Tensor
        The direction that each image is averaged in, ``(N,)``: 0 to the right, −90 upwards.

    Returns
    -------
    Tensor
        The blurred images, ``(N, C, H, W)``.

    Examples
    --------
    >>> dot = torch.tensor([[[[0.0, 0.0, 1.0, 0.0]]]])
    >>> streak(dot, radius=1.0, sigma=1.0, degrees=torch.tensor([0.0]))
    tensor([[[[0.0777, 0.3482, 0.5741, 0.0000]]]])
    """
    count, _, height, width = images.shape
    taps = torch.arange(2 * math.ceil(radius) + 1, device=images.device, dtype=torch.float64)
    weights = torch.exp(-taps.square() / (2 * sigma**2))
    weights = weights / weights.sum()
    angle = degrees.double().deg2rad()
    # Half a pixel is rounded down, as ImageMagick does.
    across, down = (
        (taps * way[:, None] - 0.5).ceil().long().T[..., None] for way in (angle.cos(), angle.sin())
    )
    rows = (torch.arange(height, device=images.device) + down).clamp(0, height - 1)
    columns = (torch.arange(width, device=images.device) + across).clamp(0, width - 1)
    which = torch.arange(count, device=images.device)[:, None, None]
    channels_last = images.permute(0, 2, 3, 1).contiguous()
    blurred = torch.zeros_like(channels_last)
    for weight, row, column in zip(weights.tolist(), rows, columns, strict=True):
        blurred.add_(channels_last[which, row[:, :, None], column[:, None, :]], alpha=weight)
    return blurred.permute(0, 3, 1, 2).contiguous()


def smoothed(images: Float[Tensor, "n c h w"], sigma: float) -> Float[Tensor, "n c h w"]:
    """Average images by a Gaussian, cut at four standard deviations; the last pixel goes on.

    Examples
    --------
    >>> smoothed(torch.tensor([[[[0.0, 1.0, 0.0]]]]), sigma=0.25)
    tensor([[[[3.3524e-04, 9.9933e-01, 3.3524e-04]]]])
    """
    from kornia.filters import gaussian_blur2d

    size = 2 * int(4 * sigma + 0.5) + 1
    return gaussian_blur2d(images, size, (sigma, sigma), border_type="replicate")


def mirrored(images: Float[Tensor, "n c h w"], by: int) -> Float[Tensor, "n c h2 w2"]:
    """Let images go on beyond their edge as in a mirror; unlike `F.pad`, further than once.

    Examples
    --------
    >>> mirrored(torch.tensor([[[[1.0, 2.0, 3.0]]]]), by=3)[0, 0, 0]
    tensor([2., 3., 2., 1., 2., 3., 2., 1., 2.])
    """
    for dim in (2, 3):
        size = images.shape[dim]
        period = max(1, 2 * (size - 1))
        places = torch.arange(-by, size + by, device=images.device) % period
        images = images.index_select(dim, torch.minimum(places, period - places))
    return images


def _disk(radius: float, softness: float) -> Tensor:
    """Return a disk that sums to 1, its edge softened over three pixels, or five if it is large."""
    margin = 1 if radius <= 8 else 2
    reach = int(radius) + margin
    squares = torch.arange(-reach, reach + 1, dtype=torch.float64).square()
    disk = (squares[:, None] + squares <= radius**2).double()
    near = torch.arange(-margin, margin + 1, dtype=torch.float64)
    edge = torch.exp(-near.square() / (2 * softness**2))
    edge = edge / edge.sum()
    kernel = torch.outer(edge, edge)[None, None]
    soft = F.conv2d((disk / disk.sum())[None, None], kernel, padding=margin)
    return soft[0, 0]


def _sources(steps: Tensor, reach: int) -> Tensor:
    """Where each pixel's value comes from once all have copied, the last pixel first.

    ``steps`` are the rows down and columns to the right at which each pixel, ``(N, 2, H, W)``,
    finds its neighbour. One that lies further on has copied before: its value is what it got.
    Such chains are followed all at once, in twice as long a stride each time.
    """
    count, _, height, width = steps.shape
    index = torch.arange(height * width, device=steps.device).view(height, width)
    rows, columns = index // width, index % width
    inside = (rows > reach) & (rows <= height - reach)
    inside = inside & (columns > reach) & (columns <= width - reach)
    neighbour = torch.where(inside, index + steps[:, 0] * width + steps[:, 1], index)
    ahead, source = (neighbour > index).flatten(1), neighbour.flatten(1)
    while ahead.any():
        further, beyond = source.gather(1, source), ahead.gather(1, source)
        source, ahead = torch.where(ahead, further, source), ahead & beyond
    return source.view(count, height, width)
