"""Noise of the sensor: Gaussian, shot, impulse and speckle, for each pixel and channel alone."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from holdfast.adversarial.corruptions.draws import Draws
from holdfast.adversarial.corruptions.severity import published

__all__ = ["gaussian_noise", "impulse_noise", "shot_noise", "speckle_noise"]

# The standard deviation.
_GAUSSIAN = {
    32: (0.04, 0.06, 0.08, 0.09, 0.10),
    64: (0.04, 0.08, 0.12, 0.15, 0.18),
    224: (0.08, 0.12, 0.18, 0.26, 0.38),
}
# Photons that white stands for.
_SHOT = {
    32: (500, 250, 100, 75, 50),
    64: (250, 100, 50, 30, 15),
    224: (60, 25, 12, 5, 3),
}
# The share of values that are replaced.
_IMPULSE = {
    32: (0.01, 0.02, 0.03, 0.05, 0.07),
    64: (0.01, 0.02, 0.05, 0.08, 0.14),
    224: (0.03, 0.06, 0.09, 0.17, 0.27),
}
# The standard deviation, as a share of the value.
_SPECKLE = {
    32: (0.06, 0.1, 0.12, 0.16, 0.2),
    64: (0.15, 0.2, 0.25, 0.3, 0.35),
    224: (0.15, 0.2, 0.35, 0.45, 0.6),
}


def gaussian_noise(
    images: Float[Tensor, "n c h w"], severity: int, draws: Draws
) -> Float[Tensor, "n c h w"]:
    """Add normal noise, as in low light.

    Examples
    --------
    >>> grey = torch.full((1, 3, 32, 32), 0.5)
    >>> noise = gaussian_noise(grey, 5, Draws(grey, seed=0)) - grey
    >>> round(float(noise.std()), 2)
    0.1
    """
    deviation, _ = published(images, _GAUSSIAN, severity)
    return images + deviation * draws.normal(*images.shape[1:])


def shot_noise(
    images: Float[Tensor, "n c h w"], severity: int, draws: Draws
) -> Float[Tensor, "n c h w"]:
    """Count a few photons for each value: Poisson noise, stronger where it is bright.

    Examples
    --------
    >>> black = torch.zeros(1, 3, 32, 32)
    >>> bool((shot_noise(black, 5, Draws(black)) == 0).all())
    True
    """
    photons, _ = published(images, _SHOT, severity)
    return draws.poisson(photons * images) / photons


def impulse_noise(
    images: Float[Tensor, "n c h w"], severity: int, draws: Draws
) -> Float[Tensor, "n c h w"]:
    """Replace values by 0 or 1, each as often: salt and pepper, as from broken pixels.

    Examples
    --------
    >>> grey = torch.full((1, 3, 32, 32), 0.5)
    >>> impulse_noise(grey, 5, Draws(grey)).unique()
    tensor([0.0000, 0.5000, 1.0000])
    """
    share, _ = published(images, _IMPULSE, severity)
    drawn = draws.uniform(*images.shape[1:])
    noisy = torch.where(drawn < share / 2, 0.0, images)
    return torch.where(drawn >= 1 - share / 2, 1.0, noisy)


def speckle_noise(
    images: Float[Tensor, "n c h w"], severity: int, draws: Draws
) -> Float[Tensor, "n c h w"]:
    """Add normal noise in proportion to each value.

    Examples
    --------
    >>> black = torch.zeros(1, 3, 32, 32)
    >>> bool((speckle_noise(black, 5, Draws(black)) == 0).all())
    True
    """
    deviation, _ = published(images, _SPECKLE, severity)
    return images + deviation * images * draws.normal(*images.shape[1:])
