"""Weakly supervised localization and segmentation: how well boxes and masks from maps do."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from holdfast.metrics import box_iou
from holdfast.plot import heat_map, overlay, picture
from holdfast.report.checks import checks_named
from holdfast.report.curves import Curve, Point, curve_sheet, plot_of
from holdfast.report.pictures import class_name, common_images, held_value
from holdfast.report.records import AuditedRun
from holdfast.report.section import Album, Picture, Sample, SampleLine, Section
from holdfast.report.sheet import Cell, Column, Line, Sheet
from holdfast.report.summary import Table, mean_interval
from holdfast.report.wording import attribution_of, number, percent

__all__ = ["AtThreshold", "best_threshold", "over_thresholds", "wsol_sections"]

IOU = 0.5
BOX, MASK = "box_iou", "mask_iou"
READING = (
    (
        "GT-known Loc, Top-1 Loc",
        "A map is cut off at a threshold, a share of its highest value, and a box is drawn around "
        "the largest spot that is left. GT-known Loc counts the images on which this box and the "
        "true one overlap by at least one half (intersection over union); Top-1 Loc those on which "
        "the prediction is right as well. Top-1 Seg is the same with the pixels above the "
        "threshold and the true mask.",
    ),
)


@dataclass(frozen=True)
class AtThreshold:
    """What a map's boxes, or masks, come to at one threshold: a value an image, ``(n,)``.

    Attributes
    ----------
    threshold : float
        A share of the largest heat.
    overlap : ndarray
        Intersection over union with the true box or mask.
    met : ndarray
        Whether that is at least one half.
    met_and_right : ndarray
        Whether the prediction is right as well; empty if that was not measured.
    """

    threshold: float
    overlap: np.ndarray
    met: np.ndarray
    met_and_right: np.ndarray


def over_thresholds(run: AuditedRun, check: str, overlap: str = BOX) -> tuple[AtThreshold, ...]:
    """Collect what was measured at each threshold, ascending.

    Parameters
    ----------
    run : AuditedRun
        The run.
    check : str
        A check ``wsol/…``.
    overlap : str
        ``"box_iou"`` or ``"mask_iou"``.
    """
    found = []
    for measure in run.measures(check):
        name, _, threshold = measure.partition("/")
        if name == overlap and threshold:
            values = run.values(check, measure)
            met = (values >= IOU).astype(float)
            shared, right = run.aligned((check, measure), (check, "top_1"))
            both = ((shared >= IOU) & (right == 1)).astype(float)
            found.append(AtThreshold(float(threshold), values, met, both))
    return tuple(sorted(found, key=lambda at: at.threshold))


def best_threshold(found: Sequence[AtThreshold], overlap: str = BOX) -> AtThreshold | None:
    """Choose the threshold with the highest GT-known Loc; for masks with the highest mean IoU.

    Among equals it is the lowest. The choice is made on the images that are then reported on.

    Examples
    --------
    >>> found = [AtThreshold(t, np.array(iou), np.array(iou) >= 0.5, np.empty(0))
    ...          for t, iou in {0.1: [0.2, 0.6], 0.2: [0.5, 0.6], 0.3: [0.9, 0.9]}.items()]
    >>> best_threshold(found).threshold, best_threshold(found, "mask_iou").threshold
    (0.2, 0.3)
    """
    if not found:
        return None
    return max(found, key=lambda at: float((at.met if overlap == BOX else at.overlap).mean()))


def wsol_sections(runs: Sequence[AuditedRun], table: Table) -> list[Section]:
    """Lay out weakly supervised localization: the best threshold of each model, and all others."""
    checks = checks_named(table, "wsol/")
    lines = [(check, run) for check in checks for run in runs if check in run.checks]
    if not lines:
        return []
    note = (
        "Boxes and masks drawn from maps, of the true class unless an audit's settings say "
        "otherwise, on the images that have a box or a mask. The threshold is the best of those "
        "measured for each model and attribution, chosen on these same images; figures on other "
        "images would be somewhat lower."
    )
    curves = [curve for check in checks for curve in _curves(runs, check)]
    several = len(checks) > 1
    return [
        Section(
            "wsol",
            "Weakly supervised localization",
            note,
            sheets=(_sheet(lines),),
            plots=tuple(plot_of(curve) for curve in curves),
            plots_note="Over all thresholds; bands are 95% confidence intervals.",
            albums=tuple(a for check in checks for a in _albums(runs, check, several=several)),
            data=tuple(curve_sheet(curve) for curve in curves),
            reading=READING,
        )
    ]


def _sheet(lines: Sequence[tuple[str, AuditedRun]]) -> Sheet:
    columns = (
        Column("Best threshold", "threshold", "", ("value",), number, ""),
        Column("GT-known Loc ↑", "gt_known_loc"),
        Column("Top-1 Loc ↑", "top_1_loc"),
        Column("Top-1 accuracy ↑", "top_1"),
        Column("Best threshold for masks", "mask_threshold", "", ("value",), number, ""),
        Column("Mean IoU of masks ↑", "mask_iou"),
        Column("Top-1 Seg ↑", "top_1_seg"),
    )
    rows = [
        ((attribution_of(check) or check, run.name), _figures(run, check)) for check, run in lines
    ]
    shown = tuple(column for column in columns if any(column.key in cells for _, cells in rows))
    return Sheet(
        "wsol",
        "In percent, with 95% confidence intervals; thresholds as a share of the highest value.",
        ("Attribution", "Model"),
        shown,
        tuple(Line(labels, tuple(cells.get(c.key) for c in shown)) for labels, cells in rows),
    )


def _figures(run: AuditedRun, check: str) -> dict[str, Cell]:
    cells: dict[str, Cell] = {}
    box = best_threshold(over_thresholds(run, check))
    mask = best_threshold(over_thresholds(run, check, MASK), MASK)
    if box:
        cells["threshold"] = {"value": box.threshold}
        cells |= _mean("gt_known_loc", box.met) | _mean("top_1_loc", box.met_and_right)
    cells |= _mean("top_1", run.values(check, "top_1"))
    if mask:
        cells["mask_threshold"] = {"value": mask.threshold}
        cells |= _mean("mask_iou", mask.overlap, proportion=False)
        cells |= _mean("top_1_seg", mask.met_and_right)
    return cells


def _mean(key: str, values: np.ndarray, *, proportion: bool = True) -> dict[str, Cell]:
    if not len(values):
        return {}
    low, high = mean_interval(values, proportion=proportion) or (None, None)
    return {key: {"mean": float(values.mean()), "low": low, "high": high}}


def _curves(runs: Sequence[AuditedRun], check: str) -> list[Curve]:
    name = attribution_of(check) or check
    curves = []
    for overlap, what in ((BOX, "GT-known Loc"), (MASK, "Mean IoU of masks")):
        lines = {}
        for run in runs:
            found = over_thresholds(run, check, overlap)
            if len(found) > 1:
                lines[run.name] = tuple(_point(at, overlap) for at in found)
        if lines:
            address = f"{check}_{overlap}".replace("/", "_")
            curves.append(
                Curve(address, f"{what}, {name}", "threshold", what, lines, "{:.2f}".format)
            )
    return curves


def _point(at: AtThreshold, overlap: str) -> Point:
    values = at.met if overlap == BOX else at.overlap
    ends = mean_interval(values, proportion=overlap == BOX)
    return Point(at.threshold, float(values.mean()), *(ends or (None, None)))


def _albums(runs: Sequence[AuditedRun], check: str, *, several: bool) -> list[Album]:
    """Show images and heat maps, each with the true box and the one from the map."""
    samples = []
    for index, held in common_images(runs, check, 6, panel="heat_maps"):
        lines = tuple(_line(run, check, index) for run in held)
        samples.append(Sample(class_name(held[0], index), f"image {index}", lines))
    if not samples:
        return []
    title = f"Boxes from maps, {attribution_of(check)}" if several else "Boxes from maps"
    note = (
        "Solid: the true box. Dashed: the box from the map, at the best threshold of the model. "
        "The heat map is the attribution without its sign, smoothed and scaled to its highest "
        "value."
    )
    return [Album(title, note, tuple(samples))]


def _line(run: AuditedRun, check: str, index: int) -> SampleLine:
    assert run.gallery is not None
    best = best_threshold(over_thresholds(run, check))
    heat = held_value(run, f"{check}|heat_maps", index)[None]
    boxes = {"true": held_value(run, "boxes", index)} if "boxes" in run.gallery else {}
    scores = []
    if best:
        place = int(np.abs(run.gallery[f"{check}|thresholds"] - best.threshold).argmin())
        boxes["estimated"] = held_value(run, f"{check}|estimated_boxes", index)[place]
        scores.append(f"threshold {best.threshold:.2f}")
    boxes = {kind: box for kind, box in boxes.items() if np.isfinite(box).all()}
    if len(boxes) == 2:
        true, estimated = (torch.from_numpy(box[None]) for box in boxes.values())
        scores.insert(0, f"IoU {percent(float(box_iou(true, estimated)))}%")
    known = {kind: _corners(box) for kind, box in boxes.items() if (box[2:] > box[:2]).all()}
    if "images" not in run.gallery:
        shown = {"heat map": Picture(heat_map(heat, percentile=100.0), known)}
    else:
        image = held_value(run, "images", index)
        shown = {
            "image": Picture(picture(image), known),
            "heat map": Picture(overlay(heat, image), known),
        }
    return SampleLine(run.name, tuple(scores), shown)


def _corners(box: np.ndarray) -> tuple[float, float, float, float]:
    x0, y0, x1, y1 = (float(corner) for corner in box)
    return x0, y0, x1, y1
