"""The shapes of methods: with what each is called, and what comes back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, NotRequired, Protocol, TypedDict, runtime_checkable

import torch
from jaxtyping import Bool, Float, Integer
from torch import Tensor, nn

__all__ = [
    "Attack",
    "Attribution",
    "Batch",
    "Check",
    "Manipulation",
    "Objective",
    "Outcome",
    "Output",
]

Output = Literal["logit", "probability", "log_probability", "loss"]
"""What of the classifier's answer an attribution differentiates."""


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
