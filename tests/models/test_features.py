import pytest
import torch
import torchvision
from torch import nn

from holdfast.contracts import InputError
from holdfast.models import from_features, last_convolution, mnist_cnn, with_features


class Squeezing(nn.Module):
    """Ends in squeeze-and-excitation, whose 1×1 convolutions run last."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.squeeze = torchvision.ops.SqueezeExcitation(4, 2)
        self.norm = nn.BatchNorm2d(4)
        self.last = nn.Linear(4, 2)

    def forward(self, x):
        return self.last(self.norm(self.squeeze(self.conv(x))).mean((2, 3)))


@pytest.mark.parametrize(
    ("model", "shape", "layer"),
    [
        (lambda: torchvision.models.resnet18(), (3, 64, 64), "layer4"),
        (lambda: torchvision.models.resnet18(), (3, 32, 32), "layer4"),
        (lambda: torchvision.models.squeezenet1_1(), (3, 64, 64), "classifier.2"),
        (lambda: torchvision.models.mobilenet_v3_small(), (3, 64, 64), "features"),
        (lambda: mnist_cnn(size=8), (1, 8, 8), "relu2"),
        (lambda: Squeezing(), (3, 8, 8), "norm"),
    ],
)
def test_finds_the_last_convolution(model, shape, layer, untouched):
    model = model()
    with untouched(model):
        found = last_convolution(model, torch.rand(2, *shape))
    if shape[1] == 32:
        # A single pixel is left, and pooling changes nothing.
        assert found in (layer, "avgpool")
    else:
        assert found == layer


def test_refuses_a_model_without_convolution(own_errors):
    with pytest.raises(InputError, match="model: expected a classifier with a convolution"):
        last_convolution(nn.Sequential(nn.Flatten(), nn.Linear(4, 2)), torch.rand(1, 1, 2, 2))


class Changing(nn.Module):
    """Changes the features of its last convolution in place, where no module sees it."""

    def __init__(self):
        super().__init__()
        self.conv, self.last = nn.Conv2d(1, 2, 3), nn.Linear(32, 3)

    def forward(self, x):
        return self.last(torch.relu_(self.conv(x)).flatten(1))


@pytest.mark.parametrize(
    ("make", "layer"),
    [
        (lambda: Changing(), "conv"),
        (lambda: mnist_cnn(size=6, filters=(2, 3), hidden=4), "relu2"),
    ],
)
def test_the_layer_found_is_the_layer_named(make, layer):
    model, images = make(), torch.rand(2, 1, 6, 6)
    named, found = with_features(model, images, layer), with_features(model, images)
    assert last_convolution(model, images) == layer
    assert torch.equal(named[0], found[0])
    assert torch.equal(named[1], found[1])
    gradients = [torch.autograd.grad(z.sum(), maps)[0] for z, maps in (named, found)]
    assert torch.equal(*gradients)


@pytest.mark.parametrize("recorded", [True, False])
def test_the_graph_begins_at_the_features(recorded):
    model, images = mnist_cnn(size=6, filters=(2, 3), hidden=4), torch.rand(2, 1, 6, 6)
    expected = with_features(model, images, "relu2")
    with torch.set_grad_enabled(recorded):
        logits, features = from_features(model, images, "relu2")
        assert torch.is_grad_enabled() == recorded
    assert torch.equal(logits, expected[0])
    assert torch.equal(features, expected[1])
    (gradient,) = torch.autograd.grad(logits.sum(), features, retain_graph=True)
    assert torch.equal(gradient, torch.autograd.grad(expected[0].sum(), expected[1])[0])
    before, after = model.get_parameter("conv1.weight"), model.get_parameter("dense.weight")
    of_before, of_after = torch.autograd.grad(logits.sum(), (before, after), allow_unused=True)
    assert of_before is None
    assert of_after is not None


@pytest.mark.parametrize("following", [nn.ReLU(), nn.ReLU(inplace=True)])
def test_features_are_as_the_layer_gave_them_and_lead_to_the_logits(following):
    conv = nn.Conv2d(1, 2, 3)
    model = nn.Sequential(conv, following, nn.Flatten(), nn.Linear(32, 3))
    images = torch.rand(2, 1, 6, 6)
    logits, features = with_features(model, images, "0")
    assert torch.equal(logits, model(images))
    assert torch.equal(features, conv(images))
    (gradient,) = torch.autograd.grad(logits[:, 1].sum(), features)
    expected = model[3].weight[1].view(2, 4, 4) * (features > 0)
    assert torch.allclose(gradient, expected)


def test_hooks_are_gone_even_after_an_error():
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.Flatten(), nn.Linear(5, 2))
    with pytest.raises(RuntimeError):
        with_features(model, torch.rand(1, 1, 6, 6), "0")
    with torch.no_grad():
        with pytest.raises(RuntimeError):
            from_features(model, torch.rand(1, 1, 6, 6), "0")
        assert not torch.is_grad_enabled()
    with pytest.raises(RuntimeError):
        last_convolution(model, torch.rand(1, 1, 6, 6))
    with pytest.raises(RuntimeError):
        with_features(model, torch.rand(1, 1, 6, 6))
    assert not any(module._forward_hooks for module in model.modules())
    assert model.training


def test_refuses_a_layer_that_does_not_run(own_errors):
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.Flatten())
    model.spare = nn.Conv2d(1, 2, 3)
    model.forward = lambda x: model[1](model[0](x))
    with pytest.raises(InputError, match="layer: expected a layer that runs"):
        with_features(model, torch.rand(1, 1, 6, 6), "spare")


def test_features_are_found_inside_inference_mode():
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(inplace=True), nn.Flatten(), nn.Linear(32, 2))
    images = torch.rand(2, 1, 6, 6)
    with torch.no_grad():
        logits, maps = with_features(model, images)
    with torch.inference_mode():
        found = with_features(model, images)
    assert torch.equal(found[0], logits)
    assert torch.equal(found[1], maps)
