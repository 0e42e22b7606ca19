import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from holdfast.contracts import InputError
from holdfast.models import mnist_cnn


def test_parameters_are_those_of_the_papers_network() -> None:
    assert sum(p.numel() for p in mnist_cnn().parameters()) == 3_274_634


def test_forward_is_the_network_written_out() -> None:
    model = mnist_cnn(classes=7, in_channels=2, size=14)
    weights: dict[str, Tensor] = dict(model.named_parameters())

    def layer(x: Tensor, name: str) -> Tensor:
        x = F.conv2d(x, weights[f"{name}.weight"], weights[f"{name}.bias"], padding=2)
        return F.max_pool2d(F.relu(x), 2)

    images = torch.rand(3, 2, 14, 14)
    features = layer(layer(images, "conv1"), "conv2").reshape(3, -1)
    hidden = F.relu(F.linear(features, weights["dense.weight"], weights["dense.bias"]))
    expected = F.linear(hidden, weights["logits.weight"], weights["logits.bias"])
    torch.testing.assert_close(model(images), expected)


@pytest.mark.parametrize("size", [4, 8, 15, 16, 28, 32])
def test_any_size_fits(size: int) -> None:
    assert mnist_cnn(size=size)(torch.rand(1, 1, size, size)).shape == (1, 10)


def test_size_too_small() -> None:
    with pytest.raises(InputError, match="size: expected at least 4 pixels.*got 3"):
        mnist_cnn(size=3)


@pytest.mark.parametrize("shape", [(1, 1, 16, 16), (1, 3, 28, 28), (1, 1, 28, 29)])
def test_images_of_another_shape(shape: tuple[int, ...]) -> None:
    with pytest.raises(InputError, match=r"images: expected shape \(N, 1, 28, 28\)"):
        mnist_cnn()(torch.rand(shape))
