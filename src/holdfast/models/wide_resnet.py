"""Wide residual networks (Zagoruyko & Komodakis) with pre-activation blocks."""

from __future__ import annotations

from collections import OrderedDict

from torch import Tensor, nn

from holdfast.contracts import InputError

__all__ = ["small_resnet", "wide_resnet", "wrn_28_10", "wrn_40_2"]


def wide_resnet(
    depth: int, width: int, classes: int = 10, in_channels: int = 3, dropout: float = 0.0
) -> nn.Module:
    """Build a wide residual network WRN-``depth``-``width``.

    Three groups of pre-activation blocks of 16, 32 and 64 × ``width`` channels; the second and the
    third halve the image. Global average pooling makes any image size of 8 pixels and more fit.

    Parameters
    ----------
    depth : int
        Number of layers: 6 × (blocks in a group) + 4, as in 16, 22, 28, 40.
    width : int
        The widening factor.
    classes : int
        Number of classes.
    in_channels : int
        Channels of the images.
    dropout : float
        Probability of dropout between a block's two convolutions, in [0, 1).

    Returns
    -------
    nn.Module
        From images ``(N, in_channels, H, W)`` to logits ``(N, classes)``.

    Raises
    ------
    InputError
        If no network has this depth, ``width`` is below 1 or ``dropout`` leaves [0, 1).

    References
    ----------
    Zagoruyko & Komodakis, Wide Residual Networks (BMVC 2016).

    Examples
    --------
    >>> import torch
    >>> wide_resnet(10, 1, classes=5)(torch.rand(2, 3, 32, 32)).shape
    torch.Size([2, 5])
    """
    blocks, rest = divmod(depth - 4, 6)
    if blocks < 1 or rest:
        raise InputError("depth", depth, "6n + 4 for a whole n ≥ 1: 10, 16, 22, 28, 34, 40, …")
    if width < 1:
        raise InputError("width", width, "a widening factor of at least 1")
    if not 0 <= dropout < 1:
        raise InputError("dropout", dropout, "a probability in [0, 1)")
    narrow, middle, wide = 16 * width, 32 * width, 64 * width
    network = nn.Sequential(
        OrderedDict(
            stem=nn.Conv2d(in_channels, 16, 3, padding=1, bias=False),
            group1=_group(blocks, 16, narrow, stride=1, dropout=dropout),
            group2=_group(blocks, narrow, middle, stride=2, dropout=dropout),
            group3=_group(blocks, middle, wide, stride=2, dropout=dropout),
            norm=nn.BatchNorm2d(wide),
            relu=nn.ReLU(),
            pool=nn.AdaptiveAvgPool2d(1),
            flatten=nn.Flatten(),
            logits=nn.Linear(wide, classes),
        )
    )
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        elif isinstance(module, nn.Linear):
            nn.init.zeros_(module.bias)
    return network


def wrn_28_10(classes: int = 10, in_channels: int = 3, dropout: float = 0.0) -> nn.Module:
    """Build WRN-28-10, 36.5 million parameters; see :func:`wide_resnet`.

    Examples
    --------
    >>> sum(p.numel() for p in wrn_28_10().parameters())
    36479194
    """
    return wide_resnet(28, 10, classes, in_channels, dropout)


def wrn_40_2(classes: int = 10, in_channels: int = 3, dropout: float = 0.0) -> nn.Module:
    """Build WRN-40-2, 2.2 million parameters; see :func:`wide_resnet`.

    Examples
    --------
    >>> sum(p.numel() for p in wrn_40_2().parameters())
    2243546
    """
    return wide_resnet(40, 2, classes, in_channels, dropout)


def small_resnet(classes: int = 10, in_channels: int = 3, units: int = 5) -> nn.Module:
    """Build the small residual network of the papers: 16, 16, 32 and 64 filters.

    A 3×3 convolution with 16 filters and three groups of ``units`` residual units with 16, 32 and
    64: :func:`wide_resnet` without the widening, half a million parameters. The papers train it on
    images that are each normalized by themselves (:class:`Standardized`).

    Parameters
    ----------
    classes : int
        Number of classes.
    in_channels : int
        Channels of the images.
    units : int
        Residual units in a group.

    Returns
    -------
    nn.Module
        From images ``(N, in_channels, H, W)`` to logits ``(N, classes)``.

    Raises
    ------
    InputError
        If ``units`` is below 1.

    References
    ----------
    Enhanced Regularizers for Attributional Robustness (AAAI 2021), "5 residual units with (16, 16,
    32, 64) filters each"; we read it as five a group. Robust Attribution Regularization (NeurIPS
    2019) describes its network in the same words; the network of the authors' public code is
    `rar_resnet`.

    Examples
    --------
    >>> sum(p.numel() for p in small_resnet(classes=17).parameters())
    467169
    """
    if units < 1:
        raise InputError("units", units, "a number of residual units of at least 1")
    return wide_resnet(6 * units + 4, 1, classes, in_channels)


def _group(blocks: int, before: int, after: int, *, stride: int, dropout: float) -> nn.Sequential:
    first = _Block(before, after, stride, dropout)
    return nn.Sequential(first, *(_Block(after, after, 1, dropout) for _ in range(blocks - 1)))


class _Block(nn.Module):
    """Norm, ReLU, convolution, twice, added to the input or, where shapes change, its projection.

    Every ReLU is a module of its own and none works in place: backward hooks, on which guided
    backpropagation and DeepLIFT rest, need both.
    """

    def __init__(self, before: int, after: int, stride: int, dropout: float) -> None:
        super().__init__()
        self.norm1 = nn.BatchNorm2d(before)
        self.relu1 = nn.ReLU()
        self.conv1 = nn.Conv2d(before, after, 3, stride, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(after)
        self.relu2 = nn.ReLU()
        self.dropout = nn.Dropout(dropout)
        self.conv2 = nn.Conv2d(after, after, 3, padding=1, bias=False)
        same = before == after and stride == 1
        self.projection = None if same else nn.Conv2d(before, after, 1, stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        active = self.relu1(self.norm1(x))
        # The projection starts from the activated input, as in the authors' own network.
        shortcut = x if self.projection is None else self.projection(active)
        inner = self.relu2(self.norm2(self.conv1(active)))
        return shortcut + self.conv2(self.dropout(inner))
