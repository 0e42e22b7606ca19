import math
import warnings
from fractions import Fraction

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from holdfast.adversarial import APGD, PGD, accuracy, ball, correct
from holdfast.adversarial.apgd import _Ascent, _checkpoints, _dlr, _log_odds
from holdfast.contracts import HoldfastError, InputError, StuckWarning, generators

ATTACKS = [
    pytest.param(APGD(0.1, steps=10), id="ce"),
    pytest.param(APGD(0.1, loss="dlr", steps=10, restarts=2), id="dlr"),
    pytest.param(APGD(0.5, norm="l2", steps=10), id="l2"),
]


class Recorded(nn.Module):
    """A model that the label of every image is safe with, and that keeps what it is shown."""

    def __init__(self, model, label):
        super().__init__()
        self.model, self.label, self.seen = model, label, []

    def forward(self, x):
        self.seen.append(x.detach().clone())
        return self.model(x) + 12 * F.one_hot(self.label, 4)


def naive_dlr(logits, label):
    first, _, third = sorted(logits.tolist(), reverse=True)[:3]
    other = max(value for k, value in enumerate(logits.tolist()) if k != label)
    return -(logits.tolist()[label] - other) / (first - third)


def naive_checkpoints(steps):
    p = [Fraction(0), Fraction(22, 100)]
    while p[-1] <= 1:
        p.append(p[-1] + max(p[-1] - p[-2] - Fraction(3, 100), Fraction(6, 100)))
    return [math.ceil(share * steps) for share in p if share <= 1]


def project(x, image, eps, norm):
    if norm == "linf":
        return np.clip(x, np.maximum(image - eps, 0), np.minimum(image + eps, 1))
    delta = x - image
    return np.clip(image + delta * min(1, eps / max(np.linalg.norm(delta), 1e-300)), 0, 1)


def naive_apgd(model, image, label, start, attack):
    """Algorithm 1 of the paper for one image; returns all points, and when the step was halved."""
    eps, norm = attack.eps, attack.norm

    def look(x):
        x = torch.tensor(x, requires_grad=True)
        logits = model(x[None])
        if attack.loss == "ce":
            loss = F.cross_entropy(logits, label[None])
        else:
            ordered = logits[0].sort().values
            other = max(logits[0, k] for k in range(4) if k != label)
            loss = -(logits[0, label] - other) / (ordered[-1] - ordered[-3])
        loss.backward()
        return loss.item(), x, x.grad.numpy()

    def along(gradient):
        return np.sign(gradient) if norm == "linf" else gradient / np.linalg.norm(gradient)

    image, before = image.numpy(), start.numpy()
    points, halvings, rises = [before], [], []
    loss, x, gradient = best = look(before)
    size, checked, halved, last = 2 * eps, loss, False, 0
    for k in range(1, attack.steps + 1):
        x = x.detach().numpy()
        ahead = project(x + size * along(gradient), image, eps, norm)
        if k > 1:
            ahead = project(x + 0.75 * (ahead - x) + 0.25 * (x - before), image, eps, norm)
        before, old = x, loss
        points.append(ahead)
        loss, x, gradient = look(ahead)
        rises.append(loss > old)
        if loss > best[0]:
            best = (loss, x, gradient)
        if k in naive_checkpoints(attack.steps):
            few = sum(rises[last:]) < 0.75 * (k - last)
            halved = few or (not halved and best[0] == checked)
            if halved:
                size /= 2
                loss, x, gradient = best
                halvings.append(k)
            last, checked = k, best[0]
    return points, halvings


@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize("loss", ["ce", "dlr"])
def test_takes_the_steps_of_the_paper(loss, norm, smooth_model):
    with torch.no_grad():
        smooth_model[0].weight *= 4
        smooth_model[-1].weight *= 4
    images = (1.4 * torch.rand(2, 2, 5, 5, dtype=torch.float64) - 0.2).clamp(0, 1)
    labels = torch.tensor([0, 3])
    attack = APGD(0.3 if norm == "linf" else 1.0, norm, loss, steps=50, seed=3)
    when = []
    for n in range(2):
        model = Recorded(smooth_model, labels[n])
        attack(model, images[n : n + 1], labels[n : n + 1])
        start = ball(norm, attack.eps).start(
            images[n : n + 1], generators(images[n : n + 1], seed=3)
        )
        points, halvings = naive_apgd(
            Recorded(smooth_model, labels[n]), images[n], labels[n], start[0], attack
        )
        assert len(model.seen) == 1 + 51  # the image, the start and 50 steps
        for seen, expected in zip(model.seen[1:], points, strict=True):
            assert torch.allclose(seen[0], torch.tensor(expected), atol=1e-9)
        when.append(halvings)
    assert sum(map(len, when)) > 0  # some steps were halved


def test_checkpoints_are_those_of_the_paper():
    assert _checkpoints(100) == [0, 22, 41, 57, 70, 80, 87, 93, 99]
    for steps in (1, 2, 5, 10, 37, 50, 73, 300, 1000):
        assert _checkpoints(steps) == sorted(set(naive_checkpoints(steps)))


def ascent(*, rises, best, checked, halved):
    """An image in a state that a checkpoint has to judge, after 8 steps."""
    point = torch.zeros(1, 1, 1, 1)
    one = _Ascent.begin(torch.tensor([0]), point, torch.tensor([0]), point + 0.5, 2.0)
    one.rises, one.halved = torch.tensor([rises]), torch.tensor([halved])
    one.best, one.best_loss = torch.ones(1, 1, 1, 1), torch.tensor([best])
    one.checked_loss = torch.tensor([checked])
    return one


@pytest.mark.parametrize(
    ("state", "halves"),
    [
        ({"rises": 5, "best": 2.0, "checked": 1.0, "halved": False}, True),  # too few
        ({"rises": 6, "best": 2.0, "checked": 1.0, "halved": False}, False),
        ({"rises": 8, "best": 1.0, "checked": 1.0, "halved": False}, True),  # all in vain
        ({"rises": 8, "best": 1.0, "checked": 1.0, "halved": True}, False),
        ({"rises": 5, "best": 1.0, "checked": 1.0, "halved": True}, True),
    ],
)
def test_a_step_is_halved_on_either_condition(state, halves):
    one = ascent(**state)
    one.check(8)
    assert one.size.item() == (1.0 if halves else 2.0)
    assert one.x.item() == (1.0 if halves else 0.5)  # back to the best point
    assert one.halved.item() == halves
    assert one.rises.item() == 0


def test_losses_are_what_they_are_called():
    logits = 5 * torch.randn(50, 6, dtype=torch.float64)
    labels = torch.randint(6, (50,))
    expected = F.cross_entropy(logits, labels, reduction="none")
    assert torch.allclose(F.softplus(_log_odds(logits, labels)), expected)
    naive = [naive_dlr(row, int(label)) for row, label in zip(logits, labels, strict=True)]
    assert torch.allclose(_dlr(logits, labels), torch.tensor(naive, dtype=torch.float64))


@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize("loss", ["ce", "dlr"])
def test_succeeds_exactly_where_the_best_attack_does(norm, loss, linear, greys, thresholds):
    greys = greys[:2]
    labels = linear(greys).argmax(1)
    for n, threshold in enumerate(thresholds(linear, greys, labels, norm).tolist()):
        one, own = greys[n : n + 1], labels[n : n + 1]
        assert accuracy(linear, one, own, APGD(0.99 * threshold, norm, loss, 40)) == 1
        assert accuracy(linear, one, own, APGD(1.01 * threshold, norm, loss, 40)) == 0


def test_l2_finds_the_best_point_of_a_ball_that_is_cut():
    """Of a linear model the best point is known: along the gradient, cut, and longer elsewhere."""
    weight = torch.linspace(-1, 1, 16, dtype=torch.float64)
    image = torch.full((16,), 0.5, dtype=torch.float64)
    image[[0, 1, 14, 15]] = torch.tensor([0.0, 0.02, 0.98, 1.0], dtype=torch.float64)
    eps, low, high = 0.4, 0.0, 10.0
    for _ in range(200):  # the length t of t · weight that makes the cut perturbation ε long
        middle = (low + high) / 2
        best = (image + middle * weight).clamp(0, 1)
        low, high = (middle, high) if (best - image).norm() < eps else (low, middle)
    gain = float((best - image) @ weight)
    for share, robust in ((0.99, 0.0), (1.001, 1.0)):
        model = nn.Sequential(nn.Flatten(), nn.Linear(16, 2)).double()
        with torch.no_grad():
            model[1].weight.copy_(torch.stack([torch.zeros(16), weight]))
            model[1].bias.copy_(torch.tensor([float(image @ weight) + share * gain, 0.0]))
        one = image.view(1, 1, 4, 4)
        assert accuracy(model, one, torch.tensor([0]), APGD(eps, "l2")) == robust


@pytest.mark.parametrize(
    "attack", [APGD(0.2), APGD(0.2, loss="dlr"), APGD(0.8, norm="l2")], ids=repr
)
def test_takes_digits_down(attack, digits):
    model, images, labels = digits
    assert accuracy(model, images, labels) > 0.9
    assert accuracy(model, images, labels, attack) <= (0.05 if attack.norm == "linf" else 0.15)


@pytest.mark.parametrize(("norm", "eps"), [("linf", 0.08), ("l2", 0.4)])
def test_is_not_weaker_than_pgd(norm, eps, digits):
    model, images, labels = digits
    pgd = min(
        accuracy(model, images, labels, PGD(eps, share * eps, 50, norm, seed=0))
        for share in (0.05, 0.1, 0.5)
    )
    assert 0 < accuracy(model, images, labels, APGD(eps, norm, steps=50)) <= pgd


def test_an_image_that_fell_is_not_evaluated_again(digits):
    model, images, labels = digits
    counts = []
    handle = model.register_forward_hook(lambda module, inputs, output: counts.append(len(output)))
    attacked = APGD(0.1, steps=30, restarts=2)(model, images, labels)
    handle.remove()
    robust = int((model(attacked).argmax(1) == labels).sum())
    assert counts == sorted(counts, reverse=True)
    assert counts[-1] <= robust + 2 < counts[1]
    assert len(counts) == 1 + 2 * 31


@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize("loss", ["ce", "dlr"])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
def test_models_and_images_of_any_precision(dtype, loss, norm, digits):
    model, images, labels = digits
    eps = 0.2 if norm == "linf" else 0.8
    other = nn.Sequential(nn.Flatten(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))
    other.load_state_dict(model.state_dict())
    other.to(dtype)
    attack = APGD(eps, norm, loss, steps=20)
    half = torch.finfo(dtype).bits < 32
    if half:
        with pytest.raises(InputError, match="images: expected float32 or float64 images"):
            attack(other, images.to(dtype), labels)
    for given in (images,) if half else (images, images.to(dtype)):
        attacked = attack(other, given, labels)
        assert attacked.dtype == given.dtype
        assert attacked.min() >= 0
        assert attacked.max() <= 1
        delta = (attacked.double() - given.double()).flatten(1)
        size = delta.abs().amax(1) if norm == "linf" else delta.norm(dim=1)
        assert (size <= eps * (1 + 8 * torch.finfo(given.dtype).eps)).all()
        assert correct(other, attacked, labels).double().mean() < 0.3


@pytest.mark.parametrize("attack", ATTACKS)
def test_a_default_precision_of_float64_changes_nothing(attack, digits):
    model, images, labels = digits
    before = attack(model, images, labels)
    torch.set_default_dtype(torch.float64)
    try:
        assert torch.allclose(attack(model, images, labels), before, atol=1e-6)
    finally:
        torch.set_default_dtype(torch.float32)


def test_a_saturated_softmax_hides_nothing(digits):
    """The cross-entropy of these logits is 0, and so is its gradient, as float32 rounds it."""
    model, images, labels = digits

    class Sharp(nn.Module):
        def forward(self, x):
            return 1e4 * model(x)

    attack = APGD(0.1, steps=30)
    plain = accuracy(model, images, labels, attack)
    attacked, stuck = attack.with_stuck(Sharp(), images, labels)
    assert 0.1 < plain < 0.9
    assert accuracy(Sharp(), attacked, labels) < plain + 0.05
    assert stuck.nan_to_num(0).max() == 0


def test_counts_the_steps_without_direction():
    class Partly(nn.Module):
        def forward(self, x):  # dark images are flat, those in the middle have slopes of NaN
            level = x.detach().flatten(1).amax(1)[:, None, None, None]
            if x.requires_grad:
                x.register_hook(lambda g: g.masked_fill(level < 0.3, 0))
                x.register_hook(lambda g: g.masked_fill((level > 0.3) & (level < 0.6), torch.nan))
            sums = 1e-3 * x.flatten(1).sum(1)
            return torch.stack([torch.ones_like(sums), sums], 1)

    images = torch.tensor([0.1, 0.45, 0.8, 0.8]).view(4, 1, 1, 1).expand(4, 1, 2, 2)
    labels = torch.tensor([0, 0, 0, 1])
    attack = APGD(0.02, steps=5)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        attacked, stuck = attack.with_stuck(Partly(), images, labels)
    assert stuck[:3].tolist() == [1, 1, 0]
    assert stuck[3].isnan()  # wrong from the start
    with pytest.warns(StuckWarning, match="APGD: for 2 of 4 images"):
        assert torch.equal(attack(Partly(), images, labels), attacked)


def test_a_broken_gradient_is_nobody_else_s(smooth_model, half_fooled):
    class Poisoned(nn.Module):
        def forward(self, x):
            if x.requires_grad:
                mine = ((x - bad).abs().flatten(1).amax(1) < 0.11)[:, None, None, None]
                x.register_hook(lambda gradient: gradient.masked_fill(mine, torch.nan))
            return smooth_model(x)

    images, labels = half_fooled
    bad = images[:1]
    attack = APGD(0.1, steps=10)
    expected = attack(smooth_model, images[1:], labels[1:])
    with pytest.warns(StuckWarning, match="for 1 of 12 images"):
        attacked = attack(Poisoned(), images, labels)
    assert torch.allclose(attacked[1:], expected)


@pytest.mark.parametrize("block", [torch.no_grad, torch.inference_mode])
def test_refuses_a_model_without_a_gradient(block, smooth_model, half_fooled):
    class Blind(nn.Module):
        def forward(self, x):
            with block():
                return smooth_model(x)

    with pytest.raises(HoldfastError, match="no gradient"):
        APGD(0.1)(Blind(), *half_fooled)


def test_runs_inside_no_grad_but_not_inside_inference_mode(smooth_model, half_fooled):
    attack = APGD(0.1, steps=10)
    expected = attack(smooth_model, *half_fooled)
    with torch.no_grad():
        assert torch.equal(attack(smooth_model, *half_fooled), expected)
    with torch.inference_mode(), pytest.raises(HoldfastError, match="inference_mode"):
        attack(smooth_model, *half_fooled)


@pytest.mark.parametrize("attack", ATTACKS)
def test_takes_a_model_whose_logits_are_the_pixels(attack):
    """No parameter, and logits that share their memory with the images."""
    images = torch.full((3, 1, 5, 5), 0.5)
    images[:, 0, 0, 0] = 0.55
    given = images.clone()
    attack(nn.Flatten(), images, torch.zeros(3, dtype=torch.int32))
    assert torch.equal(images, given)


def test_dlr_needs_three_classes(own_errors):
    model = nn.Sequential(nn.Flatten(), nn.Linear(4, 2))
    images, labels = torch.rand(2, 1, 2, 2), torch.tensor([0, 1])
    with pytest.raises(InputError, match="at least 3 classes"):
        APGD(0.1, loss="dlr")(model, images, labels)
    assert APGD(0.1)(model, images, labels).shape == images.shape


@pytest.mark.parametrize(
    ("settings", "field"),
    [
        ({"eps": -0.1}, "eps"),
        ({"norm": "l1"}, "norm"),
        ({"loss": "margin"}, r"APGD\.loss"),
        ({"steps": 0}, r"APGD\.steps"),
        ({"restarts": 0}, r"APGD\.restarts"),
    ],
)
def test_refuses_settings(settings, field, own_errors):
    with pytest.raises(InputError, match=field):
        APGD(**({"eps": 0.1} | settings))
