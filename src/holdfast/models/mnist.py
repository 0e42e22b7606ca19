"""The convolutional network for handwritten digits."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

from jaxtyping import Float
from torch import Tensor, nn

from holdfast.contracts import InputError

__all__ = ["mnist_cnn"]


def mnist_cnn(
    classes: int = 10,
    in_channels: int = 1,
    size: int = 28,
    filters: Sequence[int] = (32, 64),
    hidden: int = 1024,
) -> nn.Module:
    """Build the MNIST network of the papers: two convolutions and two dense layers.

    5×5 convolutions with 32 and 64 filters that keep the size, each followed by ReLU and 2×2
    max-pooling; a dense layer of 1024 units with ReLU; and the logits. ``filters`` and ``hidden``
    make a smaller one for smaller images.

    Parameters
    ----------
    classes : int
        Number of classes.
    in_channels : int
        Channels of the images.
    size : int
        Height and width of the images in pixels, at least 4; the dense layer depends on it.
    filters : sequence of int
        Filters of the two convolutions.
    hidden : int
        Units of the dense layer.

    Returns
    -------
    nn.Module
        From images ``(N, in_channels, size, size)`` to logits ``(N, classes)``.

    Raises
    ------
    InputError
        If ``size`` is below 4. When called: if the images have another shape.

    References
    ----------
    Madry et al., Towards Deep Learning Models Resistant to Adversarial Attacks (ICLR 2018); used by
    Attributional Robustness Training (ECCV 2020) and the work it compares with.

    Examples
    --------
    >>> import torch
    >>> mnist_cnn(size=16)(torch.rand(2, 1, 16, 16)).shape
    torch.Size([2, 10])
    """
    if size < 4:
        raise InputError("size", size, "at least 4 pixels, to be halved twice")
    return _MnistCNN(classes, in_channels, size, filters, hidden)


class _MnistCNN(nn.Sequential):
    def __init__(
        self, classes: int, in_channels: int, size: int, filters: Sequence[int], hidden: int
    ) -> None:
        first, second = filters
        layers = {
            "conv1": nn.Conv2d(in_channels, first, 5, padding=2),
            "relu1": nn.ReLU(),
            "pool1": nn.MaxPool2d(2),
            "conv2": nn.Conv2d(first, second, 5, padding=2),
            "relu2": nn.ReLU(),
            "pool2": nn.MaxPool2d(2),
            "flatten": nn.Flatten(),
            "dense": nn.Linear(second * (size // 4) ** 2, hidden),
            "relu3": nn.ReLU(),
            "logits": nn.Linear(hidden, classes),
        }
        super().__init__(OrderedDict(layers))
        self.shape = (in_channels, size, size)

    def forward(self, images: Float[Tensor, "n c h w"]) -> Float[Tensor, "n k"]:
        # Sizes that differ by rounding would pass the dense layer unnoticed.
        if images.shape[1:] != self.shape:
            expected = f"shape (N, {', '.join(map(str, self.shape))}), which mnist_cnn is built for"
            raise InputError("images", f"shape {tuple(images.shape)}", expected)
        return super().forward(images)
