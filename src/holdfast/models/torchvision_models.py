"""torchvision's classifiers by name, and what their trained weights say of themselves."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torchvision
from torch import nn

from holdfast.contracts import InputError
from holdfast.models.card import Card, close_to, refuse_options
from holdfast.models.head import replace_head
from holdfast.preprocessing import Preprocessing

__all__ = ["build", "describe", "names"]

_KEPT = ("weights", "weights_backbone", "pretrained", "pretrained_backbone", "progress")


def names() -> list[str]:
    """List torchvision's classifiers.

    Examples
    --------
    >>> "resnet50" in names()
    True
    """
    listed: list[str] = torchvision.models.list_models(module=torchvision.models)
    return listed


def describe(name: str, weights: str | None = None) -> Card:
    """Read what trained weights say: their normalization, preprocessing and classes.

    Parameters
    ----------
    name : str
        torchvision's name of the network.
    weights : str, optional
        Which weights; by default torchvision's own.

    Examples
    --------
    >>> card = describe("resnet50", "IMAGENET1K_V2")
    >>> print(card.preprocessing)
    short side to 232 (bilinear), centre 224×224
    >>> card.classes[0], card.mean
    ('tench', (0.485, 0.456, 0.406))
    """
    entry = _entry(name, weights or "DEFAULT")
    transforms = entry.transforms()
    (crop,), (resize,) = transforms.crop_size, transforms.resize_size
    mean, std = tuple(transforms.mean), tuple(transforms.std)
    preprocessing = Preprocessing(
        size=(crop, crop),
        resize=resize,
        interpolation=transforms.interpolation.value,
        antialias=bool(transforms.antialias),
        mean=mean,
        std=std,
    )
    categories = tuple(entry.meta["categories"])
    return Card(
        name, entry.name, categories, len(categories), mean, std, preprocessing=preprocessing
    )


def build(
    name: str,
    *,
    classes: int | None,
    in_channels: int | None,
    weights: str | None,
    options: Mapping[str, Any],
    pretrained: bool,
) -> nn.Module:
    """Make a network of torchvision; the arguments are those of `Architecture`.

    Raises
    ------
    InputError
        If there is no such name or weights, the images have not 3 channels, or the network does not
        take the options.

    Examples
    --------
    >>> plain = {"in_channels": 3, "weights": None, "options": {}, "pretrained": False}
    >>> build("squeezenet1_1", classes=7, **plain).classifier[1]
    Conv2d(512, 7, kernel_size=(1, 1), stride=(1, 1))
    """
    _check_name(name)
    refuse_options(options, _KEPT)
    if in_channels not in (None, 3):
        expected = f"3, which {name} of torchvision takes; convert the images to colour"
        raise InputError("Architecture.in_channels", in_channels, expected)
    entry = _entry(name, weights) if weights is not None else None
    arguments = dict(options)
    download = entry is not None and pretrained
    if name in ("googlenet", "inception_v3"):
        # The inputs are ImageNet-normalized like those of all others, with these weights or none.
        arguments |= {"transform_input": True, "init_weights": not download}
    if entry is not None and name.startswith("vit_"):
        # The positions' embedding has the weights' size, so it must be built in that size.
        arguments.setdefault("image_size", entry.meta["min_size"][0])
    if classes is not None and not download:
        arguments["num_classes"] = classes
    try:
        model = torchvision.models.get_model(name, weights=entry if download else None, **arguments)
    except (TypeError, ValueError) as error:
        expected = f"keyword arguments of torchvision's {name} ({error})"
        raise InputError("Architecture.options", dict(options), expected) from error
    for auxiliary in ("aux1", "aux2", "AuxLogits"):
        # Googlenet and Inception in train mode would give three outputs; a classifier gives one.
        if hasattr(model, auxiliary):
            model.aux_logits = False
            setattr(model, auxiliary, None)
    if entry is not None and download and classes not in (None, len(entry.meta["categories"])):
        replace_head(model, len(entry.meta["categories"]), classes, name)
    return model


def _check_name(name: str) -> None:
    known = names()
    if name not in known:
        raise InputError(
            "Architecture.name",
            f"'torchvision:{name}'",
            f"a classifier of torchvision, such as torchvision:resnet50{close_to(name, known)}",
        )


def _entry(name: str, weights: str) -> Any:
    _check_name(name)
    known = torchvision.models.get_model_weights(name)
    if weights not in known.__members__:
        expected = f"one of {', '.join(known.__members__)}, weights of {name}"
        raise InputError("Architecture.weights", weights, expected)
    return known[weights]
