"""VGG-16 for localization: convolutions, an average over the image, one dense layer."""

from __future__ import annotations

from collections import OrderedDict

import torch
from torch import nn
from torchvision.models import VGG16_Weights
from torchvision.models.vgg import cfgs, make_layers

from holdfast.contracts import InputError

__all__ = ["vgg16_gap"]


def vgg16_gap(classes: int = 1000, in_channels: int = 3, weights: str | None = None) -> nn.Module:
    """Build VGG-16-GAP: average pooling instead of VGG's dense layers, 20 million parameters.

    The convolutions of torchvision's ``vgg16`` without the last max-pooling, so that the last
    features have a sixteenth of the image's height and width; a 3×3 convolution with 1024 filters
    and ReLU; the average over all positions; and a dense layer. So class activation maps are
    defined, and any image of 16 pixels and more fits.

    Parameters
    ----------
    classes : int
        Number of classes.
    in_channels : int
        Channels of the images.
    weights : str, optional
        torchvision's weights of ``vgg16``, as ``"IMAGENET1K_V1"``, for the thirteen convolutions
        that both networks have; downloaded. By default all weights are random.

    Returns
    -------
    nn.Module
        From images ``(N, in_channels, H, W)`` to logits ``(N, classes)``.

    Raises
    ------
    InputError
        If there are no such weights, or they are asked for with other than 3 channels.

    References
    ----------
    Zhou et al., Learning Deep Features for Discriminative Localization (CVPR 2016); "VGG-GAP" in
    Attributional Robustness Training (ECCV 2020), table 2.

    Examples
    --------
    >>> vgg16_gap(classes=200)(torch.rand(2, 3, 32, 32)).shape
    torch.Size([2, 200])
    """
    features = make_layers(cfgs["D"][:-1], batch_norm=False)  # without the last max-pooling
    if in_channels != 3:
        features[0] = nn.Conv2d(in_channels, 64, 3, padding=1)
    network = nn.Sequential(
        OrderedDict(
            features=features,
            conv6=nn.Conv2d(512, 1024, 3, padding=1),
            relu6=nn.ReLU(),
            pool=nn.AdaptiveAvgPool2d(1),
            flatten=nn.Flatten(),
            logits=nn.Linear(1024, classes),
        )
    )
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, nn.ReLU):
            # Backward hooks, on which guided backpropagation and DeepLIFT rest, need it so.
            module.inplace = False
    if weights is not None:
        features.load_state_dict(_published(weights, in_channels))
    return network


def _published(weights: str, in_channels: int) -> dict[str, torch.Tensor]:
    """Download torchvision's weights of the convolutions."""
    known = VGG16_Weights.__members__
    if weights not in known:
        raise InputError("weights", weights, f"one of {', '.join(known)}, weights of vgg16")
    if in_channels != 3:
        raise InputError("in_channels", in_channels, "3, which the weights are for")
    state = known[weights].get_state_dict(progress=False, check_hash=True)
    prefix = "features."
    return {name.removeprefix(prefix): t for name, t in state.items() if name.startswith(prefix)}
