import pytest
import torch

from holdfast.adversarial import PGD
from holdfast.contracts import InputError
from holdfast.objectives import TRADES


def divergence(clean, moved):
    """KL(p ‖ q) summed over images, term by term."""
    total = 0.0
    for a, b in zip(clean, moved, strict=True):
        p, q = a.exp() / a.exp().sum(), b.exp() / b.exp().sum()
        total = total + sum(p[k] * (p[k] / q[k]).log() for k in range(len(p)))
    return total


def test_equals_the_naive_computation(smooth_model, images, labels, attack, ascend, same_gradients):
    torch.manual_seed(0)
    objective = TRADES(weight=3.0, attack=attack, start=0.01)
    ours = objective(smooth_model, {"images": images, "labels": labels})

    torch.manual_seed(0)
    start = images + 0.01 * torch.randn_like(images)
    fixed = smooth_model(images).detach()
    x = ascend(lambda x: divergence(fixed, smooth_model(x)), images, start, attack)
    clean = smooth_model(images)
    cross_entropy = -clean.log_softmax(1)[torch.arange(3), labels].mean()
    naive = divergence(clean, smooth_model(x)) / 3
    assert naive > 1e-6
    assert ours["divergence"].item() == pytest.approx(naive.item(), rel=1e-8)
    assert ours["cross_entropy"].item() == pytest.approx(cross_entropy.item(), rel=1e-10)
    assert ours["loss"].item() == pytest.approx((cross_entropy + 3 * naive).item(), rel=1e-8)
    same_gradients(smooth_model, ours["loss"], cross_entropy + 3 * naive)


def test_inner_attack_ascends_the_divergence(smooth_model, images, labels):
    batch = {"images": images, "labels": labels}
    found = []
    for steps in (0, 1, 3, 10):
        torch.manual_seed(0)
        attack = PGD(eps=0.1, step_size=0.01, steps=steps)
        found.append(TRADES(attack=attack)(smooth_model, batch)["divergence"].item())
    assert found == sorted(found)
    assert found[-1] > 10 * found[0]


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_stays_in_a_ball_smaller_than_its_start(smooth_model, images, labels, norm):
    seen = []
    handle = smooth_model.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    attack = PGD(eps=0.002, step_size=0.01, steps=2, norm=norm)
    TRADES(attack=attack, start=1.0)(smooth_model, {"images": images, "labels": labels})
    handle.remove()
    for x in seen:
        delta = (x.detach() - images).flatten(1)
        size = delta.abs().amax(1) if norm == "linf" else delta.norm(dim=1)
        assert size.max() <= 0.002 + 1e-12


def test_in_a_ball_of_no_size_nothing_diverges(smooth_model, images, labels):
    objective = TRADES(attack=PGD(eps=0.0, step_size=0.1, steps=2))
    terms = objective(smooth_model, {"images": images, "labels": labels})
    assert terms["divergence"].item() == pytest.approx(0, abs=1e-15)


@pytest.mark.parametrize("field", ["weight", "start"])
def test_refuses_settings(field, own_errors):
    with pytest.raises(InputError, match=f"TRADES.{field}"):
        TRADES(**{field: -1.0})
