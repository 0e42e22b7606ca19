import math

import numpy as np
import pytest
import torch
from scipy import ndimage
from torch import nn
from torch.nn import functional as F

from holdfast.adversarial import Spatial, accuracy
from holdfast.contracts import InputError


def moved(image, degrees, down, across):
    """Turn and shift one image with scipy: bilinear, black beyond the edge."""
    angle = math.radians(degrees)
    turn = np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    height, width = image.shape[1:]
    centre = np.array([(height - 1) / 2, (width - 1) / 2])
    offset = centre - turn @ (centre + np.array([down * height, across * width]))
    planes = [
        ndimage.affine_transform(plane, turn, offset, order=1, mode="grid-constant")
        for plane in image.numpy()
    ]
    return torch.from_numpy(np.stack(planes))


def naive(model, image, label, angles, shifts):
    """The worst of one image's grid: wrong before right, then the highest loss."""
    best, best_key = None, None
    for degrees in angles:
        for down in shifts:
            for across in shifts:
                candidate = moved(image, degrees, down, across)
                logits = model(candidate[None]).detach()
                wrong = bool(logits.argmax() != label)
                key = (wrong, float(F.cross_entropy(logits, label[None])))
                if best_key is None or key > best_key:
                    best, best_key = candidate, key
    return best


@pytest.mark.parametrize("shape", [(2, 5, 5), (1, 6, 9)])
def test_equals_the_naive_loop_with_scipy(shape):
    images = torch.rand(5, *shape, dtype=torch.float64)
    model = nn.Sequential(
        nn.Flatten(), nn.Linear(math.prod(shape), 8), nn.Tanh(), nn.Linear(8, 3)
    ).double()
    labels = torch.tensor([0, 1, 2, 0, 1])
    attack = Spatial(angle=40.0, shift=0.2, angles=5, shifts=3)
    expected = [
        naive(model, image, label, (-40, -20, 0, 20, 40), (-0.2, 0, 0.2))
        for image, label in zip(images, labels, strict=True)
    ]
    for chunk in (None, 2):
        attacked = Spatial(40.0, 0.2, 5, 3, chunk)(model, images, labels)
        assert torch.allclose(attacked, torch.stack(expected), atol=1e-6)
    assert not torch.equal(attack(model, images, labels), images)


def test_prefers_a_wrong_answer_to_a_higher_loss():
    """Where the answer is right by a hair among many, the loss is higher than where it is wrong."""

    class Odd(nn.Module):
        def forward(self, x):
            seen = x.flatten(1).sum(1, keepdim=True)  # 1 as it is, less where the edge cuts
            unsure = torch.tensor([[0.1, 0.0, 0.0, 0.0, 0.0]])  # right, loss about 1.5
            wrong = torch.tensor([[4.0, 4.1, 0.0, 0.0, 0.0]])  # wrong, loss about 0.8
            return torch.where(seen > 0.99, unsure, wrong)

    images = torch.zeros(1, 1, 3, 3)
    images[0, 0, 1, 0] = 1
    attacked = Spatial(angle=0.0, shift=1 / 3, angles=1, shifts=3)(Odd(), images, torch.tensor([0]))
    assert attacked.sum() < 0.99


def test_the_image_itself_is_exact_where_it_is_worst():
    class Sum(nn.Module):
        def forward(self, x):  # anything black that comes in makes the label surer
            return torch.stack([-x.flatten(1).sum(1), torch.zeros(len(x))], 1)

    images = torch.rand(4, 1, 7, 7)
    attacked = Spatial(angles=5, shifts=3)(Sum(), images, torch.zeros(4, dtype=torch.long))
    assert torch.equal(attacked, images)


def test_the_grid_of_one_is_the_image(smooth_model):
    images, labels = torch.rand(2, 2, 5, 5).double(), torch.tensor([0, 1])
    assert torch.equal(Spatial(angles=1, shifts=1)(smooth_model, images, labels), images)
    assert torch.equal(Spatial(angle=0.0, shift=0.0)(smooth_model, images, labels), images)


def test_turns_digits_over(digits):
    model, images, labels = digits
    assert accuracy(model, images, labels, Spatial(angles=7, shifts=3)) < 0.3


@pytest.mark.parametrize(
    ("settings", "field"),
    [
        ({"angle": -1.0}, "angle"),
        ({"angle": 181.0}, "angle"),
        ({"shift": -0.1}, "shift"),
        ({"shift": 1.1}, "shift"),
        ({"angles": 4}, "angles"),
        ({"angles": -1}, "angles"),
        ({"shifts": 0}, "shifts"),
    ],
)
def test_refuses_settings(settings, field, own_errors):
    with pytest.raises(InputError, match=rf"Spatial\.{field}:"):
        Spatial(**settings)
