import pytest
import torch
from torch import nn
from torch.nn import functional as F

from holdfast.adversarial import PGD
from holdfast.contracts import InputError


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
