"""Signs that a model only looks robust: attacks that fail for the wrong reasons."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

from jaxtyping import Float, Int
from torch import Tensor, nn

from holdfast.adversarial import PGD, SPSA, accuracy
from holdfast.attributions import input_gradient
from holdfast.contracts import (
    Attack,
    InputError,
    Manipulation,
    check_images,
    check_labels,
    chunks,
    default_chunk,
)
from holdfast.manipulation.random_search import RandomSearch
from holdfast.models import evaluating

__all__ = ["Trust", "check"]


@dataclass(frozen=True)
class Trust:
    """What `check` measured, and what speaks against the robustness that was found.

    Attributes
    ----------
    figures : dict of str to float
        Mean τ, accuracies and shares, by what they were measured under.
    doubts : tuple of str
        A sentence for each sign of gradient masking; empty if there is none.
    """

    figures: dict[str, float]
    doubts: tuple[str, ...]

    def __str__(self) -> str:
        lines = [f"{name:36} {value:6.3f}" for name, value in self.figures.items()]
        return "\n".join([*lines, *(self.doubts or ("Nothing speaks against these figures.",))])


def check(
    model: nn.Module,
    images: Float[Tensor, "n c h w"],
    labels: Int[Tensor, " n"],
    manipulation: Manipulation,
    *,
    attack: PGD | None = None,
    stronger: tuple[Attack, ...] | None = None,
    queries: int = 100,
    tolerance: float = 0.02,
) -> Trust:
    """Look for signs that robustness is gradient masking.

    What a sound evaluation keeps to: an attack on explanations with twice the steps, or in a ball
    twice as large, leaves no higher mean τ; a random search leaves no lower one; gradients are not
    zero; attacks on predictions that are stronger, or need no gradient, leave no lower accuracy
    than the attack that was reported; and in a ball that holds every image, the attack wins.

    Parameters
    ----------
    model : nn.Module
        The classifier; it runs in eval mode.
    images, labels : Tensor
        ``(N, C, H, W)`` in [0, 1], and the classes ``(N,)``.
    manipulation : Manipulation
        The attack on explanations that was reported, with fields ``eps`` and ``steps``.
    attack : PGD, optional
        The attack on predictions that was reported; by default PGD-20 with the manipulation's ε.
    stronger : tuple of Attack, optional
        What should leave no lower accuracy; by default PGD-100, PGD-500 and SPSA.
    queries : int
        Maps an image for the random search.
    tolerance : float
        By how much mean τ or an accuracy may differ by chance.

    Raises
    ------
    InputError
        If ``manipulation`` has no ``eps`` or ``steps``.

    References
    ----------
    Attributional Robustness Training (ECCV 2020), section 5; Athalye et al., Obfuscated Gradients
    Give a False Sense of Security (ICML 2018); Carlini et al., On Evaluating Adversarial Robustness
    (2019).

    Examples
    --------
    >>> import torch
    >>> from holdfast.attributions import Gradient
    >>> from holdfast.manipulation import RankCorrelation
    >>> model = nn.Sequential(nn.Flatten(), nn.Linear(9, 8), nn.Sigmoid(), nn.Linear(8, 2))
    >>> images = torch.rand(4, 1, 3, 3)
    >>> manipulation = RankCorrelation(Gradient(), eps=0.1, step_size=0.01, steps=20)
    >>> trust = check(model, images, model(images).argmax(1), manipulation, stronger=())
    >>> trust.figures["zero gradients"]
    0.0
    """
    check_images(images)
    check_labels(labels, len(images))
    method: Any = manipulation
    if not (hasattr(method, "eps") and hasattr(method, "steps")):
        came = type(manipulation).__name__
        raise InputError("manipulation", came, "one with eps and steps, such as RankCorrelation")
    doubts = []
    figures = _explanations(model, images, labels, method, queries)
    reported = figures["tau"]
    for name, says in _WEAKER.items():
        if figures[name] > reported + tolerance:
            doubts.append(f"{says}: mean τ {figures[name]:.3f} after {reported:.3f}.")
    if figures["tau, random search"] < reported - tolerance:
        found = figures["tau, random search"]
        doubts.append(f"Random search beats gradients: mean τ {found:.3f} against {reported:.3f}.")

    zero = figures["zero gradients"] = _zero_gradients(model, images, labels)
    if zero > 0:
        doubts.append(f"The gradient is zero at {zero:.0%} of the images.")

    if attack is None:
        attack = PGD(method.eps, max(method.eps / 8, 1e-6), 20, seed=0)
    stronger = _stronger(attack) if stronger is None else stronger
    base = figures[f"accuracy, {_named(attack)}"] = accuracy(model, images, labels, attack)
    for harder in stronger:
        found = figures[f"accuracy, {_named(harder)}"] = accuracy(model, images, labels, harder)
        if found < base - tolerance:
            doubts.append(
                f"{_named(harder)} is stronger than {_named(attack)}: {found:.1%} accuracy "
                f"against {base:.1%}."
            )
    everything = dataclasses.replace(attack, eps=_whole(attack, images), step_size=0.1, steps=100)
    won = figures["accuracy, no bound"] = accuracy(model, images, labels, everything)
    if won > tolerance:
        doubts.append(f"An attack without a bound leaves {won:.1%} accuracy.")
    return Trust(figures, tuple(doubts))


_WEAKER = {
    "tau, twice the steps": "Twice the steps make the attack weaker",
    "tau, twice eps": "A ball twice as large makes the attack weaker",
}


def _explanations(
    model: nn.Module, images: Tensor, labels: Tensor, method: Any, queries: int
) -> dict[str, float]:
    """Attack the explanations as reported, longer, wider, and without gradients."""
    attacks: dict[str, Manipulation] = {
        "tau": method,
        "tau, twice the steps": dataclasses.replace(method, steps=2 * method.steps),
        "tau, twice eps": dataclasses.replace(method, eps=min(1.0, 2 * method.eps)),
        "tau, random search": RandomSearch(method.attribution, method.eps, queries),
    }
    return {
        name: float(attack(model, images, labels).similarity.mean())
        for name, attack in attacks.items()
    }


def _zero_gradients(model: nn.Module, images: Tensor, labels: Tensor) -> float:
    """Return the share of images where the label's logit has a gradient of zero."""
    flat = 0
    with evaluating(model):
        for part in chunks(len(images), default_chunk(images)):
            gradient = input_gradient(model, images[part], labels[part])
            flat += int((gradient == 0).flatten(1).all(1).sum())
    return flat / len(images)


def _stronger(attack: PGD) -> tuple[Attack, ...]:
    longer = [dataclasses.replace(attack, steps=steps) for steps in (100, 500)]
    return (*longer, SPSA(attack.eps, attack.norm, steps=20, samples=64))


def _named(attack: Attack) -> str:
    steps = getattr(attack, "steps", None)
    return type(attack).__name__ + (f"-{steps}" if steps else "")


def _whole(attack: PGD, images: Tensor) -> float:
    """Return an ε with which the ball holds every image in [0, 1]."""
    return 1.0 if attack.norm == "linf" else float(images[0].numel() ** 0.5)
