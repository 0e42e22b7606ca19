"""Asking a teacher: a trained model that an objective holds besides the one it trains.

The teacher runs in eval mode and gets no gradients. It is moved to where the images are, as the
trainer moves the model that is trained, but not the objective.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import torch
from jaxtyping import Float, Integer
from torch import Tensor, nn

from holdfast.contracts import Attribution, InputError
from holdfast.models import classify, evaluating

__all__ = ["check_teacher", "explain", "predict", "settings_in_brief"]


def predict(teacher: nn.Module, images: Float[Tensor, "n c h w"]) -> Float[Tensor, "n k"]:
    """Return the teacher's logits.

    Examples
    --------
    >>> teacher = nn.Sequential(nn.Flatten(), nn.Dropout(), nn.Linear(4, 2))
    >>> images = torch.rand(3, 1, 2, 2)
    >>> torch.equal(predict(teacher, images), predict(teacher, images))
    True
    """
    with evaluating(teacher), torch.no_grad():
        return classify(teacher.to(images.device), images)


def explain(
    teacher: nn.Module,
    attribution: Attribution,
    images: Float[Tensor, "n c h w"],
    labels: Integer[Tensor, " n"],
) -> Float[Tensor, "n c h w"]:
    """Return the teacher's attribution map of each image's own class, detached.

    Examples
    --------
    >>> from holdfast.attributions import Gradient
    >>> teacher = nn.Sequential(nn.Flatten(), nn.Linear(4, 2))
    >>> maps = explain(teacher, Gradient(), torch.rand(1, 1, 2, 2), torch.tensor([1]))
    >>> torch.equal(maps.flatten(), teacher[1].weight[1])
    True
    """
    return attribution(teacher.to(images.device), images.detach(), labels).detach()


def check_teacher(owner: object) -> None:
    """Refuse what is no model in the field ``teacher`` of ``owner``."""
    if not isinstance(owner.teacher, nn.Module):  # type: ignore[attr-defined]
        came = type(owner.teacher).__name__  # type: ignore[attr-defined]
        raise InputError(f"{type(owner).__name__}.teacher", came, "a trained model")


def settings_in_brief(method: Any) -> str:
    """Spell a method with its settings like a dataclass does, but of a model only its class.

    Examples
    --------
    >>> from holdfast.objectives import DefensiveDistillation
    >>> DefensiveDistillation(nn.Sequential(nn.Flatten(), nn.Linear(4, 2)), temperature=20.0)
    DefensiveDistillation(teacher=Sequential(...), temperature=20.0, student_temperature=1.0)
    """
    settings = []
    for field in dataclasses.fields(method):
        value = getattr(method, field.name)
        short = f"{type(value).__name__}(...)" if isinstance(value, nn.Module) else repr(value)
        settings.append(f"{field.name}={short}")
    return f"{type(method).__name__}({', '.join(settings)})"
