"""Training losses: ``(model, batch) → {"loss": …}``, for any PyTorch loop."""

from holdfast.objectives.adversarial_training import AdversarialTraining
from holdfast.objectives.art import ART, alignment_loss
from holdfast.objectives.attribution_regularization import AttributionRegularization
from holdfast.objectives.natural import Natural

__all__ = [
    "ART",
    "AdversarialTraining",
    "AttributionRegularization",
    "Natural",
    "alignment_loss",
]
