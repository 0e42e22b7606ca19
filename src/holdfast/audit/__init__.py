"""Audits: a model, a data set and a battery of attacks and checks make records, image by image."""

from holdfast.audit.alignment_checks import BoundaryAlignment, ImageAlignment
from holdfast.audit.batteries import BATTERIES, full, quick, standard
from holdfast.audit.battery import Audit
from holdfast.audit.counterfactual_checks import BaselineSensitivity, ObjectRemoval
from holdfast.audit.devices import audit_on
from holdfast.audit.faithfulness import Deletion, Insertion
from holdfast.audit.fitness import Fitness, check_fitness
from holdfast.audit.localization_checks import (
    ContourLocalization,
    Localization,
    WeaklySupervisedLocalization,
)
from holdfast.audit.map_checks import Faithfulness, Likeness
from holdfast.audit.ray_audit import audit_on_ray
from holdfast.audit.ray_engine import share_out
from holdfast.audit.removal import remove_pixels
from holdfast.audit.roar import ROAR
from holdfast.audit.smoothed_alignment import SmoothedAlignment
from holdfast.audit.trust_check import Trustworthiness

__all__ = [
    "BATTERIES",
    "ROAR",
    "Audit",
    "BaselineSensitivity",
    "BoundaryAlignment",
    "ContourLocalization",
    "Deletion",
    "Faithfulness",
    "Fitness",
    "ImageAlignment",
    "Insertion",
    "Likeness",
    "Localization",
    "ObjectRemoval",
    "SmoothedAlignment",
    "Trustworthiness",
    "WeaklySupervisedLocalization",
    "audit_on",
    "audit_on_ray",
    "check_fitness",
    "full",
    "quick",
    "remove_pixels",
    "share_out",
    "standard",
]
