import pytest
import torch
from torch import nn

from holdfast.audit import BATTERIES, Audit
from holdfast.audit.wsol_batteries import eccv2020_segmentation, eccv2020_table2
from holdfast.contracts import HoldfastError
from holdfast.data.dataset import ImageDataset
from holdfast.data.images import DecodedImages
from holdfast.data.planes import DecodedPlanes
from holdfast.training.recipe import build, to_settings

SIZES = torch.tensor([[12, 9]]).repeat(5, 1)


def marked(**objects):
    pixels = torch.randint(0, 256, (5, 3, 12, 9), dtype=torch.uint8)
    images = DecodedImages(pixels, SIZES)
    return ImageDataset("birds", ("jay", "wren"), images, torch.tensor([0, 1, 1, 0, 1]), **objects)


@pytest.fixture
def model():
    pool = (nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2))
    return nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), *pool)


def values(records, check, measure):
    rows = zip(*(records[name].to_pylist() for name in ("check", "measure")), strict=True)
    return sum((check, measure) == row for row in rows)


def test_table_2_measures_boxes_of_all_images_that_have_one(model, tmp_path):
    boxes = torch.tensor([[1.0, 2.0, 6.0, 9.0]]).repeat(5, 1)
    boxes[3] = torch.nan
    records = eccv2020_table2(marked(boxes=boxes), model=model)(
        model, marked(boxes=boxes), tmp_path, progress=False
    )
    for check in ("gradient", "gradient_zero_border", "gradient_public_code", "grad_cam"):
        assert values(records, f"wsol/{check}", "box_iou/0.20") == 4
        assert values(records, f"wsol/{check}", "top_1") == 5
    assert values(records, "wsol/gradient_public_code", "box_iou/0.25") == 0


def test_segmentation_measures_masks(model, tmp_path):
    planes = torch.zeros(5, 12, 9)
    planes[:, 2:7, 1:6] = 1
    planes[0] = torch.nan
    sizes = SIZES.clone()
    sizes[0] = 0
    data = marked(masks=DecodedPlanes(planes, sizes))
    records = eccv2020_segmentation(data)(model, data, tmp_path, progress=False)
    for check in ("integrated_gradients", "gradient"):
        assert values(records, f"wsol/{check}", "mask_iou/0.20") == 4


@pytest.mark.parametrize("name", ["eccv2020/table2", "eccv2020/segmentation"])
def test_settings_can_be_built_again(name):
    masks = DecodedPlanes(torch.ones(5, 12, 9), SIZES)
    audit = BATTERIES[name](marked(boxes=torch.ones(5, 4), masks=masks))
    settings = to_settings(audit)["init_args"]
    assert to_settings(build(Audit, settings))["init_args"] == settings


@pytest.mark.parametrize(
    ("battery", "needed"), [(eccv2020_table2, "boxes"), (eccv2020_segmentation, "masks")]
)
def test_data_without_objects_is_refused(battery, needed):
    with pytest.raises(HoldfastError, match=f"this battery needs {needed}, and birds has none"):
        battery(marked())
