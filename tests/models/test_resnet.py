from collections.abc import Callable

import pytest
import torch
import torchvision
from captum.attr import DeepLift, GuidedBackprop
from torch import nn
from torchvision.models.resnet import BasicBlock, Bottleneck, ResNet

from holdfast.models import cifar_resnet10, cifar_resnet18, cifar_resnet50, softplus, wide_resnet


def test_parameters_are_those_of_the_literature() -> None:
    assert sum(p.numel() for p in cifar_resnet18().parameters()) == 11_173_962


def test_ten_and_eighteen_layers() -> None:
    for make, depth in ((cifar_resnet10, 10), (cifar_resnet18, 18)):
        layers = [
            name
            for name, module in make().named_modules()
            if isinstance(module, nn.Conv2d | nn.Linear) and "downsample" not in name
        ]
        assert len(layers) == depth


@pytest.mark.parametrize(
    ("ours", "block", "blocks"),
    [(cifar_resnet18(), BasicBlock, [2, 2, 2, 2]), (cifar_resnet50(), Bottleneck, [3, 4, 6, 3])],
    ids=["18", "50"],
)
def test_tensors_are_named_and_used_as_torchvisions(
    ours: nn.Module, block: type[BasicBlock | Bottleneck], blocks: list[int]
) -> None:
    theirs = ResNet(block, blocks, num_classes=10)
    theirs.conv1 = nn.Conv2d(3, 64, 3, padding=1, bias=False)
    theirs.maxpool = nn.Identity()
    theirs.load_state_dict(ours.state_dict())
    images = torch.rand(2, 3, 32, 32)
    torch.testing.assert_close(ours.eval()(images), theirs.eval()(images))


def test_the_stem_keeps_small_images_large() -> None:
    model = cifar_resnet10()
    seen = []
    model.layer4.register_forward_hook(lambda *call: seen.append(call[-1].shape))
    model(torch.rand(1, 3, 32, 32))
    theirs = torchvision.models.resnet18(num_classes=10)
    theirs.layer4.register_forward_hook(lambda *call: seen.append(call[-1].shape))
    theirs.eval()(torch.rand(1, 3, 32, 32))
    assert seen == [(1, 512, 4, 4), (1, 512, 1, 1)]


def test_softplus_gives_a_second_derivative() -> None:
    model = cifar_resnet10().eval()
    images = torch.rand(1, 3, 8, 8, requires_grad=True)
    with softplus(5.0):
        (gradient,) = torch.autograd.grad(model(images)[:, 0].sum(), images, create_graph=True)
    (second,) = torch.autograd.grad(gradient.square().sum(), images)
    assert second.abs().max() > 0


RESIDUAL = pytest.mark.parametrize("make", [cifar_resnet10, lambda: wide_resnet(16, 1)])


@RESIDUAL
def test_deep_lift_is_complete(make: Callable[[], nn.Module]) -> None:
    # It is not where a ReLU is used twice, as in torchvision's blocks.
    model = make().double().eval()
    images = torch.rand(2, 3, 16, 16, dtype=torch.float64)
    maps = DeepLift(model).attribute(images, target=1)
    expected = (model(images) - model(torch.zeros_like(images)))[:, 1]
    torch.testing.assert_close(maps.sum((1, 2, 3)), expected)


@RESIDUAL
def test_no_relu_is_in_place(make: Callable[[], nn.Module]) -> None:
    assert not any(m.inplace for m in make().modules() if isinstance(m, nn.ReLU))
    maps = GuidedBackprop(make().eval()).attribute(torch.rand(1, 3, 16, 16), target=0)
    assert maps.isfinite().all()
