"""What every package agrees on: the shapes of methods, the checks of input, and its one error.

A method is a frozen dataclass of its hyper-parameters, called with a model and a batch. The five
protocols below say with what, and what comes back.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, Literal, NotRequired, Protocol, TypedDict, runtime_checkable

import torch
from jaxtyping import Bool, Float, Integer
from torch import Tensor, nn

from holdfast.errors import HoldfastError, InputError

__all__ = [
    "Attack",
    "Attribution",
    "Batch",
    "Check",
    "HoldfastError",
    "InputError",
    "Manipulation",
    "Objective",
    "Outcome",
    "Output",
    "StuckWarning",
    "SurrogateWarning",
    "check_images",
    "check_labels",
    "check_positive",
    "check_precision",
    "check_same_shape",
    "chunks",
    "default_chunk",
    "generators",
    "same_draws",
]

Output = Literal["logit", "probability", "log_probability", "loss"]
"""What of the classifier's answer an attribution differentiates."""


class StuckWarning(UserWarning):
    """Most steps of an attack had no direction: what it left standing is no evidence."""


class SurrogateWarning(UserWarning):
    """The softplus surrogate does not answer as the model does: its directions may mislead."""


class Batch(TypedDict):
    """What an objective is given: images and labels, and what else the data set has."""

    images: Float[Tensor, "n c h w"]
    labels: Integer[Tensor, " n"]
    boxes: NotRequired[Float[Tensor, "n 4"]]
    masks: NotRequired[Float[Tensor, "n h w"]]
    saliency: NotRequired[Float[Tensor, "n h w"]]
    epoch: NotRequired[int]  # of training, from 0 on
    progress: NotRequired[float]  # the share of training that is done, in [0, 1]


@dataclass(frozen=True)
class Outcome:
    """What a manipulation found, image by image.

    Attributes
    ----------
    images : Tensor
        The perturbed images, ``(N, C, H, W)`` in [0, 1]. Where no perturbation kept the label, the
        original image.
    similarity : Tensor
        Kendall's τ between the map before and after, ``(N,)``; 1 where no perturbation kept the
        label.
    preserved : Tensor
        Whether a perturbation that keeps the label was found, ``(N,)``, bool.
    moved : Tensor
        How far the returned image is from the original, ``(N,)``: the largest change of a value, in
        pixel units on [0, 1]. NaN where a manipulation does not say.
    stuck : Tensor
        The share of gradient steps that had no direction, ``(N,)`` in [0, 1]. Where it is high, a
        high similarity says nothing about the model. NaN where no gradient steps were taken.
    """

    images: Float[Tensor, "n c h w"]
    similarity: Float[Tensor, " n"]
    preserved: Bool[Tensor, " n"]
    moved: Float[Tensor, " n"] = field(default=None)  # type: ignore[assignment] # NaN, see below
    stuck: Float[Tensor, " n"] = field(default=None)  # type: ignore[assignment]

    def __post_init__(self) -> None:
        for name in ("moved", "stuck"):
            if getattr(self, name) is None:
                object.__setattr__(self, name, torch.full_like(self.similarity, torch.nan))


@runtime_checkable
class Attribution(Protocol):
    """Explains predictions: ``(model, images, targets) → maps``, shaped like the images."""

    def __call__(
        self,
        model: nn.Module,
        images: Float[Tensor, "n c h w"],
        targets: Integer[Tensor, " n"] | None = None,
        *,
        create_graph: bool = False,
    ) -> Float[Tensor, "n c h w"]:
        """Return the map of each image; ``targets=None`` is the predicted class."""
        ...


@runtime_checkable
class Attack(Protocol):
    """Changes predictions: ``(model, images, labels) → images`` in [0, 1]."""

    def __call__(
        self,
        model: nn.Module,
        images: Float[Tensor, "n c h w"],
        labels: Integer[Tensor, " n"],
    ) -> Float[Tensor, "n c h w"]:
        """Return the attacked images."""
        ...


@runtime_checkable
class Manipulation(Protocol):
    """Changes explanations and keeps the label: ``(model, images, labels) → Outcome``."""

    @property
    def attribution(self) -> Attribution:
        """The explanation under attack."""
        ...

    def __call__(
        self,
        model: nn.Module,
        images: Float[Tensor, "n c h w"],
        labels: Integer[Tensor, " n"],
    ) -> Outcome:
        """Return the perturbed images, and how alike their maps are to the original ones."""
        ...


@runtime_checkable
class Objective(Protocol):
    """A training loss: ``(model, batch) → {"loss": scalar, …}``, the other terms for the log."""

    def __call__(self, model: nn.Module, batch: Batch) -> dict[str, Tensor]:
        """Return the scalar terms of the loss, and the loss itself by the key ``loss``."""
        ...


@runtime_checkable
class Check(Protocol):
    """Measures a model image by image: ``(model, batch) → {measure: (N,)}``, NaN for no value."""

    def __call__(self, model: nn.Module, batch: Batch) -> Mapping[str, Tensor]:
        """Return the measures by name, one value an image; NaN where an image has none."""
        ...


def check_images(images: Any, name: str = "images") -> None:
    """Refuse what is no batch of images ``(N, C, H, W)`` in [0, 1].

    Raises
    ------
    InputError
        If ``images`` is no floating-point tensor of four dimensions, is empty, has NaN or infinite
        values, leaves [0, 1], or was made inside `torch.inference_mode`.

    Examples
    --------
    >>> check_images(torch.full((1, 3, 8, 8), 200.0))
    Traceback (most recent call last):
        ...
    holdfast.contracts.InputError: images: expected values in [0, 1], got values in [200, 200]
    """
    if not isinstance(images, Tensor):
        raise InputError(name, type(images).__name__, "a tensor (N, C, H, W)")
    if images.ndim != 4 or images.numel() == 0:
        raise InputError(name, f"shape {tuple(images.shape)}", "shape (N, C, H, W), none of them 0")
    if not images.is_floating_point():
        raise InputError(name, images.dtype, "floating-point values in [0, 1]")
    _check_autograd(images, name)
    low, high = torch.stack(torch.aminmax(images.detach())).tolist()
    if not (low == low and high == high):
        raise InputError(name, "NaN", "finite values in [0, 1]")
    # Half a grey level of float16 is the slack that rounding may take.
    if low < -1e-4 or high > 1 + 1e-4:
        raise InputError(name, f"values in [{low:g}, {high:g}]", "values in [0, 1]")


def check_precision(images: Tensor, name: str = "images") -> None:
    """Refuse images in half precision, whose steps near 1 are as large as a grey level or half one.

    A perturbation of them is rounded out of its ε, or to nothing. The classifier may be in half
    precision: it is given the images in its own.

    Raises
    ------
    InputError
        If ``images`` have fewer than 32 bits.

    Examples
    --------
    >>> check_precision(torch.zeros(1, 1, 2, 2, dtype=torch.bfloat16))
    Traceback (most recent call last):
        ...
    holdfast.contracts.InputError: images: expected float32 or float64 images, of which \
perturbations can keep to their size (the model may stay in half precision), got torch.bfloat16
    """
    if torch.finfo(images.dtype).bits < 32:
        size = "float32 or float64 images, of which perturbations can keep to their size"
        raise InputError(name, images.dtype, f"{size} (the model may stay in half precision)")


def check_labels(labels: Any, count: int, classes: int | None = None, name: str = "labels") -> None:
    """Refuse labels that are not ``count`` integers in ``[0, classes)``.

    Raises
    ------
    InputError
        If ``labels`` is no integer tensor ``(count,)``, leaves the range, or was made inside
        `torch.inference_mode`.

    Examples
    --------
    >>> check_labels(torch.tensor([0, 10]), count=2, classes=10)
    Traceback (most recent call last):
        ...
    holdfast.contracts.InputError: labels: expected classes from 0 to 9, got 10
    """
    if not isinstance(labels, Tensor):
        raise InputError(name, type(labels).__name__, f"an integer tensor ({count},)")
    if labels.is_floating_point() or labels.is_complex() or labels.dtype == torch.bool:
        raise InputError(name, labels.dtype, "integers, one class an image")
    if labels.shape != (count,):
        raise InputError(name, f"shape {tuple(labels.shape)}", f"shape ({count},)")
    _check_autograd(labels, name)
    if classes is None or count == 0:
        return
    low, high = torch.stack(torch.aminmax(labels.detach())).tolist()
    if low < 0 or high >= classes:
        wrong = low if low < 0 else high
        raise InputError(name, wrong, f"classes from 0 to {classes - 1}")


def _check_autograd(x: Tensor, name: str) -> None:
    """Refuse, outside `torch.inference_mode`, what was made inside: autograd takes none of it."""
    if x.is_inference() and not torch.is_inference_mode_enabled():
        expected = "a tensor that autograd may use: its clone(), or one made under torch.no_grad()"
        raise InputError(name, "one made inside torch.inference_mode()", expected)


def check_same_shape(first: Tensor, second: Tensor, names: tuple[str, str]) -> None:
    """Refuse two tensors of different shape; the error names both.

    Examples
    --------
    >>> check_same_shape(torch.zeros(2, 3), torch.zeros(3, 2), ("a", "b"))
    Traceback (most recent call last):
        ...
    holdfast.contracts.InputError: b: expected shape (2, 3), that of a, got (3, 2)
    """
    if first.shape != second.shape:
        expected = f"shape {tuple(first.shape)}, that of {names[0]}"
        raise InputError(names[1], tuple(second.shape), expected)


def check_positive(owner: object, *fields: str, zero: bool = False) -> None:
    """Refuse a hyper-parameter of ``owner`` that is not above 0 (with ``zero``, not at least 0).

    Called from ``__post_init__``, so that a method that exists has sensible settings.
    """
    for name in fields:
        value = getattr(owner, name)
        if not (value > 0 or (zero and value == 0)):
            expected = "a number of at least 0" if zero else "a number above 0"
            raise InputError(f"{type(owner).__name__}.{name}", value, expected)


def default_chunk(images: Tensor, copies: int = 1) -> int:
    """How many images a method takes at a time when it is not told.

    On an accelerator the feature maps must fit its memory: 64 of them for every image and copy stay
    near one gigabyte of float32. On the CPU the cache is what counts: 64 colour images of 32×32 or
    64×64 pixels at a time, or 20 of 224×224, were measured to be faster than many more.

    Parameters
    ----------
    images : Tensor
        The images ``(N, C, H, W)``.
    copies : int
        How many inputs the model sees for each image (path points, noisy samples).
    """
    channels, height, width = images.shape[-3:]
    if images.device.type == "cpu":
        values = channels * height * width
        size = max(205_000 // values, min(64, 3_000_000 // values))
    else:
        size = 2**22 // (height * width)
    return max(1, min(256, size) // copies)


def chunks(count: int, size: int) -> Iterator[slice]:
    """Slices that cut ``count`` items into as few runs of at most ``size`` as can be.

    The runs are about equally long, as a short last one would take longer than its share.

    Examples
    --------
    >>> [(s.start, s.stop) for s in chunks(9, 4)]
    [(0, 3), (3, 6), (6, 9)]
    """
    runs = max(1, math.ceil(count / size))
    length = max(1, math.ceil(count / runs))
    for start in range(0, count, length):
        yield slice(start, min(start + length, count))


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
    salt = seed.to_bytes(8, "little", signed=True)
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
