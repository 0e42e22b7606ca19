"""Random draws that depend on an image alone: the same in any batch and on any device."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar

import torch
from jaxtyping import Float
from torch import Tensor

from holdfast.contracts.tensors import check_same_shape
from holdfast.errors import InputError

__all__ = ["generators", "same_draws"]


def generators(images: Float[Tensor, "n c h w"], seed: int) -> list[torch.Generator]:
    """Make one random generator per image, seeded by ``seed`` and the image's content.

    What is drawn for an image is so the same in any batch, in any order and on any device; the
    global generators are not touched. The generators live on the CPU. Within `same_draws`, a
    perturbed image has the generator of its original.

    Examples
    --------
    >>> image = torch.rand(1, 1, 4, 4)
    >>> alone, = generators(image, seed=0)
    >>> _, last = generators(torch.cat([torch.rand(1, 1, 4, 4), image]), seed=0)
    >>> bool(torch.rand((), generator=alone) == torch.rand((), generator=last))
    True
    """
    try:
        salt = seed.to_bytes(8, "little", signed=True)
    except OverflowError as error:
        raise InputError("seed", f"one of {seed.bit_length()} bits", "at most 64 bits") from error
    originals = _ORIGINALS.get()
    made = []
    for content in _contents(images):
        digest = hashlib.blake2b(originals.get(content, content), key=salt, digest_size=8).digest()
        made.append(torch.Generator().manual_seed(int.from_bytes(digest, "little") >> 1))
    return made


@contextmanager
def same_draws(
    originals: Float[Tensor, "n c h w"], perturbed: Float[Tensor, "n c h w"]
) -> Iterator[None]:
    """Within the block, what is random for a perturbed image is drawn as for its original.

    Random attributions draw from `generators`, which depend on the content of the image. Two maps
    that are to be compared must share their draws, or their difference is that of two draws and not
    that of two explanations.

    Parameters
    ----------
    originals, perturbed : Tensor
        The images before and after, ``(N, C, H, W)``, in the same order. In the block they may come
        in any batch.

    Examples
    --------
    >>> before, after = torch.zeros(1, 1, 2, 2), torch.ones(1, 1, 2, 2)
    >>> first = torch.rand(2, generator=generators(before, seed=0)[0])
    >>> with same_draws(before, after):
    ...     second = torch.rand(2, generator=generators(after, seed=0)[0])
    >>> torch.equal(first, second)
    True
    """
    check_same_shape(originals, perturbed, ("originals", "perturbed"))
    outer = _ORIGINALS.get()
    # In an enclosing block the originals may themselves be the perturbed of other originals.
    roots = (outer.get(content, content) for content in _contents(originals))
    token = _ORIGINALS.set({**outer, **dict(zip(_contents(perturbed), roots, strict=True))})
    try:
        yield
    finally:
        _ORIGINALS.reset(token)


_ORIGINALS: ContextVar[Mapping[bytes, bytes]] = ContextVar("originals", default={})  # noqa: B039
"""The content of an original by that of its perturbed image."""


def _contents(images: Tensor) -> Iterator[bytes]:
    for image in images.detach().to("cpu", torch.float32).numpy():
        yield image.tobytes()
