"""Releases: trained models in half the size, with a list of their digests."""

from __future__ import annotations

import copy
import os
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from holdfast import plain_yaml, zoo
from holdfast.contracts import HoldfastError, InputError
from holdfast.data import ImageDataset
from holdfast.files import locked, whole
from holdfast.models import classify, evaluating
from holdfast.training.saving import load_saved, save

__all__ = ["Released", "release"]

_AT_ONCE = 100
_SMALL = 1024
"""So few values stay in single precision: normalization, biases and batch-norm's statistics."""
_ALIKE = 0.99


class Released(NamedTuple):
    """What was released.

    Attributes
    ----------
    file : Path
        The model's file.
    sha256 : str
        Its digest.
    images, agree : int
        How many images both were asked, and for how many the file predicts what the model did.
    """

    file: Path
    sha256: str
    images: int
    agree: int


def release(
    model: nn.Module,
    data: ImageDataset,
    label: str,
    folder: str | os.PathLike[str],
    *,
    about: str = "",
    replaced: bool = False,
) -> Released:
    """Write a model into a folder of releases, its weights in half precision, and list it there.

    Tensors of few values keep their precision, and so does a model that has not single precision.
    The file holds the recipe that the model was trained by, where the run says it; of paths on this
    machine in it the last part is left. ``HOLDFAST_ZOO=FOLDER`` lets ``zoo:NAME`` be found.

    Parameters
    ----------
    model : nn.Module
        The model, as `holdfast.load` returns that of a run.
    data : ImageDataset
        Images on which the predictions before and after are compared.
    label : str
        What it will be called: ``mnist/art``.
    folder : str or path
        The folder of releases. The file is ``NAME.safetensors`` there, its digest stands in
        ``index.yaml``.
    about : str
        A line about it.
    replaced : bool
        Whether another release of this name may be replaced.

    Raises
    ------
    HoldfastError
        If the name is none of a release or is taken; or if fewer than 99 % of the images are
        predicted as before.
    InputError
        If the model is not one that `holdfast.training.save` saves, or is built by the user's own
        code; or a weight has no place in half precision.

    Examples
    --------
    >>> import tempfile
    >>> from holdfast.data import ImageData
    >>> from holdfast.models import Architecture
    >>> architecture = Architecture("mlp", classes=10, in_channels=1, size=16)
    >>> model, digits = architecture.build(), ImageData("digits", limit=20).load("test")
    >>> model.architecture, model.classes = architecture, digits.classes
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     released = release(model, digits, "digits/natural", folder)
    ...     released.file.name, released.images, list(zoo.read_index(Path(folder) / zoo.INDEX))
    ('natural.safetensors', 20, ['digits/natural'])
    """
    folder = Path(folder)
    file = folder / f"{zoo.check_label(label)}.safetensors"
    architecture, classes = (getattr(model, what, None) for what in ("architecture", "classes"))
    if architecture is None or classes is None or architecture.source == "code":
        expected = "a trained run, or a file of holdfast.training.save, without code of its own"
        raise InputError("model", getattr(model, "origin", type(model).__name__), expected)
    architecture = replace(architecture, weights=_without_folders(architecture.weights))
    with locked(folder):
        index = folder / zoo.INDEX
        known = zoo.read_index(index) if index.exists() else {}
        if label in known and not replaced:
            raise HoldfastError(f"{folder} has a release {label} already; --replace replaces it")
        with whole(file) as unfinished:
            words = {"architecture": architecture, "classes": classes, "recipe": _recipe(model)}
            save(_halved(model), unfinished, **words)
            agree = _agreement(model, load_saved(unfinished).float(), data)
            if agree < _ALIKE * len(data):
                raise HoldfastError(
                    f"in half precision only {agree:,} of {len(data):,} images are predicted as "
                    "before; nothing was released"
                )
        sha256 = zoo.digest(file)
        known[label] = zoo.Release(sha256, about)
        with whole(index) as unfinished:
            entries = {name: _entry(one) for name, one in sorted(known.items())}
            unfinished.write_text(plain_yaml.dump(entries), encoding="utf-8")
    return Released(file, sha256, len(data), agree)


def _halved(model: nn.Module) -> nn.Module:
    """Copy a model, its larger tensors of single precision in half."""
    model = copy.deepcopy(model)
    for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
        if tensor.dtype == torch.float32 and tensor.numel() > _SMALL:
            half = tensor.detach().half()
            if not half.isfinite().all():
                expected = "values that half precision can hold"
                raise InputError("model", f"{tensor.abs().max():g} in {name}", expected)
            tensor.data = half
    return model


def _agreement(model: nn.Module, other: nn.Module, data: ImageDataset) -> int:
    """Count the images for which both predict the same class."""
    agree = 0
    device = next((tensor.device for tensor in model.parameters()), torch.device("cpu"))
    with evaluating(model), torch.no_grad():
        for start in range(0, len(data), _AT_ONCE):
            indices = range(start, min(start + _AT_ONCE, len(data)))
            images = data.batch(list(indices))["images"]
            before: Tensor = classify(model, images.to(device)).argmax(1).cpu()
            agree += int((classify(other, images).argmax(1) == before).sum())
    return agree


def _recipe(model: nn.Module) -> str | None:
    """Read what a run was trained by, without the paths of this machine."""
    origin = Path(getattr(model, "origin", ""))
    file = origin / "model.safetensors" if origin.is_dir() else origin
    try:
        with safe_open(file, framework="pt") as opened:
            recipe = (opened.metadata() or {}).get("recipe")
    except (OSError, SafetensorError):
        return None
    return recipe and plain_yaml.dump(_without_folders(plain_yaml.parse(recipe, str(file))))


def _without_folders(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_folders(one) for key, one in value.items()}
    if isinstance(value, list):
        return [_without_folders(one) for one in value]
    return Path(value).name if isinstance(value, str) and os.path.isabs(value) else value


def _entry(one: zoo.Release) -> dict[str, str]:
    return {"sha256": one.sha256, **({"about": one.about} if one.about else {})}
