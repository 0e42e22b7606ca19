import dataclasses

import numpy as np
import pytest

from holdfast.report import table
from holdfast.report.wsol import best_threshold, over_thresholds, wsol_sections

THRESHOLDS = (0.1, 0.2, 0.3, 0.5)
CHECK = "wsol/gradient"


def naive(run, check=CHECK, overlap="box_iou"):
    """Count row by row: at each threshold the share that is met, and met and right; mean IoU."""
    rows = [r for r in run.records.to_pylist() if r["check"] == check]
    right = {r["index"]: r["value"] == 1 for r in rows if r["measure"] == "top_1"}
    counts = {}
    for threshold in THRESHOLDS:
        mine = [r for r in rows if r["measure"] == f"{overlap}/{threshold:.2f}"]
        known, both, total = 0, 0, 0.0
        for r in mine:
            known += r["value"] >= 0.5
            both += r["value"] >= 0.5 and right[r["index"]]
            total += r["value"]
        counts[threshold] = (known / len(mine), both / len(mine), total / len(mine))
    return counts


def test_best_threshold_by_a_naive_loop(three_whole_runs):
    (section,) = wsol_sections(three_whole_runs, table(three_whole_runs))
    (sheet,) = section.sheets
    keys = [column.key for column in sheet.columns]
    assert keys == [
        "threshold", "gt_known_loc", "top_1_loc", "top_1",
        "mask_threshold", "mask_iou", "top_1_seg",
    ]  # fmt: skip
    for run in three_whole_runs:
        line = next(line for line in sheet.lines if line.labels == ("gradient", run.name))
        cells = dict(zip(keys, line.cells, strict=True))
        box, mask = naive(run), naive(run, overlap="mask_iou")
        best, best_mask = None, None
        for threshold in THRESHOLDS:
            if best is None or box[threshold][0] > box[best][0]:
                best = threshold
            if best_mask is None or mask[threshold][2] > mask[best_mask][2]:
                best_mask = threshold
        assert cells["threshold"] == {"value": best}
        assert cells["gt_known_loc"]["mean"] == pytest.approx(box[best][0])
        assert cells["top_1_loc"]["mean"] == pytest.approx(box[best][1])
        assert cells["top_1"]["mean"] == run.values(CHECK, "top_1").mean()
        assert cells["mask_threshold"] == {"value": best_mask}
        assert cells["mask_iou"]["mean"] == pytest.approx(mask[best_mask][2])
        assert cells["top_1_seg"]["mean"] == pytest.approx(mask[best_mask][1])
    assert "on these same images" in section.note


def test_curves_over_all_thresholds(make_whole_run):
    run = make_whole_run()
    (section,) = wsol_sections([run], table([run]))
    sheets = {sheet.name: sheet for sheet in section.data}
    assert len(sheets) == len(section.plots) == 4
    for overlap, part in (("box_iou", 0), ("mask_iou", 2)):
        sheet = sheets[f"wsol_gradient_{overlap}"]
        assert [line.labels for line in sheet.lines] == [(f"{t:.2f}",) for t in THRESHOLDS]
        shown = [line.cells[0]["mean"] for line in sheet.lines]
        assert shown == pytest.approx([naive(run, overlap=overlap)[t][part] for t in THRESHOLDS])


def test_among_equals_the_lowest(make_whole_run):
    run = make_whole_run()
    found = over_thresholds(run, CHECK)
    same = [dataclasses.replace(at, met=np.ones(4), overlap=np.ones(4)) for at in found]
    assert best_threshold(same).threshold == best_threshold(same, "mask_iou").threshold == 0.1
    assert best_threshold([]) is None


def test_without_masks_and_with_a_single_threshold(make_whole_run):
    run = make_whole_run(masks=False, thresholds=(0.2,))
    (section,) = wsol_sections([run], table([run]))
    keys = [column.key for column in section.sheets[0].columns]
    assert keys == ["threshold", "gt_known_loc", "top_1_loc", "top_1"]
    assert section.plots == ()


def test_pictures_have_the_true_box_and_the_one_at_the_best_threshold(make_whole_run):
    run = make_whole_run()
    (section,) = wsol_sections([run], table([run]))
    album = section.albums[0]
    assert len(album.samples) == 5  # the sixth is there for being the worst
    sample = album.samples[2]
    best = best_threshold(over_thresholds(run, CHECK)).threshold
    place = THRESHOLDS.index(best)
    (line,) = sample.lines
    for picture in line.panels.values():
        assert picture.boxes["true"] == pytest.approx(tuple(run.gallery["boxes"][2]))
        expected = run.gallery[f"{CHECK}|estimated_boxes"][2, place]
        assert picture.boxes["estimated"] == pytest.approx(tuple(expected))
    true, found = (line.panels["image"].boxes[kind] for kind in ("true", "estimated"))
    inside = (found[2] - found[0]) * (found[3] - found[1])  # the one lies within the other
    overlap = inside / ((true[2] - true[0]) * (true[3] - true[1]))
    assert line.scores == (f"IoU {100 * overlap:.1f}%", f"threshold {best:.2f}")


def test_a_box_that_is_empty_or_unknown_is_not_drawn(make_whole_run):
    run = make_whole_run()
    run.gallery["boxes"][0] = np.nan
    run.gallery[f"{CHECK}|estimated_boxes"][1] = 0
    (section,) = wsol_sections([run], table([run]))
    first, second = (sample.lines[0] for sample in section.albums[0].samples[:2])
    assert list(first.panels["image"].boxes) == ["estimated"]
    assert list(second.panels["image"].boxes) == ["true"]
    assert second.scores[0] == "IoU 0.0%"


def test_heat_maps_without_images(make_whole_run):
    run = make_whole_run()
    kept = {key: value for key, value in run.gallery.items() if key not in ("images", "boxes")}
    run = dataclasses.replace(run, gallery=kept)
    (section,) = wsol_sections([run], table([run]))
    assert list(section.albums[0].samples[0].lines[0].panels) == ["heat map"]
    bare = dataclasses.replace(run, gallery=None)
    assert wsol_sections([bare], table([bare]))[0].albums == ()


def test_none(make_run):
    assert wsol_sections([make_run()], table([make_run("b")])) == []
