import pytest
import torch
from torch import nn

from holdfast.adversarial import PGD, SPSA, accuracy
from holdfast.contracts import InputError


@pytest.mark.parametrize(("norm", "slack"), [("linf", 1.05), ("l2", 1.15)])
def test_succeeds_where_the_best_attack_on_a_linear_model_does(
    norm, slack, linear, greys, thresholds
):
    labels = linear(greys).argmax(1)
    for n, threshold in enumerate(thresholds(linear, greys, labels, norm).tolist()):
        one, own = greys[n : n + 1], labels[n : n + 1]
        rate = threshold / 5 if norm == "linf" else threshold / 20
        settings = {"norm": norm, "steps": 60, "samples": 256, "step_size": rate}
        assert accuracy(linear, one, own, SPSA(0.98 * threshold, **settings)) == 1
        assert accuracy(linear, one, own, SPSA(slack * threshold, **settings)) == 0


def test_its_estimate_is_the_gradient(linear):
    """Of a linear model the estimate from n pairs is unbiased, with a spread of 1/√n."""
    image = torch.full((1, 1, 5, 6), 0.5, dtype=torch.float64)
    label = linear(image).argmax(1)
    other = int(linear(image)[0].topk(2).indices[1])
    exact = (linear[1].weight[label] - linear[1].weight[other]).detach().flatten()
    die = torch.Generator().manual_seed(0)
    with torch.no_grad():
        estimate = SPSA(0.1, samples=20000, delta=1e-6)._gradient(linear, image, label, die)
    assert torch.allclose(estimate.flatten(), exact, atol=5 * float(exact.norm()) / 20000**0.5)


def test_nearly_as_strong_as_gradients_on_digits(digits):
    model, images, labels = digits[0], digits[1][:40], digits[2][:40]
    by_gradients = accuracy(model, images, labels, PGD(0.15, 0.03, 20, seed=0))
    assert accuracy(model, images, labels, SPSA(0.15, steps=40)) <= by_gradients + 0.1


def test_asks_for_no_gradient_and_shows_only_images():
    class Watched(nn.Module):
        def forward(self, x):
            assert not torch.is_grad_enabled()
            assert x.min() >= 0
            assert x.max() <= 1
            return x.flatten(1)[:, :3]

    images = torch.tensor([[[[1.0, 0.0, 0.0]]], [[[0.0, 1.0, 0.0]]]])
    SPSA(0.3, steps=5, samples=8)(Watched(), images, torch.tensor([0, 1]))


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_same_in_any_batch(smooth_model, norm):
    images = torch.rand(5, 2, 5, 5).double()
    labels = smooth_model(images).argmax(1)
    labels[1] = (labels[1] + 1) % 4  # already wrong
    attack = SPSA(0.2, norm, steps=5, samples=10)
    before = torch.get_rng_state()
    together = attack(smooth_model, images, labels)
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(together[1], images[1])
    order = torch.tensor([4, 2, 0, 1, 3])
    assert torch.allclose(attack(smooth_model, images[order], labels[order]), together[order])
    small = SPSA(0.2, norm, steps=5, samples=10, chunk=3)
    assert torch.allclose(small(smooth_model, images, labels), together)
    other = SPSA(0.2, norm, steps=5, samples=10, seed=1)
    assert not torch.allclose(other(smooth_model, images, labels), together)


@pytest.mark.parametrize(
    ("settings", "field"),
    [
        ({"eps": -0.1}, "eps"),
        ({"norm": "l1"}, "norm"),
        ({"steps": 0}, r"SPSA\.steps"),
        ({"samples": 0}, r"SPSA\.samples"),
        ({"delta": 0.0}, r"SPSA\.delta"),
        ({"step_size": 0.0}, r"SPSA\.step_size"),
    ],
)
def test_refuses_settings(settings, field, own_errors):
    with pytest.raises(InputError, match=field):
        SPSA(**({"eps": 0.1} | settings))
