import pytest
import torch
from scipy import stats
from torch import nn

from holdfast.adversarial import TargetedPGD
from holdfast.contracts import InputError


def strong(target, **settings):
    """Far enough that, where each logit is a pixel, the aim is always reached."""
    return TargetedPGD(1.0, 0.1, 30, target=target, random_start=False, **settings)


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_reaches_the_closed_form_on_a_linear_model(norm):
    model = nn.Sequential(nn.Flatten(), nn.Linear(30, 2)).double()
    images = torch.full((4, 1, 5, 6), 0.5, dtype=torch.float64)
    targets = torch.tensor([0, 1, 0, 1])
    weight = model[1].weight.detach()
    way = weight[targets] - weight[1 - targets]
    way = way.sign() if norm == "linf" else way / way.norm(dim=1, keepdim=True)
    best = images + 0.2 * way.view_as(images)
    attack = TargetedPGD(0.2, 0.05, 40, norm)
    assert torch.allclose(attack.toward(model, images, targets), best, atol=1e-4)
    # With two classes there is one other, whatever is aimed at.
    for target in ("least_likely", "most_likely", "next", "random"):
        attack = TargetedPGD(0.2, 0.05, 40, norm, target)
        assert torch.allclose(attack(model, images, 1 - targets), best, atol=1e-4)


@pytest.mark.parametrize("chunk", [None, 2])
def test_aims_where_it_says(chunk):
    images = torch.rand(8, 1, 1, 5)
    labels = torch.tensor([0, 1, 2, 3, 4, 0, 1, 2])
    others = [
        {k: v for k, v in enumerate(row) if k != y}
        for row, y in zip(images.flatten(1).tolist(), labels.tolist(), strict=True)
    ]
    expected = {
        "least_likely": [min(row, key=row.get) for row in others],
        "most_likely": [max(row, key=row.get) for row in others],
        "next": [1, 2, 3, 4, 0, 1, 2, 3],
    }
    for target, classes in expected.items():
        attacked = strong(target, chunk=chunk)(nn.Flatten(), images, labels)
        assert attacked.flatten(1).argmax(1).tolist() == classes, target


@pytest.mark.parametrize("seed", [None, 0])
def test_random_targets_are_uniform_over_the_other_classes(seed):
    images, labels = torch.rand(400, 1, 1, 5), torch.full((400,), 2)
    attacked = strong("random", seed=seed)(nn.Flatten(), images, labels)
    counts = torch.bincount(attacked.flatten(1).argmax(1), minlength=5)
    assert counts[2] == 0
    assert stats.chisquare(counts[[0, 1, 3, 4]].numpy()).pvalue > 0.01


@pytest.mark.parametrize("target", ["least_likely", "random"])
def test_same_in_any_batch_when_seeded(smooth_model, target):
    images, labels = torch.rand(5, 2, 5, 5).double(), torch.randint(4, (5,))
    attack = TargetedPGD(0.2, 0.05, 4, target=target, seed=1)
    before = torch.get_rng_state()
    together = attack(smooth_model, images, labels)
    assert torch.equal(torch.get_rng_state(), before)
    order = torch.tensor([4, 2, 0, 1, 3])
    assert torch.allclose(attack(smooth_model, images[order], labels[order]), together[order])
    alone = [attack(smooth_model, images[i : i + 1], labels[i : i + 1]) for i in range(5)]
    assert torch.allclose(torch.cat(alone), together)


@pytest.mark.parametrize(
    ("settings", "field"),
    [
        ({"eps": -0.1}, "eps"),
        ({"step_size": -1.0}, r"TargetedPGD\.step_size"),
        ({"steps": -1}, r"TargetedPGD\.steps"),
        ({"norm": "l1"}, "norm"),
        ({"target": "second"}, r"TargetedPGD\.target"),
    ],
)
def test_refuses_settings(settings, field, own_errors):
    with pytest.raises(InputError, match=field):
        TargetedPGD(**({"eps": 0.1, "step_size": 0.1, "steps": 1} | settings))


def test_refuses_a_target_out_of_range(smooth_model, own_errors):
    images = torch.rand(2, 2, 5, 5).double()
    with pytest.raises(InputError, match="targets: expected classes from 0 to 3, got 4"):
        TargetedPGD(0.1, 0.1, 1).toward(smooth_model, images, torch.tensor([4, 0]))
    with pytest.raises(InputError, match="labels: expected classes from 0 to 3, got 4"):
        TargetedPGD(0.1, 0.1, 1)(smooth_model, images, torch.tensor([4, 0]))
