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


ATTACK = "top_k/gradient|"


@pytest.mark.parametrize(
    ("key", "change", "says"),
    [
        ("index", lambda a: a.astype(np.float32), "index of float32, "),
        ("index", lambda a: a[0], "of shape (1,)"),
        ("index", lambda a: -a - 1, "index from 0"),
        ("index", lambda a: a * 0, "an image twice"),
        ("label", lambda a: a + 100, "label from 0 to 9"),
        ("label", lambda a: a - 100, "label from 0 to 9, got -"),
        (ATTACK + "kendall_tau", lambda a: a * 0 + 7, "kendall_tau from -1.0 to 1.0, got 7"),
        (ATTACK + "top_k_intersection", lambda a: a * 0 - 1, "from 0.0 to 1.0, got -1"),
        (ATTACK + "preserved", lambda a: a.astype(np.int64) + 2, "preserved from 0.0 to 1.0"),
        (ATTACK + "images", lambda a: a * 300, "images from 0.0 to 1.0"),
        (ATTACK + "images", lambda a: np.repeat(a, 7, 1), "pictures to be shown"),
        (ATTACK + "maps", lambda a: a[..., :4], "maps as high and wide as its images"),
        (ATTACK + "maps", lambda a: a[..., :0], "pictures to be shown"),
        (ATTACK + "perturbed_maps", lambda a: a * np.inf, "NaN or infinite"),
        ("wsol/gradient|heat_maps", lambda a: a + 2, "heat_maps from 0.0 to 1.0"),
    ],
)
def test_numbers_that_cannot_be(make_whole_run, key, change, says):
    run = make_whole_run()
    path = run.path / "audit" / "gallery.safetensors"
    tensors = load_file(path)
    tensors[key] = np.ascontiguousarray(change(tensors[key]))
    save_file(tensors, path, {"classes": json.dumps([str(n) for n in range(10)])})
    with pytest.raises(InputError) as error:
        read_run(run.path)
    assert says.partition(", ")[0] in str(error.value)
    assert "gallery.safetensors" in str(error.value)


@pytest.mark.parametrize(
    "classes", ["{", "7", "null", '{"a": 1}', "[1, 2]", "[" * 100_000, "NaN", ""], ids=repr
)
def test_classes_that_are_no_names(make_run, classes):
    run = make_run()
    path = run.path / "audit" / "gallery.safetensors"
    save_file(load_file(path), path, {"classes": classes})
    with pytest.raises(InputError, match=r"gallery\.safetensors"):
        read_run(run.path)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"nonsense",
        (2**60).to_bytes(8, "little"),
        (2).to_bytes(8, "little") + b"{}",
        (68).to_bytes(8, "little")
        + b'{"index":{"dtype":"F8_E4M3","shape":[1],"data_offsets":[0,1]}}      '
        + b"1",
    ],
    ids=repr,
)
def test_files_that_are_no_galleries(make_run, content):
    run = make_run()
    (run.path / "audit" / "gallery.safetensors").write_bytes(content)
    with pytest.raises(InputError, match=r"gallery\.safetensors"):
        read_run(run.path)


def test_a_check_that_is_no_name(make_run):
    run = make_run()
    path = run.path / "audit" / "gallery.safetensors"
    save_file(load_file(path) | {"a\x1b[2J|maps": np.zeros(1)}, path)
    with pytest.raises(InputError, match="names of checks"):
        read_run(run.path)


def test_a_folder_in_the_place_of_the_gallery(make_run):
    run = make_run()
    (run.path / "audit" / "gallery.safetensors").unlink()
    (run.path / "audit" / "gallery.safetensors").mkdir()
    with pytest.raises(InputError, match="a gallery in safetensors, got no file"):
        read_run(run.path)
