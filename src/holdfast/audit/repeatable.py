"""What makes an audit repeatable: draws that are seeded, and models known by their weights."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import fields, is_dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

__all__ = ["device_of", "fingerprint", "provenance", "seeded"]


@contextmanager
def seeded(seed: int, shard: int) -> Iterator[None]:
    """Draw from generators seeded by the shard, and leave the caller's as they were.

    Those of torch, NumPy and Python.

    Examples
    --------
    >>> with seeded(0, shard=3):
    ...     first = torch.rand(2)
    >>> with seeded(0, shard=3):
    ...     torch.equal(torch.rand(2), first)
    True
    """
    # Named one by one, as without names torch warns where there are several.
    theirs = random.getstate(), np.random.get_state()
    number = seed * 1_000_003 + shard
    with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
        torch.manual_seed(number)
        random.seed(number)
        np.random.seed(number % 2**32)
        try:
            yield
        finally:
            random.setstate(theirs[0])
            np.random.set_state(theirs[1])


def fingerprint(model: nn.Module) -> str:
    """Return a short hash of a model's weights and buffers.

    Examples
    --------
    >>> fingerprint(nn.Linear(1, 1, bias=False)) == fingerprint(nn.Linear(1, 1, bias=False))
    False
    """
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(name.encode())
        if not isinstance(tensor, torch.Tensor):  # the extra state of a module
            digest.update(repr(tensor).encode())
            continue
        digest.update(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()[:16]


def device_of(model: nn.Module) -> torch.device:
    """Tell where a model's weights are.

    Examples
    --------
    >>> device_of(nn.Linear(1, 1))
    device(type='cpu')
    """
    return next((p.device for p in model.parameters()), torch.device("cpu"))


def provenance(model: nn.Module) -> dict[str, Any]:
    """Return what a loaded model says of where it came from, as plain settings.

    Returns
    -------
    dict
        ``model_origin`` and ``model_preprocessing``, from its attributes ``origin`` and
        ``preprocessing``, if it has them.

    Examples
    --------
    >>> model = nn.Identity()
    >>> model.origin = "torchvision:resnet18"
    >>> provenance(model)
    {'model_origin': 'torchvision:resnet18'}
    """
    names = {"origin": "model_origin", "preprocessing": "model_preprocessing"}
    told = {key: getattr(model, name, None) for name, key in names.items()}
    return {key: _plain(value) for key, value in told.items() if value is not None}


def _plain(value: Any) -> Any:
    """Turn a value into what YAML holds."""
    if is_dataclass(value) and not isinstance(value, type):
        value = {f.name: getattr(value, f.name) for f in fields(value)}
    if isinstance(value, Mapping):
        return {str(key): _plain(one) for key, one in value.items()}
    if isinstance(value, tuple | list):
        return [_plain(one) for one in value]
    return value if isinstance(value, bool | int | float) else str(value)
