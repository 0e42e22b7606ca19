"""ResNet-50 with squeeze and excitation, for localization."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from torchvision.models.resnet import Bottleneck, ResNet
from torchvision.ops import SqueezeExcitation

from holdfast.contracts import InputError
from holdfast.models import timm_models

__all__ = ["resnet50_se"]


def resnet50_se(classes: int = 1000, in_channels: int = 3, weights: str | None = None) -> nn.Module:
    """Build ResNet50-SE: 28 million parameters, features of a sixteenth of the image's side.

    torchvision's ``resnet50`` with a squeeze-and-excitation layer (reduction 16) at the end of each
    block, and without the stride of the last stage, as localization wants finer maps. The names of
    the tensors are those of timm's ``seresnet50``.

    Parameters
    ----------
    classes : int
        Number of classes.
    in_channels : int
        Channels of the images.
    weights : str, optional
        timm's weights of ``seresnet50``, as ``"a1_in1k"``, but for the last layer; downloaded, with
        the extra ``timm``. By default all weights are random.

    Returns
    -------
    nn.Module
        From images ``(N, in_channels, H, W)`` to logits ``(N, classes)``.

    Raises
    ------
    InputError
        If there are no such weights, or they are asked for with other than 3 channels.
    HoldfastError
        If timm is not there, or the weights cannot be had.

    References
    ----------
    Hu et al., Squeeze-and-Excitation Networks (CVPR 2018); "ResNet50-SE" in Choe and Shim,
    Attention-based Dropout Layer (CVPR 2019), whose result is the first row of table 2 of
    Attributional Robustness Training (ECCV 2020).

    Examples
    --------
    >>> import torch
    >>> resnet50_se(classes=200)(torch.rand(2, 3, 32, 48)).shape
    torch.Size([2, 200])
    """
    network = ResNet(_Block, [3, 4, 6, 3], num_classes=classes)
    for module in network.layer4[0].modules():  # the last stage keeps the size
        if isinstance(module, nn.Conv2d):
            module.stride = (1, 1)
    network.relu = nn.ReLU()
    if weights is not None:
        if in_channels != 3:
            raise InputError("in_channels", in_channels, "3, which the weights are for")
        shared: dict[str, Any] = {"classes": classes, "in_channels": 3, "size": None, "options": {}}
        theirs = timm_models.build("seresnet50", weights=weights, pretrained=True, **shared)
        network.load_state_dict(theirs.state_dict())
    if in_channels != 3:
        network.conv1 = nn.Conv2d(in_channels, 64, 7, stride=2, padding=3, bias=False)
        nn.init.kaiming_normal_(network.conv1.weight, mode="fan_out", nonlinearity="relu")
    return network


class _Block(Bottleneck):  # type: ignore[misc] # torchvision has no types
    """torchvision's block with the channels of its residual weighed, and no ReLU in place."""

    def __init__(self, inplanes: int, planes: int, *args: Any, **kwargs: Any) -> None:
        super().__init__(inplanes, planes, *args, **kwargs)
        out = planes * self.expansion
        self.se = SqueezeExcitation(out, out // 16)
        self.relu, self.relu2, self.relu_out = nn.ReLU(), nn.ReLU(), nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        shortcut = x if self.downsample is None else self.downsample(x)
        inner = self.relu(self.bn1(self.conv1(x)))
        inner = self.relu2(self.bn2(self.conv2(inner)))
        inner = self.se(self.bn3(self.conv3(inner)))
        return self.relu_out(shortcut + inner)
