"""Metrics: how alike two attribution maps are, and where one points.

Plain functions on tensors that return one value an image; averaging is the caller's. Those that
compare the order of two maps take their pixel scores, ``pixel_scores(maps)``; those that compare a
map with an object take the map itself, and the object's box or mask.
"""

from holdfast.metrics.alignment import input_alignment, input_cosine, map_distance, mass_centre
from holdfast.metrics.contours import box_from_contour, clipped_heatmap, grey_mask
from holdfast.metrics.heatmap import best_threshold, heatmap
from holdfast.metrics.localization import (
    concentration,
    energy_game,
    loc,
    pointing_game,
    positive_percentage,
)
from holdfast.metrics.overlap import top_k_intersection
from holdfast.metrics.rank import kendall_tau, spearman_rho
from holdfast.metrics.regions import box_masks
from holdfast.metrics.scores import pixel_scores
from holdfast.metrics.segmentation import mask_from_map, mask_iou, top1_seg
from holdfast.metrics.wsol import box_from_map, box_iou, gt_known_loc, top1_loc

__all__ = [
    "best_threshold",
    "box_from_contour",
    "box_from_map",
    "box_iou",
    "box_masks",
    "clipped_heatmap",
    "concentration",
    "energy_game",
    "grey_mask",
    "gt_known_loc",
    "heatmap",
    "input_alignment",
    "input_cosine",
    "kendall_tau",
    "loc",
    "map_distance",
    "mask_from_map",
    "mask_iou",
    "mass_centre",
    "pixel_scores",
    "pointing_game",
    "positive_percentage",
    "spearman_rho",
    "top1_loc",
    "top1_seg",
    "top_k_intersection",
]
