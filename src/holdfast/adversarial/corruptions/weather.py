"""Weather: snow, frost, fog, and more light than the picture was made for."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from holdfast.adversarial.corruptions.blur import streak, zoom
from holdfast.adversarial.corruptions.draws import Draws
from holdfast.adversarial.corruptions.severity import published
from holdfast.adversarial.corruptions.texture import frosted_glass, plasma

__all__ = ["brightness", "fog", "frost", "luminance", "resized", "snow"]

# Mean and standard deviation of the layer, size of a flake in pixels, threshold below which there
# is none; radius and standard deviation of its fall, in pixels; what remains of the image.
_SNOW = {
    32: (
        (0.1, 0.2, 1.0, 0.6, 8.0, 3.0, 0.95),
        (0.1, 0.2, 1.0, 0.5, 10.0, 4.0, 0.9),
        (0.15, 0.3, 1.75, 0.55, 10.0, 4.0, 0.9),
        (0.25, 0.3, 2.25, 0.6, 12.0, 6.0, 0.85),
        (0.3, 0.3, 1.25, 0.65, 14.0, 12.0, 0.8),
    ),
    64: (
        (0.1, 0.2, 1.0, 0.6, 8.0, 3.0, 0.8),
        (0.1, 0.2, 1.0, 0.5, 10.0, 4.0, 0.8),
        (0.15, 0.3, 1.75, 0.55, 10.0, 4.0, 0.7),
        (0.25, 0.3, 2.25, 0.6, 12.0, 6.0, 0.65),
        (0.3, 0.3, 1.25, 0.65, 14.0, 12.0, 0.6),
    ),
    224: (
        (0.1, 0.3, 3.0, 0.5, 10.0, 4.0, 0.8),
        (0.2, 0.3, 2.0, 0.5, 12.0, 4.0, 0.7),
        (0.55, 0.3, 4.0, 0.9, 12.0, 8.0, 0.7),
        (0.55, 0.3, 4.5, 0.85, 12.0, 8.0, 0.65),
        (0.55, 0.3, 2.5, 0.85, 12.0, 12.0, 0.55),
    ),
}
# Weights of the image and of the frost.
_FROST = {
    32: ((1.0, 0.2), (1.0, 0.3), (0.9, 0.4), (0.85, 0.4), (0.75, 0.45)),
    64: ((1.0, 0.3), (0.9, 0.4), (0.8, 0.45), (0.75, 0.5), (0.7, 0.55)),
    224: ((1.0, 0.4), (0.8, 0.6), (0.7, 0.7), (0.65, 0.7), (0.6, 0.75)),
}
# Thickness, and by how much each finer layer of the clouds is fainter.
_FOG = {
    32: ((0.2, 3.0), (0.5, 3.0), (0.75, 2.5), (1.0, 2.0), (1.5, 1.75)),
    64: ((0.4, 3.0), (0.7, 3.0), (1.0, 2.5), (1.5, 2.0), (2.0, 1.75)),
    224: ((1.5, 2.0), (2.0, 2.0), (2.5, 1.7), (2.5, 1.5), (3.0, 1.4)),
}
# What is added to the value of each pixel.
_BRIGHTNESS_LARGE = (0.1, 0.2, 0.3, 0.4, 0.5)
_BRIGHTNESS = {
    32: (0.05, 0.1, 0.15, 0.2, 0.3),
    64: _BRIGHTNESS_LARGE,
    224: _BRIGHTNESS_LARGE,
}


def snow(images: Float[Tensor, "n c h w"], severity: int, draws: Draws) -> Float[Tensor, "n c h w"]:
    """Whiten the image, and let flakes fall at a slant, both ways, before it.

    Examples
    --------
    >>> black = torch.zeros(1, 3, 32, 32)
    >>> bool((snow(black, 5, Draws(black)) >= 0.1).all())
    True
    """
    (mean, deviation, size, threshold, radius, sigma, keep), scale = published(
        images, _SNOW, severity
    )
    # Flakes are made for the published size and enlarged with it: zooming random numbers changes
    # how many reach the threshold, so their size cannot be scaled itself.
    layer_shape = [max(1, round(side / scale)) for side in images.shape[-2:]]
    layer = zoom((mean + deviation * draws.normal(*layer_shape))[:, None], size)
    layer = torch.where(layer < threshold, 0, layer.clamp(0, 1))
    layer = streak(layer, radius, sigma, draws.uniform(low=-135.0, high=-45.0))
    layer = resized(layer, images.shape[-2:])
    white = torch.maximum(images, 1.5 * luminance(images) + 0.5)
    return keep * images + (1 - keep) * white + layer + layer.flip(2, 3)


def frost(
    images: Float[Tensor, "n c h w"], severity: int, draws: Draws
) -> Float[Tensor, "n c h w"]:
    """Lay frost over the image: feathers of ice, drawn anew for each.

    The published data blend in crops of five photographs of frost. What is blended in here is made
    by `holdfast.adversarial.corruptions.texture.frosted_glass`, with as much light, contrast and
    blue as those photographs have; the weights are the published ones.

    Examples
    --------
    >>> black = torch.zeros(1, 3, 32, 32)
    >>> bool((frost(black, 5, Draws(black)) <= 0.45).all())
    True
    """
    (keep, weight), _ = published(images, _FROST, severity)
    height, width = images.shape[-2:]
    finer = 1 if min(height, width) > 112 else 2  # feathers are fine: drawn larger, then averaged
    ice = F.avg_pool2d(frosted_glass(draws, height * finer, width * finer), finer)
    if images.shape[1] != 3:
        ice = luminance(ice)
    return keep * images + weight * ice


def fog(images: Float[Tensor, "n c h w"], severity: int, draws: Draws) -> Float[Tensor, "n c h w"]:
    """Add clouds of a plasma fractal, and darken to the brightness that the image had.

    Examples
    --------
    >>> black = torch.zeros(1, 3, 32, 32)
    >>> bool((fog(black, 5, Draws(black)) == 0).all())  # no light to scatter
    True
    """
    (thickness, decay), _ = published(images, _FOG, severity)
    height, width = images.shape[-2:]
    clouds = plasma(draws, max(height, width), decay)[:, None, :height, :width]
    brightest = images.amax((1, 2, 3), keepdim=True)
    return (images + thickness * clouds) * brightest / (brightest + thickness)


def brightness(
    images: Float[Tensor, "n c h w"], severity: int, draws: Draws
) -> Float[Tensor, "n c h w"]:
    """Raise the value of each pixel, its brightest channel, and keep hue and saturation.

    Examples
    --------
    >>> red = torch.tensor([0.5, 0.25, 0.0]).view(1, 3, 1, 1)
    >>> brightness(red, 5, Draws(red)).flatten()
    tensor([0.8000, 0.4000, 0.0000])
    """
    more, _ = published(images, _BRIGHTNESS, severity)
    value = images.amax(1, keepdim=True)
    brighter = (value + more).clamp_max(1)
    # In HSV the channels are in proportion to the value. Black has no hue, and becomes grey.
    return torch.where(value > 0, images * (brighter / value), brighter)


def luminance(images: Float[Tensor, "n c h w"]) -> Float[Tensor, "n 1 h w"]:
    """Give the grey of images.

    Examples
    --------
    >>> luminance(torch.tensor([1.0, 0.0, 0.0]).view(1, 3, 1, 1)).flatten()
    tensor([0.2990])
    """
    # Imported here, not above: kornia is slow to import, and who only attacks needs none of it.
    from kornia.color import rgb_to_grayscale

    return rgb_to_grayscale(images) if images.shape[1] == 3 else images.mean(1, keepdim=True)


def resized(layer: Float[Tensor, "n c h w"], shape: Sequence[int]) -> Float[Tensor, "n c h2 w2"]:
    """Bring a layer to an image's height and width, bilinearly.

    Examples
    --------
    >>> resized(torch.ones(1, 1, 2, 2), (3, 4)).shape
    torch.Size([1, 1, 3, 4])
    """
    if layer.shape[-2:] == tuple(shape):
        return layer
    return F.interpolate(layer, list(shape), mode="bilinear", antialias=True)
