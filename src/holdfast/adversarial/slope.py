"""The gradient that an attack follows; missing, it is an error, and zero, it is counted."""

from __future__ import annotations

import warnings

from jaxtyping import Bool, Float
from torch import Tensor

from holdfast.contracts import StuckWarning
from holdfast.models import differentiate

__all__ = ["MOSTLY", "directionless", "linked", "slope", "warn_if_stuck"]


MOSTLY = 0.5
"""An attack is stuck where more than this share of its steps had no direction."""


def slope(values: Float[Tensor, " n"], x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c h w"]:
    """Differentiate one value per image with respect to the images.

    Raises
    ------
    HoldfastError
        If autograd cannot trace the values back to the images: the model runs without recording
        gradients, or does not use the images. An attack would stay where it is, and the model would
        look robust. Values that may rightly be constant come through `linked`. Also if they are
        gradients themselves, and PyTorch cannot differentiate a function of the model twice.

    Examples
    --------
    >>> import torch
    >>> x = torch.ones(2, 1, 1, 1, requires_grad=True)
    >>> slope(x.flatten() ** 2, x).flatten()
    tensor([2., 2.])
    >>> slope(torch.zeros(2), x)  # doctest: +ELLIPSIS
    Traceback (most recent call last):
        ...
    holdfast.contracts.HoldfastError: model: its output has no gradient with respect to the ...
    """
    return differentiate(values.sum(), x)


def linked(values: Float[Tensor, " n"], x: Float[Tensor, "n c h w"]) -> Float[Tensor, " n"]:
    """Declare that values may rightly not depend on the images: their `slope` is then zero.

    The gradient map of a linear model, for example, is the same for all images.

    Examples
    --------
    >>> import torch
    >>> x = torch.ones(2, 1, 1, 1, requires_grad=True)
    >>> slope(linked(torch.zeros(2), x), x).flatten()
    tensor([0., 0.])
    """
    return values + 0 * x.flatten(1).sum(1)


def directionless(gradient: Float[Tensor, "n c h w"]) -> Bool[Tensor, " n"]:
    """Tell for which images a gradient gives no direction: it is zero, NaN or infinite everywhere.

    Examples
    --------
    >>> import torch
    >>> directionless(torch.tensor([0.0, torch.nan, -1.0]).view(3, 1, 1, 1))
    tensor([ True,  True, False])
    """
    return (gradient.nan_to_num(0, 0, 0) == 0).flatten(1).all(1)


def warn_if_stuck(attack: object, stuck: Float[Tensor, " n"], stacklevel: int = 3) -> None:
    """Warn where more than half of an attack's steps had no direction.

    Parameters
    ----------
    attack : object
        The attack, named by its class.
    stuck : Tensor
        The share of its steps that had no direction, ``(N,)``; NaN where it took none.
    stacklevel : int
        As of `warnings.warn`.

    Examples
    --------
    >>> import torch
    >>> from holdfast.adversarial import FGSM
    >>> with warnings.catch_warnings(record=True) as caught:
    ...     warn_if_stuck(FGSM(eps=0.1), torch.tensor([0.0, 1.0]))
    >>> print(caught[0].message)
    FGSM: for 1 of 2 images most steps had no direction, as the gradient was zero or not finite; \
that they withstood it is no evidence. Try attacks that need no gradient
    """
    count = int((stuck > MOSTLY).sum())
    if count:
        warnings.warn(
            f"{type(attack).__name__}: for {count} of {len(stuck)} images most steps had no "
            "direction, as the gradient was zero or not finite; that they withstood it is no "
            "evidence. Try attacks that need no gradient",
            StuckWarning,
            stacklevel=stacklevel,
        )
