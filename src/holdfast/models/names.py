"""The one grammar of models' names, and whose code each of them calls."""

from __future__ import annotations

from typing import Literal, NamedTuple

from holdfast.contracts import InputError

__all__ = ["Name", "parse"]

Source = Literal["holdfast", "torchvision", "timm", "hf", "code"]


class Name(NamedTuple):
    """A model's name, taken apart.

    Attributes
    ----------
    source : {"holdfast", "torchvision", "timm", "hf", "code"}
        Who makes the network; "code" is the user's own function, and "holdfast" whatever is bare:
        one of ours, or else of torchvision.
    name : str
        The name there.
    weights : str, optional
        The weights that the name says.
    """

    source: Source
    name: str
    weights: str | None = None


def parse(name: str) -> Name:
    """Take a model's name apart.

    Parameters
    ----------
    name : str
        ``mnist_cnn`` or another of ours; ``resnet50``, ``torchvision:resnet50`` or
        ``torchvision:resnet50/IMAGENET1K_V2``; ``timm:resnet50.a1_in1k``; ``hf:owner/name`` or
        ``hf:FOLDER``; ``package.module:function``.

    Raises
    ------
    InputError
        If there is nothing behind the colon.

    Examples
    --------
    >>> parse("torchvision:resnet50/IMAGENET1K_V2")
    Name(source='torchvision', name='resnet50', weights='IMAGENET1K_V2')
    >>> parse("timm:resnet50.a1_in1k").source, parse("mine.models:make").source
    ('timm', 'code')
    """
    source, colon, rest = name.partition(":")
    if not colon:
        return Name("holdfast", name)
    if not rest:
        raise InputError("Architecture.name", repr(name), f"a name behind {source}:")
    if source == "torchvision":
        plain, slash, weights = rest.partition("/")
        return Name("torchvision", plain, weights if slash else None)
    if source == "timm":
        return Name("timm", rest)
    if source == "hf":
        return Name("hf", rest)
    return Name("code", name)
