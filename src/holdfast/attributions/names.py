"""Short names of the methods, for the command line and for tables."""

from __future__ import annotations

from holdfast.attributions.adversarial_path import AdversarialGradientIntegration
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
from holdfast.attributions.deep_lift import DeepLIFT
from holdfast.attributions.gradient import Gradient, InputXGradient
from holdfast.attributions.guided import GuidedBackprop
from holdfast.attributions.learned import LearnedAttribution
from holdfast.attributions.path import IntegratedGradients
from holdfast.attributions.sampled import GradientSHAP, SmoothGrad
from holdfast.attributions.smoothed_boundary import BoundarySmoothGrad
from holdfast.contracts import Attribution

__all__ = ["METHODS"]

METHODS: dict[str, Attribution] = {
    "gradient": Gradient(),
    "input_x_gradient": InputXGradient(),
    "ig": IntegratedGradients(),
    "ig_white": IntegratedGradients(baseline=1.0),
    "smooth_grad": SmoothGrad(),
    "gradient_shap": GradientSHAP(),
    "guided_backprop": GuidedBackprop(),
    "deep_lift": DeepLIFT(),
    "cam": CAM(),
    "grad_cam": GradCAM(),
    "grad_cam_plus_plus": GradCAMPlusPlus(),
    "guided_grad_cam": GuidedGradCAM(),
    "guided_grad_cam_plus_plus": GuidedGradCAMPlusPlus(),
    "learned": LearnedAttribution(),
    "bsm": BoundarySaliency(),
    "big": BoundaryIntegratedGradients(),
    "bsg": BoundarySmoothGrad(),
    "boundary_deep_lift": BoundaryDeepLIFT(),
    "agi": AdversarialGradientIntegration(),
    "agi_authors": AdversarialGradientIntegration(
        classes=15, steps=15, step_size=0.05, others="spaced", step_from="image"
    ),
}
"""Every method by its short name with its default settings, then other settings of some."""
