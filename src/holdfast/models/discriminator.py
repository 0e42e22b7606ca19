"""A classifier with a discriminator beside it, which tells its input gradients from images."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F

from holdfast.contracts import InputError

__all__ = ["WithDiscriminator"]


class WithDiscriminator(nn.Module):
    """A classifier with an adaptor and a discriminator of its input gradients, for `JARN`.

    The adaptor makes a picture of a gradient: a 1×1 convolution and a hyperbolic tangent. The
    discriminator judges pictures: five 4×4 convolutions that halve the size, with ``width``, then
    twice as many channels each, batch-norm and leaky ReLU; the mean over what places are left; and
    two logits, gradient and image. Both see every picture with mean 0 and length 1. They are
    trained beside the classifier, by the same optimizer, and are needed no more afterwards: what
    `holdfast.training` saves is the classifier alone.

    Parameters
    ----------
    classifier : nn.Module
        The classifier; it becomes part of this module.
    channels : int
        Channels of the images.
    width : int
        Channels of the discriminator's first convolution.

    Raises
    ------
    InputError
        If ``channels`` or ``width`` is below 1. When asked to judge: if the pictures have another
        number of channels.

    References
    ----------
    Chan et al., Jacobian Adversarially Regularized Networks for Robustness (ICLR 2020); layers,
    widths and initial weights are those of the authors' public code.

    Examples
    --------
    >>> from holdfast.models import mnist_cnn
    >>> model = WithDiscriminator(mnist_cnn(size=16), channels=1)
    >>> images = torch.rand(3, 1, 16, 16)
    >>> model(images).shape, model.discriminate(model.adapt(images), images).shape
    (torch.Size([3, 10]), torch.Size([6, 2]))
    """

    calls: Tensor

    def __init__(self, classifier: nn.Module, channels: int, width: int = 32) -> None:
        super().__init__()
        if channels < 1:
            raise InputError("channels", channels, "the channels of the images, at least 1")
        if width < 1:
            raise InputError("width", width, "a number of channels of at least 1")
        parameter = next(classifier.parameters(), torch.empty(0))
        self.classifier = classifier
        self.channels = channels
        self.adaptor = _initialized(nn.Conv2d(channels, channels, 1)).to(parameter)
        self.discriminator = _discriminator(channels, width).to(parameter)
        # How often an objective has trained them: the discriminator learns every so many times.
        self.register_buffer("calls", torch.zeros((), dtype=torch.long, device=parameter.device))

    def forward(self, images: Float[Tensor, "n c h w"]) -> Float[Tensor, "n k"]:
        """Classify images in [0, 1]; the discriminator does not run."""
        return self.classifier(images)

    def adapt(self, gradients: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c h w"]:
        """Make pictures of input gradients, with values in [-1, 1]."""
        self._check(gradients)
        return self.adaptor(_standardized(gradients)).tanh()

    def discriminate(
        self,
        adapted: Float[Tensor, "n c h w"],
        images: Float[Tensor, "n c h w"],
        *,
        fixed: bool = False,
    ) -> Float[Tensor, "m 2"]:
        """Judge adapted gradients and images as one batch: logits ``(2 N, 2)`` in that order.

        With ``fixed``, the discriminator's own parameters are not differentiated.
        """
        self._check(images)
        pictures = _standardized(torch.cat([adapted, images]))
        if not fixed:
            logits: Tensor = self.discriminator(pictures)
            return logits
        weights = {name: weight.detach() for name, weight in self.discriminator.named_parameters()}
        return functional_call(self.discriminator, weights, (pictures,))

    def _check(self, pictures: Tensor) -> None:
        if pictures.shape[1] != self.channels:
            expected = f"{self.channels} channels, for which the discriminator is built"
            raise InputError("images", f"{pictures.shape[1]} channels", expected)


def _discriminator(channels: int, width: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for wide in (width * 2**n for n in range(5)):
        layers += [_Halving(channels, wide), nn.BatchNorm2d(wide, eps=1e-3), nn.LeakyReLU(0.1)]
        channels = wide
    head = nn.Linear(channels, 2)
    bound = math.sqrt(3 / channels)
    nn.init.uniform_(head.weight, -bound, bound)
    nn.init.zeros_(head.bias)
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), head)


class _Halving(nn.Conv2d):
    """A 4×4 convolution that halves height and width, odd ones rounded up."""

    def __init__(self, before: int, after: int) -> None:
        super().__init__(before, after, 4, stride=2)
        _initialized(self)

    def forward(self, x: Tensor) -> Tensor:
        height, width = x.shape[2:]
        return super().forward(F.pad(x, (1, 1 + width % 2, 1, 1 + height % 2)))


def _initialized(convolution: nn.Conv2d) -> nn.Conv2d:
    nn.init.kaiming_normal_(convolution.weight, mode="fan_out", nonlinearity="relu")
    if convolution.bias is not None:
        nn.init.zeros_(convolution.bias)
    return convolution


def _standardized(pictures: Tensor) -> Tensor:
    """Take the mean of each picture away, and scale it to length 1."""
    centred = pictures - pictures.mean((1, 2, 3), keepdim=True)
    squares = centred.square().sum((1, 2, 3), keepdim=True)
    return centred / squares.clamp_min(1e-12).sqrt()
