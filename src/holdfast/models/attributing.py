"""A classifier that explains itself: logits and an attribution map from one forward pass."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from holdfast.contracts import InputError
from holdfast.models.features import last_features, with_features
from holdfast.models.state import evaluating

__all__ = ["Attributing"]


class Attributing(nn.Module):
    """A classifier with a decoder from its last convolutional features to a map of the image.

    The decoder doubles the size of the features, again and again until they reach the image's: each
    time a 3×3 convolution to half the channels, batch-norm, ReLU and bilinear upsampling. A last
    3×3 convolution and a sigmoid make one channel in [0, 1]. Trained to give the saliency map of a
    robust teacher, it makes a map at the price of a classification.

    Parameters
    ----------
    classifier : nn.Module
        The classifier; it becomes part of this module.
    shape : tuple of int
        Channels, height and width of the images.
    layer : str, optional
        The dotted name of the layer that the decoder reads; by default found by
        :func:`last_features`.

    Raises
    ------
    InputError
        If the layer does not exist or gives no feature maps, or none is named and the classifier
        has no convolution. When called: if the images have another height or width.

    References
    ----------
    Generating Deep Networks Explanations with Robust Attribution Alignment (ACML 2021). The
    decoder's layout is ours.

    Examples
    --------
    >>> from holdfast.models import mnist_cnn
    >>> model = Attributing(mnist_cnn(size=16), shape=(1, 16, 16))
    >>> logits, maps = model.attribute(torch.rand(2, 1, 16, 16))
    >>> logits.shape, maps.shape
    (torch.Size([2, 10]), torch.Size([2, 1, 16, 16]))
    """

    def __init__(
        self, classifier: nn.Module, shape: tuple[int, int, int], layer: str | None = None
    ) -> None:
        super().__init__()
        if not (len(shape) == 3 and min(shape) > 0):
            raise InputError("shape", shape, "channels, height and width of the images")
        parameter = next(classifier.parameters(), torch.empty(0))
        probe = torch.zeros(1, *shape, dtype=parameter.dtype, device=parameter.device)
        self.classifier = classifier
        self.layer = layer or last_features(classifier, probe)
        with evaluating(classifier), torch.no_grad():
            _, features = with_features(classifier, probe, self.layer)
        self.size = shape[1:]
        self.decoder = _decoder(features.shape[1], features.shape[2:], self.size).to(probe)

    def forward(self, images: Float[Tensor, "n c h w"]) -> Float[Tensor, "n k"]:
        """Classify images in [0, 1]; the decoder does not run."""
        return self.classifier(images)

    def attribute(
        self, images: Float[Tensor, "n c h w"]
    ) -> tuple[Float[Tensor, "n k"], Float[Tensor, "n 1 h w"]]:
        """Classify images and explain: logits, and one map in [0, 1] for each image."""
        if tuple(images.shape[2:]) != self.size:
            expected = f"images of {self.size[0]}×{self.size[1]} pixels"
            raise InputError("images", f"shape {tuple(images.shape)}", expected)
        logits, features = with_features(self.classifier, images, self.layer)
        maps = F.interpolate(self.decoder(features), size=self.size, mode="bilinear")
        return logits, maps.sigmoid()


def _decoder(channels: int, small: torch.Size, large: tuple[int, int]) -> nn.Sequential:
    ratio = max(want / have for want, have in zip(large, small, strict=True))
    layers: list[nn.Module] = []
    for _ in range(math.ceil(math.log2(max(1.0, ratio)))):
        fewer = max(16, channels // 2)
        layers += [
            nn.Conv2d(channels, fewer, 3, padding=1, bias=False),
            nn.BatchNorm2d(fewer),
            nn.ReLU(),
            nn.Upsample(scale_factor=2, mode="bilinear"),
        ]
        channels = fewer
    return nn.Sequential(*layers, nn.Conv2d(channels, 1, 3, padding=1))
