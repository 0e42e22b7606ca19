import pytest
import torch
import torchvision

from holdfast.attributions import LearnedAttribution
from holdfast.contracts import InputError
from holdfast.models import Attributing, mnist_cnn


@pytest.fixture
def model():
    return Attributing(torchvision.models.resnet18(num_classes=4), (3, 32, 32))


def test_reads_the_models_own_map(model, untouched):
    images = torch.rand(3, 3, 32, 32)
    with untouched(model):
        maps = LearnedAttribution()(model, images)
        chunked = LearnedAttribution(chunk=2)(model, images, torch.tensor([0, 1, 3]))
    expected = model.eval().attribute(images)[1]
    assert maps.shape == images.shape
    assert not maps.requires_grad
    assert torch.allclose(maps.sum(1, keepdim=True), expected, atol=1e-6)
    assert torch.allclose(chunked, maps, atol=1e-6)


def test_can_be_differentiated():
    model = Attributing(mnist_cnn(size=8, filters=(2, 3), hidden=4), (1, 8, 8)).double()
    model.classifier.relu1 = model.classifier.relu2 = torch.nn.Softplus()
    model.decoder[2] = torch.nn.Softplus()

    def maps(x):
        return LearnedAttribution()(model, x, create_graph=True)

    x = torch.rand(1, 1, 8, 8).double().requires_grad_(True)
    assert torch.autograd.gradcheck(maps, (x,))


def test_refuses(model, own_errors):
    images = torch.rand(2, 3, 32, 32)
    with pytest.raises(InputError, match="model: expected a holdfast.models.Attributing"):
        LearnedAttribution()(model.classifier, images)
    with pytest.raises(InputError, match="targets: expected classes from 0 to 3"):
        LearnedAttribution()(model, images, torch.tensor([0, 4]))
