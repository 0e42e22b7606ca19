"""Metrics: how alike two attribution maps are, and where one points.

Plain functions on tensors that return one value an image; averaging is the caller's. Those that
compare two maps take their pixel scores, ``pixel_scores(maps)``.
"""

from holdfast.metrics.alignment import input_alignment, mass_centre
from holdfast.metrics.overlap import top_k_intersection
from holdfast.metrics.rank import kendall_tau, spearman_rho
from holdfast.metrics.scores import pixel_scores

__all__ = [
    "input_alignment",
    "kendall_tau",
    "mass_centre",
    "pixel_scores",
    "spearman_rho",
    "top_k_intersection",
]
