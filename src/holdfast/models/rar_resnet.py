"""The residual network of the public code of Robust Attribution Regularization."""

from __future__ import annotations

import math
from collections import OrderedDict

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from holdfast.contracts import InputError

__all__ = ["rar_resnet"]


def rar_resnet(classes: int = 10, in_channels: int = 3) -> nn.Module:
    """Build the network that the authors of RAR train on Flower and GTSRB: three residual units.

    A 3×3 convolution with 16 filters, and one unit each with 16, 32 and 64; the second and the
    third halve the image. Nothing is normalized inside. A unit is twice a leaky ReLU of slope 0.1
    and a 3×3 convolution, added to what came in; where it halves, to its 2×2 means, with channels
    of zeros put before and behind. Weights are drawn as there. The authors train it on images that
    are each normalized by themselves (:class:`Standardized`); `small_resnet` is the network of
    their paper's words.

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

    Raises
    ------
    InputError
        When called: if height or width is no multiple of 4.

    References
    ----------
    Chen et al., Robust Attribution Regularization (NeurIPS 2019), public code. It is that of the
    CIFAR-10 challenge of Madry et al. with one unit a group and without batch-norm.

    Examples
    --------
    >>> import torch
    >>> network = rar_resnet(classes=17)
    >>> network(torch.rand(2, 3, 16, 32)).shape, sum(p.numel() for p in network.parameters())
    (torch.Size([2, 17]), 75265)
    """
    return _RARNetwork(classes, in_channels)


class _RARNetwork(nn.Sequential):
    def __init__(self, classes: int, in_channels: int) -> None:
        head = nn.Linear(64, classes)
        super().__init__(
            OrderedDict(
                stem=_Convolution(in_channels, 16, 1),
                # The first unit's shortcut, too, starts behind the activation.
                relu1=nn.LeakyReLU(0.1),
                unit1=_Unit(16, 16, active=True),
                unit2=_Unit(16, 32),
                unit3=_Unit(32, 64),
                relu=nn.LeakyReLU(0.1),
                pool=nn.AdaptiveAvgPool2d(1),
                flatten=nn.Flatten(),
                logits=head,
            )
        )
        bound = math.sqrt(3 / 64)
        nn.init.uniform_(head.weight, -bound, bound)
        nn.init.zeros_(head.bias)

    def forward(self, images: Float[Tensor, "n c h w"]) -> Float[Tensor, "n k"]:
        height, width = images.shape[2:]
        if height % 4 or width % 4:
            expected = "a height and width that can be halved twice, as rar_resnet does"
            raise InputError("images", f"shape {tuple(images.shape)}", expected)
        return super().forward(images)


class _Unit(nn.Module):
    """Leaky ReLU and convolution, twice, added to the input, or to its means among zeros."""

    def __init__(self, before: int, after: int, *, active: bool = False) -> None:
        super().__init__()
        self.added = after - before
        self.relu1 = nn.Identity() if active else nn.LeakyReLU(0.1)
        self.conv1 = _Convolution(before, after, 2 if self.added else 1)
        self.relu2 = nn.LeakyReLU(0.1)
        self.conv2 = _Convolution(after, after, 1)

    def forward(self, x: Tensor) -> Tensor:
        inner = self.conv2(self.relu2(self.conv1(self.relu1(x))))
        if self.added:
            half = self.added // 2
            x = F.pad(F.avg_pool2d(x, 2), (0, 0, 0, 0, half, half))
        return x + inner


class _Convolution(nn.Conv2d):
    """A 3×3 convolution that halves an even size as TensorFlow does: zeros behind, not before."""

    def __init__(self, before: int, after: int, stride: int) -> None:
        super().__init__(before, after, 3, stride, padding=2 - stride, bias=False)
        nn.init.kaiming_normal_(self.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(F.pad(x, (0, 1, 0, 1)) if self.stride[0] == 2 else x)
