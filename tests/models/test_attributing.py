import pytest
import torch
import torchvision
from torch import nn

from holdfast.contracts import InputError
from holdfast.models import Attributing, mnist_cnn


@pytest.mark.parametrize(
    ("classifier", "shape", "stages"),
    [
        (lambda: mnist_cnn(size=28, hidden=16), (1, 28, 28), 1),  # features of 14×14 pixels
        (lambda: mnist_cnn(size=10, hidden=16), (1, 10, 10), 1),  # of 5×5
        (lambda: torchvision.models.resnet18(num_classes=4), (3, 40, 56), 5),  # of 2×2
    ],
)
def test_map_has_the_images_size_and_one_channel(classifier, shape, stages):
    classifier = classifier()
    model = Attributing(classifier, shape).eval()
    images = torch.rand(2, *shape)
    logits, maps = model.attribute(images)
    assert torch.equal(logits, classifier(images))
    assert torch.equal(logits, model(images))
    assert maps.shape == (2, 1, *shape[1:])
    assert ((maps > 0) & (maps < 1)).all()
    assert sum(isinstance(layer, nn.Upsample) for layer in model.decoder) == stages


def test_both_answers_come_from_one_pass_and_train_both_parts():
    model = Attributing(mnist_cnn(size=8, hidden=16), (1, 8, 8))
    passes = []
    model.classifier.conv1.register_forward_hook(lambda *_: passes.append(1))
    logits, maps = model.attribute(torch.rand(4, 1, 8, 8))
    assert len(passes) == 1
    (logits.logsumexp(1).sum() + maps.sum()).backward()
    assert all(parameter.grad is not None for parameter in model.parameters())
    classifier = [p.grad.clone() for p in model.classifier.parameters()]
    model.zero_grad()
    model.attribute(torch.rand(4, 1, 8, 8))[1].sum().backward()
    assert model.classifier.conv1.weight.grad.abs().sum() > 0
    assert model.classifier.logits.weight.grad is None
    assert classifier[-1] is not None


def test_a_decoder_learns_a_map():
    torch.manual_seed(0)
    model = Attributing(mnist_cnn(size=8, filters=(4, 8), hidden=16), (1, 8, 8))
    images = torch.rand(16, 1, 8, 8)
    target = nn.functional.avg_pool2d(images, 3, stride=1, padding=1)
    optimizer = torch.optim.Adam(model.parameters(), 0.01)
    errors = []
    for _ in range(60):
        optimizer.zero_grad()
        error = (model.attribute(images)[1] - target).square().mean()
        error.backward()
        optimizer.step()
        errors.append(error.item())
    assert errors[-1] < 0.3 * errors[0]


def test_is_left_as_it_was_and_can_be_saved(tmp_path, untouched):
    classifier = torchvision.models.resnet18(num_classes=4).train()
    with untouched(classifier):
        model = Attributing(classifier, (3, 32, 32), layer="layer3")
    assert model.layer == "layer3"
    torch.save(model.state_dict(), tmp_path / "weights")
    other = Attributing(torchvision.models.resnet18(num_classes=4), (3, 32, 32), layer="layer3")
    other.load_state_dict(torch.load(tmp_path / "weights"))
    images = torch.rand(1, 3, 32, 32)
    assert torch.equal(model.eval().attribute(images)[1], other.eval().attribute(images)[1])


def test_refuses(own_errors):
    with pytest.raises(InputError, match="shape: expected channels, height and width"):
        Attributing(mnist_cnn(size=8), (8, 8))
    with pytest.raises(InputError, match="layer: expected a layer that gives feature maps"):
        Attributing(mnist_cnn(size=8), (1, 8, 8), layer="dense")
    model = Attributing(torchvision.models.resnet18(), (3, 32, 32))
    with pytest.raises(InputError, match="images: expected images of 32×32 pixels"):
        model.attribute(torch.rand(1, 3, 64, 64))
