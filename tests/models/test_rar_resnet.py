import pytest
import torch
from torch.nn import functional as F

from holdfast.contracts import InputError
from holdfast.models import Architecture, rar_resnet, softplus


def same(x, weight, stride):
    """A convolution with TensorFlow's padding SAME: what is missing, the odd one behind."""
    kernel = weight.shape[-1]
    missing = [max((-(-size // stride) - 1) * stride + kernel - size, 0) for size in x.shape[2:]]
    (top, left), (bottom, right) = [m // 2 for m in missing], [m - m // 2 for m in missing]
    return F.conv2d(F.pad(x, (left, right, top, bottom)), weight, stride=stride)


def naive(w, x, active=lambda z: torch.where(z < 0, 0.1 * z, z)):
    """The layers of the public code one by one."""
    x = active(same(x, w["stem.weight"], 1))
    x = x + same(active(same(x, w["unit1.conv1.weight"], 1)), w["unit1.conv2.weight"], 1)
    for unit in ("unit2", "unit3"):
        inner = same(active(x), w[f"{unit}.conv1.weight"], 2)
        inner = same(active(inner), w[f"{unit}.conv2.weight"], 1)
        pooled = (x[..., ::2, ::2] + x[..., 1::2, ::2] + x[..., ::2, 1::2] + x[..., 1::2, 1::2]) / 4
        zeros = torch.zeros_like(pooled)[:, : pooled.shape[1] // 2]
        x = torch.cat([zeros, pooled, zeros], 1) + inner
    return active(x).mean((2, 3)) @ w["logits.weight"].T + w["logits.bias"]


def test_equals_the_layers_of_the_public_code():
    network = rar_resnet(classes=17).double()
    network.logits.bias.data.normal_()
    images = torch.randn(3, 3, 12, 20, dtype=torch.float64)
    expected = naive(network.state_dict(), images)
    assert torch.allclose(network(images), expected, atol=1e-12)
    assert not list(network.buffers())  # no batch-norm


def test_softplus_replaces_the_leaky_relu_as_the_public_code_does():
    network = rar_resnet(classes=5, in_channels=1).double()
    images = torch.randn(2, 1, 8, 12, dtype=torch.float64)
    expected = naive(network.state_dict(), images, lambda z: 0.1 * z + 0.9 * F.softplus(z))
    with softplus(beta=1.0):
        assert torch.allclose(network(images), expected, atol=1e-12)


def test_weights_are_drawn_as_in_the_public_code():
    network = rar_resnet(classes=43)
    for name, weight in network.named_parameters():
        if weight.ndim == 4:
            expected = (2 / (9 * len(weight))) ** 0.5
            assert weight.std().item() == pytest.approx(expected, rel=0.15), name
    assert network.logits.weight.abs().max() <= (3 / 64) ** 0.5
    assert network.logits.weight.std().item() == pytest.approx(1 / 8, rel=0.1)


def test_is_found_by_name():
    assert type(Architecture("rar_resnet", 17, 3).build()) is type(rar_resnet())


@pytest.mark.parametrize("shape", [(6, 8), (8, 7)])
def test_refuses_sizes_that_cannot_be_halved_twice(shape, own_errors):
    with pytest.raises(InputError, match="halved twice"):
        rar_resnet()(torch.rand(1, 3, *shape))
