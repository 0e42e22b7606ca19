"""Residual networks for images of 32×32 pixels."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from torchvision.models.resnet import BasicBlock, Bottleneck, ResNet

__all__ = ["cifar_resnet10", "cifar_resnet18", "cifar_resnet50"]


def cifar_resnet10(classes: int = 10, in_channels: int = 3) -> nn.Module:
    """Build a ResNet-10 for small images: one block a stage, 4.9 million parameters.

    Like :func:`cifar_resnet18`, with half the blocks.

    Examples
    --------
    >>> import torch
    >>> cifar_resnet10(in_channels=1)(torch.rand(2, 1, 32, 32)).shape
    torch.Size([2, 10])
    """
    return _cifar_resnet([1, 1, 1, 1], classes, in_channels)


def cifar_resnet18(classes: int = 10, in_channels: int = 3) -> nn.Module:
    """Build a ResNet-18 for small images: two blocks a stage, 11.2 million parameters.

    torchvision's ``resnet18`` is made for 224×224 pixels and leaves one position of a 32×32 image.
    Here a 3×3 stem and no max-pooling keep the full size for the first stage. The names of the
    tensors are torchvision's.

    Parameters
    ----------
    classes : int
        Number of classes.
    in_channels : int
        Channels of the images.

    Returns
    -------
    nn.Module
        From images ``(N, in_channels, H, W)`` to logits ``(N, classes)``.

    References
    ----------
    He et al., Deep Residual Learning for Image Recognition (CVPR 2016).

    Examples
    --------
    >>> sum(p.numel() for p in cifar_resnet18().parameters())
    11173962
    """
    return _cifar_resnet([2, 2, 2, 2], classes, in_channels)


def cifar_resnet50(classes: int = 10, in_channels: int = 3) -> nn.Module:
    """Build a ResNet-50 for small images: bottleneck blocks, 23.5 million parameters.

    Like :func:`cifar_resnet18`, with the blocks of torchvision's ``resnet50``.

    Examples
    --------
    >>> sum(p.numel() for p in cifar_resnet50().parameters())
    23520842
    """
    return _cifar_resnet([3, 4, 6, 3], classes, in_channels, _Bottleneck)


def _cifar_resnet(
    blocks: list[int], classes: int, in_channels: int, block: type[nn.Module] | None = None
) -> nn.Module:
    network = ResNet(block or _Block, blocks, num_classes=classes)
    network.conv1 = nn.Conv2d(in_channels, 64, 3, padding=1, bias=False)
    nn.init.kaiming_normal_(network.conv1.weight, mode="fan_out", nonlinearity="relu")
    network.relu = nn.ReLU()
    network.maxpool = nn.Identity()
    return network


class _Block(BasicBlock):  # type: ignore[misc] # torchvision has no types
    """torchvision's block with a ReLU module a place, none of them in place.

    Backward hooks, on which guided backpropagation and DeepLIFT rest, need both.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.relu = nn.ReLU()
        self.relu_out = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        shortcut = x if self.downsample is None else self.downsample(x)
        inner = self.relu(self.bn1(self.conv1(x)))
        return self.relu_out(shortcut + self.bn2(self.conv2(inner)))


class _Bottleneck(Bottleneck):  # type: ignore[misc] # torchvision has no types
    """torchvision's block of three convolutions, likewise."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.relu, self.relu2, self.relu_out = nn.ReLU(), nn.ReLU(), nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        shortcut = x if self.downsample is None else self.downsample(x)
        inner = self.relu(self.bn1(self.conv1(x)))
        inner = self.relu2(self.bn2(self.conv2(inner)))
        return self.relu_out(shortcut + self.bn3(self.conv3(inner)))
