"""Normalization inside the model, so that everything outside it speaks of pixels in [0, 1]."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from holdfast.contracts import InputError
from holdfast.models.classifier import logits_in

__all__ = ["Normalized", "Standardized"]


class Normalized(nn.Module):
    """A classifier of images in [0, 1] whose inside sees ``(images - mean) / std``.

    Mean and deviation are buffers: they move with the model and are saved with it.

    Parameters
    ----------
    module : nn.Module
        The classifier of normalized images.
    mean, std : float or sequence of float
        One value for all channels, or one a channel. Every ``std`` is above 0.

    Raises
    ------
    InputError
        If a ``std`` is not above 0, or ``mean`` and ``std`` are for different numbers of channels.
        When called: if the images have another number of channels.

    Examples
    --------
    >>> model = Normalized(nn.Flatten(), mean=0.5, std=0.25)
    >>> model(torch.tensor([0.5, 1.0]).view(1, 1, 1, 2))
    tensor([[0., 2.]])
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self, module: nn.Module, mean: float | Sequence[float], std: float | Sequence[float]
    ) -> None:
        super().__init__()
        counts = [len(v) for v in (mean, std) if not isinstance(v, int | float)]
        means, stds = _column(mean), _column(std)
        if not all(value > 0 for value in stds):
            raise InputError("std", std, "numbers above 0")
        if len(set(counts)) > 1:
            raise InputError("std", f"{counts[1]} values", f"{counts[0]}, as many as mean has")
        self.module = module
        self.register_buffer("mean", torch.tensor(means, dtype=torch.float32).view(-1, 1, 1))
        self.register_buffer("std", torch.tensor(stds, dtype=torch.float32).view(-1, 1, 1))
        # None where two bare numbers fit any number of channels.
        self.channels = counts[0] if counts else None

    def forward(self, images: Float[Tensor, "n c h w"]) -> Float[Tensor, "n k"]:
        """Classify images in [0, 1]."""
        return logits_in(self.module(self.normalize(images)))

    def normalize(self, images: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c h w"]:
        """Give the images as the module inside sees them."""
        if self.channels is not None and images.shape[1] != self.channels:
            expected = f"{self.channels} channels, as many as mean and std are given for"
            raise InputError("images", f"{images.shape[1]} channels", expected)
        return (images - self.mean) / self.std


class Standardized(nn.Module):
    """A classifier of images in [0, 1] whose inside sees each image with mean 0 and deviation 1.

    Mean and standard deviation are those of the image itself, over all its pixels and channels;
    the deviation is at least ``1 / sqrt(values)`` of a level of 255, so a constant image becomes
    zeros. This is TensorFlow's ``per_image_standardization`` of images from 0 to 255, as published
    code applies it (the CIFAR-10 challenge of Madry et al., Robust Attribution Regularization).

    Parameters
    ----------
    module : nn.Module
        The classifier of standardized images.

    Examples
    --------
    >>> model = Standardized(nn.Flatten())
    >>> model(torch.tensor([0.0, 1.0]).view(1, 1, 1, 2))
    tensor([[-1.,  1.]])
    """

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, images: Float[Tensor, "n c h w"]) -> Float[Tensor, "n k"]:
        """Classify images in [0, 1]."""
        return logits_in(self.module(self.normalize(images)))

    def normalize(self, images: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c h w"]:
        """Give the images as the module inside sees them."""
        dims = (1, 2, 3)
        variance = images.var(dims, correction=0, keepdim=True)
        # The floor goes under the variance, not its root: the root of 0 has no gradient.
        floor = 1 / (255**2 * images[0].numel())
        return (images - images.mean(dims, keepdim=True)) / variance.clamp(min=floor).sqrt()


def _column(numbers: float | Sequence[float]) -> list[float]:
    return [float(numbers)] if isinstance(numbers, int | float) else [float(n) for n in numbers]
