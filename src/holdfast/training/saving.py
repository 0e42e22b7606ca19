"""Saving and loading classifiers: one safetensors file that says itself how to be rebuilt."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as serialize
from torch import Tensor, nn

from holdfast.contracts import InputError
from holdfast.files import whole
from holdfast.models import Architecture

__all__ = ["load", "save"]

FORMAT = 1
"""Version of the metadata's layout; raised when older versions of Holdfast could not read it."""

_FILE = "model.safetensors"


def save(
    model: nn.Module,
    path: str | os.PathLike[str],
    *,
    architecture: Architecture,
    classes: Sequence[str],
    recipe: str | None = None,
) -> None:
    """Write a classifier into one safetensors file, from which :func:`load` rebuilds it.

    The metadata holds ``holdfast_format``, ``holdfast_version``, ``architecture`` and ``classes``
    (both JSON) and, if given, ``recipe``. The file appears whole or not at all: what was there
    before stays until the new file is complete.

    Parameters
    ----------
    model : nn.Module
        The classifier, as ``architecture`` builds it.
    path : str or path
        The file, or an existing folder, in which it is called ``model.safetensors``.
    architecture : Architecture
        What the model is. Where ``classes`` is None there, the number of names is filled in.
    classes : sequence of str
        The names of the classes, in the order of the logits.
    recipe : str, optional
        How the model was trained, for the reader.

    Raises
    ------
    InputError
        If ``classes`` are not as many as the architecture has, ``options`` cannot be written as
        JSON, or the model's tensors are not those of the architecture.

    Examples
    --------
    >>> import tempfile
    >>> architecture = Architecture("mnist_cnn", classes=2, size=8)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     save(architecture.build(), folder, architecture=architecture, classes=["cat", "dog"])
    ...     load(folder).classes
    ('cat', 'dog')
    """
    architecture = _with_classes(architecture, classes)
    metadata = {
        "format": "pt",  # where the tensors come from, by custom of the files' other readers
        "holdfast_format": str(FORMAT),
        "holdfast_version": version("holdfast"),
        "architecture": _to_json(architecture),
        "classes": json.dumps(list(classes), ensure_ascii=False),
    }
    if recipe is not None:
        metadata["recipe"] = recipe
    # Copies, as safetensors refuses tensors that share memory, which tied weights do.
    state = {
        name: tensor.detach().to("cpu", copy=True, memory_format=torch.contiguous_format)
        for name, tensor in model.state_dict().items()
    }
    if ":" not in architecture.name:
        # Better refused now than found unreadable when the training is long over.
        _check_fit("model", state, _untrained(architecture))
    with whole(_file(path)) as unfinished:
        unfinished.write_bytes(serialize(state, metadata))


def load(
    path: str | os.PathLike[str],
    device: str | torch.device = "cpu",
    *,
    trust_code: bool = False,
) -> nn.Module:
    """Rebuild a classifier from a file that :func:`save` wrote, without unpickling anything.

    Parameters
    ----------
    path : str or path
        The file, or the run folder that holds its ``model.safetensors``.
    device : str or torch.device
        Where the model goes.
    trust_code : bool
        Whether to import and call the function that the file names, where the architecture is the
        user's own (``"package.module:function"``). The file can name any function of any installed
        package: say True only of files whose origin you trust.

    Returns
    -------
    nn.Module
        The classifier in eval mode, with ``model.classes``, the names as a tuple of str,
        ``model.architecture``, and ``model.origin``, the path as it was given.

    Raises
    ------
    InputError
        If there is no such file, it was not written by :func:`save` or by a newer Holdfast, its
        architecture is unknown or not trusted, or its tensors do not fit the architecture.

    Examples
    --------
    >>> load("no/such/run")
    Traceback (most recent call last):
        ...
    holdfast.contracts.InputError: path: expected a model file, or a run folder with \
model.safetensors, got no/such/run, which does not exist
    """
    file = _existing(path)
    state, metadata = _read(file)
    architecture, classes = _described(metadata, file)
    if ":" in architecture.name and not trust_code:
        expected = (
            "True, and then only if you trust where the file comes from: it is built by calling "
            f"{architecture.name!r}"
        )
        raise InputError("trust_code", False, expected)
    model = _untrained(architecture)
    _check_fit(f"path {file}", state, model)
    precisions = {tensor.dtype for tensor in state.values() if tensor.is_floating_point()}
    if len(precisions) == 1:
        model = model.to(precisions.pop())
    model.load_state_dict(state)
    model.classes = classes  # type: ignore[assignment]
    model.architecture = architecture  # type: ignore[assignment]
    model.origin = os.fspath(path)  # type: ignore[assignment]
    return model.to(device).eval()


def _with_classes(architecture: Architecture, classes: Sequence[str]) -> Architecture:
    if isinstance(classes, str) or not all(isinstance(name, str) for name in classes):
        raise InputError("classes", classes, "a sequence of names")
    if architecture.classes is None:
        architecture = dataclasses.replace(architecture, classes=len(classes))
    if len(classes) != architecture.classes:
        expected = f"{architecture.classes} names, one for each class of the architecture"
        raise InputError("classes", f"{len(classes)}", expected)
    return architecture


def _to_json(architecture: Architecture) -> str:
    try:
        return json.dumps(dataclasses.asdict(architecture), ensure_ascii=False)
    except TypeError as error:
        expected = f"values that JSON can hold ({error})"
        raise InputError("architecture.options", architecture.options, expected) from error


def _untrained(architecture: Architecture) -> nn.Module:
    # Building draws random weights that nobody will use: the caller's dice stay untouched.
    with torch.random.fork_rng(devices=[]):
        return architecture.build(pretrained=False)


def _check_fit(argument: str, state: Mapping[str, Tensor], model: nn.Module) -> None:
    """Refuse tensors whose names or shapes are not those of the model."""
    expected = model.state_dict()
    faults = {
        "missing": [name for name in expected if name not in state],
        "unexpected": [name for name in state if name not in expected],
        "of another shape": [
            f"{name} {tuple(tensor.shape)} instead of {tuple(expected[name].shape)}"
            for name, tensor in state.items()
            if name in expected and tensor.shape != expected[name].shape
        ],
    }
    came = "; ".join(f"{fault}: {_first(those)}" for fault, those in faults.items() if those)
    if came:
        raise InputError(argument, came, "the tensors of its architecture")


def _first(those: list[str], shown: int = 3) -> str:
    more = f" and {len(those) - shown} more" if len(those) > shown else ""
    return ", ".join(those[:shown]) + more


def _file(path: str | os.PathLike[str]) -> Path:
    path = Path(path)
    return path / _FILE if path.is_dir() else path


def _existing(path: str | os.PathLike[str]) -> Path:
    file = _file(path)
    if not file.is_file():
        what = "which has none" if Path(path).is_dir() else "which does not exist"
        raise InputError("path", f"{path}, {what}", f"a model file, or a run folder with {_FILE}")
    return file


def _read(file: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    try:
        with safe_open(file, framework="pt") as opened:
            state = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
            return state, opened.metadata() or {}
    except SafetensorError as error:
        expected = (
            "a safetensors file; Holdfast reads no other, least of all pickled ones (.pt, .ckpt), "
            "which can run code"
        )
        raise InputError("path", f"{file} ({error})", expected) from error


def _described(metadata: Mapping[str, str], file: Path) -> tuple[Architecture, tuple[str, ...]]:
    """Read architecture and class names, trusting nothing about them."""
    expected = "a file written by holdfast.training.save"
    if "holdfast_format" not in metadata:
        raise InputError("path", f"{file} without Holdfast's metadata", expected)
    try:
        if int(metadata["holdfast_format"]) > FORMAT:
            newer = f"format {metadata['holdfast_format']} in {file}; please update Holdfast"
            raise InputError("path", newer, f"format {FORMAT} or older")
        fields: dict[str, Any] = json.loads(metadata["architecture"])
        for name in ("mean", "std"):
            fields[name] = fields[name] and tuple(fields[name])
        classes = tuple(str(name) for name in json.loads(metadata["classes"]))
        return Architecture(**fields), classes
    except InputError:
        raise
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise InputError("path", f"{file} with damaged metadata ({error!r})", expected) from error
