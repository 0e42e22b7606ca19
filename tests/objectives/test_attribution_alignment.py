import pytest
import torch
from torch import nn

from holdfast.attributions import IntegratedGradients
from holdfast.contracts import InputError
from holdfast.models import Attributing
from holdfast.objectives import AttributionAlignment


@pytest.fixture
def model(smooth_model):
    return Attributing(smooth_model, (2, 5, 5), layer="0").eval()


@pytest.fixture
def teacher():
    return nn.Sequential(nn.Flatten(), nn.Linear(50, 8), nn.Tanh(), nn.Linear(8, 4)).double()


def test_equals_the_naive_computation(model, teacher, images, labels, same_gradients):
    ours = AttributionAlignment(teacher, weight=2.0)(model, {"images": images, "labels": labels})
    logits, maps = model.attribute(images)
    total = 0.0
    for n, y in enumerate(labels):
        x = images[n].clone().requires_grad_(True)
        (gradient,) = torch.autograd.grad(teacher(x[None])[0, y], x)
        sizes = [(abs(a) + abs(b)) / 2 for a, b in gradient.flatten(1).T.tolist()]
        wanted = [(s - min(sizes)) / (max(sizes) - min(sizes)) for s in sizes]
        for m, w in zip(maps[n].flatten(), wanted, strict=True):
            total = total + (m - w) ** 2 / 75
    cross_entropy = -logits.log_softmax(1)[torch.arange(3), labels].mean()
    assert ours["distance"].item() == pytest.approx(total.item(), rel=1e-10)
    assert ours["cross_entropy"].item() == pytest.approx(cross_entropy.item(), rel=1e-10)
    same_gradients(model, ours["loss"], cross_entropy + 2 * total)


def test_teaches_the_decoder_the_teachers_map(model, teacher, images, labels):
    objective = AttributionAlignment(teacher, attribution=IntegratedGradients(steps=4))
    optimizer = torch.optim.Adam(model.decoder.parameters(), lr=0.03)
    distances = []
    for _ in range(60):
        terms = objective(model, {"images": images, "labels": labels})
        distances.append(terms["distance"].item())
        optimizer.zero_grad()
        terms["distance"].backward()
        optimizer.step()
    assert distances[-1] < distances[0] / 2


def test_needs_a_model_that_explains_itself(smooth_model, teacher, images, labels):
    with pytest.raises(InputError, match=r"model: expected a holdfast.models.Attributing"):
        AttributionAlignment(teacher)(smooth_model, {"images": images, "labels": labels})


def test_refuses_a_negative_weight(teacher, own_errors):
    with pytest.raises(InputError, match=r"AttributionAlignment.weight"):
        AttributionAlignment(teacher, weight=-1.0)
