"""What stands beside every attack: random signs at the same ε, and a search without gradients.

An attack that leaves maps alike shows that they are robust only if it could have changed them. So
an audit measures what chance does in the same ball, and where an attack had no direction to go,
what a search without gradients finds there.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Bool, Float, Float64, Integer
from torch import Tensor, nn

from holdfast.adversarial import Square
from holdfast.adversarial.slope import MOSTLY
from holdfast.audit.map_checks import similarities
from holdfast.audit.measures import spread
from holdfast.audit.repeatable import seeded
from holdfast.contracts import Attack, Attribution, HoldfastError, Manipulation, same_draws
from holdfast.manipulation import RandomSearch, RandomSign

__all__ = ["Yardsticks", "distance", "equal", "searched", "without_direction"]

DRAWS = 4
"""Random signs tried for each image; the draw that lowers τ the most counts."""
QUERIES = 20
"""Maps for each image of the search that follows an attack without direction."""
PREDICTIONS = 100
"""Predictions for each image of the search that follows an attack without direction."""
NO_CHANGE = 1e-6
"""An ε so small that what it does to a map is a matter of ties and of rounding alone."""


class Yardsticks:
    """Measures, for images of one shard, what chance does to maps; once for each map and ε.

    Parameters
    ----------
    model : Module
        The classifier.
    images, labels : Tensor
        The images that are attacked, ``(N, C, H, W)``, and their classes, ``(N,)``.
    k : int
        How many of the highest pixels ``top_k_intersection`` compares.

    Examples
    --------
    >>> from holdfast.attributions import Gradient
    >>> from holdfast.manipulation import TopK
    >>> model = nn.Sequential(nn.Flatten(), nn.Linear(4, 2))  # its gradient never changes
    >>> images = torch.rand(3, 1, 2, 2)
    >>> yardsticks = Yardsticks(model, images, model(images).argmax(1), k=2)
    >>> attack = TopK(Gradient(), k=2, eps=0.01, step_size=0.01, steps=1)
    >>> yardsticks(attack)["random_sign_kendall_tau"].tolist()
    [1.0, 1.0, 1.0]
    """

    def __init__(
        self,
        model: nn.Module,
        images: Float[Tensor, "n c h w"],
        labels: Integer[Tensor, " n"],
        k: int,
    ) -> None:
        self.model, self.images, self.labels, self.k = model, images, labels, k
        self._made: list[tuple[Attribution, dict[Any, Any]]] = []

    def maps(self, attribution: Attribution) -> Float[Tensor, "n c h w"]:
        """Return the maps of the images as they are."""
        return self._once(
            attribution, "maps", lambda: attribution(self.model, self.images, self.labels).detach()
        )

    def maps_after(
        self,
        attribution: Attribution,
        perturbed: Float[Tensor, "m c h w"],
        chosen: Bool[Tensor, " n"],
    ) -> Float[Tensor, "m c h w"]:
        """Return the maps of the chosen images after a perturbation of each."""
        with same_draws(self.images[chosen], perturbed):
            maps: Tensor = attribution(self.model, perturbed, self.labels[chosen])
        return maps.detach()

    def __call__(self, manipulation: Manipulation) -> dict[str, Float64[Tensor, " n"]]:
        """Measure what chance does to the maps that a manipulation attacks.

        Returns
        -------
        dict of str to Tensor
            ``random_sign_`` with the name of each similarity: after random signs at the ε of the
            manipulation, ``(N,)``, NaN where all of them changed the label;
            ``no_change_kendall_tau``: after random signs too small to mean anything. None at all if
            the manipulation has no field ``eps``, or is itself one of random signs.
        """
        eps = getattr(manipulation, "eps", None)
        if not isinstance(eps, int | float) or isinstance(manipulation, RandomSign):
            return {}
        attribution = manipulation.attribution
        signs = self._once(
            attribution, eps, lambda: self._after(RandomSign(attribution, eps, DRAWS))
        )
        least = self._once(
            attribution, "no change", lambda: self._after(RandomSign(attribution, NO_CHANGE))
        )
        return {
            **{f"random_sign_{measure}": values for measure, values in signs.items()},
            "no_change_kendall_tau": least["kendall_tau"],
        }

    def search(
        self, manipulation: Manipulation, chosen: Bool[Tensor, " n"]
    ) -> dict[str, Float64[Tensor, " n"]]:
        """Search without gradients around the chosen images, in the ball of a manipulation.

        Returns
        -------
        dict of str to Tensor
            ``random_search_`` with the name of each similarity, ``(N,)``, NaN for other images.
        """
        eps = getattr(manipulation, "eps", None)
        if not isinstance(eps, int | float) or not chosen.any():
            return {}
        found = self._after(RandomSearch(manipulation.attribution, eps, QUERIES), chosen)
        return {f"random_search_{measure}": values for measure, values in found.items()}

    def _after(
        self, manipulation: Manipulation, chosen: Bool[Tensor, " n"] | None = None
    ) -> dict[str, Float64[Tensor, " n"]]:
        """Compare maps before and after, where a perturbation kept the label; elsewhere NaN."""
        if chosen is None:
            chosen = torch.ones_like(self.labels, dtype=torch.bool)
        found = manipulation(self.model, self.images[chosen], self.labels[chosen])
        kept = chosen.clone()
        kept[chosen] = found.preserved
        if not kept.any():
            nothing = torch.full(kept.shape, torch.nan, dtype=torch.float64, device=kept.device)
            return dict.fromkeys(_MEASURES, nothing)
        attribution = manipulation.attribution
        after = self.maps_after(attribution, found.images[found.preserved], kept)
        return spread(similarities(self.maps(attribution)[kept], after, self.k), kept)

    def _once(self, attribution: Attribution, what: Any, make: Callable[[], Any]) -> Any:
        """Look up what has been made of an attribution, or one equal to it; else make it."""
        made = next((made for one, made in self._made if equal(one, attribution)), None)
        if made is None:
            made = {}
            self._made.append((attribution, made))
        if what not in made:
            # In draws of its own, so that it does not matter who asks first: a shard that is gone
            # on with asks later than one that was not interrupted.
            with seeded(0, -4):
                made[what] = make()
        return made[what]


def searched(
    attack: Attack,
    model: nn.Module,
    images: Float[Tensor, "n c h w"],
    labels: Integer[Tensor, " n"],
) -> Float[Tensor, "n c h w"] | None:
    """Search without gradients for what an attack on predictions without direction did not find.

    Returns
    -------
    Tensor or None
        The images after `Square` in the attack's ball, a hundred predictions each; None if the
        attack has no such ball, or its images are too small for the search.

    Examples
    --------
    >>> from holdfast.adversarial import PGD, UniformNoise
    >>> model, images = nn.Flatten(), torch.rand(1, 1, 8, 8)
    >>> found = searched(PGD(0.1, 0.1, 1), model, images, torch.tensor([0]))
    >>> bool((found - images).abs().max() <= 0.1 + 1e-6)
    True
    """
    eps: Any = getattr(attack, "eps", None)
    norm: Any = getattr(attack, "norm", "linf")
    if not isinstance(eps, int | float) or norm not in ("linf", "l2"):
        return None
    try:
        found: Tensor = Square(eps, norm, queries=PREDICTIONS)(model, images, labels)
    except HoldfastError:
        return None
    return found


def without_direction(stuck: Float[Tensor, " n"], moved: Float[Tensor, " n"]) -> Bool[Tensor, " n"]:
    """Tell where most steps of an attack had no direction, or nothing moved.

    Examples
    --------
    >>> without_direction(torch.tensor([1.0, torch.nan, 0.1]), torch.tensor([0.1, 0.0, 0.1]))
    tensor([ True,  True, False])
    """
    return (stuck > MOSTLY) | (moved == 0)


def distance(
    images: Float[Tensor, "n c h w"], perturbed: Float[Tensor, "n c h w"]
) -> Float[Tensor, " n"]:
    """Measure how far images moved: the largest change of a value, in pixel units, ``(N,)``.

    Examples
    --------
    >>> distance(torch.zeros(1, 1, 1, 2), torch.tensor([[[[0.25, -0.5]]]]))
    tensor([0.5000])
    """
    return (perturbed.to(images) - images).abs().flatten(1).amax(1)


_MEASURES = ("top_k_intersection", "kendall_tau", "spearman_rho")


def equal(one: object, other: object) -> bool:
    """Tell whether two methods are the same."""
    if one is other:
        return True
    try:
        return type(one) is type(other) and bool(one == other)
    except RuntimeError:  # of tensors among their fields
        return False
