import captum.attr
import pytest
import torch
import torchvision
from torch import nn
from torch.nn import functional as F

from holdfast.attributions import Gradient, GuidedBackprop

FORMS = {
    "functional": F.relu,
    "torch": torch.relu,
    "method": lambda x: x.relu(),
    "in place": lambda x: F.relu(x, inplace=True),
    "in place, torch": torch.relu_,
    "in place, result dropped": lambda x: (x.relu_(), x)[1],
    "module": nn.ReLU(),
    "module in place": nn.ReLU(inplace=True),
}


class TwoLayers(nn.Module):
    """The same network, with ReLU in a form of choice; a module is shared by both places."""

    def __init__(self, relu):
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(2, 6, 3), nn.Conv2d(6, 6, 2)
        self.last = nn.Linear(24, 4)
        self.relu = relu

    def forward(self, x):
        return self.last(self.relu(self.conv2(self.relu(self.conv1(x)))).flatten(1))


def plain(model):
    """Write the network as Captum needs it: a ReLU module a place."""
    return nn.Sequential(
        *(model.conv1, nn.ReLU(), model.conv2, nn.ReLU(), nn.Flatten(), model.last)
    )


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("output", ["logit", "log_probability"])
def test_equals_captum_in_every_form_of_relu(form, output):
    model = TwoLayers(FORMS[form]).double()
    images, targets = torch.rand(4, 2, 5, 5).double(), torch.tensor([0, 1, 2, 3])
    maps = GuidedBackprop(output=output)(model, images, targets)
    scale = nn.LogSoftmax(1) if output == "log_probability" else nn.Identity()
    captums = captum.attr.GuidedBackprop(nn.Sequential(plain(model), scale))
    theirs = captums.attribute(images.requires_grad_(True), target=targets)
    assert torch.allclose(maps, theirs, atol=1e-12)
    assert not torch.allclose(maps, Gradient(output=output)(model, images, targets))


def test_without_relu_it_is_the_gradient(smooth_model):
    images = torch.rand(2, 2, 5, 5).double()
    assert torch.equal(GuidedBackprop()(smooth_model, images), Gradient()(smooth_model, images))


def test_unmodified_resnet_equals_captum_on_a_rewritten_one():
    torch.manual_seed(1)
    model = torchvision.models.resnet18(num_classes=5).double().eval()
    images = torch.rand(1, 3, 32, 32).double()
    maps = GuidedBackprop()(model, images, torch.tensor([2]))
    for block in (b for stage in (1, 2, 3, 4) for b in getattr(model, f"layer{stage}")):
        block.forward = own_relus(block)
    model.relu = nn.ReLU()
    theirs = captum.attr.GuidedBackprop(model).attribute(images, target=2)
    assert torch.allclose(maps, theirs, atol=1e-6 * theirs.abs().max().item())


def own_relus(block):
    block.relu, block.relu_out = nn.ReLU(), nn.ReLU()

    def forward(x):
        shortcut = x if block.downsample is None else block.downsample(x)
        inner = block.relu(block.bn1(block.conv1(x)))
        return block.relu_out(shortcut + block.bn2(block.conv2(inner)))

    return forward
