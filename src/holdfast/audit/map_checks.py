"""Checks of maps themselves: whether the model obeys them, and whether they are a reference's."""

from __future__ import annotations

from dataclasses import dataclass

from jaxtyping import Float, Float64
from torch import Tensor, nn

from holdfast.attributions import resolve_targets
from holdfast.audit.faithfulness import Deletion, Insertion
from holdfast.contracts import Attribution, Batch, InputError, check_positive, checked
from holdfast.metrics import kendall_tau, pixel_scores, spearman_rho, top_k_intersection
from holdfast.models import evaluating

__all__ = ["Faithfulness", "Likeness", "similarities"]


@dataclass(frozen=True)
@checked
class Faithfulness:
    """What the probability of the predicted class does when a map's pixels come, and when they go.

    Parameters
    ----------
    attribution : Attribution
        What makes the maps.
    insertion : Insertion
        How pixels come: the higher the area, the better.
    deletion : Deletion
        How pixels go: the lower the area, the better.

    Examples
    --------
    >>> import torch
    >>> from holdfast.attributions import Gradient
    >>> model = nn.Sequential(nn.Flatten(), nn.Linear(64, 2))
    >>> batch = Batch(images=torch.rand(3, 1, 8, 8), labels=torch.tensor([0, 1, 0]))
    >>> list(Faithfulness(Gradient())(model, batch))
    ['insertion', 'deletion']
    """

    attribution: Attribution
    insertion: Insertion = Insertion()
    deletion: Deletion = Deletion()

    def __call__(self, model: nn.Module, batch: Batch) -> dict[str, Float64[Tensor, " n"]]:
        """Return the two areas of each image, ``(N,)`` in [0, 1]."""
        images = batch["images"]
        with evaluating(model):
            targets = resolve_targets(model, images, None)
        maps = self.attribution(model, images, targets)
        return {
            "insertion": self.insertion(model, images, maps, targets),
            "deletion": self.deletion(model, images, maps, targets),
        }


@dataclass(frozen=True)
@checked
class Likeness:
    """How alike the maps of this model and of a reference, a naturally trained one, are.

    Both explain the label. Robust training should not make an explanation another one.

    Parameters
    ----------
    attribution : Attribution
        What makes the maps.
    reference : nn.Module
        The other model, with the same classes. Settings in YAML name the folder of its run. The
        ``repr`` shows its class alone, and two checks are equal when theirs is the same object.
    k : int
        How many of the highest pixels ``top_k_intersection`` compares.

    Raises
    ------
    InputError
        If ``reference`` is no module or ``k`` is not above 0.

    References
    ----------
    Enhanced Regularizers for Attributional Robustness (AAAI 2021), table 8.

    Examples
    --------
    >>> import torch
    >>> from holdfast.attributions import Gradient
    >>> model = nn.Sequential(nn.Flatten(), nn.Linear(64, 2))
    >>> batch = Batch(images=torch.rand(1, 1, 8, 8), labels=torch.tensor([0]))
    >>> Likeness(Gradient(), reference=model, k=6)(model, batch)["kendall_tau"]
    tensor([1.], dtype=torch.float64)
    """

    attribution: Attribution
    reference: nn.Module
    k: int = 100

    def __post_init__(self) -> None:
        check_positive(self, "k")
        if not isinstance(self.reference, nn.Module):
            came = type(self.reference).__name__
            raise InputError("Likeness.reference", came, "an nn.Module")

    def __repr__(self) -> str:
        reference = type(self.reference).__name__
        return f"Likeness(attribution={self.attribution!r}, reference={reference}, k={self.k})"

    def __call__(self, model: nn.Module, batch: Batch) -> dict[str, Float64[Tensor, " n"]]:
        """Return Kendall's τ, Spearman's ρ and top-k intersection of each image, ``(N,)``."""
        images, labels = batch["images"], batch["labels"]
        where = next((p.device for p in self.reference.parameters()), images.device)
        theirs = self.attribution(self.reference, images.to(where), labels.to(where))
        return similarities(self.attribution(model, images, labels), theirs.to(images), self.k)


def similarities(
    before: Float[Tensor, "n c h w"], after: Float[Tensor, "n c h w"], k: int
) -> dict[str, Float64[Tensor, " n"]]:
    """Compare two maps of each image: top-k intersection, Kendall's τ and Spearman's ρ, ``(N,)``.

    Examples
    --------
    >>> import torch
    >>> maps = torch.rand(1, 1, 4, 4)
    >>> similarities(maps, -2 * maps, k=3)["spearman_rho"]
    tensor([1.], dtype=torch.float64)
    """
    first, second = pixel_scores(before), pixel_scores(after)
    return {
        "top_k_intersection": top_k_intersection(first, second, k),
        "kendall_tau": kendall_tau(first, second),
        "spearman_rho": spearman_rho(first, second),
    }
