"""Spatter: drops of water, or of mud, on the lens."""

from __future__ import annotations

import math

import torch
from jaxtyping import Bool, Float
from scipy import ndimage
from torch import Tensor
from torch.nn import functional as F

from holdfast.adversarial.corruptions.blur import mirrored, smoothed
from holdfast.adversarial.corruptions.draws import Draws
from holdfast.adversarial.corruptions.severity import published
from holdfast.adversarial.corruptions.weather import luminance, resized

__all__ = ["edges", "spatter"]

# Mean and standard deviation of the liquid, size of a drop in pixels, threshold below which there
# is none; of water the strength, of mud the softness of its edge in pixels; whether it is mud.
_SPATTER = {
    32: (
        (0.62, 0.1, 0.7, 0.7, 0.5, False),
        (0.65, 0.1, 0.8, 0.7, 0.5, False),
        (0.65, 0.3, 1.0, 0.69, 0.5, False),
        (0.65, 0.1, 0.7, 0.69, 0.6, True),
        (0.65, 0.1, 0.5, 0.68, 0.6, True),
    ),
    64: (
        (0.62, 0.1, 0.7, 0.7, 0.6, False),
        (0.65, 0.1, 0.8, 0.7, 0.6, False),
        (0.65, 0.3, 1.0, 0.69, 0.6, False),
        (0.65, 0.1, 0.7, 0.68, 0.6, True),
        (0.65, 0.1, 0.5, 0.67, 0.6, True),
    ),
    224: (
        (0.65, 0.3, 4.0, 0.69, 0.6, False),
        (0.65, 0.3, 3.0, 0.68, 0.6, False),
        (0.65, 0.3, 2.0, 0.68, 0.5, False),
        (0.65, 0.3, 1.0, 0.65, 1.5, True),
        (0.67, 0.4, 1.0, 0.65, 1.5, True),
    ),
}
_TURQUOISE, _BROWN = (175, 238, 238), (63, 42, 20)
_LIT_FROM_ABOVE = ((-2.0, -1.0, 0.0), (-1.0, 1.0, 1.0), (0.0, 1.0, 2.0))


def spatter(
    images: Float[Tensor, "n c h w"], severity: int, draws: Draws
) -> Float[Tensor, "n c h w"]:
    """Splash the image: with water, which adds pale turquoise, and from the fourth severity mud.

    Examples
    --------
    >>> white = torch.ones(1, 3, 32, 32)
    >>> muddy = spatter(white, 5, Draws(white, seed=0))
    >>> [round(255 * float(channel.min())) for channel in muddy[0]]
    [69, 48, 27]
    """
    (mean, deviation, size, threshold, last, mud), scale = published(images, _SPATTER, severity)
    # Drops are made for the published size and enlarged with it: smoothing changes how much of the
    # liquid reaches the threshold, so their size cannot be scaled itself.
    shape = [max(1, round(side / scale)) for side in images.shape[-2:]]
    liquid = smoothed((mean + deviation * draws.normal(*shape))[:, None], size)
    if mud:
        layer = smoothed((liquid > threshold).to(images), last)
        layer = resized(torch.where(layer < 0.8, 0, layer), images.shape[-2:])
        return images * (1 - layer) + layer * _coloured(_BROWN, images)
    wet = torch.where(liquid < threshold, 0, (255 * liquid).clamp(0, 255).floor())
    layer = wet * _relief(wet)
    most = layer.amax((1, 2, 3), keepdim=True)
    layer = last * torch.where(most > 0, layer / most, 0)
    return images + resized(layer, images.shape[-2:]) * _coloured(_TURQUOISE, images)


def edges(
    levels: Float[Tensor, "n 1 h w"], low: float = 50, high: float = 150
) -> Bool[Tensor, "n 1 h w"]:
    """Find edges as Canny does: crests of the gradient, and what hangs together with strong ones.

    Parameters
    ----------
    levels : Tensor
        Grey levels from 0 to 255, ``(N, 1, H, W)``.
    low, high : float
        Thresholds of the gradient's length |∂x| + |∂y| by Sobel's filter: a crest above the first
        counts if a chain of such leads to one above the second.

    References
    ----------
    Canny, A Computational Approach to Edge Detection (1986), as OpenCV has it.

    Examples
    --------
    >>> step = torch.tensor([0.0, 0.0, 200.0, 200.0]).expand(1, 1, 3, 4)
    >>> edges(step)[0, 0, 1].tolist()
    [False, True, False, False]
    """
    sobel = levels.new_tensor([[-1, 0, 1], [-2, 0, 2], [-1, 0, 1]])
    kernels = torch.stack([sobel, sobel.T])[:, None]
    across, down = F.conv2d(F.pad(levels, (1, 1, 1, 1), "replicate"), kernels).split(1, 1)
    length = across.abs() + down.abs()
    height, width = levels.shape[-2:]
    around = F.pad(length, (1, 1, 1, 1))

    def at(row: int, column: int) -> Tensor:
        """Return the gradient's length so many pixels further down and to the right."""
        return around[:, :, 1 + row : 1 + row + height, 1 + column : 1 + column + width]

    flat = down.abs() < math.tan(math.pi / 8) * across.abs()
    steep = down.abs() > math.tan(3 * math.pi / 8) * across.abs()
    falling = torch.where(
        across * down < 0,
        (length > at(-1, 1)) & (length > at(1, -1)),
        (length > at(-1, -1)) & (length > at(1, 1)),
    )
    level = (length > at(0, -1)) & (length >= at(0, 1))
    upright = (length > at(-1, 0)) & (length >= at(1, 0))
    crest = torch.where(flat, level, torch.where(steep, upright, falling)) & (length > low)
    found, before = crest & (length > high), torch.zeros_like(crest)
    while not torch.equal(found, before):
        before = found
        found = crest & F.max_pool2d(found.to(levels), 3, 1, 1).bool()
    return found


def _relief(wet: Float[Tensor, "n 1 h w"]) -> Float[Tensor, "n 1 h w"]:
    """Shade the surface of drops by how far their rim is, as lit from above on the left."""
    away = torch.full_like(wet, 20)
    for one, rims in zip(away[:, 0], edges(wet)[:, 0].cpu().numpy(), strict=True):
        if rims.any():
            one.copy_(torch.from_numpy(ndimage.distance_transform_edt(~rims)))
    # A little more, so that rounding does not take a mean of nine 20 for 19.
    deep = (_averaged(away.clamp_max(20)) + 1e-4).floor()
    kernel = wet.new_tensor(_LIT_FROM_ABOVE)[None, None]
    shaded = F.conv2d(mirrored(_equalized(deep), 1), kernel).clamp(0, 255)
    return _averaged(shaded).round()


def _averaged(levels: Tensor) -> Tensor:
    return F.avg_pool2d(mirrored(levels, 1), 3, 1)


def _equalized(levels: Float[Tensor, "n 1 h w"]) -> Float[Tensor, "n 1 h w"]:
    """Spread whole levels over 0 to 255, so that their distribution is even in each image."""
    flat = levels.flatten(1).long()
    counts = torch.zeros(len(flat), 256, dtype=flat.dtype, device=flat.device)
    counts.scatter_add_(1, flat, torch.ones_like(flat))
    lowest = counts.gather(1, flat.amin(1, keepdim=True))
    others = flat.shape[1] - lowest
    spread = ((counts.cumsum(1) - lowest) * 255.0 / others.clamp_min(1)).round()
    mapped = spread.gather(1, flat).to(levels).view_as(levels)
    return torch.where(others.view(-1, 1, 1, 1) > 0, mapped, levels)


def _coloured(colour: tuple[int, int, int], images: Tensor) -> Tensor:
    shade = images.new_tensor(colour).view(1, 3, 1, 1) / 255
    return shade if images.shape[1] == 3 else luminance(shade)
