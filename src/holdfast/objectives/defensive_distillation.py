"""Defensive distillation: a student of softened answers."""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import Tensor, nn
from torch.nn import functional as F

from holdfast.contracts import Batch, InputError, check_positive, checked
from holdfast.models import classify
from holdfast.objectives.checks import images_and_labels
from holdfast.objectives.teacher import check_teacher, predict, settings_in_brief

__all__ = ["DefensiveDistillation"]


@dataclass(frozen=True)
@checked
class DefensiveDistillation:
    """The cross-entropy of the model with a teacher's softened answers, ``softmax(z_teacher / T)``.

    Labels are not used.

    Parameters
    ----------
    teacher : nn.Module
        A naturally trained classifier of the same classes. It runs in eval mode and is not trained.
    temperature : float
        T, by which the teacher's logits are divided.
    student_temperature : float
        By what the model's own logits are divided during training. 1 follows the supplement of
        Robust Attribution Alignment; Papernot et al. use T here, too, and 1 afterwards.

    References
    ----------
    Papernot et al., Distillation as a Defense to Adversarial Perturbations against Deep Neural
    Networks (S&P 2016); a baseline of Generating Deep Networks Explanations with Robust Attribution
    Alignment (ACML 2021), supplement A1.

    Examples
    --------
    >>> import torch
    >>> teacher = nn.Sequential(nn.Flatten(), nn.Linear(4, 2))
    >>> model = nn.Sequential(nn.Flatten(), nn.Linear(4, 2))
    >>> batch = {"images": torch.rand(3, 1, 2, 2), "labels": torch.tensor([0, 1, 1])}
    >>> sorted(DefensiveDistillation(teacher, temperature=100.0)(model, batch))
    ['loss']
    """

    teacher: nn.Module = field(compare=False)
    temperature: float = 100.0
    student_temperature: float = 1.0

    def __post_init__(self) -> None:
        check_teacher(self)
        check_positive(self, "temperature", "student_temperature")

    def __repr__(self) -> str:
        return settings_in_brief(self)

    def __call__(self, model: nn.Module, batch: Batch) -> dict[str, Tensor]:
        """Return ``{"loss"}``."""
        images, _ = images_and_labels(batch)
        soft = (predict(self.teacher, images) / self.temperature).softmax(1)
        logits = classify(model, images)
        if logits.shape != soft.shape:
            came = f"an output of shape {tuple(logits.shape)}"
            raise InputError("model", came, f"logits {tuple(soft.shape)}, like the teacher's")
        return {"loss": F.cross_entropy(logits / self.student_temperature, soft)}
