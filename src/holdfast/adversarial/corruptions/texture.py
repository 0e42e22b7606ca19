"""Textures that are drawn, not photographed: clouds of plasma, and feathers of ice."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor

from holdfast.adversarial.corruptions.draws import Draws

__all__ = ["frosted_glass", "plasma"]


def plasma(draws: Draws, size: int, decay: float) -> Float[Tensor, "n size size"]:
    """Clouds by the diamond-square algorithm, on a torus.

    Points halfway between known ones, first in the middle of squares and then of their sides, take
    the mean of their four neighbours and a random shift, ever finer. The shift's range falls by
    decay² from one round to the next.

    Parameters
    ----------
    draws : Draws
        Where the shifts come from.
    size : int
        Height and width at least needed; what comes back has the next power of 2.
    decay : float
        The higher, the smoother.

    Returns
    -------
    Tensor
        One map an image, ``(N, S, S)``, each from 0 to 1.

    References
    ----------
    Fournier, Fussell and Carpenter, Computer Rendering of Stochastic Models (CACM 1982).

    Examples
    --------
    >>> clouds = plasma(Draws(torch.rand(2, 3, 8, 8)), size=20, decay=2.0)
    >>> clouds.shape, clouds.amin((1, 2)), clouds.amax((1, 2))
    (torch.Size([2, 32, 32]), tensor([0., 0.]), tensor([1., 1.]))
    """
    step = side = 2 ** max(1, math.ceil(math.log2(size)))
    known = draws.uniform(1, 1) * 0
    shift = 1.0
    while step > 1:
        points = side // step
        moves = shift * draws.uniform(3, points, points, low=-1.0, high=1.0)
        below, right = known.roll(-1, 1), known.roll(-1, 2)
        middle = (known + below + right + below.roll(-1, 2)) / 4 + moves[:, 0]
        across = (known + right + middle + middle.roll(1, 1)) / 4 + moves[:, 1]
        down = (known + below + middle + middle.roll(1, 2)) / 4 + moves[:, 2]
        # Woven together: each known point becomes a square of four.
        upper, lower = torch.stack([known, across], 3), torch.stack([down, middle], 3)
        known = torch.stack([upper.flatten(2), lower.flatten(2)], 2).flatten(1, 2)
        step //= 2
        shift /= decay**2
    known = known - known.amin((1, 2), keepdim=True)
    return known / known.amax((1, 2), keepdim=True)


def frosted_glass(draws: Draws, height: int, width: int) -> Float[Tensor, "n 3 height width"]:
    """Feathers of ice before a cloudy pane: what `frost` lays over an image.

    A feather is a slim leaf with a bright spine and barbs at 60° to it, the angle at which ice
    branches; where several lie over each other, the brightest shows. Each image has its own
    brightness, of 0.5 to 0.8 in the mean, and a standard deviation of 0.1 over its pixels.

    Parameters
    ----------
    draws : Draws
        Where feathers, clouds and brightness come from.
    height, width : int
        Of the texture, in pixels. Feathers are as long as a sixth to half of √(height · width).

    Returns
    -------
    Tensor
        Colours from white to ice blue, ``(N, 3, H, W)`` in [0, 1].

    Examples
    --------
    >>> ice = frosted_glass(Draws(torch.rand(2, 3, 8, 8)), 64, 48)
    >>> ice.shape
    torch.Size([2, 3, 64, 48])
    >>> bool((ice[:, 2] >= ice[:, 0]).all())
    True
    """
    side = math.sqrt(height * width)
    ice = 0.5 * plasma(draws, max(height, width), 1.6)[:, :height, :width]
    rows = (torch.arange(height, device=ice.device, dtype=ice.dtype)[:, None] + 0.5) / side
    columns = (torch.arange(width, device=ice.device, dtype=ice.dtype) + 0.5) / side
    pitch = max(0.02, 3.5 / side)  # from barb to barb; finer ones could not be told apart
    for feather in draws.uniform(90, 6).unbind(1):
        top, left, turn, length, slimness, light = (x[:, None, None] for x in feather.unbind(1))
        y = rows - (1.4 * top - 0.2) * (height / side)
        x = columns - (1.4 * left - 0.2) * (width / side)
        angle = 2 * math.pi * turn
        along = y * angle.sin() + x * angle.cos()
        beside = (y * angle.cos() - x * angle.sin()).abs()
        left_to_tip = 0.16 + 0.34 * length - along
        leaf = (0.2 + 0.35 * slimness) * torch.minimum(left_to_tip, 3 * along)  # half its width
        inside = beside < leaf
        barb = ((along - beside / math.sqrt(3)) / pitch % 1 - 0.5).abs() * 2
        spine = (1 - beside / (0.35 * pitch)).clamp_min(0)
        tall = (0.35 + 0.65 * light) * (1 - 0.6 * beside / leaf.clamp_min(1e-6))
        ice = torch.maximum(ice, inside * tall * (0.25 + 0.6 * torch.maximum(barb, spine)))
    spread = ice.std((1, 2), correction=0, keepdim=True).clamp_min(1e-3)
    level = draws.uniform(1, 1, low=0.5, high=0.8)
    grey = level + 0.1 * (ice - ice.mean((1, 2), keepdim=True)) / spread
    blue = draws.uniform(1, 1) * (1 - grey)  # what is bright is white
    return torch.stack([grey - 0.35 * blue, grey + 0.02 * blue, grey + 0.15 * blue], 1).clamp(0, 1)
