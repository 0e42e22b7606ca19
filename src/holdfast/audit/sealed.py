"""Files of tensors with a seal: what is damaged, or belongs elsewhere, is noticed."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from holdfast.files import whole
from holdfast.parts import DamagedError
from holdfast.training.code import tensor_digest

__all__ = ["read_sealed", "write_sealed"]

_SEAL = "seal"


def write_sealed(
    file: Path,
    tensors: Mapping[str, Tensor],
    what: str,
    metadata: Mapping[str, str] | None = None,
) -> None:
    """Write tensors whole, as safetensors, with a seal over them and over ``what`` they are.

    Parameters
    ----------
    file : Path
        Where.
    tensors : mapping
        What. They may share memory.
    what : str
        What they are: `read_sealed` has to say the same.
    metadata : mapping, optional
        At most one entry: of several, safetensors does not keep the order, and so not the bytes.
    """
    # Copies, as safetensors refuses tensors that share memory.
    kept = {name: t.detach().to("cpu", copy=True).contiguous() for name, t in tensors.items()}
    sealed = {**kept, _SEAL: _seal(kept, what)}
    with whole(file) as unfinished:
        unfinished.write_bytes(save(sealed, dict(metadata or {})))


def read_sealed(file: Path, what: str) -> dict[str, Tensor]:
    """Read what `write_sealed` has written.

    Raises
    ------
    DamagedError
        If the file is missing, cannot be read, or was not written as ``what``.

    Examples
    --------
    >>> import tempfile
    >>> file = Path(tempfile.mkdtemp()) / "two.safetensors"
    >>> write_sealed(file, {"a": torch.zeros(2)}, "two zeros")
    >>> read_sealed(file, "two zeros")
    {'a': tensor([0., 0.])}
    >>> read_sealed(file, "two ones")
    Traceback (most recent call last):
        ...
    holdfast.parts.DamagedError: two.safetensors is damaged, or made with other settings
    """
    try:
        tensors = load(file.read_bytes())
    except (SafetensorError, OSError, ValueError, KeyError) as error:
        raise DamagedError(f"{file.name} cannot be read ({error})") from error
    seal = tensors.pop(_SEAL, None)
    if seal is None or not torch.equal(seal, _seal(tensors, what)):
        raise DamagedError(f"{file.name} is damaged, or made with other settings")
    return tensors


def _seal(tensors: Mapping[str, Tensor], what: str) -> Tensor:
    digest = hashlib.sha256(what.encode())
    for name in sorted(tensors):
        digest.update(f"\0{name}\0{tensor_digest(tensors[name])}".encode())
    return torch.frombuffer(bytearray(digest.digest()), dtype=torch.uint8)
