"""What gradients of a classifier are compared with: its normalized input, or the pixels."""

from __future__ import annotations

from typing import Literal

from jaxtyping import Float
from torch import Tensor, nn

from holdfast.contracts import InputError
from holdfast.models.attributing import Attributing
from holdfast.models.discriminator import WithDiscriminator
from holdfast.models.normalized import Normalized, Standardized

__all__ = ["Anchor", "at_anchor"]

Anchor = Literal["normalized", "pixels"]
"""What an image is to a gradient: the model's normalized input, or the pixels in [0, 1]."""


def at_anchor(
    model: nn.Module, images: Float[Tensor, "n c h w"], anchor: Anchor = "normalized"
) -> tuple[Float[Tensor, "n c h w"], nn.Module]:
    """Split a model into what its gradients are aligned with and the classifier that takes it.

    Parameters
    ----------
    model : nn.Module
        The classifier of images in [0, 1].
    images : Tensor
        The images ``(N, C, H, W)``.
    anchor : {"normalized", "pixels"}
        The input that is left when `Normalized` or `Standardized` has normalized the images; or
        the images. A model without either, such as one that normalizes within its own forward
        pass, has but its pixels.

    Returns
    -------
    tuple
        That input ``(N, C, H, W)``, differentiable with respect to the images, and a module that
        classifies it as the model does the images.

    Examples
    --------
    >>> import torch
    >>> model = Normalized(nn.Flatten(), mean=0.5, std=0.25)
    >>> seen, inside = at_anchor(model, torch.tensor([0.5, 1.0]).view(1, 1, 1, 2))
    >>> seen.flatten(), inside is model.module
    (tensor([0., 2.]), True)
    """
    if anchor == "pixels":
        return images, model
    if anchor != "normalized":
        raise InputError("anchor", repr(anchor), "'normalized' or 'pixels'")
    if isinstance(model, Attributing | WithDiscriminator):
        model = model.classifier  # what stands beside it does not classify
    if isinstance(model, Normalized | Standardized):
        return model.normalize(images), model.module
    return images, model
