"""What an audit records of one attack: what it achieved, and whether it could achieve anything."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Integer
from torch import Tensor, nn

from holdfast.adversarial.accuracy import right as is_right
from holdfast.adversarial.slope import MOSTLY
from holdfast.audit.map_checks import similarities
from holdfast.audit.measures import spread
from holdfast.audit.yardsticks import Yardsticks, distance, searched, without_direction
from holdfast.contracts import Attack, Manipulation, same_draws
from holdfast.models import classify

__all__ = ["after_attack", "after_manipulation", "is_correct"]


def is_correct(
    model: nn.Module, images: Float[Tensor, "n c h w"], labels: Integer[Tensor, " n"]
) -> Bool[Tensor, " n"]:
    """Tell for each image whether the model gives it its label; not where it answers with NaN.

    Examples
    --------
    >>> is_correct(nn.Flatten(), torch.tensor([[[[0.2, 0.7]]]]), torch.tensor([1]))
    tensor([True])
    """
    with torch.no_grad():
        return is_right(classify(model, images), labels)


def after_attack(
    attack: Attack,
    model: nn.Module,
    images: Float[Tensor, "n c h w"],
    labels: Integer[Tensor, " n"],
    right: Bool[Tensor, " n"],
) -> dict[str, Tensor]:
    """Attack predictions, and measure what became of it.

    Returns
    -------
    dict of str to Tensor
        ``correct``, ``moved``, ``no_direction`` and, where most steps had none and the model is
        still right, ``random_search_correct``; ``(N,)``, NaN where an image has no value.

    Examples
    --------
    >>> from holdfast.adversarial import UniformNoise
    >>> model, images = nn.Flatten(), torch.rand(2, 1, 1, 2)
    >>> labels, right = torch.tensor([0, 1]), torch.tensor([True, True])
    >>> after_attack(UniformNoise(eps=0.0), model, images, labels, right)["moved"]
    tensor([0., 0.])
    """
    nothing = torch.full(labels.shape, torch.nan, dtype=torch.float64, device=labels.device)
    if hasattr(attack, "with_stuck"):
        attacked, stuck = attack.with_stuck(model, images, labels)
    else:
        attacked, stuck = attack(model, images, labels), nothing
    moved = distance(images, attacked)
    correct = is_correct(model, attacked, labels)
    measures = {"correct": correct.double(), "moved": moved, "no_direction": stuck}
    blind = right & correct & (stuck > MOSTLY)
    if blind.any():
        found = searched(attack, model, images[blind], labels[blind])
        if found is not None:
            measures["random_search_correct"] = nothing.clone()
            left = is_correct(model, found, labels[blind]).to(nothing)
            measures["random_search_correct"][blind] = left
    return measures


def after_manipulation(
    manipulation: Manipulation, yardsticks: Yardsticks
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Attack the explanations of the images of yardsticks, and measure what became of it.

    Returns
    -------
    measures : dict of str to Tensor
        ``preserved``; where a perturbation kept the label, the similarities of maps, and of an
        attack towards the maps of other images those to these, ``target_…`` and, before the attack,
        ``target_before_…``; ``moved``, ``no_direction``, and the yardsticks; ``(N,)``, NaN where an
        image has no value.
    outcome : dict of str to Tensor
        ``before``, the maps; ``images`` and ``maps`` after the attack: what was measured,
        ``(N, C, H, W)``.

    Examples
    --------
    >>> from holdfast.attributions import Gradient
    >>> from holdfast.manipulation import RandomSign
    >>> model, images = nn.Sequential(nn.Flatten(), nn.Linear(4, 2)), torch.rand(2, 1, 2, 2)
    >>> yardsticks = Yardsticks(model, images, model(images).argmax(1), k=1)
    >>> measures, _ = after_manipulation(RandomSign(Gradient(), eps=0.0), yardsticks)
    >>> measures["kendall_tau"].tolist()
    [1.0, 1.0]
    """
    images = yardsticks.images
    found = manipulation(yardsticks.model, images, yardsticks.labels)
    kept, moved = found.preserved, distance(images, found.images)
    measures: dict[str, Tensor] = {"preserved": kept.double()}
    before = yardsticks.maps(manipulation.attribution)
    after = before.clone()
    if kept.any():
        after[kept] = yardsticks.maps_after(manipulation.attribution, found.images[kept], kept)
        measures |= spread(similarities(before[kept], after[kept], yardsticks.k), kept)
        wanted = _wanted(manipulation, yardsticks)
        if wanted is not None:
            for name, maps in (("target", after), ("target_before", before)):
                alike = similarities(wanted[kept], maps[kept], yardsticks.k)
                measures |= spread({f"{name}_{key}": alike[key] for key in alike}, kept)
    measures |= {"moved": moved, "no_direction": found.stuck, **yardsticks(manipulation)}
    blind = kept & without_direction(found.stuck, moved)
    outcome = {"before": before, "images": found.images, "maps": after}
    return measures | yardsticks.search(manipulation, blind), outcome


def _wanted(manipulation: Manipulation, yardsticks: Yardsticks) -> Tensor | None:
    """Make the maps of other images that an attack aims at, as `Targeted` does."""
    images, target = yardsticks.images, getattr(manipulation, "target", None)
    if not isinstance(target, Tensor):
        return None
    target = target.to(images).expand_as(images)
    with same_draws(images, target):
        return manipulation.attribution(yardsticks.model, target).detach()
