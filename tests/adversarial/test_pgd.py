import pytest
import torch
from torch import nn
from torch.nn import functional as F

from holdfast.adversarial import PGD, ball
from holdfast.contracts import InputError, generators


def naive_pgd(model, images, labels, eps, step_size, steps):
    """One image at a time, one pixel at a time, as the paper's sentence says it."""
    attacked = []
    for image, label in zip(images, labels, strict=True):
        x = image.clone()
        for _ in range(steps):
            x = x.requires_grad_(True)
            F.cross_entropy(model(x[None]), label[None]).backward()
            moved = x.detach().clone().flatten()
            for j, slope in enumerate(x.grad.flatten()):
                moved[j] += step_size * float(slope > 0) - step_size * float(slope < 0)
                low = max(0.0, float(image.flatten()[j]) - eps)
                high = min(1.0, float(image.flatten()[j]) + eps)
                moved[j] = min(max(float(moved[j]), low), high)
            x = moved.view_as(image)
        attacked.append(x)
    return torch.stack(attacked)


def test_equals_the_naive_loop(smooth_model):
    images, labels = torch.rand(3, 2, 5, 5).double(), torch.tensor([0, 3, 1])
    attack = PGD(eps=0.1, step_size=0.03, steps=5, random_start=False)
    expected = naive_pgd(smooth_model, images, labels, 0.1, 0.03, 5)
    assert torch.allclose(attack(smooth_model, images, labels), expected, atol=1e-12)


def test_sign_steps_in_l2_equal_the_naive_loop(smooth_model):
    """x′ ← Π(x′ + α sgn ∇), Π scaling what is longer than ε, as the ACML 2021 supplement has it."""
    images, labels = torch.rand(3, 2, 5, 5).double(), torch.tensor([0, 3, 1])
    expected = []
    for image, label in zip(images, labels, strict=True):
        x = image.clone()
        for _ in range(4):
            x = x.requires_grad_(True)
            (slope,) = torch.autograd.grad(F.cross_entropy(smooth_model(x[None]), label[None]), x)
            delta = x.detach() + 0.02 * slope.sign() - image
            length = delta.square().sum().sqrt()
            x = (image + (delta / length * 0.3 if length > 0.3 else delta)).clamp(0, 1)
        expected.append(x)
    settings = {"eps": 0.3, "step_size": 0.02, "steps": 4, "norm": "l2", "random_start": False}
    attacked = PGD(**settings, step="sign")(smooth_model, images, labels)
    assert torch.allclose(attacked, torch.stack(expected), atol=1e-12)
    assert not torch.allclose(PGD(**settings)(smooth_model, images, labels), attacked, atol=1e-3)


def test_steps_along_the_sign_are_what_linf_does_anyway(smooth_model):
    images, labels = torch.rand(3, 2, 5, 5).double(), torch.tensor([0, 3, 1])
    attack = PGD(eps=0.1, step_size=0.03, steps=3, seed=0)
    along = PGD(eps=0.1, step_size=0.03, steps=3, seed=0, step="sign")
    assert torch.equal(attack(smooth_model, images, labels), along(smooth_model, images, labels))


def test_l2_reaches_the_optimum_of_a_linear_model():
    model = nn.Sequential(nn.Flatten(), nn.Linear(8, 2))
    images = torch.full((1, 1, 2, 4), 0.5)
    attacked = PGD(eps=0.2, step_size=0.1, steps=20, norm="l2")(model, images, torch.tensor([0]))
    direction = model[1].weight[1] - model[1].weight[0]
    best = images.flatten() + 0.2 * direction / direction.norm()
    assert torch.allclose(attacked.flatten(), best, atol=1e-4)


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_raises_the_loss(smooth_model, norm):
    images, labels = torch.rand(6, 2, 5, 5).double(), torch.randint(4, (6,))
    attacked = PGD(eps=0.2, step_size=0.05, steps=10, norm=norm)(smooth_model, images, labels)

    def loss(x):
        return F.cross_entropy(smooth_model(x), labels, reduction="none")

    assert (loss(attacked) > loss(images)).all()


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_same_in_any_batch_when_seeded(smooth_model, norm):
    images, labels = torch.rand(5, 2, 5, 5).double(), torch.randint(4, (5,))
    attack = PGD(eps=0.2, step_size=0.05, steps=4, norm=norm, seed=1)
    together = attack(smooth_model, images, labels)
    order = torch.tensor([4, 2, 0, 1, 3])
    assert torch.allclose(attack(smooth_model, images[order], labels[order]), together[order])
    alone = [attack(smooth_model, images[i : i + 1], labels[i : i + 1]) for i in range(5)]
    assert torch.allclose(torch.cat(alone), together)
    small = PGD(eps=0.2, step_size=0.05, steps=4, norm=norm, seed=1, chunk=2)
    assert torch.allclose(small(smooth_model, images, labels), together)


def test_chunks_do_not_change_an_unseeded_result(smooth_model):
    images, labels = torch.rand(5, 2, 5, 5).double(), torch.randint(4, (5,))
    results = []
    for chunk in (None, 2):
        torch.manual_seed(7)
        attack = PGD(eps=0.2, step_size=0.05, steps=4, chunk=chunk)
        results.append(attack(smooth_model, images, labels))
    assert torch.allclose(*results)


def test_unseeded_starts_differ_and_seeded_leave_the_generator_alone(smooth_model):
    images, labels = torch.rand(2, 2, 5, 5).double(), torch.tensor([0, 1])
    once, twice = (PGD(0.2, 0.05, 1)(smooth_model, images, labels) for _ in range(2))
    assert not torch.equal(once, twice)
    before = torch.get_rng_state()
    PGD(0.2, 0.05, 1, seed=0)(smooth_model, images, labels)
    assert torch.equal(torch.get_rng_state(), before)


def test_leaves_the_model_as_it_was(stateful_model, untouched):
    with untouched(stateful_model):
        PGD(0.1, 0.02, 3)(stateful_model, torch.rand(4, 2, 5, 5), torch.tensor([0, 1, 2, 3]))


def test_runs_inside_no_grad(smooth_model):
    images, labels = torch.rand(2, 2, 5, 5).double(), torch.tensor([0, 1])
    with torch.no_grad():
        attacked = PGD(0.1, 0.1, 1, random_start=False)(smooth_model, images, labels)
    assert not attacked.requires_grad
    assert not torch.equal(attacked, images)


def test_a_constant_model_moves_nothing():
    class Constant(nn.Module):
        def forward(self, x):
            return x.flatten(1)[:, :2] * 0

    images = torch.rand(2, 1, 3, 3)
    attacked = PGD(0.1, 0.1, 3, random_start=False)(Constant(), images, torch.tensor([0, 1]))
    assert torch.equal(attacked, images)


def test_nan_gradients_never_come_back():
    class Broken(nn.Module):
        def forward(self, x):
            return x.flatten(1)[:, :2] * 0 + (x.flatten(1)[:, :2] - x.flatten(1)[:, :2]).sqrt()

    attacked = PGD(0.1, 0.1, 3, random_start=False)(
        Broken(), torch.rand(2, 1, 3, 3), torch.tensor([0, 1])
    )
    assert attacked.isfinite().all()


@pytest.mark.parametrize(
    ("settings", "field"),
    [
        ({"eps": -0.1}, "eps"),
        ({"step_size": -1.0}, "step_size"),
        ({"steps": -1}, "steps"),
        ({"norm": "l1"}, "norm"),
    ],
)
def test_refuses_settings(settings, field, own_errors):
    with pytest.raises(InputError, match=field):
        PGD(**({"eps": 0.1, "step_size": 0.1, "steps": 1} | settings))


def test_refuses_a_label_out_of_range(smooth_model, own_errors):
    with pytest.raises(InputError, match="labels: expected classes from 0 to 3, got 4"):
        PGD(0.1, 0.1, 1)(smooth_model, torch.rand(2, 2, 5, 5).double(), torch.tensor([4, 0]))


def test_restarts_are_never_worse_than_one_start(digits):
    model, images, labels = digits
    wrong, losses = [], []
    for restarts in (1, 2, 4, 8):
        attack = PGD(0.08, 0.02, 5, restarts=restarts, seed=0)
        logits = model(attack(model, images, labels)).detach()
        wrong.append(logits.argmax(1) != labels)
        losses.append(F.cross_entropy(logits, labels, reduction="none"))
    for n in range(3):
        assert (wrong[n + 1] >= wrong[n]).all()
        both = wrong[n + 1] == wrong[n]
        assert (losses[n + 1] >= losses[n] - 1e-5)[both].all()
    assert wrong[3].sum() > wrong[0].sum()


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_keeps_the_first_restart_that_fools_else_the_highest_loss(smooth_model, norm):
    """Against all restarts of every image, one by one, from the generator of that image."""
    with torch.no_grad():
        smooth_model[-1].weight *= 10
    images = torch.rand(12, 2, 5, 5).double()
    labels = smooth_model(images).argmax(1)
    attack = PGD(0.06, 0.02, 3, norm=norm, seed=2, restarts=4, chunk=5)
    attack = PGD(0.3, 0.05, 3, norm=norm, seed=2, restarts=4) if norm == "l2" else attack
    kept, places = [], []
    for n, label in enumerate(labels):
        image, (die,) = images[n : n + 1], generators(images[n : n + 1], 2)
        tried = []
        for _ in range(4):
            start = ball(norm, attack.eps).start(image, [die])

            def loss(x, y=label[None]):
                return F.cross_entropy(smooth_model(x), y, reduction="none")

            x = attack.maximize(loss, image, start)
            tried.append((bool(smooth_model(x).argmax() != label), loss(x).item(), x))
        fooled = [k for k in range(4) if tried[k][0]]
        places.append(fooled[0] if fooled else max(range(4), key=lambda k: tried[k][1]))
        kept.append(tried[places[-1]][2])
    assert len(set(places)) > 1
    assert torch.allclose(attack(smooth_model, images, labels), torch.cat(kept))


def test_chunks_do_not_change_unseeded_restarts(digits):
    model, images, labels = digits
    results = []
    for chunk in (None, 7):
        torch.manual_seed(7)
        results.append(PGD(0.08, 0.02, 3, restarts=3, chunk=chunk)(model, images, labels))
    assert torch.allclose(*results, atol=1e-5)


def test_restarts_need_a_random_start(own_errors):
    with pytest.raises(InputError, match=r"PGD\.restarts: expected 1 where random_start is False"):
        PGD(0.1, 0.1, 1, random_start=False, restarts=2)
    with pytest.raises(InputError, match=r"PGD\.restarts"):
        PGD(0.1, 0.1, 1, restarts=0)
