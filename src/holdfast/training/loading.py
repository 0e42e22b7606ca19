"""Any classifier by its name: a run, a file of weights, a published model, a user's function."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from dataclasses import fields as fields_of
from pathlib import Path
from typing import Any

import torch
from torch import nn

from holdfast.contracts import HoldfastError, InputError
from holdfast.models import Architecture, classes_in, names
from holdfast.models.card import close_to
from holdfast.models.checkpoint import is_weights
from holdfast.preprocessing import Preprocessing
from holdfast.training.saving import is_saved, load_saved

__all__ = ["NamedModel", "completed", "find", "is_random", "load"]

_GRAMMAR = (
    "a run's folder, torchvision:NAME, timm:NAME, hf:NAME, zoo:NAME, package.module:function, or a "
    "file of weights with its architecture"
)


def load(
    name: str | os.PathLike[str] | Architecture,
    device: str | torch.device = "cpu",
    *,
    architecture: str | Architecture | None = None,
    pretrained: bool = True,
    trust_code: bool = False,
) -> nn.Module:
    """Load a classifier of images in [0, 1] by its name; its normalization is inside.

    Parameters
    ----------
    name : str, path or Architecture
        - the folder of a trained run, or a file that `holdfast.training.save` wrote;
        - ``zoo:mnist/art``, a model that was trained and released, from a folder or the hub;
        - ``torchvision:resnet50``, or ``torchvision:resnet50/IMAGENET1K_V2`` for other weights than
          torchvision's default ones; a bare ``resnet50`` is the same;
        - ``timm:resnet50.a1_in1k``, without a tag timm's default weights; or ``timm:FOLDER``;
        - ``hf:microsoft/resnet-50`` from the Hugging Face hub, or ``hf:FOLDER``, which
          ``save_pretrained`` wrote;
        - ``package.module:function``, a function or class without arguments that returns a module;
        - ``weights.safetensors``, ``weights.pth`` or ``weights.pt``, with an ``architecture``.
          Pickled files are read by ``torch.load(weights_only=True)``, which runs no code.

        A folder or file goes before other names. Published weights are downloaded once. An
        `Architecture` of a published name says more than the name: a normalization, options.
    device : str or torch.device
        Where the model goes.
    architecture : str or Architecture, optional
        For a file of weights: the name of the network, ``"torchvision:resnet18"`` or
        ``"mnist_cnn"``, or an `Architecture`, which can say the normalization, too. The number of
        classes is that of the weights.
    pretrained : bool
        False draws the weights at random, and downloads none.
    trust_code : bool
        Whether a saved run may name code of its own that builds it; say True only if you trust
        where it comes from. A function that you name yourself needs no such word.

    Returns
    -------
    nn.Module
        The classifier in eval mode, with ``model.classes``, the names of its classes or None,
        ``model.preprocessing``, a `Preprocessing` or None, ``model.architecture``, with which
        `holdfast.training.save` saves it, and ``model.origin``, the name as it was given.

    Raises
    ------
    HoldfastError
        If there is no such model, it cannot be had without a network, or a package is missing that
        it needs.
    InputError
        If weights and architecture do not fit, or code is not trusted.

    Examples
    --------
    >>> model = load("torchvision:resnet18", pretrained=False)
    >>> model.classes[0], str(model.preprocessing)
    ('tench', 'short side to 256 (bilinear), centre 224×224')
    >>> model(torch.rand(1, 3, 64, 64)).shape
    torch.Size([1, 1000])
    >>> load("resnet5")  # doctest: +ELLIPSIS
    Traceback (most recent call last):
        ...
    holdfast.contracts.HoldfastError: there is no model 'resnet5' (close: resnet50, ...
    """
    settings: dict[str, Any] = {}
    if isinstance(name, Architecture):
        name, settings = _taken_apart(name)
    elif is_saved(name):
        _check_saved(name, architecture)
        return load_saved(name, device, trust_code=trust_code)
    if isinstance(architecture, Architecture):
        architecture, settings = _taken_apart(architecture)
    found = find(name, architecture=architecture, settings=settings, pretrained=pretrained)
    return found.build().to(device)


def _taken_apart(architecture: Architecture) -> tuple[str, dict[str, Any]]:
    """Return the name and what else is said."""
    said = {f.name: getattr(architecture, f.name) for f in fields_of(architecture)}
    return said.pop("name"), {key: value for key, value in said.items() if value is not None}


@dataclass(frozen=True)
class NamedModel:
    """A model that was found by its name, and is not built yet.

    Attributes
    ----------
    architecture : Architecture
        With all that is known of the model.
    classes : tuple of str, optional
        The names of its classes, where it says them.
    preprocessing : Preprocessing, optional
        How it wants its images, where it says so.
    origin : str
        The name.
    """

    architecture: Architecture
    classes: tuple[str, ...] | None
    preprocessing: Preprocessing | None
    origin: str

    def build(self) -> nn.Module:
        """Build the model, in eval mode, as :func:`load` returns it.

        What weights are drawn at random are the same in every process.
        """
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            try:
                model = self.architecture.build()
            except HoldfastError:
                raise
            except Exception as error:  # a user's function, or a download, can fail in any way
                reason = " ".join(f"{type(error).__name__}: {error}".split())
                raise HoldfastError(f"{self.origin} cannot be made ({reason})") from error
        about = {
            "classes": self.classes,
            "architecture": self.architecture,
            "preprocessing": self.preprocessing,
        }
        for key, value in about.items():
            # A user's own model may know of itself what nobody else does.
            if value is not None or not hasattr(model, key):
                setattr(model, key, value)
        model.origin = self.origin  # type: ignore[assignment]
        return model.eval()


def find(
    name: str | os.PathLike[str],
    *,
    architecture: str | None = None,
    settings: Mapping[str, Any] | None = None,
    pretrained: bool = True,
) -> NamedModel:
    """Find a model that is no saved run, and read what its configuration says, without building it.

    Parameters
    ----------
    name, architecture : str
        As in :func:`load`.
    settings : mapping, optional
        Further fields of `Architecture`, such as ``mean`` and ``std``. ``weights`` are those to
        take; None draws them at random.
    pretrained : bool
        False draws the weights at random.

    Raises
    ------
    HoldfastError
        As :func:`load`.

    Examples
    --------
    >>> found = find("torchvision:resnet50/IMAGENET1K_V1")
    >>> found.architecture.mean, found.architecture.classes
    ((0.485, 0.456, 0.406), 1000)
    """
    origin, fields = os.fspath(name), dict(settings or {})
    random = not pretrained or is_random(fields)
    fields = {key: value for key, value in fields.items() if value is not None}
    if is_weights(origin):
        return _from_file(origin, architecture, fields, random)
    if architecture is not None:
        expected = f"None: it goes with a file of weights, and {origin} is none"
        raise InputError("architecture", repr(architecture), expected)
    made = _architecture(origin, fields)
    if made.source == "code":
        return NamedModel(made, None, None, origin)
    published = made if made.weights else replace(made, weights="DEFAULT")
    if made.source == "holdfast" and not made.weights:
        if not random:
            raise HoldfastError(
                f"there are no trained weights of {origin}; give the folder of a run or, with "
                f"--architecture {origin}, a file of weights"
            )
        return NamedModel(made, None, None, origin)
    card = published.described()
    filled = (made if random and card.silent else published).filled(card)
    if card.count is not None and filled.classes != card.count and not random:
        expected = f"{card.count}, as the weights of {origin} have; others are trained first"
        raise InputError("Architecture.classes", filled.classes, expected)
    if random:
        filled = replace(filled, weights=None)
    classes = card.classes if card.classes and len(card.classes) == filled.classes else None
    return NamedModel(filled, classes, _as_built(card.preprocessing, filled), origin)


def is_random(settings: Mapping[str, Any]) -> bool:
    """Tell whether settings of an `Architecture` ask for random weights, rather than for none.

    Examples
    --------
    >>> is_random({"weights": None}), is_random({})
    (True, False)
    """
    return "weights" in settings and settings["weights"] is None


def completed(
    architecture: Architecture, classes: Sequence[str], shape: tuple[int, int, int]
) -> Architecture:
    """Fill in what an architecture leaves to the data, and what its configuration says.

    Parameters
    ----------
    architecture : Architecture
        What the user says; that stays.
    classes : sequence of str
        The classes of the data.
    shape : tuple of int
        Channels, height and width of its images.

    Examples
    --------
    >>> completed(Architecture("mnist_cnn"), ["cat", "dog"], (1, 16, 16)).classes
    2
    """
    channels, height, _ = shape
    filled = replace(
        architecture,
        classes=architecture.classes or len(classes),
        in_channels=architecture.in_channels or channels,
        size=architecture.size or height,
    )
    return filled.filled(filled.described())


def _from_file(
    origin: str, architecture: str | None, fields: dict[str, Any], random: bool
) -> NamedModel:
    """Find the network that a file of weights fits."""
    if not Path(origin).is_file():
        raise HoldfastError(f"there is no file {origin}; expected {_GRAMMAR}")
    if is_saved(origin):
        _check_saved(origin, architecture)
    if architecture is None:
        raise HoldfastError(
            f"{origin} does not say of which network its weights are; give its architecture, on "
            "the command line --architecture torchvision:resnet18, timm:…, mnist_cnn, …"
        )
    if random or fields.get("weights") is not None:
        raise InputError("Architecture.weights", fields.get("weights"), f"those of {origin}")
    asked = fields.pop("classes", None)
    made = replace(_architecture(architecture, fields), weights=origin)
    card = made.described()
    filled = made.filled(card)
    counted = classes_in(filled)
    if counted is None:  # as many as the network has by itself
        counted = made.classes or card.count
    if asked not in (None, counted):
        raise InputError("Architecture.classes", asked, f"{counted}, as {origin} has, or None")
    filled = replace(filled, classes=counted)
    classes = card.classes if card.classes and len(card.classes) == counted else None
    return NamedModel(filled, classes, _as_built(card.preprocessing, filled), origin)


def _architecture(name: str, fields: Mapping[str, Any]) -> Architecture:
    """Take a name for what it is, or say which are close."""
    made = Architecture(name, **fields)
    bare = ":" not in name
    if bare and name not in names():
        raise HoldfastError(
            f"there is no model {name!r}{close_to(name, names())}; expected {_GRAMMAR}"
        )
    return made


def _as_built(
    preprocessing: Preprocessing | None, architecture: Architecture
) -> Preprocessing | None:
    """Say with which normalization, channels and size the model is built in fact."""
    if preprocessing is None:
        return None
    size = architecture.size
    changed = preprocessing
    if size is not None and (size, size) != preprocessing.size:
        resize = preprocessing.resize
        scaled = None if resize is None else int(size * resize / preprocessing.size[0])
        changed = replace(preprocessing, size=(size, size), resize=scaled)
    return replace(
        changed,
        channels=architecture.in_channels or preprocessing.channels,
        mean=architecture.mean,
        std=architecture.std,
    )


def _check_saved(name: str | os.PathLike[str], architecture: object) -> None:
    if architecture is not None:
        expected = f"None: {os.fspath(name)} says itself what it is"
        raise InputError("architecture", repr(architecture), expected)
    folder = Path(name)
    # The weights of Hugging Face have the name that ours have.
    ours = is_saved(folder / "model.safetensors") if os.path.isdir(name) else True
    if not ours and (folder / "config.json").is_file():
        raise HoldfastError(
            f"{folder} is no folder of a trained run; it has a config.json, as models of Hugging "
            f"Face and timm do, which are named hf:{folder} and timm:{folder}"
        )
