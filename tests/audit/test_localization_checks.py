import numpy as np
import pytest
import torch
from torch import nn

from holdfast.attributions import Gradient, InputXGradient
from holdfast.audit import ContourLocalization, Localization, WeaklySupervisedLocalization
from holdfast.contracts import Batch, Check, HoldfastError, InputError
from holdfast.metrics import (
    box_from_contour,
    box_iou,
    clipped_heatmap,
    grey_mask,
    heatmap,
    mask_iou,
)

SIZE = 8


@pytest.fixture
def model():
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(SIZE * SIZE, 12), nn.Tanh(), nn.Linear(12, 3))


@pytest.fixture
def batch(model):
    """Six images, of which the last two are labelled as what the model does not see."""
    images = torch.rand(6, 1, SIZE, SIZE)
    labels = model(images).argmax(1)
    labels[4:] = (labels[4:] + 1) % 3
    low = torch.randint(0, 4, (6, 2)).float()
    return Batch(images=images, labels=labels, boxes=torch.cat([low, low + 4], 1))


def gradients(model, images, labels):
    x = images.clone().requires_grad_(True)
    logits = model(x)
    (gradient,) = torch.autograd.grad(logits[range(len(x)), labels].sum(), x)
    return gradient


def test_localization_on_boxes_against_loops(model, batch):
    measures = Localization(Gradient())(model, batch)
    assert isinstance(Localization(Gradient()), Check)
    z = gradients(model, batch["images"], batch["labels"]).sum(1).double().numpy()
    for n in range(4):
        x0, y0, x1, y1 = batch["boxes"][n].int().tolist()
        inside = np.zeros((SIZE, SIZE), bool)
        inside[y0:y1, x0:x1] = True
        positive = z[n] > 0
        shared = (positive & inside).sum()
        expected = {
            "loc": shared / (inside.sum() + (positive & ~inside).sum()),
            "energy_game": z[n][positive & inside].sum() / z[n][positive].sum(),
            "positive_percentage": z[n][positive & inside].sum() / np.abs(z[n][inside]).sum(),
            "pointing_game": float(inside.flat[z[n].argmax()]),
        }
        for name, value in expected.items():
            assert measures[name][n].item() == pytest.approx(value, abs=1e-6), name
        assert 0 < measures["concentration"][n] <= 2 * SIZE
    for name, values in measures.items():
        assert values.shape == (6,), name
        assert values[4:].isnan().all(), name


def test_masks_go_before_boxes_and_boxes_before_nothing(model, batch):
    check = Localization(InputXGradient())
    boxes = check(model, batch)
    masks = torch.rand(6, SIZE, SIZE)
    masks[0] = torch.nan  # a row that lacks its mask
    both = check(model, Batch(**batch, masks=masks))
    bare = Batch(images=batch["images"], labels=batch["labels"], masks=masks)
    alone = check(model, bare)
    for name in boxes:
        assert both[name][0].item() == pytest.approx(boxes[name][0].item())
        assert alone[name][0].isnan()
        assert torch.allclose(both[name][1:4], alone[name][1:4])
        assert not torch.allclose(both[name][1:4], boxes[name][1:4])


def test_no_value_where_the_model_is_never_right(model, batch):
    wrong = (model(batch["images"]).argmax(1) + 1) % 3
    assert Localization(Gradient())(model, Batch(**{**batch, "labels": wrong})) == {}


@pytest.mark.parametrize("check", [Localization(Gradient()), WeaklySupervisedLocalization()])
def test_refuses_data_that_marks_no_object(check, model, batch):
    del batch["boxes"]
    with pytest.raises(HoldfastError, match=r"neither boxes nor masks \(columns bbox and mask\)"):
        check(model, batch)


def hot_box(heat, threshold):
    """The box of the largest component, by flood fill."""
    hot = {(y, x) for y, x in np.argwhere(heat >= threshold)}
    best = set()
    while hot:
        grown, rim = set(), [hot.pop()]
        while rim:
            y, x = rim.pop()
            grown.add((y, x))
            near = {(y + i, x + j) for i in (-1, 0, 1) for j in (-1, 0, 1)} & hot
            hot -= near
            rim += near
        best = grown if len(grown) > len(best) else best
    rows, columns = zip(*best, strict=True)
    return [min(columns), min(rows), max(columns) + 1, max(rows) + 1]


def test_wsol_at_every_threshold(model, batch):
    masks = (torch.rand(6, SIZE, SIZE) > 0.5).float()
    masks[1] = torch.nan
    check = WeaklySupervisedLocalization(Gradient(), (0.1, 0.55, 0.9))
    measures = check(model, Batch(**batch, masks=masks))
    assert list(measures) == [
        "top_1",
        *(f"box_iou/{t}" for t in ("0.10", "0.55", "0.90")),
        *(f"mask_iou/{t}" for t in ("0.10", "0.55", "0.90")),
    ]
    assert measures["top_1"].tolist() == [1, 1, 1, 1, 0, 0]
    heat = heatmap(gradients(model, batch["images"], batch["labels"])).numpy()
    for threshold in check.thresholds:
        boxes = torch.tensor([hot_box(one, np.float32(threshold)) for one in heat]).float()
        expected = box_iou(boxes, batch["boxes"])
        assert torch.allclose(measures[f"box_iou/{threshold:.2f}"], expected)
        of_mask = measures[f"mask_iou/{threshold:.2f}"]
        assert of_mask[1].isnan()
        hot = torch.from_numpy(heat >= np.float32(threshold))
        keep = [0, 2, 3, 4, 5]
        assert torch.allclose(of_mask[keep], mask_iou(hot[keep], masks[keep]))


def test_wsol_with_masks_alone(model, batch):
    bare = Batch(images=batch["images"], labels=batch["labels"], masks=torch.ones(6, SIZE, SIZE))
    measures = WeaklySupervisedLocalization(thresholds=(0.0,))(model, bare)
    assert list(measures) == ["top_1", "mask_iou/0.00"]
    assert measures["mask_iou/0.00"].tolist() == [1] * 6


@pytest.mark.parametrize("kind", ["boxes", "masks"])
def test_images_without_an_object_have_no_value(kind, model, batch):
    """The others have the values that they have alone, whatever share of a shard is marked."""
    masks = (torch.rand(6, SIZE, SIZE) > 0.5).float()
    objects = {"boxes": batch["boxes"], "masks": masks}[kind].clone()
    bare = Batch(images=batch["images"], labels=batch["labels"])
    for checks in (Localization(Gradient()), WeaklySupervisedLocalization(thresholds=(0.2,))):
        whole = checks(model, {**bare, kind: objects})
        part, none = objects.clone(), torch.full_like(objects, torch.nan)
        part[[0, 3]] = torch.nan
        measures = checks(model, {**bare, kind: part})
        for name in set(whole) - {"top_1"}:
            assert measures[name][[0, 3]].isnan().all(), name
            kept = [1, 2, 4, 5]
            assert torch.allclose(measures[name][kept], whole[name][kept], equal_nan=True), name
        nothing = checks(model, {**bare, kind: none})
        assert all(values.isnan().all() for name, values in nothing.items() if name != "top_1")


def test_default_thresholds_and_pictures(model, batch):
    check = WeaklySupervisedLocalization()
    assert [round(t, 2) for t in check.thresholds] == [round(0.05 * i, 2) for i in range(1, 20)]
    shown = check.pictures(model, batch)
    heat = heatmap(gradients(model, batch["images"], batch["labels"]))
    assert torch.allclose(shown["heat_maps"], heat)
    assert shown["thresholds"].tolist() == pytest.approx(check.thresholds)
    assert shown["estimated_boxes"].shape == (6, 19, 4)
    expected = [float(v) for v in hot_box(heat[2].numpy(), np.float32(check.thresholds[9]))]
    assert shown["estimated_boxes"][2, 9].tolist() == expected


@pytest.mark.parametrize("thresholds", [(), (0.5, 1.5), (0.101, 0.102)])
def test_refuses_thresholds(thresholds, own_errors):
    with pytest.raises(InputError, match="WeaklySupervisedLocalization.thresholds"):
        WeaklySupervisedLocalization(thresholds=thresholds)


def test_the_public_codes_boxes_are_of_the_predicted_class(model, batch):
    """Two labels are wrong: only there do the classes differ."""
    masks = (torch.rand(6, SIZE, SIZE) > 0.5).float()
    marked = Batch(**batch, masks=masks)
    predicted = ContourLocalization(thresholds=(0.3, 0.5))(model, marked)
    labelled = ContourLocalization(thresholds=(0.3, 0.5), target="label")(model, marked)
    assert predicted["top_1"].tolist() == [1, 1, 1, 1, 0, 0]
    right = dict(batch, labels=model(batch["images"]).argmax(1))
    x = batch["images"].clone().requires_grad_(True)
    nn.functional.cross_entropy(model(x), right["labels"], reduction="sum").backward()
    heat = clipped_heatmap(x.grad)
    for threshold in (0.3, 0.5):
        boxes = box_iou(box_from_contour(heat, threshold), batch["boxes"])
        assert torch.allclose(predicted[f"box_iou/{threshold:.2f}"], boxes)
        assert torch.allclose(labelled[f"box_iou/{threshold:.2f}"][:4], boxes[:4])
        of_masks = mask_iou(grey_mask(heat, threshold), masks)
        assert torch.allclose(predicted[f"mask_iou/{threshold:.2f}"], of_masks)
    shown = ContourLocalization(thresholds=(0.3,)).pictures(model, batch)
    assert torch.allclose(shown["heat_maps"], heat)
    assert shown["estimated_boxes"].shape == (6, 1, 4)


def test_the_border_of_the_mean_filter_is_a_setting(model, batch):
    zero = WeaklySupervisedLocalization(thresholds=(0.6,), border="zero")
    heat = heatmap(gradients(model, batch["images"], batch["labels"]), border="zero")
    boxes = torch.tensor([hot_box(one, np.float32(0.6)) for one in heat.numpy()]).float()
    expected = box_iou(boxes, batch["boxes"])
    assert torch.allclose(zero(model, batch)["box_iou/0.60"], expected)
    assert torch.allclose(zero.pictures(model, batch)["heat_maps"], heat)


def test_refuses_other_settings(own_errors):
    with pytest.raises(InputError, match="WeaklySupervisedLocalization.border"):
        WeaklySupervisedLocalization(border="mirror")
    with pytest.raises(InputError, match="ContourLocalization.target"):
        ContourLocalization(target="rival")
    with pytest.raises(InputError, match="ContourLocalization.thresholds"):
        ContourLocalization(thresholds=(2.0,))


def test_large_objects_may_be_left_out(model, batch):
    boxes = batch["boxes"].clone()
    boxes[1] = torch.tensor([0.0, 0.0, 8.0, 7.0])  # of 64 pixels 56
    measures = Localization(Gradient(), largest=0.8)(model, Batch(**{**batch, "boxes": boxes}))
    assert measures["loc"].isnan().tolist() == [False, True, False, False, True, True]
    with pytest.raises(InputError, match="Localization.largest"):
        Localization(Gradient(), largest=1.5)
