import pytest
import torch
from torch import nn
from torch.nn import functional as F

from holdfast.contracts import InputError
from holdfast.models import Architecture, Normalized, WithDiscriminator, at_anchor


def model(channels=3, width=4):
    net = nn.Sequential(nn.Conv2d(channels, 2, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    return WithDiscriminator(net.double(), channels, width)


def test_classifies_as_the_classifier_does():
    judged, images = model(), torch.rand(2, 3, 6, 10).double()
    assert torch.equal(judged(images), judged.classifier(images))


def test_adapts_standardized_gradients():
    judged, gradients = model(), torch.randn(2, 3, 6, 10).double()
    judged.adaptor.bias.data.uniform_(-1, 1)
    weight, bias = judged.adaptor.weight[:, :, 0, 0], judged.adaptor.bias
    for gradient, picture in zip(gradients, judged.adapt(gradients), strict=True):
        seen = gradient - gradient.mean()
        seen = seen / seen.square().sum().sqrt()
        for y, x in ((0, 0), (5, 9), (2, 7)):
            assert torch.allclose(picture[:, y, x], (weight @ seen[:, y, x] + bias).tanh())


def test_judges_both_as_one_batch_of_pictures_of_length_one():
    """Five convolutions with TensorFlow's SAME padding: 21 × 34 to 1 × 2 places."""
    judged = model().train()
    adapted, images = torch.randn(2, 2, 3, 21, 34).double().unbind()
    x = torch.cat([adapted, 5.0 * images + 0.3])
    x = x - x.mean((1, 2, 3), keepdim=True)
    x = x / x.flatten(1).norm(dim=1).view(-1, 1, 1, 1)
    for n in range(5):
        convolution, norm = judged.discriminator[3 * n], judged.discriminator[3 * n + 1]
        assert convolution.out_channels == 4 * 2**n
        missing = [(-(-size // 2) - 1) * 2 + 4 - size for size in x.shape[2:]]
        (top, left), (bottom, right) = [m // 2 for m in missing], [m - m // 2 for m in missing]
        x = F.pad(x, (left, right, top, bottom))
        x = F.conv2d(x, convolution.weight, convolution.bias, stride=2)
        mean, variance = x.mean((0, 2, 3), keepdim=True), x.var((0, 2, 3), False, keepdim=True)
        scale, shift = norm.weight.view(1, -1, 1, 1), norm.bias.view(1, -1, 1, 1)
        x = F.leaky_relu((x - mean) / (variance + 1e-3).sqrt() * scale + shift, 0.1)
    assert x.shape[2:] == (1, 2)
    head = judged.discriminator[-1]
    expected = x.mean((2, 3)) @ head.weight.T + head.bias
    logits = judged.discriminate(adapted, 5.0 * images + 0.3)
    assert torch.allclose(logits, expected, atol=1e-10)
    assert torch.equal(logits, judged.discriminate(adapted, 5.0 * images + 0.3, fixed=True))


def test_fixed_parameters_get_no_gradient():
    judged, images = model(), torch.rand(2, 3, 6, 10).double()
    judged.discriminate(judged.adapt(images), images, fixed=True).sum().backward()
    assert all(p.grad is None for p in judged.discriminator.parameters())
    assert judged.adaptor.weight.grad.abs().max() > 0


def test_pictures_without_contrast_are_judged_all_the_same():
    judged = model()
    flat = torch.zeros(2, 3, 6, 10).double().requires_grad_(True)
    judged.discriminate(judged.adapt(flat), flat.detach() + 0.5).sum().backward()
    assert flat.grad.isfinite().all()


def test_gradients_are_aligned_with_what_the_classifier_sees():
    net = Normalized(nn.Flatten(), 0.5, 0.25)
    images = torch.rand(2, 3, 2, 4)
    seen, inside = at_anchor(WithDiscriminator(net, 3, 4), images)
    assert torch.equal(seen, net.normalize(images))
    assert inside is net.module


def test_built_by_an_architecture(own_errors):
    built = Architecture("wide_resnet", 5, 3, options={"depth": 10, "width": 1}, discriminator=True)
    judged = built.build()
    assert isinstance(judged, WithDiscriminator)
    assert [part.out_channels for part in judged.discriminator if isinstance(part, nn.Conv2d)] == [
        32, 64, 128, 256, 512,
    ]  # fmt: skip
    with pytest.raises(InputError, match="Architecture.in_channels"):
        Architecture("mnist_cnn", discriminator=True).build()
    with pytest.raises(InputError, match="Architecture.discriminator"):
        Architecture("mnist_cnn", attributing=True, discriminator=True)


def test_refuses_other_channels(own_errors):
    with pytest.raises(InputError, match="expected 3 channels"):
        model().adapt(torch.rand(2, 1, 6, 10))
    for wrong in ({"channels": 0}, {"channels": 1, "width": 0}):
        with pytest.raises(InputError, match="at least 1"):
            WithDiscriminator(nn.Flatten(), **wrong)
