"""Saved classifiers: one safetensors file that says itself how to be rebuilt."""

from __future__ import annotations

import dataclasses
import json
import os
import re
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as serialize
from torch import Tensor, nn

from holdfast import zoo
from holdfast.contracts import InputError
from holdfast.files import whole
from holdfast.models import Architecture
from holdfast.models.bounded import build_within
from holdfast.models.checkpoint import check_fit, check_values
from holdfast.preprocessing import Preprocessing
from holdfast.training.metadata import FORMAT, read_metadata

__all__ = ["is_saved", "load_saved", "save"]

_FILE = "model.safetensors"


def save(
    model: nn.Module,
    path: str | os.PathLike[str],
    *,
    architecture: Architecture,
    classes: Sequence[str],
    recipe: str | None = None,
    preprocessing: Preprocessing | None = None,
) -> None:
    """Write a classifier into one safetensors file, from which `holdfast.load` rebuilds it.

    The metadata holds ``holdfast_format``, ``holdfast_version``, ``architecture`` and ``classes``
    (both JSON) and, if given, ``recipe`` and ``preprocessing`` (JSON). The file appears whole or
    not at all: what was there before stays until the new file is complete.

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
    preprocessing : Preprocessing, optional
        How photographs become the images that it takes; by default what `holdfast.load` has put
        into ``model.preprocessing``.

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
    ...     load_saved(folder).classes
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
    known = getattr(model, "preprocessing", None) if preprocessing is None else preprocessing
    if isinstance(known, Preprocessing):
        metadata["preprocessing"] = json.dumps(dataclasses.asdict(known))
    # Copies, as safetensors refuses tensors that share memory, which tied weights do.
    state = {
        name: tensor.detach().to("cpu", copy=True, memory_format=torch.contiguous_format)
        for name, tensor in model.state_dict().items()
    }
    if architecture.source != "code":
        # Better refused now than found unreadable when the training is long over.
        _check_whole(architecture, "architecture")
        check_fit("model", state, _untrained(architecture, state, "model").state_dict())
    with whole(_file(path)) as unfinished:
        unfinished.write_bytes(_in_order(serialize(state, metadata)))


def is_saved(name: str | os.PathLike[str]) -> bool:
    """Tell what :func:`load_saved` reads: a folder, a file that :func:`save` wrote, a release.

    Examples
    --------
    >>> is_saved("resnet50")
    False
    """
    if zoo.is_release(name):
        return True
    try:  # whatever its name ends in: `save` takes any
        if Path(name).is_dir():
            return True
        if not Path(name).is_file():
            return False
        with safe_open(name, framework="pt") as opened:
            return "holdfast_format" in (opened.metadata() or {})
    except (SafetensorError, OSError):
        return False  # whoever reads it says what is wrong with it


def load_saved(
    path: str | os.PathLike[str],
    device: str | torch.device = "cpu",
    *,
    trust_code: bool = False,
) -> nn.Module:
    """Rebuild a classifier from a file that :func:`save` wrote, without unpickling anything.

    Networks of Holdfast, torchvision, timm and transformers are built; nothing is downloaded.

    Parameters
    ----------
    path : str or path
        The file, the run folder that holds its ``model.safetensors``, or a released model,
        ``"zoo:mnist/art"``, which is in single precision whatever its file is in.
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
        ``model.architecture``, ``model.preprocessing``, and ``model.origin``, the path as it was
        given.

    Raises
    ------
    HoldfastError
        If there is no such release, or its file is not to be had or not the released one.
    InputError
        If there is no such file, it was not written by :func:`save` or by a newer Holdfast, its
        architecture is unknown or not trusted, or its tensors do not fit the architecture.

    Examples
    --------
    >>> load_saved("no/such/run")
    Traceback (most recent call last):
        ...
    holdfast.contracts.InputError: path: expected a model file, or a run folder with \
model.safetensors, got no/such/run, which does not exist
    """
    released = zoo.is_release(path)
    file = zoo.located(os.fspath(path)) if released else _existing(path)
    state, metadata = _read(file)
    architecture, classes, preprocessing = read_metadata(metadata, file)
    if architecture.source == "code" and not trust_code:
        expected = (
            "True, on the command line --trust-code, and then only if you trust where the file "
            f"comes from: it is built by calling {architecture.name!r}"
        )
        raise InputError("trust_code", False, expected)
    _check_whole(architecture, f"path {file}")
    model = _untrained(architecture, state, f"path {file}")
    check_fit(f"path {file}", state, model.state_dict())
    check_values(f"path {file}", state, model.state_dict())
    precisions = {tensor.dtype for tensor in state.values() if tensor.is_floating_point()}
    if len(precisions) == 1 and not released:
        model = model.to(precisions.pop())
    model.load_state_dict(state)
    model.classes = classes  # type: ignore[assignment]
    model.architecture = architecture  # type: ignore[assignment]
    model.preprocessing = preprocessing  # type: ignore[assignment]
    model.origin = os.fspath(path)  # type: ignore[assignment]
    return model.to(device).eval()


def _in_order(serialized: bytes) -> bytes:
    """Sort the metadata, which safetensors writes by chance: the same model is the same bytes."""
    end = 8 + int.from_bytes(serialized[:8], "little")
    header = json.loads(serialized[8:end])
    header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
    text = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # tensors begin at a multiple of 8 bytes
    return len(text).to_bytes(8, "little") + text + serialized[end:]


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
        fields = dataclasses.asdict(architecture)
        for new in ("config", "discriminator"):
            if not fields[new]:
                del fields[new]  # so that older versions of Holdfast read the file
        return json.dumps(fields, ensure_ascii=False)
    except TypeError as error:
        expected = f"values that JSON can hold ({error})"
        raise InputError("architecture.options", architecture.options, expected) from error


def _untrained(architecture: Architecture, state: Mapping[str, Tensor], argument: str) -> nn.Module:
    # Building draws random weights that nobody will use: the caller's dice stay untouched.
    with torch.random.fork_rng(devices=[]):
        return build_within(architecture, state, argument)


def _check_whole(architecture: Architecture, argument: str) -> None:
    """Refuse what could not be built again without asking anybody."""
    lacks = architecture.source == "hf" and architecture.config is None
    # What timm finds elsewhere than in itself, it fetches from there.
    elsewhere = architecture.source == "timm" and re.search(r"[/\\:]", architecture.name[5:])
    if lacks or elsewhere:
        expected = "an architecture with all its settings, as Architecture.filled gives it"
        raise InputError(argument, repr(architecture.name), expected)


def _file(path: str | os.PathLike[str]) -> Path:
    path = Path(path)
    return path / _FILE if path.is_dir() else path


def _existing(path: str | os.PathLike[str]) -> Path:
    try:
        file = _file(path)
        there = file.is_file()
    except OSError as error:  # a name too long, a folder that is not to be read
        raise InputError("path", f"{path} ({error.strerror})", "a model file") from error
    if not there:
        what = "which has none" if Path(path).is_dir() else "which does not exist"
        raise InputError("path", f"{path}, {what}", f"a model file, or a run folder with {_FILE}")
    return file


def _read(file: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    try:
        with safe_open(file, framework="pt") as opened:
            state = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
            return state, opened.metadata() or {}
    except (SafetensorError, OSError) as error:
        expected = (
            "a safetensors file; Holdfast reads no other, least of all pickled ones (.pt, .ckpt), "
            "which can run code"
        )
        raise InputError("path", f"{file} ({error})", expected) from error
