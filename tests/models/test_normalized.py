import numpy as np
import pytest
import torch
from torch import nn
from torchvision.transforms import v2

from holdfast.contracts import InputError
from holdfast.models import Normalized, Standardized, softplus

IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def test_normalized_agrees_with_torchvision() -> None:
    images = torch.rand(2, 3, 4, 5)
    expected = v2.functional.normalize(images, *map(list, IMAGENET))
    torch.testing.assert_close(Normalized(nn.Flatten(), *IMAGENET).normalize(images), expected)


def test_normalized_gives_the_module_what_normalize_gives() -> None:
    inside = nn.Sequential(nn.Flatten(), nn.Linear(12, 2))
    model = Normalized(inside, 0.1, [0.3])
    images = torch.rand(3, 1, 3, 4)
    torch.testing.assert_close(model(images), inside((images - 0.1) / 0.3))


def test_normalized_takes_bare_numbers_for_any_channels() -> None:
    model = Normalized(nn.Flatten(), 0.5, 0.5)
    for channels in (1, 3):
        assert model(torch.ones(1, channels, 1, 1)).tolist() == [[1.0] * channels]


def test_normalized_saves_its_buffers() -> None:
    state = Normalized(nn.Flatten(), *IMAGENET).state_dict()
    assert {name: tensor.dtype for name, tensor in state.items()} == {
        "mean": torch.float32,
        "std": torch.float32,
    }


def test_normalized_keeps_the_images_precision() -> None:
    images = torch.rand(1, 3, 2, 2, dtype=torch.float64)
    assert Normalized(nn.Flatten(), *IMAGENET).normalize(images).dtype == torch.float64


@pytest.mark.parametrize("std", [0.0, -1.0, [0.5, 0.0, 0.5], float("nan")])
def test_normalized_refuses_std_not_above_zero(std: float | list[float]) -> None:
    with pytest.raises(InputError, match="std: expected numbers above 0"):
        Normalized(nn.Flatten(), 0.5, std)


@pytest.mark.parametrize("std", [[1.0, 1.0], [1.0]])
def test_normalized_refuses_mean_and_std_of_different_channels(std: list[float]) -> None:
    message = f"std: expected 3, as many as mean has, got {len(std)} values"
    with pytest.raises(InputError, match=message):
        Normalized(nn.Flatten(), IMAGENET[0], std)


@pytest.mark.parametrize(("mean", "channels"), [(IMAGENET[0], 1), ((0.5,), 3)])
def test_normalized_refuses_images_of_other_channels(
    mean: tuple[float, ...], channels: int
) -> None:
    # Broadcasting would let both cases pass, with a wrong number of channels.
    with pytest.raises(InputError, match=rf"{len(mean)} channels.*got {channels} channels"):
        Normalized(nn.Flatten(), mean, 0.5)(torch.rand(1, channels, 2, 2))


def test_standardized_agrees_with_numpy() -> None:
    images = torch.rand(3, 3, 5, 4, dtype=torch.float64)
    rows = images.numpy().reshape(3, -1)
    expected = (rows - rows.mean(1, keepdims=True)) / rows.std(1, keepdims=True)
    np.testing.assert_allclose(Standardized(nn.Flatten())(images).numpy(), expected)


def test_standardized_divides_faint_images_by_the_floor() -> None:
    """As TensorFlow does with images from 0 to 255: at least 1 / sqrt(100) of a level."""
    image = torch.full((1, 1, 5, 20), 0.5, dtype=torch.float64)
    image[0, 0, 0, 0] += 0.003  # a deviation of 0.0003, below 0.1 / 255
    levels = 255 * image
    expected = (levels - levels.mean()) / max(levels.std(correction=0).item(), 100**-0.5)
    assert levels.std(correction=0) < 0.1
    torch.testing.assert_close(Standardized(nn.Flatten()).normalize(image), expected)


def test_standardized_makes_images_alike_that_differ_in_contrast_alone() -> None:
    image = torch.rand(1, 1, 5, 20, dtype=torch.float64)
    faint = 0.5 + 0.01 * image  # a deviation of less than a level of 255, above the floor
    seen = [Standardized(nn.Flatten()).normalize(x) for x in (image, faint)]
    torch.testing.assert_close(*seen)


def test_standardized_constant_image_is_zero_with_finite_second_derivatives() -> None:
    image = torch.full((1, 1, 4, 4), 0.5, requires_grad=True)
    model = Standardized(nn.Sequential(nn.Flatten(), nn.Linear(16, 1, bias=False), nn.ReLU()))
    with softplus(50.0):
        (gradient,) = torch.autograd.grad(model(image).sum(), image, create_graph=True)
    (second,) = torch.autograd.grad(gradient.square().sum(), image)
    assert model.normalize(image).eq(0).all()
    assert gradient.isfinite().all()
    assert second.isfinite().all()
