"""Robust attribution alignment: a classifier learns to explain itself as a robust teacher does."""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import Tensor, nn

from holdfast.attributions import Gradient
from holdfast.contracts import Attribution, Batch, InputError, check_positive, checked
from holdfast.models import Attributing
from holdfast.objectives.checks import classification_loss, images_and_labels
from holdfast.objectives.saliency import unit_saliency
from holdfast.objectives.teacher import check_teacher, explain, settings_in_brief

__all__ = ["AttributionAlignment"]


@dataclass(frozen=True)
@checked
class AttributionAlignment:
    """The cross-entropy, and how far the generated map is from a robust teacher's saliency map.

    ``ℓ(x, y) + λ · mean over pixels of (m(x) − m_teacher(x, y))²``. m is the map that a
    `holdfast.models.Attributing` gives beside its logits; the teacher's is the channel mean of its
    absolute gradient for the true class, scaled to [0, 1].

    Parameters
    ----------
    teacher : nn.Module
        A classifier trained adversarially, as published by ℓ2 PGD. It runs in eval mode and is not
        trained.
    weight : float
        λ.
    attribution : Attribution
        How the teacher is explained.

    Raises
    ------
    InputError
        When called: if the model is no `holdfast.models.Attributing`.

    References
    ----------
    Generating Deep Networks Explanations with Robust Attribution Alignment (ACML 2021). The
    distance and λ are ours.

    Examples
    --------
    >>> import torch
    >>> from holdfast.models import Attributing, mnist_cnn
    >>> model, teacher = Attributing(mnist_cnn(size=16), (1, 16, 16)), mnist_cnn(size=16)
    >>> batch = {"images": torch.rand(2, 1, 16, 16), "labels": torch.tensor([3, 7])}
    >>> sorted(AttributionAlignment(teacher)(model, batch))
    ['cross_entropy', 'distance', 'loss']
    """

    teacher: nn.Module = field(compare=False)
    weight: float = 1.0
    attribution: Attribution = Gradient()

    def __post_init__(self) -> None:
        check_teacher(self)
        check_positive(self, "weight", zero=True)

    def __repr__(self) -> str:
        return settings_in_brief(self)

    def __call__(self, model: nn.Module, batch: Batch) -> dict[str, Tensor]:
        """Return ``{"loss", "cross_entropy", "distance"}``."""
        images, labels = images_and_labels(batch)
        if not isinstance(model, Attributing):
            expected = "a holdfast.models.Attributing around a classifier"
            raise InputError("model", type(model).__name__, expected)
        wanted = unit_saliency(explain(self.teacher, self.attribution, images, labels))
        logits, maps = model.attribute(images)
        cross_entropy = classification_loss(logits, labels)
        distance = (maps - wanted).square().mean()
        return {
            "loss": cross_entropy + self.weight * distance,
            "cross_entropy": cross_entropy,
            "distance": distance,
        }
