"""Attacks on predictions, and the search for the nearest decision boundary.

Every attack is called with a model, images and labels, and returns images. `accuracy` tells how
many of them the model still gets right.
"""

from holdfast.adversarial.accuracy import accuracy, correct
from holdfast.adversarial.apgd import APGD
from holdfast.adversarial.ball import L2Ball, LinfBall, Norm, ball
from holdfast.adversarial.boundary import BoundarySearch
from holdfast.adversarial.carlini_wagner import CarliniWagner
from holdfast.adversarial.corruptions import (
    CORRUPTIONS,
    ECCV2020_CORRUPTIONS,
    EXTRA_CORRUPTIONS,
    Corruption,
    corrupt,
)
from holdfast.adversarial.fgsm import FGSM
from holdfast.adversarial.halfspace import nearest_in_halfspace
from holdfast.adversarial.pgd import PGD
from holdfast.adversarial.pipeline import BoundaryPipeline
from holdfast.adversarial.searching import Boundary
from holdfast.adversarial.slope import slope
from holdfast.adversarial.smoothed import SmoothedPGD
from holdfast.adversarial.spatial import Spatial
from holdfast.adversarial.spsa import SPSA
from holdfast.adversarial.square import Square
from holdfast.adversarial.synthesis import class_seeds, synthesize
from holdfast.adversarial.targeted import TargetedPGD
from holdfast.adversarial.transfer import Transfer
from holdfast.adversarial.uniform_noise import UniformNoise

__all__ = [
    "APGD",
    "CORRUPTIONS",
    "ECCV2020_CORRUPTIONS",
    "EXTRA_CORRUPTIONS",
    "FGSM",
    "PGD",
    "SPSA",
    "Boundary",
    "BoundaryPipeline",
    "BoundarySearch",
    "CarliniWagner",
    "Corruption",
    "L2Ball",
    "LinfBall",
    "Norm",
    "SmoothedPGD",
    "Spatial",
    "Square",
    "TargetedPGD",
    "Transfer",
    "UniformNoise",
    "accuracy",
    "ball",
    "class_seeds",
    "correct",
    "corrupt",
    "nearest_in_halfspace",
    "slope",
    "synthesize",
]
