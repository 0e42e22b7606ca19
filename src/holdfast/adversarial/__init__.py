"""Attacks on predictions, and the search for the nearest decision boundary."""

from holdfast.adversarial.ball import L2Ball, LinfBall, Norm, ball
from holdfast.adversarial.boundary import Boundary, BoundarySearch
from holdfast.adversarial.halfspace import nearest_in_halfspace
from holdfast.adversarial.pgd import PGD
from holdfast.adversarial.slope import slope

__all__ = [
    "PGD",
    "Boundary",
    "BoundarySearch",
    "L2Ball",
    "LinfBall",
    "Norm",
    "ball",
    "nearest_in_halfspace",
    "slope",
]
