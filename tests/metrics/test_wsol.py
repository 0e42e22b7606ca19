import pytest
import torch
from torchvision import ops

from holdfast.contracts import InputError
from holdfast.metrics import box_from_map, box_iou, gt_known_loc, heatmap, top1_loc


def box_by_hand(heat: list[list[float]], threshold: float) -> list[float]:
    """Flood the hot pixels from each one in turn; the largest flood's box."""
    height, width = len(heat), len(heat[0])
    left = [(i, j) for i in range(height) for j in range(width) if heat[i][j] >= threshold]
    best: list[tuple[int, int]] = []
    while left:
        flood, edge = [], [left[0]]
        left.remove(left[0])
        while edge:
            i, j = edge.pop()
            flood.append((i, j))
            near = [p for p in left if abs(p[0] - i) <= 1 and abs(p[1] - j) <= 1]
            edge += near
            left = [p for p in left if p not in near]
        if len(flood) > len(best):
            best = flood
    rows, columns = [i for i, _ in best], [j for _, j in best]
    return [min(columns), min(rows), max(columns) + 1, max(rows) + 1]


@pytest.mark.parametrize("threshold", [0.0, 0.3, 0.5, 0.6, 0.7, 0.9, 1.0])
def test_box_equals_flooding_the_hot_pixels(threshold: float) -> None:
    maps = torch.randn(20, 2, 9, 11) ** 3
    boxes = box_from_map(maps, threshold)
    for heat, box in zip(heatmap(maps).tolist(), boxes.tolist(), strict=True):
        assert box == box_by_hand(heat, threshold)


def test_box_is_that_of_the_larger_spot() -> None:
    maps = torch.zeros(1, 1, 20, 20)
    maps[:, :, 2:4, 2:4] = -9  # hotter, but smaller
    maps[:, :, 10:16, 8:17] = 5
    assert box_from_map(maps, threshold=0.5).tolist() == [[8.0, 10.0, 17.0, 16.0]]
    assert box_from_map(maps, threshold=0.0).tolist() == [[0.0, 0.0, 20.0, 20.0]]


def test_spots_that_touch_at_a_corner_are_one() -> None:
    maps = torch.zeros(1, 1, 12, 12)
    maps[:, :, 1:5, 1:5], maps[:, :, 5:9, 5:9] = 1, 1
    # By the smoothing, the pixels at the corners have 5 of 9 or 4 of 9 of the heat.
    assert box_from_map(maps, threshold=0.55).tolist() == [[1.0, 1.0, 9.0, 9.0]]


def test_of_equal_spots_the_first_has_the_box() -> None:
    maps = torch.zeros(1, 1, 12, 12)
    maps[:, :, 2:5, 7:10], maps[:, :, 7:10, 2:5] = 1, 1
    assert box_from_map(maps, threshold=0.4).tolist() == [[7.0, 2.0, 10.0, 5.0]]


@pytest.mark.parametrize("value", [0.0, 3.0])
@pytest.mark.parametrize("threshold", [0.0, 0.5])
def test_a_map_without_differences_has_an_empty_box(value: float, threshold: float) -> None:
    maps = torch.full((2, 3, 6, 6), value)
    whole = torch.tensor([[0.0, 0.0, 6.0, 6.0]]).expand(2, 4)
    assert box_from_map(maps, threshold).tolist() == [[0.0] * 4] * 2
    for iou in (0.0, 0.5):
        assert gt_known_loc(maps, whole, threshold, iou).tolist() == [False, False]


def test_box_iou_equals_torchvision() -> None:
    corners = torch.rand(2, 200, 2) * 10
    first, second = torch.cat([corners, corners + torch.rand(2, 200, 2) * 8], dim=2)
    expected = ops.box_iou(first.double(), second.double()).diagonal()
    assert 0 < (expected > 0).sum() < 200
    torch.testing.assert_close(box_iou(first, second), expected)


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        ([0.0, 0.0, 4.0, 4.0], [0.0, 0.0, 4.0, 4.0], 1.0),
        ([0.0, 0.0, 4.0, 4.0], [2.0, 2.0, 6.0, 6.0], 4 / 28),
        ([0.0, 0.0, 4.0, 4.0], [4.0, 0.0, 8.0, 4.0], 0.0),
        ([1.0, 1.0, 1.0, 1.0], [1.0, 1.0, 1.0, 1.0], 0.0),
        ([3.0, 3.0, 1.0, 1.0], [3.0, 3.0, 1.0, 1.0], 0.0),
        ([3.0, 3.0, 1.0, 1.0], [0.0, 0.0, 4.0, 4.0], 0.0),
    ],
)
def test_box_iou_of_some_boxes(first: list[float], second: list[float], expected: float) -> None:
    one, other = torch.tensor([first]), torch.tensor([second])
    assert box_iou(one, other).tolist() == pytest.approx([expected])
    assert box_iou(other, one).tolist() == pytest.approx([expected])


def test_loc_needs_half_of_the_union_and_top1_the_right_class_too() -> None:
    maps = torch.zeros(4, 1, 16, 16)
    maps[:, :, 4:12, 4:12] = 1  # found exactly at the threshold of a half
    boxes = torch.tensor(
        [
            [4.0, 4.0, 12.0, 12.0],  # 1
            [4.0, 4.0, 12.0, 8.0],  # 32 of 64
            [4.0, 4.0, 12.0, 7.0],  # 24 of 64
            [4.0, 4.0, 4.0, 4.0],
        ]
    )
    assert box_from_map(maps, 0.5)[0].tolist() == boxes[0].tolist()
    assert gt_known_loc(maps, boxes, threshold=0.5).tolist() == [True, True, False, False]
    assert gt_known_loc(maps, boxes, threshold=0.5, iou=0.3).tolist() == [True, True, True, False]
    correct = torch.tensor([True, False, True, True])
    assert top1_loc(maps, boxes, correct, threshold=0.5).tolist() == [True, False, False, False]


def test_no_images_give_no_values() -> None:
    maps, boxes = torch.zeros(0, 3, 4, 4), torch.zeros(0, 4)
    assert box_from_map(maps).shape == (0, 4)
    assert top1_loc(maps, boxes, torch.zeros(0, dtype=torch.bool)).shape == (0,)
    assert box_iou(boxes, boxes).shape == (0,)


@pytest.mark.usefixtures("own_errors")
def test_bad_input_is_refused() -> None:
    maps, boxes = torch.zeros(2, 1, 4, 4), torch.zeros(2, 4)
    with pytest.raises(InputError, match="maps: expected shape"):
        box_from_map(maps[0])
    with pytest.raises(InputError, match=r"threshold: expected a number in \[0, 1\], got 20"):
        box_from_map(maps, threshold=20)
    with pytest.raises(InputError, match=r"iou: expected a number in \[0, 1\], got -1"):
        gt_known_loc(maps, boxes, iou=-1)
    with pytest.raises(InputError, match="boxes: expected one for each of 2 maps, got 1 boxes"):
        gt_known_loc(maps, boxes[:1])
    with pytest.raises(InputError, match="boxes: expected finite"):
        gt_known_loc(maps, boxes * torch.nan)
    with pytest.raises(InputError, match=r"correct: expected bools \(2,\), got torch.int64"):
        top1_loc(maps, boxes, torch.tensor([0, 1]))
    with pytest.raises(InputError, match="second: expected shape"):
        box_iou(boxes, boxes[:1])
