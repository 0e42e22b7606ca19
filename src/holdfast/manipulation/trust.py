"""Signs that a model only looks robust: attacks that fail for the wrong reasons."""

from __future__ import annotations

import dataclasses
import re
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from jaxtyping import Float, Float64, Integer
from torch import Tensor, nn

from holdfast.adversarial import PGD, SPSA, correct
from holdfast.adversarial.slope import MOSTLY
from holdfast.attributions import Gradient
from holdfast.contracts import (
    Attack,
    InputError,
    Manipulation,
    StuckWarning,
    check_images,
    check_labels,
)
from holdfast.manipulation.random_search import RandomSearch
from holdfast.manipulation.random_sign import RandomSign
from holdfast.models import surrogate_fit

__all__ = ["Trust", "check", "check_trustable", "doubts", "trust_figures", "unearned"]


@dataclass(frozen=True)
class Trust:
    """What `check` measured, and what speaks against the robustness that was found.

    Attributes
    ----------
    figures : dict of str to float
        The means of `trust_figures`.
    doubts : tuple of str
        A sentence for each sign of gradient masking; empty if there is none.
    """

    figures: dict[str, float]
    doubts: tuple[str, ...]

    def __str__(self) -> str:
        lines = [f"{name:20} {value:6.3f}" for name, value in self.figures.items()]
        return "\n".join([*lines, *(self.doubts or ("Nothing speaks against these figures.",))])


def check(
    model: nn.Module,
    images: Float[Tensor, "n c h w"],
    labels: Integer[Tensor, " n"],
    manipulation: Manipulation,
    *,
    attack: PGD | None = None,
    stronger: tuple[Attack, ...] | None = None,
    queries: int = 100,
    tolerance: float = 0.02,
) -> Trust:
    """Look for signs that robustness is gradient masking.

    What a sound evaluation keeps to: an attack on explanations has a direction to go, and leaves no
    higher mean τ than random signs do; with twice the steps, or in a ball twice as large, it leaves
    no higher one; a random search leaves no lower one; gradients are not zero, and the softplus
    surrogate that the attack follows answers as the model does; attacks on predictions that are
    stronger, or need no gradient, leave no lower accuracy than the attack that was reported; and in
    a ball that holds every image, the attack wins.

    Parameters
    ----------
    model, images, labels, manipulation, attack, stronger, queries
        As for `trust_figures`.
    tolerance : float
        As for `doubts`.

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
    >>> from holdfast.manipulation import RankCorrelation
    >>> model = nn.Sequential(nn.Flatten(), nn.Linear(9, 8), nn.Sigmoid(), nn.Linear(8, 2))
    >>> images = torch.rand(4, 1, 3, 3)
    >>> manipulation = RankCorrelation(Gradient(), eps=0.1, step_size=0.01, steps=20)
    >>> trust = check(model, images, model(images).argmax(1), manipulation, stronger=())
    >>> trust.figures["zero_gradient"]
    0.0
    """
    measured = trust_figures(
        model, images, labels, manipulation, attack=attack, stronger=stronger, queries=queries
    )
    means = {name: float(values.nanmean()) for name, values in measured.items()}
    means = {name: mean for name, mean in means.items() if mean == mean}
    return Trust(means, doubts(means, tolerance))


def trust_figures(
    model: nn.Module,
    images: Float[Tensor, "n c h w"],
    labels: Integer[Tensor, " n"],
    manipulation: Manipulation,
    *,
    attack: PGD | None = None,
    stronger: tuple[Attack, ...] | None = None,
    queries: int = 100,
) -> dict[str, Float64[Tensor, " n"]]:
    """Measure, image by image, what `doubts` judges by its means.

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

    Returns
    -------
    dict of str to Tensor
        Values ``(N,)``: Kendall's τ after the manipulation as ``tau``, and after others like it as
        ``tau_twice_steps``, ``tau_twice_eps``, ``tau_random_search`` and ``tau_random_sign``; how
        far the manipulation moved the image as ``moved``, and the share of its steps that had no
        direction as ``no_direction``, NaN where it does not tell; whether the label's gradient is
        zero as ``zero_gradient``, and whether the softplus surrogate gives the same class as the
        model as ``surrogate_agrees``; whether the model is right after the attack as
        ``correct_pgd``, after stronger ones as ``correct_pgd_100`` and so on, by their class and,
        where that is taken, their steps, and after the attack in a ball that holds every image as
        ``correct_no_bound``.

    Raises
    ------
    InputError
        If ``manipulation`` has no ``eps`` or ``steps``.

    Examples
    --------
    >>> import torch
    >>> from holdfast.manipulation import RankCorrelation
    >>> model = nn.Sequential(nn.Flatten(), nn.Linear(9, 8), nn.Sigmoid(), nn.Linear(8, 2))
    >>> images = torch.rand(4, 1, 3, 3)
    >>> manipulation = RankCorrelation(Gradient(), eps=0.1, step_size=0.01, steps=5)
    >>> figures = trust_figures(model, images, model(images).argmax(1), manipulation, stronger=())
    >>> figures["correct_no_bound"].shape
    torch.Size([4])
    """
    check_images(images)
    check_labels(labels, len(images))
    check_trustable(manipulation, "manipulation")
    method: Any = manipulation
    if attack is None:
        attack = PGD(method.eps, max(method.eps / 8, 1e-6), 20, seed=0)
    manipulations: dict[str, Manipulation] = {
        "tau": method,
        "tau_twice_steps": dataclasses.replace(method, steps=2 * method.steps),
        "tau_twice_eps": dataclasses.replace(method, eps=min(1.0, 2 * method.eps)),
        "tau_random_search": RandomSearch(method.attribution, method.eps, queries),
        "tau_random_sign": RandomSign(method.attribution, method.eps, _DRAWS),
    }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", StuckWarning)  # which is among the figures
        outcomes = {name: one(model, images, labels) for name, one in manipulations.items()}
    figures = {name: found.similarity.double() for name, found in outcomes.items()}
    figures["moved"] = (outcomes["tau"].images - images).abs().flatten(1).amax(1).double()
    figures["no_direction"] = outcomes["tau"].stuck.double()
    figures["zero_gradient"] = _zero_gradients(model, images, labels)
    figures["surrogate_agrees"] = surrogate_fit(model, images).agree.double()
    for name, one in _attacks(attack, stronger, images).items():
        figures[name] = correct(model, images, labels, one).double()
    return figures


def doubts(figures: Mapping[str, float], tolerance: float = 0.02) -> tuple[str, ...]:
    """Tell what speaks against the robustness that was found, from means of `trust_figures`.

    Parameters
    ----------
    figures : mapping of str to float
        The mean of each figure over the images. Those that are not there raise no doubt.
    tolerance : float
        By how much mean τ or an accuracy may differ by chance.

    Returns
    -------
    tuple of str
        A sentence for each sign of gradient masking; empty if there is none.

    Examples
    --------
    >>> doubts({"tau": 0.6, "tau_twice_eps": 0.7, "zero_gradient": 0.0})
    ('A ball twice as large makes the attack weaker: mean τ 0.700 after 0.600.',)
    """
    found = [*unearned(figures, tolerance)]
    tau = figures.get("tau", 1.0)
    for name, says in _WEAKER.items():
        if (other := figures.get(name, tau)) > tau + tolerance:
            found.append(f"{says}: mean τ {other:.3f} after {tau:.3f}.")
    if (other := figures.get("tau_random_search", tau)) < tau - tolerance:
        found.append(f"Random search beats gradients: mean τ {other:.3f} against {tau:.3f}.")
    if (zero := figures.get("zero_gradient", 0.0)) > 0:
        found.append(f"The gradient is zero at {zero:.0%} of the images.")
    if (agrees := figures.get("surrogate_agrees", 1.0)) < _AGREED:
        found.append(f"The softplus surrogate gives {1 - agrees:.0%} of the images another class.")
    right = figures.get("correct_pgd", 0.0)
    for name, other in figures.items():
        stronger = name.startswith("correct_") and name != "correct_no_bound"
        if stronger and other < right - tolerance:
            found.append(
                f"{_spelled(name)} is stronger than PGD: {other:.1%} accuracy against {right:.1%}."
            )
    if (won := figures.get("correct_no_bound", 0.0)) > tolerance:
        found.append(f"An attack without a bound leaves {won:.1%} accuracy.")
    return tuple(found)


def unearned(figures: Mapping[str, float], tolerance: float = 0.02) -> tuple[str, ...]:
    """Tell why an attack's figures are no evidence at all, from means over the images.

    An attack that had no direction, moved nothing, or does less than chance does in the same ball,
    would leave the same behind whether the model is robust or not.

    Parameters
    ----------
    figures : mapping of str to float
        ``no_direction``, ``moved``, ``tau`` and ``tau_random_sign`` as `trust_figures` has them.
        Those that are not there say nothing.
    tolerance : float
        By how much mean τ may differ by chance.

    Returns
    -------
    tuple of str
        A sentence for each reason; empty if there is none.

    Examples
    --------
    >>> unearned({"tau": 1.0, "tau_random_sign": 0.337, "no_direction": 1.0})  # doctest: +ELLIPSIS
    ('100% of the steps of the attack had no direction.', 'Random signs change the maps more: ...)
    """
    found = []
    if (stuck := figures.get("no_direction", 0.0)) > MOSTLY:
        found.append(f"{stuck:.0%} of the steps of the attack had no direction.")
    if figures.get("moved", 1.0) <= 0:
        found.append("The attack moved no image.")
    tau = figures.get("tau", -1.0)
    if (other := figures.get("tau_random_sign", tau)) < tau - tolerance:
        found.append(f"Random signs change the maps more: mean τ {other:.3f} against {tau:.3f}.")
    return tuple(found)


def check_trustable(manipulation: Manipulation, name: str) -> None:
    """Refuse a manipulation that cannot be made longer and wider, or is another for other images.

    Examples
    --------
    >>> check_trustable(RandomSearch(Gradient(), eps=0.1), "manipulation")
    Traceback (most recent call last):
        ...
    holdfast.contracts.InputError: manipulation: expected one with eps and steps, such as \
RankCorrelation, got RandomSearch
    """
    if not (hasattr(manipulation, "eps") and hasattr(manipulation, "steps")):
        came = type(manipulation).__name__
        raise InputError(name, came, "one with eps and steps, such as RankCorrelation")
    if getattr(manipulation, "shuffled", False):
        expected = "one whose targets do not depend on which other images there are"
        raise InputError(f"{name}.shuffled", True, expected)


_WEAKER = {
    "tau_twice_steps": "Twice the steps make the attack weaker",
    "tau_twice_eps": "A ball twice as large makes the attack weaker",
}


_AGREED = 0.9
_DRAWS = 4


def _zero_gradients(model: nn.Module, images: Tensor, labels: Tensor) -> Float64[Tensor, " n"]:
    """Tell where the label's logit has a gradient of zero."""
    gradients = Gradient()(model, images, labels)
    return (gradients == 0).flatten(1).all(1).double()


def _attacks(attack: PGD, stronger: tuple[Attack, ...] | None, images: Tensor) -> dict[str, Attack]:
    """Name the attacks on predictions: as reported, stronger, and without a bound."""
    attacks: dict[str, Attack] = {"correct_pgd": attack}
    for other in _stronger(attack) if stronger is None else stronger:
        name = "correct" + re.sub(r"([A-Z]+[a-z0-9]*)", r"_\1", type(other).__name__).lower()
        if name in attacks:
            name += f"_{getattr(other, 'steps', len(attacks))}"
        attacks[name] = other
    whole = 1.0 if attack.norm == "linf" else float(images[0].numel() ** 0.5)
    unbound = dataclasses.replace(attack, eps=whole, step_size=0.1, steps=100)
    return attacks | {"correct_no_bound": unbound}


def _stronger(attack: PGD) -> tuple[Attack, ...]:
    longer = [dataclasses.replace(attack, steps=steps) for steps in (100, 500)]
    return (*longer, SPSA(attack.eps, attack.norm, steps=20, samples=64))


def _spelled(name: str) -> str:
    """Name an attack for readers: ``correct_pgd_100`` becomes PGD-100."""
    words = name.removeprefix("correct_").split("_")
    if words[0] in ("apgd", "fgsm", "pgd", "spsa"):
        return "-".join(words).upper()
    return " ".join(words).capitalize()
