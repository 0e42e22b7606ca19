import captum.attr
import pytest
import torch
import torchvision
from torch import nn
from torch.nn import functional as F

from holdfast.attributions import DeepLIFT, Gradient, deep_lift
from holdfast.contracts import InputError
from holdfast.models import Normalized, mnist_cnn


@pytest.fixture
def images():
    return torch.rand(3, 2, 7, 7).double()


@pytest.fixture
def targets():
    return torch.tensor([0, 1, 3])


def network(*, pool=True, activation=nn.ReLU):
    return nn.Sequential(
        nn.Conv2d(2, 4, 3),
        activation(),
        nn.Conv2d(4, 4, 2),
        nn.MaxPool2d(2) if pool else nn.AvgPool2d(2),
        nn.Flatten(),
        nn.Linear(16, 4),
    ).double()


def small_vgg():
    """torchvision's layers of a VGG, without its dense layers of half a gigabyte."""
    layers = torchvision.models.vgg.make_layers([8, "M", 16, 16, "M", 16, "M"])
    return nn.Sequential(layers, nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(64, 5))


@pytest.mark.parametrize("activation", [nn.ReLU, nn.Sigmoid, nn.Tanh, nn.ELU, nn.LeakyReLU])
@pytest.mark.parametrize("pool", [True, False])
@pytest.mark.filterwarnings("ignore:.*hooks")
def test_equals_captum_where_captum_is_right(pool, activation, images, targets):
    model = network(pool=pool, activation=activation)
    baseline = torch.rand(2, 7, 7).double()
    ours = DeepLIFT(baseline=baseline)(model, images, targets)
    theirs = captum.attr.DeepLift(model).attribute(
        images, baseline.expand_as(images).clone(), target=targets
    )
    assert torch.allclose(ours, theirs, atol=1e-10)


@pytest.mark.parametrize(
    ("model", "shape"),
    [
        (lambda: mnist_cnn(size=12, filters=(4, 8), hidden=16), (1, 12, 12)),
        (lambda: Normalized(mnist_cnn(size=8, hidden=16), 0.3, 0.2), (1, 8, 8)),
        # Touching ReLU and pooling, in place; overlapping windows and shared ReLU; concatenation.
        (lambda: small_vgg(), (3, 32, 32)),
        (lambda: torchvision.models.resnet18(num_classes=5), (3, 32, 32)),
        (lambda: torchvision.models.squeezenet1_1(num_classes=5), (3, 32, 32)),
    ],
    ids=["mnist_cnn", "normalized", "vgg11", "resnet18", "squeezenet"],
)
@pytest.mark.parametrize("baseline", [0.0, 0.7])
def test_completeness(model, shape, baseline):
    model = model().double().eval()
    images = torch.rand(2, *shape).double()
    targets = torch.tensor([3, 1])
    maps = DeepLIFT(baseline=baseline)(model, images, targets)
    change = (model(images) - model(torch.full_like(images, baseline)))[[0, 1], targets]
    assert change.abs().max() > 0
    assert torch.allclose(maps.flatten(1).sum(1), change, rtol=1e-6, atol=1e-12)


ACTIVATIONS = {
    "relu": F.relu,
    "relu in place": lambda x: F.relu(x, inplace=True),
    "relu_, result dropped": lambda x: (x.relu_(), x)[1],
    "keyword": lambda x: F.relu(input=x),
    "leaky_relu in place": lambda x: F.leaky_relu(x, 0.2, inplace=True),
    "hardtanh": lambda x: F.hardtanh(x, -0.5, 0.5),
    "sigmoid": torch.sigmoid,
    "tanh": lambda x: x.tanh(),
    "gelu": F.gelu,
    "silu": F.silu,
    "softplus": F.softplus,
}


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_functional_and_in_place_forms_are_complete(name, images, targets):
    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.last = nn.Conv2d(2, 4, 3), nn.Linear(16, 4)

        def forward(self, x):
            x = ACTIVATIONS[name](self.conv(x))
            return self.last(F.max_pool2d(x, 3, stride=2).flatten(1))

    model = Model().double()
    gathered = DeepLIFT()(model, images, targets).flatten(1).sum(1)
    change = (model(images) - model(0 * images))[[0, 1, 2], targets]
    assert torch.allclose(gathered, change, rtol=1e-9)


def test_one_unit_by_hand():
    # relu(w x + b) from x₀ = 0 to x = 1 with w = 3, b = -1: 2 - 0, though the gradient is 3.
    model = nn.Sequential(nn.Flatten(), nn.Linear(1, 2), nn.ReLU())
    model[1].weight.data, model[1].bias.data = (
        torch.tensor([[3.0], [-3.0]]),
        torch.tensor([-1.0] * 2),
    )
    image = torch.ones(1, 1, 1, 1)
    assert DeepLIFT()(model, image, torch.tensor([0])).item() == pytest.approx(2)
    assert DeepLIFT()(model, image, torch.tensor([1])).item() == 0


def test_a_pooling_window_by_hand():
    # max(x) from (1, 3) to (4, 2): the maximum rises by 1, all of it through the first pixel.
    model = nn.Sequential(nn.MaxPool2d((1, 2)), nn.Flatten())
    ends = torch.tensor([[4.0, 2.0], [1.0, 3.0]]).view(2, 1, 1, 2) / 10
    target = torch.tensor([0])
    assert deep_lift(model, ends[:1], ends[1:], target).flatten().tolist() == pytest.approx(
        [0.1, 0]
    )
    # Back again it falls by 1: through the pixel that was the maximum before.
    back = deep_lift(model, ends[1:], ends[:1], target).flatten().tolist()
    assert back == pytest.approx([-0.1, 0])


def test_where_nothing_differs_the_slope_is_the_gradient(images, targets):
    model = network()
    nearly = images + 1e-13
    way = images - nearly
    maps = deep_lift(model, images, nearly, targets)
    assert torch.allclose(maps, way * Gradient()(model, images, targets), atol=1e-18)
    assert deep_lift(model, images, images, targets).abs().sum() == 0


def test_refuses_a_baseline_that_does_not_fit(images, own_errors):
    with pytest.raises(InputError, match="baseline: expected one image of shape"):
        DeepLIFT(baseline=torch.zeros(1, 7, 7))(network(), images)
    with pytest.raises(InputError, match=r"DeepLIFT.baseline: expected a value in \[0, 1\]"):
        DeepLIFT(baseline=-1.0)
