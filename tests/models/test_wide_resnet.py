import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from holdfast.contracts import InputError
from holdfast.models import small_resnet, softplus, wide_resnet, wrn_28_10, wrn_40_2


def test_parameters_are_those_of_the_paper() -> None:
    # Table 5 of Wide Residual Networks: 36.5M and 2.2M; to the digit, the authors' own networks.
    with torch.device("meta"):
        counts = [sum(p.numel() for p in make().parameters()) for make in (wrn_28_10, wrn_40_2)]
    assert counts == [36_479_194, 2_243_546]


@pytest.mark.parametrize("units", [1, 5])
def test_small_resnet_has_the_units_and_filters_of_the_papers(units: int) -> None:
    model = small_resnet(classes=17, units=units).eval()
    filters: list[int] = []
    for module in model.modules():
        if isinstance(module, nn.Conv2d) and module.kernel_size == (3, 3):
            filters.append(module.out_channels)
    assert filters == [16] + 2 * units * [16] + 2 * units * [32] + 2 * units * [64]

    def norm(n: int) -> int:
        return 2 * n

    def unit(before: int, after: int) -> int:
        projection = before * after if before != after else 0
        return norm(before) + norm(after) + 9 * (before * after + after * after) + projection

    groups = ((16, 16), (16, 32), (32, 64))
    inside = sum(unit(a, b) + (units - 1) * unit(b, b) for a, b in groups)
    expected = 9 * 3 * 16 + inside + norm(64) + 65 * 17
    assert sum(p.numel() for p in model.parameters()) == expected
    assert model(torch.rand(2, 3, 12, 12)).shape == (2, 17)


def test_small_resnet_without_units() -> None:
    with pytest.raises(InputError, match="units: expected a number of residual units of at least"):
        small_resnet(units=0)


def test_depth_counts_the_convolutions() -> None:
    convolutions = [m for m in wide_resnet(22, 2).modules() if isinstance(m, nn.Conv2d)]
    assert len(convolutions) == 22


@pytest.mark.parametrize("width", [1, 2])
def test_forward_is_the_network_written_out(width: int) -> None:
    model = wide_resnet(16, width, classes=4).eval()
    for norm in (m for m in model.modules() if isinstance(m, nn.BatchNorm2d)):
        nn.init.uniform_(norm.weight)
        nn.init.uniform_(norm.running_mean)  # type: ignore[arg-type]
    state = model.state_dict()

    def active(x: Tensor, name: str) -> Tensor:
        entries = ("running_mean", "running_var", "weight", "bias")
        return F.relu(F.batch_norm(x, *(state[f"{name}.{entry}"] for entry in entries)))

    images = torch.rand(2, 3, 16, 16)
    x = F.conv2d(images, state["stem.weight"], padding=1)
    for group in (1, 2, 3):
        for block in (0, 1):
            name, stride = f"group{group}.{block}", 2 if group > 1 and block == 0 else 1
            inner = active(x, f"{name}.norm1")
            projection = state.get(f"{name}.projection.weight")
            if projection is not None:
                x = F.conv2d(inner, projection, stride=stride)
            inner = F.conv2d(inner, state[f"{name}.conv1.weight"], stride=stride, padding=1)
            inner = active(inner, f"{name}.norm2")
            x = x + F.conv2d(inner, state[f"{name}.conv2.weight"], padding=1)
    pooled = active(x, "norm").mean((2, 3))
    expected = F.linear(pooled, state["logits.weight"], state["logits.bias"])
    torch.testing.assert_close(model(images), expected)


@pytest.mark.parametrize("size", [8, 32, 128])
def test_any_size_fits(size: int) -> None:
    model = wide_resnet(10, 1, classes=5, in_channels=1)
    assert model(torch.rand(2, 1, size, size)).shape == (2, 5)


def test_dropout_acts_in_train_mode_only() -> None:
    model = wide_resnet(10, 1, dropout=0.5)
    images = torch.rand(2, 3, 8, 8)
    assert not torch.equal(model(images), model(images))
    model.eval()
    assert torch.equal(model(images), model(images))


def test_softplus_gives_a_second_derivative() -> None:
    model = wide_resnet(10, 1).eval()
    images = torch.rand(1, 3, 8, 8, requires_grad=True)
    with softplus(5.0):
        (gradient,) = torch.autograd.grad(model(images)[:, 0].sum(), images, create_graph=True)
    (second,) = torch.autograd.grad(gradient.square().sum(), images)
    assert second.abs().max() > 0


@pytest.mark.parametrize("depth", [4, 9, 11, 27])
def test_no_such_depth(depth: int) -> None:
    with pytest.raises(InputError, match=f"depth: expected 6n \\+ 4.*got {depth}"):
        wide_resnet(depth, 1)


def test_no_such_width() -> None:
    with pytest.raises(InputError, match="width"):
        wide_resnet(10, 0)


@pytest.mark.parametrize("dropout", [-0.1, 1.0])
def test_dropout_out_of_range(dropout: float) -> None:
    with pytest.raises(InputError, match="dropout"):
        wide_resnet(10, 1, dropout=dropout)
