"""Files of weights that say nothing of their network: read, unwrapped, fitted to one."""

from __future__ import annotations

import argparse
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from holdfast import zoo
from holdfast.contracts import InputError
from holdfast.errors import reason

__all__ = [
    "check_fit",
    "check_values",
    "classes_of",
    "fit",
    "is_weights",
    "load_into",
    "read_weights",
]

_SUFFIXES = (".safetensors", ".pth", ".pt", ".bin", ".ckpt", ".tar")
_WRAPPINGS = ("state_dict", "model_state_dict", "model", "net", "network", "module", "weights")
_AVERAGED = ("state_dict_ema", "model_ema", "ema")
_PREFIXES = ("module.", "model.", "_orig_mod.", "net.", "network.", "classifier.")
_PRECISIONS = (torch.float64, torch.float32, torch.float16, torch.bfloat16)
_AUXILIARY = ("aux1.", "aux2.", "AuxLogits.")
"""Heads for training alone, which torchvision's networks are built without here."""


def is_weights(name: str | os.PathLike[str]) -> bool:
    """Tell a file of weights by its suffix; a released model is one, too.

    Examples
    --------
    >>> is_weights("resnet.pth"), is_weights("zoo:mnist/art"), is_weights("IMAGENET1K_V1")
    (True, True, False)
    """
    return Path(name).suffix in _SUFFIXES or zoo.is_release(name)


def read_weights(path: str | os.PathLike[str]) -> dict[str, Tensor]:
    """Read the tensors of a file, running no code of it.

    Parameters
    ----------
    path : str or path
        A safetensors file, a released model, or a file of ``torch.save``. Of what training scripts
        write around the weights, ``{"state_dict": …}``, ``{"model": …}`` and their like are opened;
        averaged weights (``…_ema``) only where there are no others.

    Raises
    ------
    InputError
        If there is no such file, it is damaged, holds no tensors by name, or needs code to be read.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     file = Path(folder) / "last.pth"
    ...     torch.save({"epoch": 3, "model": nn.Linear(2, 2).state_dict()}, file)
    ...     sorted(read_weights(file))
    ['bias', 'weight']
    """
    file = zoo.located(os.fspath(path)) if zoo.is_release(path) else Path(path)
    if not file.is_file():
        raise InputError("weights", f"{file}, which does not exist", "a file of weights")
    if file.suffix == ".safetensors":
        try:
            with safe_open(file, framework="pt") as opened:
                return {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
        except (SafetensorError, OSError) as error:
            raise InputError("weights", f"{file} ({error})", "a safetensors file") from error
    return _unwrapped(_unpickled(file), file)


def _unpickled(file: Path) -> Any:
    try:
        # Scripts keep their arguments beside the weights; a namespace runs nothing.
        with torch.serialization.safe_globals([argparse.Namespace]):
            return torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged file makes torch fail in any way
        if any(sign in str(error) for sign in ("GLOBAL", "Unsupported class", "TorchScript")):
            came = f"{file}, which holds more than tensors and would run code to be read"
            expected = "weights alone: torch.save(model.state_dict(), …), or safetensors"
            raise InputError("weights", came, expected) from error
        raise InputError("weights", f"{file} ({reason(error)})", "a file of weights") from error


def _unwrapped(content: Any, file: Path) -> dict[str, Tensor]:
    for _ in range(3):
        if not isinstance(content, Mapping):
            break
        tensors = {str(k): v for k, v in content.items() if isinstance(v, Tensor)}
        if tensors and len(tensors) == len(content):
            return tensors
        inside = [key for key in (*_WRAPPINGS, *_AVERAGED) if _holds(content.get(key))]
        if not inside:
            if tensors:
                return tensors
            break
        content = content[inside[0]]
    keys = ", ".join(map(str, content)) if isinstance(content, Mapping) else type(content).__name__
    raise InputError("weights", f"{file} with {keys[:200] or 'nothing'}", "tensors by their names")


def _holds(value: Any) -> bool:
    return isinstance(value, Mapping) and len(value) > 0


def fit(
    state: Mapping[str, Tensor], expected: Mapping[str, Tensor]
) -> tuple[dict[str, Tensor], tuple[Tensor, Tensor] | None]:
    """Strip what wrappers have put before the names, as far as it makes them those expected.

    Parameters
    ----------
    state, expected : mapping of str to Tensor
        What a file holds, and what the network has.

    Returns
    -------
    dict of str to Tensor, tuple of Tensor or None
        The tensors by the network's names; and mean and deviation, where the file has those of
        `Normalized` around the network.

    Examples
    --------
    >>> state = {"module.weight": torch.ones(1), "module.bias": torch.ones(1)}
    >>> sorted(fit(state, nn.Linear(1, 1).state_dict())[0])
    ['bias', 'weight']
    """
    fitted, normal = dict(state), None
    for _ in range(4):
        if expected.keys() <= fitted.keys():
            break
        rest = {key for key in fitted if key not in ("mean", "std")}
        prefix = next((p for p in _PREFIXES if rest and all(k.startswith(p) for k in rest)), None)
        if prefix is None:
            break
        if {"mean", "std"} <= fitted.keys():
            normal = fitted["mean"], fitted["std"]
        fitted = {key.removeprefix(prefix): fitted[key] for key in fitted if key in rest}
    fitted = {key: value for key, value in fitted.items() if key in expected or not _spare(key)}
    for key, value in expected.items():
        # Counted since PyTorch 0.4.1, and used by nobody in eval mode.
        if key.endswith("num_batches_tracked"):
            fitted.setdefault(key, value.detach().clone())
    return fitted, normal


def _spare(key: str) -> bool:
    counters = ("total_ops", "total_params", "n_averaged")
    return key.startswith(_AUXILIARY) or key.rpartition(".")[2] in counters


def classes_of(state: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> int | None:
    """Read the number of classes from weights that fit a network but for its last layer.

    Returns
    -------
    int or None
        How many; None where all fits, or something else than the last layer does not.

    Examples
    --------
    >>> classes_of(nn.Linear(8, 7).state_dict(), nn.Linear(8, 1000).state_dict())
    7
    """
    counts = {
        (len(state[key]), len(tensor)) if tensor.shape[1:] == state[key].shape[1:] else None
        for key, tensor in expected.items()
        if key in state and tensor.ndim and state[key].ndim and state[key].shape != tensor.shape
    }
    if len(counts) != 1 or None in counts:
        return None
    (pair,) = counts
    return pair[0] if pair else None


def load_into(
    model: nn.Module,
    state: Mapping[str, Tensor],
    *,
    origin: str,
    new_head: bool = False,
) -> None:
    """Put weights into a network, in place, and refuse those that are not its own.

    Parameters
    ----------
    model : nn.Module
        The network.
    state : mapping of str to Tensor
        Its tensors by name, as `fit` gives them.
    origin : str
        Where they are from, for the error.
    new_head : bool
        Whether a last layer for another number of classes keeps its fresh weights.

    Raises
    ------
    InputError
        If tensors are missing, left over or of another shape.

    Examples
    --------
    >>> model = nn.Linear(1, 2)
    >>> load_into(model, {"weight": torch.ones(2, 1), "bias": torch.zeros(2)}, origin="a.pth")
    >>> model.weight.flatten().tolist()
    [1.0, 1.0]
    """
    expected = model.state_dict()
    kept = dict(state)
    if new_head and classes_of(state, expected) is not None:
        for key, tensor in expected.items():
            if key in kept and kept[key].shape != tensor.shape:
                kept[key] = tensor
    check_fit(origin, kept, expected)
    model.load_state_dict(kept)


def check_fit(argument: str, state: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> None:
    """Refuse tensors whose names or shapes are not those expected.

    Raises
    ------
    InputError
        Says which are missing, left over or of another shape.
    """
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


def check_values(
    argument: str, state: Mapping[str, Tensor], expected: Mapping[str, Tensor]
) -> None:
    """Refuse numbers that are none, and whole numbers where the network has others.

    Raises
    ------
    InputError
        Says in which tensors.

    Examples
    --------
    >>> check_values("path", {"weight": torch.tensor([torch.nan])}, {"weight": torch.zeros(1)})
    Traceback (most recent call last):
        ...
    holdfast.contracts.InputError: path: expected finite numbers, got others in weight
    """
    kinds = [
        f"{name} of {str(tensor.dtype).removeprefix('torch.')}"
        for name, tensor in state.items()
        if tensor.is_floating_point() != expected[name].is_floating_point()
        or (tensor.is_floating_point() and tensor.dtype not in _PRECISIONS)
    ]
    if kinds:
        raise InputError(argument, _first(kinds), "the types of numbers of its architecture")
    # Some networks have infinity in a table of theirs.
    broken = [
        name
        for name, tensor in state.items()
        if not bool(tensor.isfinite().all()) and bool(expected[name].isfinite().all())
    ]
    if broken:
        raise InputError(argument, f"others in {_first(broken)}", "finite numbers")


def _first(those: list[str], shown: int = 3) -> str:
    more = f" and {len(those) - shown} more" if len(those) > shown else ""
    return ", ".join(those[:shown]) + more
