"""A classifier by name: what a recipe writes down, and what a saved model is rebuilt from."""

from __future__ import annotations

import difflib
import importlib
import inspect
import operator
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torchvision
from torch import nn

from holdfast.contracts import InputError
from holdfast.models.attributing import Attributing
from holdfast.models.mlp import mlp
from holdfast.models.mnist import mnist_cnn
from holdfast.models.normalized import Normalized, Standardized
from holdfast.models.resnet import cifar_resnet10, cifar_resnet18
from holdfast.models.vgg import vgg16_gap
from holdfast.models.wide_resnet import small_resnet, wide_resnet, wrn_28_10, wrn_40_2

__all__ = ["Architecture", "names"]

_OURS: dict[str, Callable[..., nn.Module]] = {
    "cifar_resnet10": cifar_resnet10,
    "cifar_resnet18": cifar_resnet18,
    "mlp": mlp,
    "mnist_cnn": mnist_cnn,
    "small_resnet": small_resnet,
    "vgg16_gap": vgg16_gap,
    "wide_resnet": wide_resnet,
    "wrn_28_10": wrn_28_10,
    "wrn_40_2": wrn_40_2,
}


def names() -> tuple[str, ...]:
    """Give the names that :class:`Architecture` knows: ours, then torchvision's.

    Examples
    --------
    >>> names()[:3]
    ('cifar_resnet10', 'cifar_resnet18', 'mlp')
    >>> "resnet50" in names()
    True
    """
    return (*_OURS, *torchvision.models.list_models(module=torchvision.models))


@dataclass(frozen=True)
class Architecture:
    """A classifier by name, with its normalization; :meth:`build` makes it.

    ``name`` is one of :func:`names`, or the import path ``"package.module:function"`` of the
    user's own function or class, which is called with ``options`` alone and returns an
    ``nn.Module``. ``resnet18`` is torchvision's network for 224×224 pixels, ``cifar_resnet18`` ours
    for 32×32.

    Parameters
    ----------
    name : str
        The name or the import path.
    classes, in_channels, size : int, optional
        Number of classes, and channels and height = width in pixels of the images. None is what
        the network has by default; training fills in what its data has. torchvision's networks take
        colour images only. Only ``mlp``, ``mnist_cnn`` and ``attributing`` depend on the size.
    mean, std : tuple of float, optional
        Normalization inside the model, one value a channel; none when both are None.
    standardize : bool
        Normalize each image by its own mean and deviation (:class:`Standardized`) instead.
    attributing : bool
        Make the classifier explain itself: it becomes part of an :class:`Attributing`, whose
        decoder is made for ``in_channels`` and ``size``.
    weights : str, optional
        torchvision's pretrained weights, as ``"IMAGENET1K_V2"`` or ``"DEFAULT"``; downloaded when
        built. With another number of ``classes``, the last layer starts anew.
    options : dict
        Further keyword arguments of the network, as ``{"dropout": 0.3}``, or ``{"image_size": 64}``
        for a vision transformer.

    Raises
    ------
    InputError
        If a number is below 1, or the normalization is given by halves or twice. When built: see
        :meth:`build`.

    Examples
    --------
    >>> architecture = Architecture("mnist_cnn", classes=10, size=16, mean=(0.5,), std=(0.25,))
    >>> import torch
    >>> architecture.build()(torch.rand(2, 1, 16, 16)).shape
    torch.Size([2, 10])
    """

    name: str
    classes: int | None = None
    in_channels: int | None = None
    size: int | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    standardize: bool = False
    attributing: bool = False
    weights: str | None = None
    options: dict[str, Any] = field(default_factory=dict, hash=False)

    def __post_init__(self) -> None:
        for number in ("classes", "in_channels", "size"):
            value = getattr(self, number)
            if value is not None and value < 1:
                raise InputError(f"Architecture.{number}", value, "a number of at least 1")
        if (self.mean is None) != (self.std is None):
            came = f"mean={self.mean}, std={self.std}"
            raise InputError("Architecture.mean, std", came, "both of them or neither")
        if self.standardize and self.mean is not None:
            expected = "False where mean and std are given: one normalization, not two"
            raise InputError("Architecture.standardize", True, expected)

    def build(self, *, pretrained: bool = True) -> nn.Module:
        """Make the classifier, in train mode, with fresh or pretrained weights.

        Parameters
        ----------
        pretrained : bool
            False leaves the download of ``weights`` out, for a caller who fills in weights of their
            own.

        Raises
        ------
        InputError
            If the name is unknown or cannot be imported, the network does not take the options or
            the number of channels, the weights do not exist, or the classifier shall explain images
            whose shape is not given.
        """
        model = self._classifier(pretrained)
        if not self.attributing:
            return model
        if self.in_channels is None or self.size is None:
            came = f"in_channels={self.in_channels}, size={self.size}"
            expected = "both, as the decoder of an attributing classifier depends on them"
            raise InputError("Architecture.in_channels, size", came, expected)
        return Attributing(model, (self.in_channels, self.size, self.size))

    def _classifier(self, pretrained: bool) -> nn.Module:
        network = self._network(pretrained)
        if self.mean is not None and self.std is not None:
            if self.in_channels is not None and len(self.mean) != self.in_channels:
                expected = f"{self.in_channels} values, one for each of in_channels"
                raise InputError("Architecture.mean", self.mean, expected)
            return Normalized(network, self.mean, self.std)
        return Standardized(network) if self.standardize else network

    def _network(self, pretrained: bool) -> nn.Module:
        if ":" in self.name:
            return _imported(self)
        if self.name in _OURS:
            return _ours(self, pretrained)
        known = names()
        if self.name in known:
            return _torchvision(self, pretrained)
        close = difflib.get_close_matches(self.name, known)
        hint = f" (close: {', '.join(close)})" if close else ""
        expected = f"one of {', '.join(_OURS)}, a torchvision name or 'package.module:function'"
        raise InputError("Architecture.name", repr(self.name), expected + hint)


def _ours(architecture: Architecture, pretrained: bool) -> nn.Module:
    make = _OURS[architecture.name]
    parameters = inspect.signature(make).parameters
    if architecture.weights is not None and "weights" not in parameters:
        expected = f"None: there are no pretrained weights of {architecture.name}"
        raise InputError("Architecture.weights", architecture.weights, expected)
    known = ("classes", "in_channels", "size", *(("weights",) if pretrained else ()))
    given = {key: getattr(architecture, key) for key in known}
    filled = {key: value for key, value in given.items() if value and key in parameters}
    return _call(make, architecture, {**filled, **architecture.options})


def _imported(architecture: Architecture) -> nn.Module:
    path, _, attribute = architecture.name.partition(":")
    try:
        make = operator.attrgetter(attribute)(importlib.import_module(path))
    except (ImportError, AttributeError, ValueError) as error:
        expected = f"'package.module:function' that Python can import ({error}; is it on the path?)"
        raise InputError("Architecture.name", repr(architecture.name), expected) from error
    model = _call(make, architecture, architecture.options)
    if not isinstance(model, nn.Module):
        came = f"a {type(model).__name__} from {architecture.name!r}"
        raise InputError("Architecture.name", came, "a function that returns an nn.Module")
    return model


def _call(make: Callable[..., Any], architecture: Architecture, options: dict[str, Any]) -> Any:
    """Call ``make(**options)``, blaming the options for not fitting, not for what fails inside."""
    try:
        inspect.signature(make).bind(**options)
    except TypeError as error:
        expected = f"keyword arguments of {architecture.name!r} ({error})"
        raise InputError("Architecture.options", architecture.options, expected) from error
    return make(**options)


def _torchvision(architecture: Architecture, pretrained: bool) -> nn.Module:
    name, classes, options = architecture.name, architecture.classes, dict(architecture.options)
    if architecture.in_channels not in (None, 3):
        expected = f"3, which {name} of torchvision takes; convert the images to colour"
        raise InputError("Architecture.in_channels", architecture.in_channels, expected)
    weights = _weights(architecture) if architecture.weights is not None else None
    download = weights is not None and pretrained
    if name in ("googlenet", "inception_v3"):
        # The inputs are ImageNet-normalized like those of all others, with these weights or none.
        options |= {"transform_input": True, "init_weights": not download}
    if weights is not None and name.startswith("vit_"):
        # The positions' embedding has the weights' size, so it must be built in that size.
        options.setdefault("image_size", weights.meta["min_size"][0])
    if classes is not None and not download:
        options["num_classes"] = classes
    try:
        model = torchvision.models.get_model(name, weights=weights if download else None, **options)
    except (TypeError, ValueError) as error:
        expected = f"keyword arguments of torchvision's {name} ({error})"
        raise InputError("Architecture.options", architecture.options, expected) from error
    for auxiliary in ("aux1", "aux2", "AuxLogits"):
        # Googlenet and Inception in train mode would give three outputs; a classifier gives one.
        if hasattr(model, auxiliary):
            model.aux_logits = False
            setattr(model, auxiliary, None)
    if weights is not None and download and classes not in (None, len(weights.meta["categories"])):
        _replace_last(model, len(weights.meta["categories"]), classes, name)
    return model


def _weights(architecture: Architecture) -> Any:
    known = torchvision.models.get_model_weights(architecture.name)
    if architecture.weights not in known.__members__:
        expected = f"one of {', '.join(known.__members__)}, weights of {architecture.name}"
        raise InputError("Architecture.weights", architecture.weights, expected)
    return known[architecture.weights]


def _replace_last(model: nn.Module, before: int, classes: int, name: str) -> None:
    last = None
    for path, module in model.named_modules():
        if isinstance(module, nn.Linear) and module.out_features == before:
            last = path, module
    if last is None:
        expected = f"{before}, or None: the last layer of {name} is not linear, and stays as it is"
        raise InputError("Architecture.classes", classes, expected)
    path, module = last
    fresh = nn.Linear(module.in_features, classes, bias=module.bias is not None)
    model.set_submodule(path, fresh)
