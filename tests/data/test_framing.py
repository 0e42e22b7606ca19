import numpy as np
import pytest
import torch
from PIL import Image
from torchvision import tv_tensors
from torchvision.transforms import InterpolationMode, functional, v2
from torchvision.transforms._presets import ImageClassification

from holdfast.contracts import InputError
from holdfast.data.framing import Framing

PHOTOS = [
    (375, 500),
    (500, 333),
    (224, 224),
    (256, 256),
    (97, 301),
    (31, 30),
    (480, 641),
    (10, 999),
]


def photo(height: int, width: int, mode: str = "RGB") -> Image.Image:
    rng = np.random.default_rng(height * 1000 + width)
    shape = (height, width, 3) if mode == "RGB" else (height, width)
    return Image.fromarray(rng.integers(0, 256, shape, dtype=np.uint8))


def pixels(image: Image.Image) -> torch.Tensor:
    return functional.pil_to_tensor(image)


@pytest.mark.parametrize("mode", ["RGB", "L"])
@pytest.mark.parametrize("size", PHOTOS)
@pytest.mark.parametrize(
    ("crop", "resize", "interpolation"),
    [(224, 256, "bilinear"), (224, 232, "bicubic"), (63, 64, "bilinear"), (64, 51, "nearest")],
)
def test_it_is_torchvisions_own_transform_to_the_pixel(
    crop: int, resize: int, interpolation: str, size: tuple[int, int], mode: str
) -> None:
    image = photo(*size, mode)
    how = InterpolationMode(interpolation)
    # With normalization that does nothing, what `weights.transforms()` is.
    preset = ImageClassification(
        crop_size=crop, resize_size=resize, interpolation=how, mean=(0.0,), std=(1.0,)
    )

    framed = Framing((crop, crop), resize, "crop", interpolation).image(image)  # type: ignore[arg-type]

    assert torch.equal(pixels(framed).float() / 255, preset(image))


@pytest.mark.parametrize("size", PHOTOS)
def test_without_a_resize_the_short_side_becomes_the_size(size: tuple[int, int]) -> None:
    image = photo(*size)
    expected = v2.Compose([v2.Resize(40), v2.CenterCrop(40)])(image)
    assert torch.equal(pixels(Framing((40, 40)).image(image)), pixels(expected))


@pytest.mark.parametrize("size", PHOTOS)
@pytest.mark.parametrize(("crop", "resize"), [((48, 64), (48, 64)), ((64, 48), (71, 53))])
def test_a_crop_that_is_no_square_is_covered_as_timm_does(
    crop: tuple[int, int], resize: tuple[int, int], size: tuple[int, int]
) -> None:
    transforms_factory = pytest.importorskip("timm.data.transforms_factory")
    share = crop[0] / resize[0] if crop != resize else 1.0
    transform = transforms_factory.transforms_imagenet_eval(
        crop, crop_pct=share, interpolation="bicubic", normalize=False
    )
    image = photo(*size)
    framed = Framing(crop, resize, "crop", "bicubic").image(image)
    assert torch.equal(pixels(framed), transform(image))
    if crop == resize:
        assert torch.equal(
            pixels(Framing(crop, interpolation="bicubic").image(image)), pixels(framed)
        )


@pytest.mark.parametrize("share", [1.0, 0.9])
def test_squashing_is_timms_to_the_pixel(share: float) -> None:
    transforms_factory = pytest.importorskip("timm.data.transforms_factory")
    transform = transforms_factory.transforms_imagenet_eval(
        48, crop_pct=share, crop_mode="squash", interpolation="bicubic", normalize=False
    )
    image = photo(97, 301)
    resize = None if share == 1 else int(48 / share)
    framed = Framing((48, 48), resize, "squash", "bicubic").image(image)
    assert torch.equal(pixels(framed), transform(image))


@pytest.mark.parametrize(
    "interpolation", ["nearest", "bilinear", "bicubic", "lanczos", "box", "hamming"]
)
def test_every_interpolation_is_pillows(interpolation: str) -> None:
    image = photo(61, 61)
    method = getattr(Image.Resampling, interpolation.upper())
    framed = Framing((40, 40), interpolation=interpolation).image(image)  # type: ignore[arg-type]
    assert torch.equal(pixels(framed), pixels(image.resize((40, 40), method)))


@pytest.mark.parametrize("fit", ["crop", "squash"])
def test_what_has_the_size_is_not_touched(fit: str) -> None:
    image = photo(32, 24)
    framing = Framing((32, 24), fit=fit)  # type: ignore[arg-type]
    assert framing.image(image) is image
    plane, boxes = torch.rand(32, 24), torch.tensor([[-1.0, 3.5, 9.0, 33.0]])
    assert torch.equal(framing.plane(plane), plane)
    assert torch.equal(framing.boxes(boxes, torch.tensor([[32, 24]])), boxes)


@pytest.mark.parametrize("fit", ["crop", "squash"])
@pytest.mark.parametrize("crop", [(64, 64), (50, 71), (90, 90)])
@pytest.mark.parametrize("size", [(97, 301), (75, 75), (120, 80)])
def test_boxes_and_masks_go_the_way_of_their_image(
    size: tuple[int, int], crop: tuple[int, int], fit: str
) -> None:
    rng = np.random.default_rng(0)
    corners = rng.uniform(0, 1, (6, 2, 2)) * np.array(size)[::-1]
    boxes = torch.from_numpy(np.concatenate([corners.min(1), corners.max(1)], axis=1)).float()
    mask = torch.zeros(size)
    mask[size[0] // 3 : size[0] // 2, size[1] // 2 :] = 1
    # Crops of 90 are larger than 72, what images are resized to.
    steps = [v2.Resize(72 if fit == "crop" else (72, 72), antialias=True), v2.CenterCrop(crop)]
    wrapped = {
        "boxes": tv_tensors.BoundingBoxes(boxes, format="XYXY", canvas_size=size),  # type: ignore[call-arg]
        "image": tv_tensors.Image(mask[None]),
    }
    expected = v2.Compose(steps)(wrapped)

    framing = Framing(crop, 72, fit)  # type: ignore[arg-type]

    torch.testing.assert_close(framing.plane(mask), expected["image"][0].as_subclass(torch.Tensor))
    moved = framing.boxes(boxes, torch.tensor([size] * 6))
    torch.testing.assert_close(
        moved, expected["boxes"].as_subclass(torch.Tensor), atol=1e-4, rtol=0
    )


def test_a_box_in_the_margin_is_empty() -> None:
    # 20 columns of 40 are cut off either side.
    framing = Framing((40, 40))
    boxes = torch.tensor([[2.0, 5.0, 18.0, 30.0], [70.0, 0.0, 80.0, 40.0], [10.0, 0.0, 50.0, 40.0]])
    moved = framing.boxes(boxes, torch.tensor([[40, 80]] * 3))
    assert moved.tolist() == [[0, 5, 0, 30], [40, 0, 40, 40], [0, 0, 30, 40]]
    assert framing.boxes(boxes[:0], torch.zeros(0, 2, dtype=torch.long)).shape == (0, 4)


@pytest.mark.usefixtures("own_errors")
def test_what_is_no_framing_is_refused() -> None:
    with pytest.raises(InputError, match=r"ImageData.size: expected a side or .* got \(0, 8\)"):
        Framing((0, 8))
    with pytest.raises(InputError, match="ImageData.resize: expected a side or .* got 0"):
        Framing((8, 8), resize=0)
