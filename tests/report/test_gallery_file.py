import json

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from holdfast.contracts import InputError
from holdfast.report import read_run
from holdfast.report.pictures import common_images


@pytest.mark.parametrize(
    ("key", "array", "message"),
    [
        ("boxes", np.zeros((6, 5), np.float32), r"boxes of shape \(6, 4\)"),
        ("worst", np.zeros(5, bool), r"worst of shape \(6,\)"),
        ("masks", np.zeros((6, 8), np.float32), r"masks of shape \(6, H, W\)"),
        ("wsol/gradient|heat_maps", np.zeros((6, 1, 8, 8), np.float32), r"\(6, H, W\)"),
        ("wsol/gradient|thresholds", None, r"none named wsol/gradient\|thresholds"),
        ("wsol/gradient|estimated_boxes", np.zeros((6, 4, 3), np.float32), r"\(6, t, 4\)"),
    ],
)
def test_a_gallery_with_a_part_amiss(make_whole_run, key, array, message):
    run = make_whole_run()
    path = run.path / "audit" / "gallery.safetensors"
    tensors = load_file(path)
    tensors.pop(key, None)
    if array is not None:
        tensors[key] = array
    save_file(tensors, path, {"classes": json.dumps(["a"])})
    with pytest.raises(InputError, match=message):
        read_run(run.path)


def test_an_image_may_have_no_box_and_a_gallery_no_images(make_whole_run):
    run = make_whole_run()
    path = run.path / "audit" / "gallery.safetensors"
    tensors = load_file(path)
    tensors["boxes"][1] = np.nan
    save_file(tensors, path)
    assert np.isnan(read_run(run.path).gallery["boxes"][1]).all()
    empty = {"index": np.zeros(0, np.int64), "label": np.zeros(0, np.int64)}
    save_file(empty | {"worst": np.zeros(0, bool)}, path)
    assert common_images([read_run(run.path)], "top_k/gradient", 6) == []
