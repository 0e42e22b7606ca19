import hashlib
import json

import torch

from holdfast.data import ImageDataset
from holdfast.data.digests import digests_of
from holdfast.data.images import DecodedImages


def dataset(pixels, labels, classes=("paper", "snow"), boxes=None):
    sizes = torch.tensor([pixels.shape[2:]] * len(pixels))
    return ImageDataset("white", classes, DecodedImages(pixels, sizes), labels, boxes)


def test_are_those_of_what_a_model_is_shown():
    pixels = torch.randint(256, (600, 1, 2, 2), dtype=torch.uint8)
    labels = torch.arange(600) % 2
    wanted = {
        "images": hashlib.sha256((pixels.float() / 255).numpy().tobytes()),
        "labels": hashlib.sha256(labels.numpy().tobytes() + json.dumps(["paper", "snow"]).encode()),
    }
    found = digests_of(dataset(pixels, labels))
    assert found == {name: digest.hexdigest() for name, digest in wanted.items()}


def test_tell_another_image_order_label_class_or_box_apart():
    pixels = torch.arange(12, dtype=torch.uint8).view(3, 1, 2, 2)
    labels, boxes = torch.tensor([0, 1, 0]), torch.tensor([[0.0, 0.0, 1.0, 1.0]] * 3)
    others = [
        dataset(pixels + 1, labels, boxes=boxes),
        dataset(pixels.flip(0), labels, boxes=boxes),
        dataset(pixels, 1 - labels, boxes=boxes),
        dataset(pixels, labels, ("snow", "paper"), boxes=boxes),
        dataset(pixels, labels, boxes=boxes * 2),
        dataset(pixels, labels),
    ]
    for few in (None, 2):
        same = [digests_of(dataset(pixels, labels, boxes=boxes), few) for _ in range(2)]
        assert same[0] == same[1]
        assert all(digests_of(other, few) != same[0] for other in others)


def test_a_look_at_few_images_still_sees_every_label_and_how_many_there_are():
    pixels = torch.zeros(100, 1, 2, 2, dtype=torch.uint8)
    labels = torch.zeros(100, dtype=torch.long)
    begun = digests_of(dataset(pixels, labels), 3)
    changed = labels.clone()
    changed[7] = 1
    assert digests_of(dataset(pixels, changed), 3) != begun
    assert digests_of(dataset(pixels[:-1], labels[:-1]), 3) != begun
