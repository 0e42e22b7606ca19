"""Ready batteries: an audit of a data set in a minute, in an hour, or of everything there is.

All of them take the data set, ε, and where there are any the model that will be audited, which
decides whether Grad-CAM can be used, a source of transferred attacks and a reference for maps. An
attack takes steps of ε/4 on predictions and of ε/8 on explanations; k is 10 % of the pixels; the ℓ2
ball has a radius of a third of ε√(C·H·W), which is 0.58 for 8/255 and colour images of 32×32. A
check that is one of several with different ε is named with it: ``pgd-40@2/255``.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from torch import nn

from holdfast.adversarial import APGD, PGD, SPSA, Norm, Spatial, Square, Transfer
from holdfast.adversarial.corruptions import CORRUPTIONS
from holdfast.attributions import (
    AdversarialGradientIntegration,
    BoundaryIntegratedGradients,
    BoundarySaliency,
    DeepLIFT,
    GradCAM,
    Gradient,
    InputXGradient,
    IntegratedGradients,
    SmoothGrad,
)
from holdfast.audit.alignment_checks import BoundaryAlignment, ImageAlignment
from holdfast.audit.battery import Audit
from holdfast.audit.counterfactual_checks import BaselineSensitivity, ObjectRemoval
from holdfast.audit.faithfulness import Deletion, Insertion
from holdfast.audit.localization_checks import Localization, WeaklySupervisedLocalization
from holdfast.audit.map_checks import Faithfulness, Likeness
from holdfast.audit.paper_batteries import PAPER_BATTERIES, corruptions
from holdfast.audit.repeatable import device_of
from holdfast.audit.trust_check import Trustworthiness
from holdfast.contracts import Attack, Attribution, Check, HoldfastError, Manipulation
from holdfast.data import ImageDataset
from holdfast.manipulation import (
    Ensemble,
    MassCentre,
    RandomSign,
    RankCorrelation,
    Targeted,
    TopK,
)

__all__ = ["BATTERIES", "full", "quick", "standard"]


def quick(
    data: ImageDataset,
    *,
    eps: float = 8 / 255,
    model: nn.Module | None = None,
    source: nn.Module | None = None,
    reference: nn.Module | None = None,
) -> Audit:
    """Return a first look, a minute or two for a small network: PGD, top-k, alignment.

    The explanations of 50 images are attacked.

    Parameters
    ----------
    data : ImageDataset
        What will be audited on.
    eps : float
        Radius ε of the ℓ∞ ball, in pixel units on [0, 1].
    model : nn.Module, optional
        The model that will be audited. This battery has no use for it.
    source : nn.Module, optional
        A model on which an attack is crafted that is then shown to the audited one.
    reference : nn.Module, optional
        A naturally trained model with whose maps those of the audited one are compared.

    Examples
    --------
    >>> from holdfast.data import ImageData
    >>> audit = quick(ImageData("digits").load("test"), eps=0.1)
    >>> [*audit.attacks, *audit.manipulations, *audit.checks]
    ['pgd-20', 'top_k/integrated_gradients', 'alignment/image']
    """
    k = _tenth(data)
    ig = IntegratedGradients(steps=20)
    return Audit(
        attacks={"pgd-20": _pgd(eps, 20), **_transferred(_pgd(eps, 20), source)},
        manipulations={"top_k/integrated_gradients": _top_k(ig, eps, k)},
        checks={
            "alignment/image": ImageAlignment(),
            **_likenesses({"integrated_gradients": ig}, reference, k),
        },
        k=k,
        explained=50,
    )


def standard(
    data: ImageDataset,
    *,
    eps: float = 8 / 255,
    model: nn.Module | None = None,
    source: nn.Module | None = None,
    reference: nn.Module | None = None,
) -> Audit:
    """Return what a paper would report: several attacks and ε, corruptions, localization, trust.

    The explanations of 200 images are attacked. Where the objects are marked, by boxes or masks,
    maps are compared with them.

    Parameters
    ----------
    data, eps, model, source, reference
        As for `quick`.

    Examples
    --------
    >>> from holdfast.data import ImageData
    >>> audit = standard(ImageData("digits").load("test"))
    >>> [name for name in audit.attacks if name.startswith("pgd")]
    ['pgd-40', 'pgd-40@2/255', 'pgd-40@4/255', 'pgd-40@16/255', 'pgd-40-l2']
    """
    k = _tenth(data)
    gradient, ig = Gradient(), IntegratedGradients()
    attributions: _Methods = {"integrated_gradients": ig, "gradient": gradient}
    return Audit(
        attacks={
            "pgd-40": _pgd(eps, 40),
            **{f"pgd-40@{name}": _pgd(e, 40) for name, e in _around(eps, 0.25, 0.5, 2.0)},
            "pgd-40-l2": _pgd(_l2(eps, data), 40, norm="l2"),
            "apgd": APGD(eps, steps=50),
            "spatial": Spatial(angles=7, shifts=3),
            **_transferred(_pgd(eps, 40), source),
            **corruptions(CORRUPTIONS, (3,)),
        },
        manipulations={
            **_each(attributions, "top_k", lambda one: _top_k(one, eps, k)),
            **_curve("integrated_gradients", ig, eps, k),
            **_each(attributions, "mass_centre", lambda one: _mass_centre(one, eps)),
            **_each(attributions, "ensemble", lambda one: Ensemble(one, eps)),
        },
        checks={
            **_localization(data, attributions, wsol={"gradient": gradient}),
            "alignment/image": ImageAlignment(),
            **_likenesses(attributions, reference, k),
            "trust/top_k/integrated_gradients": Trustworthiness(
                _top_k(ig, eps, k),
                _pgd(eps, 40),
                stronger=(_pgd(eps, 100), SPSA(eps, steps=20, samples=32)),
                queries=50,
            ),
        },
        k=k,
        explained=200,
        worst=1,
    )


def full(
    data: ImageDataset,
    *,
    eps: float = 8 / 255,
    model: nn.Module | None = None,
    source: nn.Module | None = None,
    reference: nn.Module | None = None,
) -> Audit:
    """Return everything: each kind of attack, each kind of check, all corruptions. Bring a GPU.

    The explanations of 1,000 images are attacked, which leaves mean τ a standard error below 0.01.

    Parameters
    ----------
    data, eps, model, source, reference
        As for `quick`; Grad-CAM is audited where the ``model`` is given and has convolutions.

    Examples
    --------
    >>> from holdfast.data import ImageData
    >>> audit = full(ImageData("digits").load("test"))
    >>> len(audit.attacks), len(audit.manipulations), len(audit.checks)
    (91, 27, 7)
    """
    k = _tenth(data)
    gradient, ig, smooth = Gradient(), IntegratedGradients(), SmoothGrad()
    big = BoundaryIntegratedGradients()
    cam = _grad_cam(data, model)
    attributions: _Methods = {
        "gradient": gradient,
        "integrated_gradients": ig,
        "smooth_grad": smooth,
        **cam,
    }
    return Audit(
        attacks={
            "pgd-100": _pgd(eps, 100),
            "pgd-100x5": _pgd(eps, 100, restarts=5),
            **{f"pgd-{steps}": _pgd(eps, steps) for steps in (1, 10, 40)},
            **{f"pgd-100@{name}": _pgd(e, 100) for name, e in _around(eps, *_SPREAD)},
            "pgd-100-l2": _pgd(_l2(eps, data), 100, norm="l2"),
            "apgd": APGD(eps),
            **({"apgd-dlr": APGD(eps, loss="dlr")} if len(data.classes) > 2 else {}),
            "apgd-l2": APGD(_l2(eps, data), norm="l2"),
            "square": Square(eps),
            "spsa": SPSA(eps, steps=20, samples=64),
            "spatial": Spatial(),
            **_transferred(_pgd(eps, 100), source),
            **corruptions(CORRUPTIONS, range(1, 6)),
        },
        manipulations={
            **_each(attributions, "top_k", lambda one: _top_k(one, eps, k)),
            **_curve("integrated_gradients", ig, eps, k),
            **_curve("gradient", gradient, eps, k),
            **_each(attributions, "mass_centre", lambda one: _mass_centre(one, eps)),
            **_each(attributions, "targeted", lambda one: _targeted(one, eps)),
            **_shuffled(attributions, eps, data),
            **_each(attributions, "rank", lambda one: _rank(one, eps)),
            **_each(attributions, "random_sign", lambda one: RandomSign(one, eps, draws=10)),
            **_each(attributions, "ensemble", lambda one: Ensemble(one, eps)),
        },
        checks={
            **_localization(
                data,
                {
                    "gradient": gradient,
                    "input_x_gradient": InputXGradient(),
                    "integrated_gradients": ig,
                    "smooth_grad": smooth,
                    "deep_lift": DeepLIFT(),
                    "bsm": BoundarySaliency(),
                    "big": big,
                    "agi": AdversarialGradientIntegration(),
                },
                wsol={"gradient": gradient, **cam},
            ),
            **_each(
                _where_marked(data, {"integrated_gradients": ig, "big": big}),
                "removal",
                ObjectRemoval,
            ),
            "baseline/integrated_gradients": BaselineSensitivity(ig, k=k),
            "alignment/image": ImageAlignment(),
            "alignment/boundary": BoundaryAlignment(),
            **_each(attributions, "faithfulness", lambda one: _faithfulness(one, data)),
            **_likenesses(attributions, reference, k),
            "trust/top_k/integrated_gradients": Trustworthiness(_top_k(ig, eps, k), _pgd(eps, 40)),
        },
        k=k,
        explained=1000,
        gallery=4,
        worst=1,
    )


BATTERIES: dict[str, Callable[..., Audit]] = {
    "quick": quick,
    "standard": standard,
    "full": full,
    **PAPER_BATTERIES,
}
"""Every battery by its name."""


# --- what they are made of -----------------------------------------------------------------------

_Methods = dict[str, Attribution]

_SPREAD = (1 / 8, 0.25, 0.5, 2.0)


def _tenth(data: ImageDataset) -> int:
    _, height, width = data.shape
    return max(1, round(height * width / 10))


def _l2(eps: float, data: ImageDataset) -> float:
    return eps * math.sqrt(math.prod(data.shape)) / 3


def _around(eps: float, *factors: float) -> list[tuple[str, float]]:
    """Return multiples of ε with names, in grey levels where ε is a whole number of them."""
    grey = math.isclose(eps * 255, round(eps * 255), rel_tol=1e-6)
    others = [eps * factor for factor in factors if eps * factor < 1]
    return [(f"{e * 255:.3g}/255" if grey else f"{e:.3g}", e) for e in others]


def _pgd(eps: float, steps: int, norm: Norm = "linf", restarts: int = 1) -> PGD:
    return PGD(eps, eps / 4, steps, norm, seed=0, restarts=restarts)


def _strong(attribution: Attribution) -> dict[str, Any]:
    """Return what makes attacks on explanations stronger and cheaper than as published."""
    # Where a map is an average over many points, a step takes a few of them.
    average = isinstance(attribution, IntegratedGradients | SmoothGrad)
    samples = 5 if average else None
    return {"path_samples": samples, "judge_every": 5, "momentum": 0.7, "margin": 0.1}


def _top_k(one: Attribution, eps: float, k: int) -> TopK:
    return TopK(one, k, eps, eps / 8, 50, **_strong(one))


def _mass_centre(one: Attribution, eps: float) -> MassCentre:
    return MassCentre(one, eps, eps / 8, 50, **_strong(one))


def _targeted(one: Attribution, eps: float) -> Targeted:
    return Targeted(one, eps, eps / 8, 50, **_strong(one))


def _shuffled(attributions: _Methods, eps: float, data: ImageDataset) -> dict[str, Manipulation]:
    """Aim at the maps of other images, where there are any."""
    if len(data) == 1:
        return {}
    return _each(
        attributions, "targeted_shuffled", lambda one: replace(_targeted(one, eps), shuffled=True)
    )


def _rank(one: Attribution, eps: float) -> RankCorrelation:
    return RankCorrelation(one, eps, eps / 8, 50, **_strong(one))


def _faithfulness(one: Attribution, data: ImageDataset) -> Faithfulness:
    _, height, width = data.shape
    steps = min(50, height * width)
    sigma = max(1.0, 5 * max(height, width) / 224)
    return Faithfulness(one, Insertion(steps, sigma), Deletion(steps))


def _each(
    attributions: _Methods, attack: str, make: Callable[[Attribution], Any]
) -> dict[str, Any]:
    """Name what is made of each attribution: ``ATTACK/ATTRIBUTION``."""
    return {f"{attack}/{name}": make(one) for name, one in attributions.items()}


def _curve(name: str, one: Attribution, eps: float, k: int) -> dict[str, Manipulation]:
    return {
        f"top_k/{name}@{radius}": _top_k(one, e, k) for radius, e in _around(eps, 0.25, 0.5, 2.0)
    }


def _transferred(attack: Attack, source: nn.Module | None) -> dict[str, Attack]:
    return {} if source is None else {"transfer": Transfer(attack, source)}


def _localization(data: ImageDataset, attributions: _Methods, wsol: _Methods) -> dict[str, Check]:
    """Compare maps with the objects, where those are marked."""
    return {
        **_each(_where_marked(data, attributions), "localization", Localization),
        **_each(_where_marked(data, wsol), "wsol", WeaklySupervisedLocalization),
    }


def _where_marked(data: ImageDataset, attributions: _Methods) -> _Methods:
    batch = data.batch([0])
    return attributions if "boxes" in batch or "masks" in batch else {}


def _likenesses(attributions: _Methods, reference: nn.Module | None, k: int) -> dict[str, Check]:
    if reference is None:
        return {}
    return {f"reference/{name}": Likeness(one, reference, k) for name, one in attributions.items()}


def _grad_cam(data: ImageDataset, model: nn.Module | None) -> _Methods:
    """Return Grad-CAM if the model has feature maps for it."""
    if model is None:
        return {}
    try:
        GradCAM()(model, data.batch([0])["images"].to(device_of(model)))
    except HoldfastError:
        return {}
    return {"grad_cam": GradCAM()}
