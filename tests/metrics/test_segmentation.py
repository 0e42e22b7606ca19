import pytest
import torch

from holdfast.contracts import InputError
from holdfast.metrics import heatmap, mask_from_map, mask_iou, top1_seg


@pytest.mark.parametrize("threshold", [0.0, 0.4, 0.8, 1.0])
def test_mask_holds_the_pixels_that_reach_the_threshold(threshold: float) -> None:
    maps = torch.randn(5, 2, 6, 7)
    masks = mask_from_map(maps, threshold)
    for heat, mask in zip(heatmap(maps).tolist(), masks.tolist(), strict=True):
        assert mask == [[value >= threshold for value in row] for row in heat]
        assert any(map(any, mask))


@pytest.mark.parametrize("value", [0.0, 2.0])
@pytest.mark.parametrize("threshold", [0.0, 0.5])
def test_a_map_without_differences_has_an_empty_mask(value: float, threshold: float) -> None:
    maps = torch.full((1, 3, 4, 4), value)
    assert not mask_from_map(maps, threshold).any()
    seg = top1_seg(maps, torch.ones(1, 4, 4), torch.tensor([True]), threshold, iou=0.0)
    assert seg.tolist() == [False]


def test_mask_iou_equals_counting_in_sets() -> None:
    first, second = torch.rand(2, 30, 5, 6)
    second[:10] = (second[:10] > 0.5).float()
    value = mask_iou(first, second)
    for n in range(30):
        one = {tuple(p) for p in (first[n] > 0.5).nonzero().tolist()}
        other = {tuple(p) for p in (second[n] > 0.5).nonzero().tolist()}
        assert value[n].item() == pytest.approx(len(one & other) / len(one | other))
    assert torch.equal(mask_iou(first > 0.5, second), value)


def test_mask_iou_of_empty_and_full_masks() -> None:
    empty, full = torch.zeros(1, 3, 3), torch.ones(1, 3, 3)
    assert mask_iou(empty, empty).tolist() == [0.0]
    assert mask_iou(empty, full).tolist() == [0.0]
    assert mask_iou(full, full).tolist() == [1.0]


def test_top1_seg_needs_half_of_the_union_and_the_right_class() -> None:
    maps = torch.zeros(4, 1, 16, 16)
    maps[:, :, :, 4:12] = -2  # the smoothed columns 4 to 11 reach the half, and no others
    masks = torch.zeros(4, 16, 16)
    masks[0, :, 4:12] = 1
    masks[1, :8, 4:12] = 1  # a half of the union
    masks[2, :7, 4:12] = 1
    masks[3, :, 4:12] = 1
    correct = torch.tensor([True, True, True, False])
    assert top1_seg(maps, masks, correct, threshold=0.5).tolist() == [True, True, False, False]
    assert top1_seg(maps, masks.bool(), correct, 0.5, iou=0.4).tolist() == [True] * 3 + [False]


@pytest.mark.usefixtures("own_errors")
def test_bad_input_is_refused() -> None:
    maps, masks, correct = torch.zeros(2, 1, 4, 4), torch.zeros(2, 4, 4), torch.tensor([True, True])
    with pytest.raises(InputError, match="threshold: expected a number"):
        mask_from_map(maps, threshold=-0.1)
    with pytest.raises(InputError, match=r"masks: expected shape \(2, 4, 4\)"):
        top1_seg(maps, masks[:1], correct)
    with pytest.raises(InputError, match=r"masks: expected shape \(2, 4, 4\)"):
        top1_seg(maps, masks[0], correct)
    with pytest.raises(InputError, match="masks: expected finite"):
        top1_seg(maps, masks * torch.nan, correct)
    with pytest.raises(InputError, match="correct: expected bools"):
        top1_seg(maps, masks, correct[:1])
    with pytest.raises(InputError, match="first: expected shape"):
        mask_iou(masks[0], masks[0])
    with pytest.raises(InputError, match="second: expected shape"):
        mask_iou(masks, masks[:1])
    with pytest.raises(InputError, match="second: expected floating-point"):
        mask_iou(masks, masks.long())
