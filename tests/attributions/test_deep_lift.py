import warnings

import captum.attr
import pytest
import torch
import torchvision
from torch import nn
from torch.nn import functional as F
from torchvision.models.swin_transformer import SwinTransformer
from torchvision.models.vision_transformer import VisionTransformer

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


def in_place(call):
    """What an in-place function leaves, whatever it returns."""
    return lambda x: (call(x), x)[1]


ACTIVATIONS = {
    "relu": F.relu,
    "relu in place": lambda x: F.relu(x, inplace=True),
    "relu_, result dropped": in_place(lambda x: x.relu_()),
    "keyword": lambda x: F.relu(input=x),
    "leaky_relu in place": lambda x: F.leaky_relu(x, 0.2, inplace=True),
    "leaky_relu in place, by position": nn.LeakyReLU(0.2, inplace=True),
    "relu6": lambda x: F.relu6(6 * x),
    "relu6 module, in place": lambda x: nn.ReLU6(inplace=True)(6 * x),
    "hardtanh": lambda x: F.hardtanh(x, -0.5, 0.5),
    "hardtanh_": in_place(lambda x: F.hardtanh_(x, -0.5, 0.5)),
    "clamp": lambda x: x.clamp(-0.2, 0.3),
    "clamp_min": lambda x: torch.clamp_min(x, 0.1),
    "clip, maximum only": lambda x: torch.clip(x, max=0.1),
    "clamp_": in_place(lambda x: x.clamp_(min=0.1)),
    "clamp between tensors": lambda x: x.clamp(x.mean((2, 3), keepdim=True), x.flip(1)),
    "prelu": lambda x: F.prelu(x, torch.tensor([0.3]).double()),
    "prelu, one each": lambda x: torch.prelu(x, torch.linspace(0, 1, 4).double()),
    "rrelu": lambda x: F.rrelu(x, training=False),
    "threshold": nn.Threshold(0.1, -0.3),
    "threshold in place": nn.Threshold(0.1, -0.3, inplace=True),
    "softshrink": lambda x: F.softshrink(x, 0.2),
    "hardshrink": lambda x: x.hardshrink(0.2),
    "tanhshrink": F.tanhshrink,
    "elu": F.elu,
    "elu in place, by position": nn.ELU(inplace=True),
    "celu": lambda x: torch.celu(x, 0.7),
    "celu_": in_place(lambda x: torch.celu_(x, 0.7)),
    "selu": torch.selu,
    "selu_": in_place(lambda x: F.selu(x, inplace=True)),
    "abs": abs,
    "abs_": in_place(lambda x: x.abs_()),
    "sigmoid": torch.sigmoid,
    "logsigmoid": F.logsigmoid,
    "hardsigmoid": F.hardsigmoid,
    "hardswish": nn.Hardswish(inplace=True),
    "tanh": lambda x: x.tanh(),
    "gelu": F.gelu,
    "silu": F.silu,
    "mish": F.mish,
    "softplus": F.softplus,
    "softsign": F.softsign,
    "exp, log, sine": lambda x: torch.log(1 + x.exp()) + x.sin(),
    "powers": lambda x: x**2 + 2**x + x.square() + (x.abs() + 1) ** -0.5,
    "swish by hand": lambda x: x * torch.sigmoid(x),
    "swish in place": in_place(lambda x: x.mul_(x.sigmoid())),
    "hard swish by hand": lambda x: x * F.relu6(x + 3) / 6,
    "quotient": lambda x: x / (1 + x.abs()) + 1 / (2 + x.sin()),
    "quotient in place": in_place(lambda x: x.div_(1 + x.flip(1).abs())),
    "glu": lambda x: F.glu(torch.cat([x, x.flip(1)], 1), 1),
    "maximum": lambda x: torch.maximum(x, x.flip(1)),
    "minimum with a constant": lambda x: x.minimum(torch.tensor(0.1).double()),
    "max of two": lambda x: torch.max(x, x.flip(1)),
    "amax": lambda x: x - x.amax(1, keepdim=True),
    "amin": lambda x: x - torch.amin(x, (1, 2), keepdim=True),
    "max along": lambda x: x - x.max(1, keepdim=True).values,
    "min along": lambda x: x + torch.min(x, dim=1, keepdim=True)[0],
    "pooling with indices": lambda x: x + F.max_pool2d(x, 3, 1, 1, return_indices=True)[0],
    "gate": lambda x: x * torch.sigmoid(x.mean((2, 3), keepdim=True)),
    "softmax": lambda x: 5 * F.softmax(3 * x, dim=1),
    "log_softmax": lambda x: x.log_softmax(1),
    "softmin": lambda x: F.softmin(x, 1),
    "logsumexp": lambda x: x - x.logsumexp(1, keepdim=True),
    "layer_norm": lambda x: F.layer_norm(x, x.shape[1:]),
    "group_norm": nn.GroupNorm(2, 4).double(),
    "instance_norm": lambda x: F.instance_norm(x),
    "rms_norm": lambda x: F.rms_norm(x, x.shape[2:]),
    "local_response_norm": lambda x: F.local_response_norm(x, 3, alpha=2.0),
    "normalize": lambda x: F.normalize(x),
    "response norm": lambda x: x * torch.linalg.vector_norm(x, dim=(2, 3), keepdim=True),
    "norm of a tensor": lambda x: x + x.norm(dim=1, keepdim=True),
    "variance": lambda x: (x - x.mean(1, keepdim=True)) / (x.var(1, keepdim=True) + 0.1).sqrt(),
    "matmul": lambda x: x @ x.transpose(-1, -2),
    "einsum": lambda x: torch.einsum("nchw,ndhw->ndcw", x, x.sin()).repeat(1, 1, 2, 1)[:, :, :5],
    "attention": lambda x: F.scaled_dot_product_attention(x, x.sin(), x.flip(1)),
    "causal attention": lambda x: F.scaled_dot_product_attention(x, x.sin(), x, is_causal=True),
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
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        gathered = DeepLIFT(baseline=0.2)(model, images, targets).flatten(1).sum(1)
    change = (model(images) - model(torch.full_like(images, 0.2)))[[0, 1, 2], targets]
    assert change.abs().min() > 1e-6
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
    model = nn.Sequential(nn.MaxPool2d((1, 2)), nn.Flatten(), nn.Linear(1, 2, bias=False))
    nn.init.ones_(model[2].weight)
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


def test_a_product_by_hand():
    # a b from (1, 2) to (3, 5): Δa b̄ = 2 · 3.5 and ā Δb = 2 · 3, together 15 - 2.
    model = nn.Sequential(nn.Flatten(), Product())
    image, baseline = torch.tensor([[0.3, 0.5], [0.1, 0.2]]).view(2, 1, 1, 1, 2)
    maps = deep_lift(model, image, baseline, torch.tensor([0])).flatten()
    assert maps.tolist() == pytest.approx([0.07, 0.06])


class Product(nn.Module):
    def forward(self, x):
        product = x[:, :1] * x[:, 1:]
        return torch.cat([product, -product], 1)


def test_softmax_by_hand():
    # p changes by L (Δz - Σ L Δz / Σ L), with L the logarithmic mean of p and p₀.
    image = torch.rand(1, 1, 1, 4).double()
    p, q = (4 * image.flatten()).softmax(0), torch.full((4,), 0.25).double()
    middle = (p - q) / (p.log() - q.log())
    change = 4 * image.flatten()
    share = torch.zeros(4).double()
    share[1] = middle[1]
    expected = change * (share - middle[1] * middle / middle.sum())
    scaled = nn.Sequential(nn.Conv2d(1, 1, 1, bias=False), nn.Flatten(), nn.Softmax(1))
    nn.init.constant_(scaled.double()[0].weight, 4.0)
    maps = deep_lift(scaled, image, torch.zeros_like(image), torch.tensor([1]))
    assert torch.allclose(maps.flatten(), expected, atol=1e-12)
    assert maps.sum().item() == pytest.approx((p - q)[1].item())


class Encoder(nn.Module):
    """PyTorch's own attention, in a layer that looks at masks."""

    def __init__(self, **settings):
        super().__init__()
        self.embed = nn.Conv2d(2, 8, 3, 2)
        self.layer = nn.TransformerEncoderLayer(8, 2, 16, activation="gelu", **settings)
        self.last, self.batch_first = nn.Linear(8, 4), settings.get("batch_first", False)

    def forward(self, x):
        tokens = self.embed(x).flatten(2)
        tokens = tokens.permute(*((0, 2, 1) if self.batch_first else (2, 0, 1)))
        mask = torch.ones(9, 9, dtype=torch.bool).triu(1)
        tokens = self.layer(tokens, src_mask=mask)
        return self.last(tokens.mean(1 if self.batch_first else 0))


TRANSFORMERS = {
    "vit": (lambda: VisionTransformer(16, 8, 2, 2, 16, 32, num_classes=4), 16),
    "swin": (lambda: SwinTransformer([2, 2], 8, [2, 2], [2, 2], [2, 2], num_classes=4), 16),
    "encoder": (lambda: Encoder(batch_first=True), 7),
    "encoder, norm first": (lambda: Encoder(batch_first=True, norm_first=True), 7),
}


@pytest.mark.parametrize("name", TRANSFORMERS)
def test_transformers_are_complete(name):
    make, size = TRANSFORMERS[name]
    model = make().double().eval()
    for weights in model.parameters():
        if not weights.any():
            nn.init.normal_(weights)
    channels = 2 if name.startswith("encoder") else 3
    images, targets = torch.rand(2, channels, size, size).double(), torch.tensor([3, 1])
    gathered = DeepLIFT(baseline=0.4)(model, images, targets).flatten(1).sum(1)
    change = (model(images) - model(torch.full_like(images, 0.4)))[[0, 1], targets]
    assert change.abs().min() > 1e-6
    assert torch.allclose(gathered, change, rtol=1e-6)


@pytest.mark.parametrize("name", ["mobilenet_v3_small", "efficientnet_b0"])
def test_gates_and_norms_are_complete(name):
    model = getattr(torchvision.models, name)(num_classes=4).double().eval()
    images, targets = torch.rand(2, 3, 32, 32).double(), torch.tensor([3, 1])
    gathered = DeepLIFT(baseline=0.4)(model, images, targets).flatten(1).sum(1)
    change = (model(images) - model(torch.full_like(images, 0.4)))[[0, 1], targets]
    assert torch.allclose(gathered, change, rtol=1e-6)


class Masking(nn.Module):
    """A ReLU that no rule reaches."""

    def __init__(self):
        super().__init__()
        self.dense, self.last = nn.Linear(98, 30), nn.Linear(30, 4)

    def forward(self, x):
        z = self.dense(x.flatten(1))
        return self.last(z * (z > 0))


def test_warns_once_where_the_sum_misses(images, targets):
    model = Masking().double()
    maps = None
    with pytest.warns(UserWarning, match="maps do not sum to f") as caught:
        maps = DeepLIFT(chunk=1)(model, images, targets)
    assert len(caught) == 1
    change = (model(images) - model(0 * images))[[0, 1, 2], targets]
    miss = ((maps.flatten(1).sum(1) - change) / change).abs()
    assert miss.max() > 0.01
    counted = int((miss > 0.01).sum())
    assert f"DeepLIFT: {counted} of 3 maps" in str(caught[0].message)
    assert f"{miss.max():.1%} at most" in str(caught[0].message)


@pytest.mark.parametrize("activation", [nn.ReLU, nn.Softplus])
def test_single_precision_does_not_warn(activation, images, targets, recwarn):
    model = network(activation=activation).float()
    for shift in (1e-3, 1e-6, 0.0):
        near = (images.float() + shift).clamp(0, 1)
        DeepLIFT(baseline=near)(model, images.float(), targets)
    assert not [w for w in recwarn if "DeepLIFT" in str(w.message)]


@pytest.mark.parametrize("name", ["product", "attention", "norm"])
def test_rules_can_be_differentiated(name):
    layers = {
        "product": lambda x: x * torch.sigmoid(x),
        "attention": lambda x: F.scaled_dot_product_attention(x, x.sin(), x),
        "norm": lambda x: F.layer_norm(x, x.shape[2:]),
    }

    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.last = nn.Linear(8, 3)

        def forward(self, x):
            return self.last(layers[name](x[:, 0]).flatten(1))

    model = Model().double()
    x = torch.rand(1, 1, 2, 4).double().requires_grad_(True)
    baseline, target = torch.rand(1, 1, 2, 4).double(), torch.tensor([1])

    def maps(x):
        return deep_lift(model, x, baseline, target, create_graph=True)

    assert torch.autograd.gradcheck(maps, (x,))
    # The sum is f(x) - f(x₀), so its gradient is that of f, by the common rules.
    (slope,) = torch.autograd.grad(maps(x).sum(), x)
    assert torch.allclose(slope, torch.autograd.grad(model(x)[0, 1], x)[0])
