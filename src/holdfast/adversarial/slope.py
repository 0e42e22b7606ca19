"""The gradient that an ascent follows, and zero where there is none."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

__all__ = ["slope"]


def slope(values: Float[Tensor, " n"], x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c h w"]:
    """Differentiate one value an image with respect to the images.

    Values that do not depend on the images (the gradient map of a linear model, say) have a slope
    of zero; autograd alone would raise an error.

    Examples
    --------
    >>> x = torch.ones(2, 1, 1, 1, requires_grad=True)
    >>> slope(x.flatten() ** 2, x).flatten()
    tensor([2., 2.])
    >>> slope(torch.zeros(2), x).flatten()
    tensor([0., 0.])
    """
    if not values.requires_grad:
        return torch.zeros_like(x)
    (gradient,) = torch.autograd.grad(values.sum(), x, allow_unused=True, materialize_grads=True)
    return gradient
