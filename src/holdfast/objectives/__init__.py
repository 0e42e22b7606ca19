"""Training losses: ``(model, batch) → {"loss": …}``, for any PyTorch loop."""

from holdfast.objectives.adversarial_training import AdversarialTraining
from holdfast.objectives.art import ART, alignment_loss
from holdfast.objectives.art_variants import GradientStability, InputAlignment
from holdfast.objectives.attention_dropout import AttentionDropout
from holdfast.objectives.attribution_alignment import AttributionAlignment
from holdfast.objectives.attribution_regularization import AttributionRegularization
from holdfast.objectives.cure import CURE, curvature
from holdfast.objectives.defensive_distillation import DefensiveDistillation
from holdfast.objectives.enhanced_regularization import (
    EnhancedRegularization,
    attribution_change,
    attribution_contrast,
)
from holdfast.objectives.jacobian_regularization import JacobianRegularization
from holdfast.objectives.jarn import JARN
from holdfast.objectives.natural import Natural
from holdfast.objectives.saliency import signed_saliency, unit_saliency
from holdfast.objectives.saliency_training import SaliencyTraining, saliency_perturbation
from holdfast.objectives.successive import Successive
from holdfast.objectives.trades import TRADES
from holdfast.objectives.uniform_noise import UniformNoise

__all__ = [
    "ART",
    "CURE",
    "JARN",
    "TRADES",
    "AdversarialTraining",
    "AttentionDropout",
    "AttributionAlignment",
    "AttributionRegularization",
    "DefensiveDistillation",
    "EnhancedRegularization",
    "GradientStability",
    "InputAlignment",
    "JacobianRegularization",
    "Natural",
    "SaliencyTraining",
    "Successive",
    "UniformNoise",
    "alignment_loss",
    "attribution_change",
    "attribution_contrast",
    "curvature",
    "saliency_perturbation",
    "signed_saliency",
    "unit_saliency",
]
