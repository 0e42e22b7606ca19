"""timm's classifiers by name, and what their configurations say of them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_args

from torch import nn

from holdfast.contracts import HoldfastError, InputError
from holdfast.errors import reason
from holdfast.models.card import Card, close_to, refuse_options
from holdfast.preprocessing import Interpolation, Preprocessing

__all__ = ["KEPT", "build", "describe", "preprocessing_of"]

KEPT = ("pretrained", "pretrained_cfg", "pretrained_cfg_overlay", "checkpoint_path", "cache_dir")
"""Options by which timm would fetch weights or settings."""
_SOURCES = ("hf-hub:", "local-dir:")


def describe(name: str, weights: str | None = None) -> Card:
    """Read what timm's configuration of trained weights says.

    Parameters
    ----------
    name : str
        timm's name of a model, ``"resnet50.a1_in1k"``, or without the tag of its weights, which are
        then timm's default; a folder that timm's ``save_for_hf`` wrote; or ``"owner/name"`` on the
        hub.
    weights : str, optional
        Another tag than that of the name.

    Raises
    ------
    HoldfastError
        If timm is not installed, or the hub cannot be asked.
    InputError
        If timm has no such model, or no such tag of it.

    Examples
    --------
    >>> card = describe("resnet50.a1_in1k")
    >>> print(card.preprocessing)
    short side to 235 (bicubic), centre 224×224
    >>> card.name, card.weights, card.classes[0]
    ('timm:resnet50.a1_in1k', 'DEFAULT', 'tench, Tinca tinca')
    """
    timm = _timm()
    options: dict[str, Any] = {}
    source = _source(name)
    if source is not None:
        settings, plain, arguments = _from_folder_or_hub(source)
        options, name, weights = dict(arguments), plain, source
        count = options.pop("num_classes", None)
        settings = settings | ({} if count is None else {"num_classes": count})
        _check_name(name)
    else:
        if weights not in (None, "DEFAULT") and not str(weights).startswith(_SOURCES):
            name, weights = f"{name.partition('.')[0]}.{weights}", "DEFAULT"
        _check_name(name)
        found = timm.models.get_pretrained_cfg(name)
        settings = found.to_dict() if found is not None else {}
    resolved = timm.data.resolve_data_config({}, pretrained_cfg=settings)
    mean, std = tuple(resolved["mean"]), tuple(resolved["std"])
    preprocessing = preprocessing_of(resolved, mean, std)
    labels = _labels(settings)
    return Card(
        f"timm:{name}",
        weights or "DEFAULT",
        labels,
        settings.get("num_classes"),
        mean,
        std,
        preprocessing,
        options,
    )


def build(
    name: str,
    *,
    classes: int | None,
    in_channels: int | None,
    size: int | None,
    weights: str | None,
    options: Mapping[str, Any],
    pretrained: bool,
) -> nn.Module:
    """Make a network of timm; the arguments are those of `Architecture`.

    Raises
    ------
    HoldfastError
        If timm is not installed, or the weights are not stored and cannot be downloaded.
    InputError
        If timm has no such model, it does not take the options, or it classifies nothing.

    Examples
    --------
    >>> plain = {"in_channels": 1, "size": 32, "weights": None, "options": {}, "pretrained": False}
    >>> build("test_resnet", classes=7, **plain).fc.out_features
    7
    """
    timm = _timm()
    refuse_options(options, KEPT)
    download = weights is not None and pretrained
    if download and weights is not None and weights != "DEFAULT":
        name = weights if weights.startswith(_SOURCES) else f"{name.partition('.')[0]}.{weights}"
    source = _source(name)
    if source is None:
        _check_name(name)
    said = {"num_classes": classes, "in_chans": in_channels}
    arguments = {**options, **{key: value for key, value in said.items() if value is not None}}
    if size is not None and source is None:
        found = timm.models.get_pretrained_cfg(name)
        if found is not None and found.fixed_input_size:
            arguments.setdefault("img_size", size)
    local = not download or str(source).startswith("local-dir:")
    model = _made(source or name, download, local, options, arguments)
    if not getattr(model, "num_classes", 1):
        expected = "a classifier, or a number of classes: these weights are of features alone"
        raise InputError("Architecture.name", f"'timm:{name}'", expected)
    return model


def _made(
    name: str,
    download: bool,
    local: bool,
    options: Mapping[str, Any],
    arguments: Mapping[str, Any],
) -> nn.Module:
    from holdfast.hub import asking_the_hub, why_not

    asked = False
    try:
        with asking_the_hub(local) as asked:
            made: nn.Module = _timm().create_model(name, pretrained=download, **arguments)
            return made
    except (TypeError, AssertionError) as error:
        expected = f"keyword arguments of timm's {name} ({reason(error)})"
        raise InputError("Architecture.options", dict(options), expected) from error
    except Exception as error:  # a download can fail in any way
        what = "trained weights of timm:" if download else "timm:"
        why = why_not(error, local, asked)
        raise HoldfastError(f"{what}{name} cannot be had ({why})") from error


def _timm() -> Any:
    try:
        import timm
        import timm.data
        import timm.models
    except ImportError as error:
        raise HoldfastError(
            "timm is not installed, which models named timm:… need: pip install 'holdfast[timm]'"
        ) from error
    return timm


def _check_name(name: str) -> None:
    timm = _timm()
    base, dot, tag = name.partition(".")
    if not timm.models.is_model(base):
        expected = f"a model of timm, such as timm:resnet50.a1_in1k{close_to(base, _known())}"
        raise InputError("Architecture.name", f"'timm:{name}'", expected)
    if dot:
        listed = timm.list_models(f"{base}.*", pretrained=True)
        tags = [one.partition(".")[2] for one in listed]
        if tag not in tags:
            expected = f"one of {', '.join(tags) or 'none'}, weights of timm:{base}"
            raise InputError("Architecture.weights", repr(tag), expected)


def _known() -> list[str]:
    listed: list[str] = _timm().list_models()
    return listed


def _source(name: str) -> str | None:
    """Tell a folder, and an owner's model on the hub, from a name of timm's own."""
    if name.startswith(_SOURCES):
        return name
    if "/" not in name and _timm().models.is_model(name.partition(".")[0]):
        return None
    if Path(name).expanduser().is_dir():
        return f"local-dir:{Path(name).expanduser()}"
    return f"hf-hub:{name}" if "/" in name else None


def _from_folder_or_hub(source: str) -> tuple[dict[str, Any], str, dict[str, Any]]:
    from timm.models import load_model_config_from_hf
    from timm.models._hub import load_model_config_from_path

    from holdfast.hub import asking_the_hub, why_not

    kind, _, place = source.partition(":")
    local, asked = kind == "local-dir", False
    try:
        with asking_the_hub(local) as asked:
            if local:
                return load_model_config_from_path(place)
            return load_model_config_from_hf(place)
    except Exception as error:  # a download, and a file of anybody's, can fail in any way
        why = why_not(error, local, asked)
        raise HoldfastError(f"timm:{place} cannot be had ({why})") from error


def preprocessing_of(
    resolved: Mapping[str, Any], mean: tuple[float, ...], std: tuple[float, ...]
) -> Preprocessing | None:
    """Turn timm's settings into ours, as its ``transforms_imagenet_eval`` reads them."""
    channels, height, width = resolved["input_size"]
    mode, share = resolved["crop_mode"], resolved["crop_pct"]
    large = {math.floor(side / share) for side in (height, width)}
    squash, known = mode == "squash", resolved["interpolation"] in get_args(Interpolation)
    if mode == "border" or not known or (len(large) > 1 and not (squash and share == 1)):
        return None  # padding, and crops that are no squares, are nothing that the data can do
    return Preprocessing(
        size=(height, width),
        resize=None if squash and share == 1 else large.pop(),
        mode="squash" if squash else "crop",
        interpolation=resolved["interpolation"],
        channels=channels,
        mean=mean,
        std=std,
    )


def _labels(settings: Mapping[str, Any]) -> tuple[str, ...]:
    """Name the classes: the configuration's own, or ImageNet's by the number of classes."""
    from timm.data.imagenet_info import ImageNetInfo, infer_imagenet_subset

    own, about = settings.get("label_names"), settings.get("label_descriptions") or {}
    if own:
        return tuple(str(about.get(label, label)) for label in own)
    subset = infer_imagenet_subset(dict(settings))
    if subset is None:
        return ()
    return tuple(ImageNetInfo(subset).label_descriptions())
