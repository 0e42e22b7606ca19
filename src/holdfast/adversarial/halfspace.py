"""The nearest image on the other side of a plane: exact, with the limits of pixel values."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

__all__ = ["nearest_in_halfspace"]


def nearest_in_halfspace(
    images: Float[Tensor, "n c h w"],
    normals: Float[Tensor, "n c h w"],
    descents: Float[Tensor, " n"],
) -> Float[Tensor, "n c h w"]:
    """Move each image as little as possible, within [0, 1], to descend a linear function.

    Solves ``min ‖z − x‖₂`` over ``z`` in [0, 1] with ``⟨normal, x − z⟩ ≥ descent`` exactly. The
    solution is ``z = clip(x − λ·normal)``, and its descent grows with λ piecewise linearly, with a
    kink where a pixel reaches its limit; sorting the kinks gives λ.

    Parameters
    ----------
    images : Tensor
        The images x, ``(N, C, H, W)`` in [0, 1].
    normals : Tensor
        The gradient of each linear function, ``(N, C, H, W)``.
    descents : Tensor
        By how much each function shall fall, ``(N,)``; 0 or less leaves the image as it is.

    Returns
    -------
    Tensor
        The nearest images, ``(N, C, H, W)``. Where no image in [0, 1] falls so far, the one that
        falls most.

    Examples
    --------
    >>> image, normal = torch.full((1, 1, 1, 2), 0.5), torch.tensor([[[[2.0, 1.0]]]])
    >>> nearest_in_halfspace(image, normal, torch.tensor([0.5]))
    tensor([[[[0.3000, 0.4000]]]])
    >>> nearest_in_halfspace(image, normal, torch.tensor([1.25]))
    tensor([[[[0.0000, 0.2500]]]])
    """
    x, a = images.flatten(1), normals.flatten(1)
    # How far λ goes until the pixel is at its limit, and by how much the function falls on the way.
    reach = torch.where(a == 0, 0, torch.where(a > 0, x, x - 1) / torch.where(a == 0, 1, a))
    reach, order = reach.clamp_min(0).sort(dim=1)
    rate = a.square().gather(1, order)
    moving = rate.flip(1).cumsum(1).flip(1)
    fallen = (rate * reach).cumsum(1) - rate * reach

    # The piece that holds λ ends at the first kink where the function has fallen far enough.
    short = (fallen + moving * reach < descents[:, None]).sum(1, keepdim=True)
    piece = short.clamp_max(reach.shape[1] - 1)
    left = (descents[:, None] - fallen.gather(1, piece)).clamp_min(0)
    step = left / moving.gather(1, piece).clamp_min(torch.finfo(a.dtype).tiny)
    step = torch.where(short == reach.shape[1], reach[:, -1:], step)
    return (x - step * a).clamp(0, 1).view_as(images)
