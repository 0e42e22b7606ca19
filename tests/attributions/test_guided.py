import warnings

import captum.attr
import pytest
import torch
import torchvision
from torch import nn
from torch.nn import functional as F

from holdfast.attributions import Gradient, GuidedBackprop
from holdfast.models import softplus

FORMS = {
    "functional": F.relu,
    "torch": torch.relu,
    "method": lambda x: x.relu(),
    "in place": lambda x: F.relu(x, inplace=True),
    "in place, torch": torch.relu_,
    "in place, result dropped": lambda x: (x.relu_(), x)[1],
    "module": nn.ReLU(),
    "module in place": nn.ReLU(inplace=True),
    "clamp": lambda x: x.clamp(min=0),
    "clamp in place": lambda x: x.clamp_min_(0),
    "maximum": lambda x: torch.maximum(x, torch.zeros(())),
    "hardtanh": lambda x: F.hardtanh(x, 0.0, 1e6),
    "threshold": nn.Threshold(0.0, 0.0),
    "operator": torch.ops.aten.relu.default,
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


sigmoid = torch.sigmoid
normal = torch.distributions.Normal(0.0, 1.0)
SELU = (1.6732632423543772, 1.0507009873554805)


def inside(z, low, high):
    return ((z > low) & (z < high)).double()


# Activation function: its derivative, written out.
OTHERS = {
    "relu6": (nn.ReLU6(), lambda z: inside(z, 0, 6)),
    "leaky_relu": (nn.LeakyReLU(0.3), lambda z: torch.where(z > 0, 1.0, 0.3)),
    "prelu": (nn.PReLU().double(), lambda z: torch.where(z > 0, 1.0, 0.25)),
    "rrelu": (nn.RReLU(0.2, 0.4), lambda z: torch.where(z > 0, 1.0, 0.3)),
    "elu": (nn.ELU(0.7), lambda z: torch.where(z > 0, 1.0, 0.7 * z.exp())),
    "celu": (nn.CELU(2.0), lambda z: torch.where(z > 0, 1.0, (z / 2).exp())),
    "selu": (nn.SELU(), lambda z: SELU[1] * torch.where(z > 0, 1.0, SELU[0] * z.exp())),
    "hardtanh": (nn.Hardtanh(-0.2, 0.2), lambda z: inside(z, -0.2, 0.2)),
    "threshold": (nn.Threshold(0.1, 0.5), lambda z: (z > 0.1).double()),
    "hardsigmoid": (nn.Hardsigmoid(), lambda z: inside(z, -3, 3) / 6),
    "hardswish": (nn.Hardswish(), lambda z: (2 * z + 3) / 6),
    "softshrink": (nn.Softshrink(0.1), lambda z: (z.abs() > 0.1).double()),
    "hardshrink": (nn.Hardshrink(0.1), lambda z: (z.abs() > 0.1).double()),
    "clamp": (lambda z: z.clamp(-0.2, 0.2), lambda z: inside(z, -0.2, 0.2)),
    "abs": (torch.abs, torch.sign),
    "minimum": (lambda z: torch.minimum(z, -z), lambda z: -torch.sign(z)),
    "sigmoid": (nn.Sigmoid(), lambda z: sigmoid(z) * (1 - sigmoid(z))),
    "sigmoid, method": (lambda z: z.sigmoid(), lambda z: sigmoid(z) * (1 - sigmoid(z))),
    "tanh": (torch.tanh, lambda z: 1 - torch.tanh(z) ** 2),
    "gelu": (nn.GELU(), lambda z: normal.cdf(z) + z * normal.log_prob(z).exp()),
    "silu": (nn.SiLU(), lambda z: sigmoid(z) * (1 + z * (1 - sigmoid(z)))),
    "silu in place": (nn.SiLU(inplace=True), lambda z: sigmoid(z) * (1 + z * (1 - sigmoid(z)))),
    "mish": (
        nn.Mish(),
        lambda z: (t := torch.tanh(F.softplus(z))) + z * (1 - t**2) * sigmoid(z),
    ),
    "softplus": (nn.Softplus(2.0), lambda z: sigmoid(2 * z)),
    "softsign": (nn.Softsign(), lambda z: 1 / (1 + z.abs()) ** 2),
    "logsigmoid": (nn.LogSigmoid(), lambda z: sigmoid(-z)),
    "tanhshrink": (nn.Tanhshrink(), lambda z: torch.tanh(z) ** 2),
}


@pytest.mark.parametrize("name", OTHERS)
def test_equals_the_rule_written_out_for_other_activations(name):
    activation, derivative = OTHERS[name]
    first, second, last = (nn.Linear(12, 16), nn.Linear(16, 16), nn.Linear(16, 3))

    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.layers = nn.ModuleList([first, second, last])
            self.activation = activation

        def forward(self, x):
            z = self.activation(first(x.flatten(1)))
            return last(self.activation(second(z)))

    model = Model().double().eval()
    images, targets = torch.rand(5, 1, 3, 4).double(), torch.tensor([0, 1, 2, 0, 1])
    maps = GuidedBackprop()(model, images, targets)
    with torch.no_grad():
        z1 = first(images.flatten(1))
        z2 = second(activation(z1.clone()))
        behind = last.weight[targets].clamp(min=0) * derivative(z2)
        behind = (behind @ second.weight).clamp(min=0) * derivative(z1)
        expected = (behind @ first.weight).view_as(images)
    assert torch.allclose(maps, expected, atol=1e-10)
    assert not torch.allclose(maps, Gradient()(model, images, targets))


@pytest.mark.parametrize("name", ["relu6", "leaky_relu", "abs", "silu", "clamp", "softplus"])
def test_guides_through_the_surrogate_around_it(name):
    """The surrogate's slope and its derivative, and the guiding as ever."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(12, 16), Called(OTHERS[name][0])).double()
    model.append(nn.Linear(16, 3).double())
    images, targets = torch.rand(5, 1, 3, 4).double(), torch.tensor([0, 1, 2, 0, 1])
    with softplus(6.0):
        z = model[1](images.flatten(1)).detach().requires_grad_(True)
        (slope,) = torch.autograd.grad(model[2](z).sum(), z)
        maps = GuidedBackprop()(model, images.requires_grad_(True), targets, create_graph=True)
    behind = model[3].weight[targets].clamp(min=0) * slope
    assert torch.allclose(maps, (behind @ model[1].weight).view_as(images), atol=1e-10)
    (second,) = torch.autograd.grad(maps.square().sum(), images)
    assert second.abs().max() > 0


class Called(nn.Module):
    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function(x)


# A part of a tensor, overwritten, whose tensor the model goes on with: the same out of place.
PARTS = {
    "F.relu_": (lambda z: F.relu_(z[:, :8]), F.relu),
    "module": (lambda z: nn.ReLU(inplace=True)(z[:, :8]), F.relu),
    "by keyword": (lambda z: F.relu6(input=z[:, :8], inplace=True), F.relu6),
    "method": (lambda z: z[:, :8].clamp_(min=0), F.relu),
    "silu": (lambda z: F.silu(z[:, :8], True), F.silu),
    "sigmoid_": (lambda z: z[:, :8].sigmoid_(), torch.sigmoid),
    "aten": (lambda z: torch.ops.aten.tanh_.default(z[:, :8]), torch.tanh),
}


@pytest.mark.parametrize("name", PARTS)
def test_guides_where_a_part_of_a_tensor_is_overwritten(name):
    overwrite, plain = PARTS[name]
    first, last = nn.Linear(12, 16), nn.Linear(16, 3)

    class Model(nn.Module):
        def __init__(self, form):
            super().__init__()
            self.first, self.last, self.form = first, last, form

        def forward(self, x):
            return self.last(self.form(self.first(x.flatten(1))))

    def inplace(z):
        overwrite(z)
        return z

    def apart(z):
        return torch.cat([plain(z[:, :8]), z[:, 8:]], 1)

    images, targets = torch.rand(5, 1, 3, 4), torch.tensor([0, 1, 2, 0, 1])
    maps = GuidedBackprop()(Model(inplace), images, targets)
    assert torch.allclose(maps, GuidedBackprop()(Model(apart), images, targets), atol=1e-6)
    assert not torch.allclose(maps, Gradient()(Model(inplace), images, targets))


def test_guards_pooling_and_what_surrounds_the_model_are_not_guided():
    class Model(nn.Module):
        def forward(self, x):
            x = x.clamp(0, 1) / x.std((1, 2, 3), keepdim=True).clamp(min=1e-6)
            return F.max_pool2d(x, 2).amax(1).flatten(1) * torch.tensor([-1.0, 1.0, 1.0, -1.0])

    images = torch.rand(3, 2, 4, 4)
    with pytest.warns(UserWarning, match="plain gradient"):
        maps = GuidedBackprop()(Model(), images)
    assert torch.equal(maps, Gradient()(Model(), images))


@pytest.mark.parametrize("kind", ["linear", "arithmetic"])
def test_says_so_where_there_is_nothing_to_guide(kind):
    model = nn.Sequential(nn.Flatten(), nn.Linear(4, 2))
    if kind == "arithmetic":
        model.insert(1, Called(lambda x: x * (x > 0.5)))
    images = torch.rand(2, 1, 2, 2)
    with pytest.warns(UserWarning, match="GuidedBackprop: .* plain gradient"):
        maps = GuidedBackprop()(model, images)
    assert torch.equal(maps, Gradient()(model, images))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        GuidedBackprop()(nn.Sequential(nn.Flatten(), nn.Linear(4, 2), nn.GELU()), images)


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
