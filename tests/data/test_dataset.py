import pickle
from typing import Any

import pytest
import torch
from torch.utils.data import DataLoader

from holdfast.contracts import InputError, check_images
from holdfast.data import Augmentation, ImageDataset
from holdfast.data.framing import Framing
from holdfast.data.images import DecodedImages
from holdfast.data.planes import DecodedPlanes

CLASSES = ("paper", "snow", "milk")


def make(count: int = 10, boxes: bool = False, original: tuple[int, int] = (4, 5)) -> ImageDataset:
    pixels = torch.randint(256, (count, 3, 4, 5), dtype=torch.uint8)
    sizes = torch.tensor([original] * count)
    corners = torch.rand(count, 4) if boxes else None
    labels = torch.arange(count) % 3
    return ImageDataset("white", CLASSES, DecodedImages(pixels, sizes), labels, corners)


def test_a_sample_is_an_image_in_zero_to_one_and_its_label() -> None:
    pixels = torch.tensor([0, 51, 255], dtype=torch.uint8).view(3, 1, 1, 1)
    images = DecodedImages(pixels, torch.ones(3, 2, dtype=torch.long))
    data = ImageDataset("white", CLASSES, images, torch.tensor([2, 0, 1]))

    assert [sample["images"].item() for sample in data] == pytest.approx([0.0, 0.2, 1.0])
    assert [sample["labels"].item() for sample in data] == [2, 0, 1]
    assert data[0]["images"].dtype == torch.float32
    assert data[0]["labels"].dtype == torch.int64
    assert data[0].keys() == {"images", "labels"}


def test_attributes_say_what_is_in_it() -> None:
    data = make()
    assert (len(data), data.name, data.classes, data.shape) == (10, "white", CLASSES, (3, 4, 5))
    assert repr(data) == "ImageDataset(white: 10 images 3×4×5, 3 classes)"


def test_a_batch_is_its_samples_stacked() -> None:
    data = make(boxes=True)
    for indices in ([7, 0, 0], torch.tensor([7, 0, 0])):
        batch = data.batch(indices)
        for name in ("images", "labels", "boxes"):
            assert torch.equal(batch[name], torch.stack([data[i][name] for i in (7, 0, 0)]))
    assert torch.equal(data.batch(range(2, 5))["labels"], torch.tensor([2, 0, 1]))
    assert torch.equal(data[-1]["images"], data[9]["images"])
    assert data.batch([])["images"].shape == (0, 3, 4, 5)


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize("boxes", [False, True])
def test_a_plain_data_loader_makes_batches(workers: int, boxes: bool) -> None:
    data = make(boxes=boxes)

    batches = list(DataLoader(data, batch_size=4, num_workers=workers))

    assert [len(batch["labels"]) for batch in batches] == [4, 4, 2]
    everything = data.batch(range(10))
    for name, values in everything.items():
        assert torch.equal(torch.cat([batch[name] for batch in batches]), values)
    check_images(batches[0]["images"])


def test_changing_a_batch_leaves_the_data_alone() -> None:
    data = make(boxes=True)
    before = pickle.loads(pickle.dumps(data)).batch(range(10))
    for values in data.batch(range(10)).values():
        values.zero_()
    after = data.batch(range(10))
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_boxes_scale_with_the_images() -> None:
    # From 40 high and 20 wide to 4 high and 5 wide: y by a tenth, x by a quarter.
    pixels = torch.zeros(1, 3, 4, 5, dtype=torch.uint8)
    images = DecodedImages(pixels, torch.tensor([[40, 20]]))
    corners = torch.tensor([[4.0, 10.0, 16.0, 30.0]])
    data = ImageDataset("one", CLASSES, images, torch.tensor([0]), corners)
    assert data.batch([0])["boxes"].tolist() == [[1.0, 1.0, 4.0, 3.0]]


@pytest.mark.parametrize("index", [10, -11])
def test_no_such_sample(index: int) -> None:
    with pytest.raises(IndexError, match=f"index {index} of a data set of 10 images"):
        make()[index]


@pytest.mark.usefixtures("own_errors")
@pytest.mark.parametrize(
    ("indices", "message"),
    [
        ([0, 10], "indices: expected images from 0 to 9, got 10"),
        ([-1], "indices: expected images from 0 to 9, got -1"),
        ([0.5], "indices: expected whole numbers"),
        (torch.ones(10, dtype=torch.bool), "indices: expected whole numbers"),
        (torch.zeros(2, 2, dtype=torch.long), "indices: expected whole numbers"),
    ],
)
def test_bad_indices_are_refused(indices: object, message: str) -> None:
    with pytest.raises(InputError, match=message):
        make().batch(indices)  # type: ignore[arg-type]


@pytest.mark.usefixtures("own_errors")
def test_parts_that_do_not_fit_are_refused() -> None:
    images = DecodedImages(torch.zeros(2, 1, 3, 3, dtype=torch.uint8), torch.full((2, 2), 3))
    with pytest.raises(InputError, match="labels: expected classes from 0 to 2, got 3"):
        ImageDataset("x", CLASSES, images, torch.tensor([0, 3]))
    with pytest.raises(InputError, match=r"labels: expected shape \(2,\), got shape \(3,\)"):
        ImageDataset("x", CLASSES, images, torch.tensor([0, 1, 2]))
    with pytest.raises(InputError, match=r"boxes: expected shape \(2, 4\)"):
        ImageDataset("x", CLASSES, images, torch.tensor([0, 1]), torch.zeros(1, 4))


def planes(count: int = 10, size: tuple[int, int] = (4, 5)) -> DecodedPlanes:
    return DecodedPlanes(torch.rand(count, 4, 5), torch.tensor([size] * count))


def with_planes(**settings: Any) -> ImageDataset:
    pixels = torch.randint(256, (10, 3, 4, 5), dtype=torch.uint8)
    images = DecodedImages(pixels, torch.tensor([(4, 5)] * 10))
    labels = torch.arange(10) % 3
    return ImageDataset("white", CLASSES, images, labels, **settings)


def test_masks_and_saliency_come_with_their_images() -> None:
    masks, saliency = planes(), planes()
    data = with_planes(masks=masks, saliency=saliency)

    batch = data.batch([7, 0, 0])

    assert torch.equal(batch["masks"], masks.values[[7, 0, 0]])
    assert torch.equal(batch["saliency"], saliency.values[[7, 0, 0]])
    loaded = next(iter(DataLoader(data, batch_size=10)))
    assert torch.equal(loaded["masks"], masks.values)
    assert torch.equal(data[3]["saliency"], saliency.values[3])


@pytest.mark.parametrize("name", ["masks", "saliency"])
def test_masks_of_another_size_than_their_images_are_refused(name: str) -> None:
    sizes = torch.tensor([(4, 5)] * 10)
    sizes[6] = torch.tensor((5, 4))
    sizes[2] = 0  # there is none
    wrong = DecodedPlanes(torch.rand(10, 4, 5), sizes)
    message = rf"{name}: expected the size of the image, \(4, 5\), got \(5, 4\) pixels for image 6"
    with pytest.raises(InputError, match=message):
        with_planes(**{name: wrong})
    with pytest.raises(InputError, match=f"{name}: expected one for each of 10, got 9 of them"):
        with_planes(**{name: planes(9)})


def test_samples_are_augmented_and_batches_are_not() -> None:
    plain = with_planes(masks=planes(), boxes=torch.rand(10, 4))
    flipping = with_planes(masks=planes(), augmentation=Augmentation(flip=True))
    flipping._images = plain._images

    assert torch.equal(flipping.batch(range(10))["images"], plain.batch(range(10))["images"])
    drawn = [next(iter(DataLoader(flipping, batch_size=10)))["images"] for _ in range(2)]
    assert not torch.equal(*drawn)
    for images in drawn:
        same = (images == plain.batch(range(10))["images"]).flatten(1).all(1)
        mirrored = (images == plain.batch(range(10))["images"].flip(-1)).flatten(1).all(1)
        assert (same | mirrored).all()
        assert 0 < same.sum() < 10


def test_an_order_repeats_images_with_all_that_belongs_to_them() -> None:
    masks, boxes = planes(), torch.rand(10, 4)
    order = torch.tensor([3, 3, 9, 0])
    data = with_planes(masks=masks, boxes=boxes, order=order)

    assert len(data) == 4
    assert data.labels.tolist() == [0, 0, 0, 0]
    batch = data.batch(range(4))
    assert torch.equal(batch["masks"], masks.values[order])
    assert torch.equal(batch["boxes"], boxes[order])
    assert torch.equal(batch["images"][0], batch["images"][1])
    assert torch.equal(data[-1]["masks"], masks.values[0])
    with pytest.raises(InputError, match="indices: expected images from 0 to 3, got 4"):
        data.batch([4])


def test_labels_of_a_model_come_in_every_batch_and_all_else_stays() -> None:
    masks, order = planes(), torch.tensor([3, 3, 9, 1])
    data = with_planes(masks=masks, boxes=torch.rand(10, 4), order=order)
    matched = data.for_model(("milk", "tea", "Paper", "SNOW"))

    assert data.labels.tolist() == [0, 0, 0, 1]
    assert matched.labels.tolist() == [2, 2, 2, 3]
    assert matched.classes == ("milk", "tea", "Paper", "SNOW")
    assert data.classes == CLASSES
    before, after = data.batch(range(4)), matched.batch(range(4))
    assert after["labels"].tolist() == [2, 2, 2, 3]
    assert matched[3]["labels"] == 3
    for name in ("images", "masks", "boxes"):
        assert torch.equal(before[name], after[name])  # type: ignore[literal-required]
    # No image is milk, so a model may lack it.
    assert data.for_model(("snow", "paper")).labels.tolist() == [1, 1, 1, 0]


def test_boxes_follow_the_crop() -> None:
    framing = Framing((4, 5), resize=8)  # of 40×20, 16×8 are left, and of these the centre
    images = DecodedImages(
        torch.zeros(1, 3, 4, 5, dtype=torch.uint8), torch.tensor([[40, 20]]), framing
    )
    corners = torch.tensor([[5.0, 10.0, 20.0, 25.0]])
    data = ImageDataset("one", CLASSES, images, torch.tensor([0]), corners)
    # x: 2 to 8, less 2 (half of 3 is rounded to the even 2); y: 4 to 10, less 6.
    assert data.batch([0])["boxes"].tolist() == [[0.0, 0.0, 5.0, 4.0]]
