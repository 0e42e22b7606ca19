from dataclasses import replace

import pytest
import torch
from torch import nn

from holdfast.adversarial import PGD
from holdfast.contracts import InputError
from holdfast.models import Normalized
from holdfast.objectives import GradientStability, InputAlignment


def gradient(model, x, y):
    x = x if x.requires_grad else x.clone().requires_grad_(True)
    (found,) = torch.autograd.grad(model(x[None])[0, y], x, create_graph=True)
    return found


def length(values):
    return sum(v * v for v in values) ** 0.5


def naive_change(model, x, image, y):
    """Equation 2."""
    pairs = zip(gradient(model, x, y).flatten(), gradient(model, image, y).flatten(), strict=True)
    return length([a - b for a, b in pairs])


def naive_alignment(model, x, y, distance):
    """The summands of equation 4."""
    pairs = list(zip(gradient(model, x, y).flatten(), x.flatten(), strict=True))
    if distance == "l2":
        return length([g - v for g, v in pairs])
    dot = sum(g * v for g, v in pairs)
    return 1 - dot / (length([g for g, _ in pairs]) * length([v for _, v in pairs]))


def expected_terms(model, images, labels, attack, ascend, value):
    def total(x):
        return sum(value(one, image, y) for one, image, y in zip(x, images, labels, strict=True))

    x = ascend(total, images, attack.start(images), attack)
    cross_entropy = -model(x).log_softmax(1)[torch.arange(3), labels].mean()
    return cross_entropy, total(x) / 3


def test_stability_equals_the_naive_computation(
    smooth_model, images, labels, attack, ascend, same_gradients
):
    ours = GradientStability(weight=0.7, attack=attack)(
        smooth_model, {"images": images, "labels": labels}
    )
    cross_entropy, change = expected_terms(
        smooth_model, images, labels, attack, ascend,
        lambda x, image, y: naive_change(smooth_model, x, image, y),
    )  # fmt: skip
    assert change > 1e-4
    assert ours["cross_entropy"].item() == pytest.approx(cross_entropy.item(), rel=1e-9)
    assert ours["change"].item() == pytest.approx(change.item(), rel=1e-8)
    assert ours["loss"].item() == pytest.approx((cross_entropy + 0.7 * change).item(), rel=1e-9)
    same_gradients(smooth_model, ours["loss"], cross_entropy + 0.7 * change)


@pytest.mark.parametrize("distance", ["cosine", "l2"])
def test_alignment_equals_the_naive_computation(
    smooth_model, images, labels, attack, ascend, same_gradients, distance
):
    ours = InputAlignment(weight=0.7, distance=distance, attack=attack)(
        smooth_model, {"images": images, "labels": labels}
    )
    cross_entropy, alignment = expected_terms(
        smooth_model, images, labels, attack, ascend,
        lambda x, _, y: naive_alignment(smooth_model, x, y, distance),
    )  # fmt: skip
    assert ours["cross_entropy"].item() == pytest.approx(cross_entropy.item(), rel=1e-9)
    assert ours["alignment"].item() == pytest.approx(alignment.item(), rel=1e-9)
    same_gradients(smooth_model, ours["loss"], cross_entropy + 0.7 * alignment)


@pytest.mark.parametrize(
    ("objective", "term"),
    [
        (GradientStability(), "change"),
        (InputAlignment(distance="cosine"), "alignment"),
        (InputAlignment(distance="l2"), "alignment"),
    ],
    ids=repr,
)
def test_inner_attack_does_not_lower_its_own_objective(
    smooth_model, images, labels, objective, term
):
    found = []
    for steps in (0, 1, 3, 6):  # all from the same start
        attack = PGD(eps=0.1, step_size=0.01, steps=steps, seed=0)
        terms = replace(objective, attack=attack)(
            smooth_model, {"images": images, "labels": labels}
        )
        found.append(terms[term].item())
    assert found == sorted(found)
    assert found[-1] > found[0]


def test_run_through_the_surrogate():
    """Of one ReLU, softplus's derivative is the sigmoid: f = softplus(w·x), g = σ(β w·x) w."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(4, 2, bias=False), nn.ReLU()).double()
    image, label = torch.rand(1, 1, 2, 2).double(), torch.tensor([0])
    still = PGD(eps=0.0, step_size=0.0, steps=0)
    objective = InputAlignment(distance="l2", beta=3.0, attack=still)
    w, x = model[1].weight[0], image.flatten()
    expected = (torch.sigmoid(3 * (w @ x)) * w - x).norm()
    terms = objective(model, {"images": image, "labels": label})
    assert terms["alignment"].item() == pytest.approx(expected.item())


@pytest.mark.parametrize("anchor", ["normalized", "pixels"])
@pytest.mark.parametrize("channels", ["each", "mean"])
def test_anchor_and_channels(images, labels, anchor, channels):
    inside = nn.Sequential(nn.Flatten(), nn.Linear(50, 4)).double()
    model = Normalized(inside, mean=(0.3, 0.6), std=(0.2, 0.5)).double()
    objective = InputAlignment(
        distance="l2", anchor=anchor, channels=channels, attack=PGD(0.0, 0.0, 0)
    )
    terms = objective(model, {"images": images, "labels": labels})
    expected = 0.0
    for image, y in zip(images, labels, strict=True):
        g, v = inside[1].weight[y].view(2, 5, 5), (image - model.mean) / model.std
        if anchor == "pixels":
            g, v = g / model.std, image
        if channels == "mean":
            g, v = (g[0] + g[1]) / 2, (v[0] + v[1]) / 2
        expected += length((g - v).flatten().tolist()) / 3
    assert terms["alignment"].item() == pytest.approx(expected, rel=1e-6)


def test_gradients_of_a_linear_model_are_stable(images, labels):
    model = nn.Sequential(nn.Flatten(), nn.Linear(50, 4)).double()
    terms = GradientStability()(model, {"images": images, "labels": labels})
    assert terms["change"].item() == pytest.approx(0, abs=1e-12)
    terms["loss"].backward()
    assert model[1].weight.grad.isfinite().all()


@pytest.mark.parametrize(
    ("kind", "term"), [(GradientStability, "change"), (InputAlignment, "alignment")]
)
def test_inner_attack_ascends(smooth_model, images, labels, kind, term):
    batch = {"images": images, "labels": labels}
    found = [
        kind(attack=PGD(0.1, 0.01, steps, seed=0))(smooth_model, batch)[term].item()
        for steps in (0, 1, 3, 8)
    ]
    assert found == sorted(found)
    assert found[-1] > found[0]


@pytest.mark.parametrize("kind", [GradientStability, InputAlignment])
def test_refuses_settings(kind, own_errors):
    with pytest.raises(InputError, match=f"{kind.__name__}.weight"):
        kind(weight=-1.0)
    with pytest.raises(InputError, match=f"{kind.__name__}.beta"):
        kind(beta=0.0)


def test_refuses_an_unknown_distance(own_errors):
    with pytest.raises(InputError, match=r"InputAlignment.distance: expected 'cosine' or 'l2'"):
        InputAlignment(distance="l1")
