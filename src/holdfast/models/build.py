"""A classifier by name: what a recipe writes down, and what a saved model is rebuilt from."""

from __future__ import annotations

import importlib
import inspect
import operator
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

from torch import nn

from holdfast.contracts import HoldfastError, InputError, checked
from holdfast.models import hugging_face, timm_models, torchvision_models
from holdfast.models.attributing import Attributing
from holdfast.models.card import Card, close_to, refuse_options
from holdfast.models.checkpoint import (
    check_fit,
    classes_of,
    fit,
    is_weights,
    load_into,
    read_weights,
)
from holdfast.models.discriminator import WithDiscriminator
from holdfast.models.mlp import mlp
from holdfast.models.mnist import mnist_cnn
from holdfast.models.names import Source, parse
from holdfast.models.normalized import Normalized, Standardized
from holdfast.models.rar_resnet import rar_resnet
from holdfast.models.resnet import cifar_resnet10, cifar_resnet18, cifar_resnet50
from holdfast.models.se_resnet import resnet50_se
from holdfast.models.vgg import vgg16_gap
from holdfast.models.wide_resnet import small_resnet, wide_resnet, wrn_28_10, wrn_40_2

__all__ = ["Architecture", "classes_in", "names"]

_OURS: dict[str, Callable[..., nn.Module]] = {
    "cifar_resnet10": cifar_resnet10,
    "cifar_resnet18": cifar_resnet18,
    "cifar_resnet50": cifar_resnet50,
    "mlp": mlp,
    "mnist_cnn": mnist_cnn,
    "rar_resnet": rar_resnet,
    "resnet50_se": resnet50_se,
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
    ('cifar_resnet10', 'cifar_resnet18', 'cifar_resnet50')
    >>> "resnet50" in names()
    True
    """
    return (*_OURS, *torchvision_models.names())


@dataclass(frozen=True)
@checked
class Architecture:
    """A classifier by name, with its normalization; :meth:`build` makes it.

    ``name`` is one of :func:`names`; or, as :func:`holdfast.load` takes them,
    ``"torchvision:resnet50"``, ``"timm:resnet50.a1_in1k"`` or ``"hf:microsoft/resnet-50"``, where a
    local folder may stand for a name on the hub; or the import path ``"package.module:function"``
    of the user's own function or class, which is called with ``options`` alone and returns an
    ``nn.Module``. ``resnet18`` is torchvision's network for 224×224 pixels, ``cifar_resnet18`` ours
    for 32×32.

    Parameters
    ----------
    name : str
        The name or the import path.
    classes, in_channels, size : int, optional
        Number of classes, and channels and height = width in pixels of the images. None is what
        the network has by default; training fills in what its data has. torchvision's networks take
        colour images only. Of ours only ``mlp``, ``mnist_cnn`` and ``attributing`` depend on the
        size, of others' those that are made for one, as vision transformers are.
    mean, std : tuple of float, optional
        Normalization inside the model, one value a channel; none when both are None, except that
        :meth:`filled` puts the one of published weights there.
    standardize : bool
        Normalize each image by its own mean and deviation (:class:`Standardized`) instead.
    attributing : bool
        Make the classifier explain itself: it becomes part of an :class:`Attributing`, whose
        decoder is made for ``in_channels`` and ``size``.
    discriminator : bool
        Put an adaptor and a discriminator of input gradients beside the classifier, with which
        `holdfast.objectives.JARN` trains it: it becomes part of a :class:`WithDiscriminator`, made
        for ``in_channels``. What training saves is the classifier without it.
    weights : str, optional
        Trained weights; None draws them at random. ``"DEFAULT"`` are those of the name, of timm's
        its tag, and torchvision and timm have others, ``"IMAGENET1K_V2"``, ``"a2_in1k"``; they are
        downloaded when built, if they are not stored yet. A file, ``last.pth`` or
        ``model.safetensors``, is read. With another number of ``classes`` than the weights have,
        the last layer starts anew.
    options : dict
        Further keyword arguments of the network, as ``{"dropout": 0.3}``, or ``{"image_size": 64}``
        for a vision transformer; of Hugging Face's, settings of its configuration.
    config : dict, optional
        The whole configuration of a network of Hugging Face, which :meth:`filled` puts there, so
        that it can be built again without asking anybody.

    Raises
    ------
    InputError
        If a number is below 1, or the normalization or the weights are given by halves or twice.
        When built: see :meth:`build`.

    Examples
    --------
    >>> architecture = Architecture("mnist_cnn", classes=10, size=16, mean=(0.5,), std=(0.25,))
    >>> import torch
    >>> architecture.build()(torch.rand(2, 1, 16, 16)).shape
    torch.Size([2, 10])
    >>> Architecture("torchvision:resnet50/IMAGENET1K_V2").weights
    'IMAGENET1K_V2'
    """

    name: str
    classes: int | None = None
    in_channels: int | None = None
    size: int | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    standardize: bool = False
    attributing: bool = False
    discriminator: bool = False
    weights: str | None = None
    options: dict[str, Any] = field(default_factory=dict, hash=False)
    config: dict[str, Any] | None = field(default=None, hash=False)

    def __post_init__(self) -> None:
        for number in ("classes", "in_channels", "size"):
            value = getattr(self, number)
            if value is not None and value < 1:
                raise InputError(f"Architecture.{number}", value, "a number of at least 1")
        if (self.mean is None) != (self.std is None):
            came = f"mean={self.mean}, std={self.std}"
            raise InputError("Architecture.mean, std", came, "both of them or neither")
        if self.attributing and self.discriminator:
            expected = "False where attributing is True: one or the other"
            raise InputError("Architecture.discriminator", True, expected)
        if self.standardize and self.mean is not None:
            expected = "False where mean and std are given: one normalization, not two"
            raise InputError("Architecture.standardize", True, expected)
        source, name, weights = parse(self.name)
        if weights is not None:
            if self.weights not in (None, weights):
                expected = f"{weights}, as the name says, or None"
                raise InputError("Architecture.weights", self.weights, expected)
            object.__setattr__(self, "name", f"{source}:{name}")
            object.__setattr__(self, "weights", weights)

    @property
    def source(self) -> Source:
        """Whose code makes the network; "code" is the user's own."""
        source = parse(self.name).source
        return "torchvision" if source == "holdfast" and self.name not in _OURS else source

    def described(self) -> Card:
        """Read what the weights' or the network's own configuration says; asks the hub if need be.

        Raises
        ------
        HoldfastError
            If there is no such model, or it cannot be asked for; see :meth:`build`.

        Examples
        --------
        >>> Architecture("resnet50", weights="IMAGENET1K_V1").described().mean
        (0.485, 0.456, 0.406)
        """
        name = parse(self.name).name
        published = None if self.weights is None or is_weights(self.weights) else self.weights
        match self.source:
            case "timm":
                return timm_models.describe(name, published)
            case "hf":
                return hugging_face.describe(name)
            case "torchvision" if self.weights is not None:
                plain = _known(name) if name == self.name else name
                card = torchvision_models.describe(plain, published)
                return replace(card, name=self.name)
        return Card(self.name)

    def filled(self, card: Card) -> Architecture:
        """Fill in what the card says and nobody else did, so that all stands here.

        Where ``weights`` is None, nothing is known of a normalization or of classes.

        Raises
        ------
        InputError
            If trained weights want their images normalized, and do not say how.

        Examples
        --------
        >>> architecture = Architecture("resnet50", weights="DEFAULT")
        >>> architecture.filled(architecture.described()).weights
        'IMAGENET1K_V2'
        """
        known: dict[str, Any] = {"name": card.name, "options": {**card.options, **self.options}}
        known["config"] = self.config or card.config
        if self.weights is None:
            return replace(self, **known)
        file = is_weights(self.weights)
        mean, std = card.mean, card.std
        if file:
            mean, std = _normalization(self, known) or (mean, std)
        else:
            known["weights"] = card.weights or self.weights
            known["classes"] = self.classes or card.count
        if self.mean is None and not self.standardize:
            if card.silent and mean is None:
                expected = f"a normalization: {card.name} has no image processor that says its own"
                raise InputError("Architecture.mean, std", None, expected)
            known |= {"mean": mean, "std": std}
        return replace(self, **known)

    def build(self, *, pretrained: bool = True) -> nn.Module:
        """Make the classifier, in train mode, with fresh or trained weights.

        Parameters
        ----------
        pretrained : bool
            False leaves ``weights`` out, for a caller who fills in weights of their own.

        Raises
        ------
        HoldfastError
            If timm or transformers is needed and not installed, or weights cannot be had.
        InputError
            If the name is unknown or cannot be imported, the network does not take the options or
            the number of channels, the weights do not exist or do not fit, or the classifier shall
            explain images, or its gradients be judged, whose shape is not given.
        """
        model = self._classifier(pretrained)
        if self.discriminator:
            if self.in_channels is None:
                expected = "given, as the discriminator depends on it"
                raise InputError("Architecture.in_channels", None, expected)
            return WithDiscriminator(model, self.in_channels)
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
        if self.weights is None or not is_weights(self.weights):
            return _made(self, pretrained)
        network = _made(replace(self, weights=None), pretrained)
        if pretrained:
            state, _ = fit(read_weights(self.weights), network.state_dict())
            load_into(network, state, origin=f"weights {self.weights}", new_head=True)
        return network


def classes_in(architecture: Architecture) -> int | None:
    """Count the classes of a file of weights that ``architecture.weights`` names.

    Raises
    ------
    InputError
        If the file does not fit the architecture in more than its last layer.
    """
    if architecture.weights is None:
        return None
    plain = replace(architecture, weights=None, attributing=False, mean=None, std=None)
    expected = _made(replace(plain, standardize=False), pretrained=False).state_dict()
    state, _ = fit(read_weights(architecture.weights), expected)
    count = classes_of(state, expected)
    if count is None:
        check_fit(f"weights {architecture.weights}", state, expected)
    return count


def _normalization(architecture: Architecture, known: dict[str, Any]) -> tuple[Any, Any] | None:
    """Read the normalization that a file of weights has from `Normalized`."""
    plain = replace(architecture, **known, weights=None)
    expected = _made(plain, pretrained=False).state_dict()
    _, normal = fit(read_weights(str(architecture.weights)), expected)
    if normal is None:
        return None
    mean, std = (tuple(values.flatten().tolist()) for values in normal)
    return mean, std


def _made(architecture: Architecture, pretrained: bool) -> nn.Module:
    """Make the network, and blame its options for what fails: the library's own are sound."""
    try:
        return _as_its_source_does(architecture, pretrained)
    except (HoldfastError, ImportError, OSError, MemoryError):
        raise
    except Exception as error:
        if not architecture.options or architecture.source == "code":
            raise
        expected = f"values that {architecture.name} takes ({type(error).__name__}: {error})"
        raise InputError("Architecture.options", repr(architecture.options), expected) from error


def _as_its_source_does(architecture: Architecture, pretrained: bool) -> nn.Module:
    name = parse(architecture.name).name
    shared: dict[str, Any] = {
        "classes": architecture.classes,
        "in_channels": architecture.in_channels,
        "weights": architecture.weights,
        "options": architecture.options,
        "pretrained": pretrained,
    }
    match architecture.source:
        case "code":
            return _imported(architecture)
        case "holdfast":
            return _ours(architecture, pretrained)
        case "timm":
            return timm_models.build(name, size=architecture.size, **shared)
        case "hf":
            return hugging_face.build(
                name, size=architecture.size, config=architecture.config, **shared
            )
        case _:
            known = _known(name) if name == architecture.name else name
            return torchvision_models.build(known, **shared)


def _known(name: str) -> str:
    """Refuse a bare name that is neither ours nor torchvision's."""
    if name not in torchvision_models.names():
        expected = (
            f"one of {', '.join(_OURS)}, a torchvision name, 'timm:NAME', 'hf:NAME' or "
            f"'package.module:function'{close_to(name, names())}"
        )
        raise InputError("Architecture.name", repr(name), expected)
    return name


def _ours(architecture: Architecture, pretrained: bool) -> nn.Module:
    make = _OURS[architecture.name]
    refuse_options(architecture.options, ("weights", "pretrained"))
    parameters = inspect.signature(make).parameters
    if architecture.weights is not None and "weights" not in parameters:
        expected = f"None: there are no pretrained weights of {architecture.name}"
        raise InputError("Architecture.weights", architecture.weights, expected)
    known = ("classes", "in_channels", "size", *(("weights",) if pretrained else ()))
    given = {key: getattr(architecture, key) for key in known}
    filled = {key: value for key, value in given.items() if value and key in parameters}
    return _call(make, architecture, {**filled, **architecture.options})


def _imported(architecture: Architecture) -> nn.Module:
    if architecture.weights is not None:
        expected = "None or a file: what trained weights there are, the function itself knows"
        raise InputError("Architecture.weights", architecture.weights, expected)
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
