import pytest
import torch

from holdfast.contracts import InputError
from holdfast.metrics import box_masks
from holdfast.metrics.regions import region_masks


def test_box_masks_mark_the_centres_inside() -> None:
    boxes = torch.tensor(
        [
            [0.4, 1.5, 3.5, 4.0],
            [0.0, 0.0, 6.0, 4.0],
            [2.0, 2.0, 2.0, 3.0],
            [-5.0, -5.0, 1.0, 99.0],
            [3.0, 3.0, 1.0, 1.0],
        ]
    )

    masks = box_masks(boxes, (4, 6))

    for mask, (x0, y0, x1, y1) in zip(masks, boxes.tolist(), strict=True):
        for i in range(4):
            for j in range(6):
                assert bool(mask[i, j]) == (x0 <= j + 0.5 < x1 and y0 <= i + 0.5 < y1)
    assert masks.sum((1, 2)).tolist() == [9, 24, 0, 4, 0]


def test_boxes_and_their_masks_are_the_same_regions() -> None:
    maps, boxes = (
        torch.zeros(2, 3, 4, 6),
        torch.tensor([[0.0, 1.0, 2.0, 3.0], [2.0, 0.0, 6.0, 1.0]]),
    )
    masks = box_masks(boxes, (4, 6))
    for regions in (boxes, masks, masks.float(), masks.double() * 0.6):
        assert torch.equal(region_masks(regions, maps), masks)
    assert not region_masks(masks.float() / 2, maps).any()  # exactly a half is not object


def test_masks_four_pixels_wide_are_no_boxes() -> None:
    masks = torch.ones(4, 4, 4)
    assert region_masks(masks, torch.zeros(4, 1, 4, 4)).all()


@pytest.mark.usefixtures("own_errors")
@pytest.mark.parametrize(
    ("regions", "message"),
    [
        (torch.zeros(2, 5), r"regions: expected boxes \(2, 4\) or masks \(2, 3, 3\), got .*2, 5"),
        (torch.zeros(1, 4), r"regions: expected boxes \(2, 4\) or masks"),
        (torch.zeros(2, 3, 4), r"regions: expected boxes \(2, 4\) or masks"),
        (torch.full((2, 4), torch.nan), "regions: expected finite values"),
        (torch.full((2, 3, 3), torch.inf), "regions: expected finite values"),
        (torch.zeros(2, 3, 3).long(), "regions: expected floating-point values"),
    ],
)
def test_bad_regions_are_refused(regions: torch.Tensor, message: str) -> None:
    with pytest.raises(InputError, match=message):
        region_masks(regions, torch.zeros(2, 1, 3, 3))


@pytest.mark.usefixtures("own_errors")
@pytest.mark.parametrize(
    "boxes", [torch.zeros(2, 3), torch.zeros(4), torch.full((1, 4), torch.nan)]
)
def test_bad_boxes_are_refused(boxes: torch.Tensor) -> None:
    with pytest.raises(InputError, match="boxes: expected"):
        box_masks(boxes, (4, 4))
