"""Explanation methods: which pixels of an image mattered for a prediction."""

from holdfast.attributions.adversarial_path import AdversarialGradientIntegration
from holdfast.attributions.baseline import expand_baseline
from holdfast.attributions.boundary import (
    BoundaryDeepLIFT,
    BoundaryIntegratedGradients,
    BoundarySaliency,
)
from holdfast.attributions.cam import (
    CAM,
    GradCAM,
    GradCAMPlusPlus,
    GuidedGradCAM,
    GuidedGradCAMPlusPlus,
)
from holdfast.attributions.captum_bridge import FromCaptum, as_captum, from_captum
from holdfast.attributions.deep_lift import DeepLIFT, deep_lift
from holdfast.attributions.gradient import Gradient, InputXGradient, input_gradient
from holdfast.attributions.guided import GuidedBackprop
from holdfast.attributions.learned import LearnedAttribution
from holdfast.attributions.names import METHODS
from holdfast.attributions.path import IntegratedGradients, Rule, integrate, path_points
from holdfast.attributions.sampled import GradientSHAP, SmoothGrad
from holdfast.attributions.smoothed_boundary import BoundarySmoothGrad
from holdfast.attributions.target import resolve_targets, select_output

__all__ = [
    "CAM",
    "METHODS",
    "AdversarialGradientIntegration",
    "BoundaryDeepLIFT",
    "BoundaryIntegratedGradients",
    "BoundarySaliency",
    "BoundarySmoothGrad",
    "DeepLIFT",
    "FromCaptum",
    "GradCAM",
    "GradCAMPlusPlus",
    "Gradient",
    "GradientSHAP",
    "GuidedBackprop",
    "GuidedGradCAM",
    "GuidedGradCAMPlusPlus",
    "InputXGradient",
    "IntegratedGradients",
    "LearnedAttribution",
    "Rule",
    "SmoothGrad",
    "as_captum",
    "deep_lift",
    "expand_baseline",
    "from_captum",
    "input_gradient",
    "integrate",
    "path_points",
    "resolve_targets",
    "select_output",
]
