"""Checks by another input: another baseline of the map, and the image without its object."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import torch
from jaxtyping import Bool, Float, Float64
from torch import Tensor, nn
from torch.nn import functional as F

from holdfast.adversarial import correct
from holdfast.attributions import IntegratedGradients, resolve_targets
from holdfast.audit.localization_checks import objects_of
from holdfast.audit.map_checks import similarities
from holdfast.audit.measures import spread
from holdfast.contracts import (
    Attribution,
    Batch,
    InputError,
    check_positive,
    checked,
    chunks,
    default_chunk,
    same_draws,
)
from holdfast.metrics import energy_game, kendall_tau, pixel_scores
from holdfast.models import classify, evaluating

__all__ = ["BaselineSensitivity", "ObjectRemoval"]


@dataclass(frozen=True)
@checked
class BaselineSensitivity:
    """How alike the maps of one method are that differ in their baseline alone, black and white.

    Where they are not, the baseline decides what the explanation says. Measures are means over all
    pairs of baselines: ``top_k_intersection``, ``kendall_tau`` and ``spearman_rho`` compare how
    much each pixel counts, and ``map_cosine`` compares signs as well, from −1 to 1 (0 where a map
    is zero). The predicted class is explained.

    Parameters
    ----------
    attribution : Attribution
        A method with a field ``baseline``, which is not used.
    baselines : tuple of float
        The value of every pixel of each baseline, in [0, 1]; at least two.
    k : int
        How many of the highest pixels ``top_k_intersection`` compares.

    Raises
    ------
    InputError
        If the method has no baseline, or there are fewer than two different ones in [0, 1].

    References
    ----------
    Wang et al., Robust Models Are More Interpretable Because Attributions Look Normal (ICLR 2022),
    section 6 and figure 6(b).

    Examples
    --------
    >>> model = nn.Sequential(nn.Flatten(), nn.Linear(6, 2))
    >>> grey = Batch(images=torch.full((1, 1, 2, 3), 0.5), labels=torch.tensor([0]))
    >>> measures = BaselineSensitivity(k=2)(model, grey)  # maps of one size and opposite signs
    >>> round(float(measures["kendall_tau"]), 3), round(float(measures["map_cosine"]), 3)
    (1.0, -1.0)
    """

    attribution: Attribution = IntegratedGradients(steps=20, rule="trapezoid")
    baselines: tuple[float, ...] = (0.0, 1.0)
    k: int = 100

    def __post_init__(self) -> None:
        check_positive(self, "k")
        method: Any = self.attribution
        if not dataclasses.is_dataclass(method) or not hasattr(method, "baseline"):
            came, name = type(method).__name__, "BaselineSensitivity.attribution"
            raise InputError(name, came, "a method with a field baseline, IntegratedGradients say")
        outside = [value for value in self.baselines if not 0 <= value <= 1]
        if outside or len(set(self.baselines)) < max(2, len(self.baselines)):
            expected = "at least two different values in [0, 1]"
            raise InputError("BaselineSensitivity.baselines", self.baselines, expected)

    def __call__(self, model: nn.Module, batch: Batch) -> dict[str, Float64[Tensor, " n"]]:
        """Return how alike the maps of each image are, ``(N,)``."""
        images = batch["images"]
        with evaluating(model):
            targets = resolve_targets(model, images, None)
        method: Any = self.attribution
        maps = [
            dataclasses.replace(method, baseline=value)(model, images, targets)
            for value in self.baselines
        ]
        pairs = [
            {**similarities(first, second, self.k), "map_cosine": _cosine(first, second)}
            for first, second in combinations(maps, 2)
        ]
        return {name: torch.stack([pair[name] for pair in pairs]).mean(0) for name in pairs[0]}


@dataclass(frozen=True)
@checked
class ObjectRemoval:
    """Take the object out of the image, and then all else, and ask the model and the map again.

    A map that lies on the object is right to if the class hangs on the object. Of images that the
    model gets right and whose object is marked, by its mask or box:

    - ``kept_without_object``, whether the class stays when the object is gone, and
      ``lost_without_object``, how much probability it loses;
    - ``kept_object_alone`` and ``lost_object_alone``, the same when all but the object is gone;
    - ``object_share``, how much of the map's positive part lies on the object;
    - ``map_agrees``, whether map and model say the same of what counts more, the object or the
      rest: more than half of the positive part lies on the object where it is the object without
      which the class loses more, and not where it is the rest;
    - ``tau_elsewhere``, Kendall's τ over the pixels outside the object between the map before and
      after the object is gone. An object that fills the image has none.

    Parameters
    ----------
    attribution : Attribution
        What makes the maps.
    fill : float, optional
        What removed pixels become, in [0, 1]; by default the mean colour around the object, or of
        an object that fills the image its own.

    Raises
    ------
    InputError
        If ``fill`` is outside [0, 1].
    HoldfastError
        When called, if the data has neither boxes nor masks.

    References
    ----------
    Wang et al., Robust Models Are More Interpretable Because Attributions Look Normal (ICLR 2022),
    appendix D.

    Examples
    --------
    >>> from holdfast.attributions import InputXGradient
    >>> model = nn.Flatten()  # the brightest of four pixels
    >>> image, box = torch.tensor([[[[0.1, 0.9], [0.2, 0.3]]]]), torch.tensor([[1.0, 0, 2, 1]])
    >>> batch = Batch(images=image, labels=torch.tensor([1]), boxes=box)
    >>> measures = ObjectRemoval(InputXGradient())(model, batch)
    >>> [int(measures[name]) for name in ("kept_without_object", "kept_object_alone", "map_agrees")]
    [0, 1, 1]
    """

    attribution: Attribution
    fill: float | None = None

    def __post_init__(self) -> None:
        if self.fill is not None and not 0 <= self.fill <= 1:
            raise InputError("ObjectRemoval.fill", self.fill, "a number in [0, 1], or None")

    def __call__(self, model: nn.Module, batch: Batch) -> dict[str, Float64[Tensor, " n"]]:
        """Return the measures of each image, ``(N,)``; none at all if no image has a value."""
        images, labels = batch["images"], batch["labels"].long()
        objects, known = objects_of(batch)
        chosen = correct(model, images, labels) & known
        if not chosen.any():
            return {}
        images, labels, objects = images[chosen], labels[chosen], objects[chosen]
        colour = self._colour(images, objects)
        without = torch.where(objects[:, None], colour, images)
        alone = torch.where(objects[:, None], images, colour)

        before = _probability(model, images, labels)[1]
        kept_without, p_without = _probability(model, without, labels)
        kept_alone, p_alone = _probability(model, alone, labels)
        maps = self.attribution(model, images, labels)
        with same_draws(images, without):
            after = self.attribution(model, without, labels)
        share = energy_game(maps, objects)
        return spread(
            {
                "kept_without_object": kept_without,
                "lost_without_object": before - p_without,
                "kept_object_alone": kept_alone,
                "lost_object_alone": before - p_alone,
                "object_share": share,
                "map_agrees": (share > 0.5) == (p_without < p_alone),
                "tau_elsewhere": _tau_elsewhere(maps, after, objects),
            },
            chosen,
        )

    def _colour(
        self, images: Float[Tensor, "n c h w"], objects: Bool[Tensor, "n h w"]
    ) -> Float[Tensor, "n c 1 1"]:
        if self.fill is not None:
            return torch.full_like(images[:, :, :1, :1], self.fill)
        outside = ~objects | objects.flatten(1).all(1)[:, None, None]
        counted = (images * outside[:, None]).sum((2, 3), keepdim=True)
        return counted / outside.sum((1, 2)).view(-1, 1, 1, 1)


def _probability(model: nn.Module, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Tell whether the model gives each image its label, and how probable it holds it."""
    kept, probabilities = [], []
    with evaluating(model), torch.no_grad():
        for part in chunks(len(images), default_chunk(images)):
            logits, own = classify(model, images[part]), labels[part]
            kept.append(logits.argmax(1) == own)
            probabilities.append(F.softmax(logits.double(), 1).gather(1, own[:, None])[:, 0])
    return torch.cat(kept), torch.cat(probabilities)


def _tau_elsewhere(before: Tensor, after: Tensor, objects: Tensor) -> Float64[Tensor, " n"]:
    """Compare maps outside the objects, whose sizes differ: image by image."""
    first, second = pixel_scores(before), pixel_scores(after)
    taus = torch.full((len(first),), torch.nan, dtype=torch.float64, device=first.device)
    for n, rest in enumerate((~objects).flatten(1)):
        if rest.any():
            taus[n] = kendall_tau(first[n : n + 1, rest], second[n : n + 1, rest])[0]
    return taus


def _cosine(first: Tensor, second: Tensor) -> Float64[Tensor, " n"]:
    one, other = first.flatten(1).double(), second.flatten(1).double()
    return F.cosine_similarity(one, other, dim=1, eps=1e-30)
