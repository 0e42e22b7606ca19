import math

import pytest
import torch
from torch import nn

from holdfast.adversarial import BoundarySearch
from holdfast.attributions import (
    AdversarialGradientIntegration,
    BoundaryIntegratedGradients,
    BoundarySaliency,
    Gradient,
    IntegratedGradients,
)
from holdfast.audit import BoundaryAlignment, ImageAlignment
from holdfast.contracts import Batch, InputError
from holdfast.models import Normalized, Standardized

SEARCH = BoundarySearch(steps=5, scout_steps=5, restarts=1, restart_steps=2)


@pytest.fixture
def batch(smooth_model):
    torch.manual_seed(0)
    images = torch.rand(5, 2, 5, 5, dtype=torch.float64)
    return Batch(images=images, labels=torch.zeros(5, dtype=torch.long))  # not what is predicted


def test_image_alignment_against_a_loop(smooth_model, batch):
    measures = ImageAlignment()(smooth_model, batch)
    for n, image in enumerate(batch["images"]):
        x = image.clone().requires_grad_(True)
        smooth_model(x[None]).max().backward()
        product = (x.grad * image).sum().abs()
        alignment = product / x.grad.square().sum().sqrt()
        assert measures["alignment"][n].item() == pytest.approx(alignment.item())
        cosine = alignment / image.square().sum().sqrt()
        assert measures["absolute_cosine"][n].item() == pytest.approx(cosine.item())


def of_the_truth(network, mean, deviation, image, label):
    """The cosine of figure 6, value by value."""
    x = ((image - mean) / deviation).detach().requires_grad_(True)
    network(x[None])[0, label].backward()
    pairs = list(zip(x.flatten().tolist(), x.grad.flatten().tolist(), strict=True))
    lengths = [math.sqrt(math.fsum(pair[side] ** 2 for pair in pairs)) for side in (0, 1)]
    return math.fsum(a * b for a, b in pairs) / math.prod(lengths)


@pytest.fixture
def wide():
    torch.manual_seed(1)
    network = nn.Sequential(nn.Flatten(), nn.Linear(24, 7), nn.Tanh(), nn.Linear(7, 3)).double()
    images = torch.rand(6, 2, 3, 4, dtype=torch.float64)
    return network, Batch(images=images, labels=torch.tensor([0, 1, 2, 0, 1, 2]))


def test_signed_cosine_of_the_true_class_in_normalized_input(wide):
    network, batch = wide
    model = Normalized(network, (0.4, 0.6), (0.2, 0.3)).double()
    measures = ImageAlignment()(model, batch)
    pairs = list(zip(batch["images"], batch["labels"], strict=True))
    expected = [of_the_truth(network, model.mean, model.std, x, y) for x, y in pairs]
    assert measures["signed_cosine"].tolist() == pytest.approx(expected)
    assert min(expected) < 0 < max(expected)
    # Neither what is predicted, nor pixels, nor the absolute value gives the same.
    assert (measures["signed_cosine"].abs() - measures["absolute_cosine"]).abs().min() > 1e-3
    in_pixels = ImageAlignment(anchor="pixels")(model, batch)
    expected = [of_the_truth(model, 0, 1, x, y) for x, y in pairs]
    assert in_pixels["signed_cosine"].tolist() == pytest.approx(expected)
    assert torch.equal(in_pixels["absolute_cosine"], measures["absolute_cosine"])


def test_signed_cosine_of_each_image_standardized(wide):
    network, batch = wide
    measures = ImageAlignment()(Standardized(network), batch)
    expected = [
        of_the_truth(network, x.mean(), x.std(correction=0), x, y)
        for x, y in zip(batch["images"], batch["labels"], strict=True)
    ]
    assert measures["signed_cosine"].tolist() == pytest.approx(expected)


def test_image_alignment_where_there_is_nothing(smooth_model):
    class Flat(nn.Module):
        def forward(self, x):
            return 0 * x.sum((1, 2, 3))[:, None] + torch.tensor([0.0, 1.0])

    batch = Batch(images=torch.rand(2, 1, 3, 3), labels=torch.tensor([0, 1]))
    assert {n: v.tolist() for n, v in ImageAlignment()(Flat(), batch).items()} == {
        "alignment": [0, 0],
        "absolute_cosine": [0, 0],
        "signed_cosine": [0, 0],
    }
    black = Batch(images=torch.zeros(1, 2, 5, 5).double(), labels=torch.tensor([0]))
    measures = ImageAlignment()(smooth_model, black)
    assert measures["absolute_cosine"].tolist() == measures["signed_cosine"].tolist() == [0]


def test_boundary_alignment_is_the_distance_of_the_methods_maps(smooth_model, batch):
    agi = AdversarialGradientIntegration(classes=2, steps=60)
    check = BoundaryAlignment(SEARCH, steps=6, integrated_gradients=IntegratedGradients(8), agi=agi)
    measures = check(smooth_model, batch)
    images = batch["images"]
    bsm, found = BoundarySaliency(SEARCH).with_found(smooth_model, images)
    big, _ = BoundaryIntegratedGradients(SEARCH, steps=6).with_found(smooth_model, images)
    agi_maps, reached = agi.with_found(smooth_model, images)
    ig = IntegratedGradients(8)(smooth_model, images)
    pairs = {
        "sm_bsm": (Gradient()(smooth_model, images), bsm, found),
        "ig_big": (ig, big, found),
        "ig_agi": (ig, agi_maps, reached),
    }
    assert found.any()
    for name, (first, second, known) in pairs.items():
        expected = torch.linalg.vector_norm((first - second).flatten(1), dim=1)
        assert torch.allclose(measures[name][known], expected[known]), name
        assert measures[name][~known].isnan().all(), name


def test_ig_has_by_default_20_points_by_the_trapezoid_rule_as_big_has(smooth_model, batch):
    """ICLR 2022, appendix B.3: np.linspace(0, 1, 20), the ends counting half."""
    images = batch["images"]
    targets = smooth_model(images).argmax(1)
    total = torch.zeros_like(images)
    for place in range(20):
        x = (images * place / 19).requires_grad_(True)
        smooth_model(x).gather(1, targets[:, None]).sum().backward()
        total += x.grad * (0.5 if place in (0, 19) else 1.0) / 19
    big, found = BoundaryIntegratedGradients(SEARCH).with_found(smooth_model, images)
    expected = (images * total - big).flatten(1).norm(dim=1)
    assert found.any()
    measured = BoundaryAlignment(SEARCH)(smooth_model, batch)["ig_big"]
    assert torch.allclose(measured[found], expected[found], rtol=1e-9)


def test_no_value_without_a_boundary():
    class Constant(nn.Module):
        def forward(self, x):
            return 0 * x.flatten(1)[:, :2] + torch.tensor([0.0, 1.0])

    batch = Batch(images=torch.rand(2, 1, 3, 3), labels=torch.tensor([0, 1]))
    measures = BoundaryAlignment(SEARCH)(Constant(), batch)
    assert list(measures) == ["sm_bsm", "ig_big", "ig_agi"]
    assert all(values.isnan().all() for values in measures.values())


def test_leaves_the_model_as_it_was(stateful_model, untouched):
    batch = Batch(images=torch.rand(2, 2, 5, 5), labels=torch.tensor([0, 1]))
    with untouched(stateful_model):
        BoundaryAlignment(SEARCH)(stateful_model, batch)
        ImageAlignment()(stateful_model, batch)


def test_refuses_no_steps(own_errors):
    with pytest.raises(InputError, match="BoundaryAlignment.steps"):
        BoundaryAlignment(steps=0)
