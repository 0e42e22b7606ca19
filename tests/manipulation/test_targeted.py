import dataclasses

import pytest
import torch
from torch import nn

from holdfast.attributions import Gradient, InputXGradient
from holdfast.contracts import InputError
from holdfast.manipulation import Targeted
from holdfast.manipulation.targeted import far_scores, others, shares


def test_a_linear_map_becomes_the_target():
    """The map of x·w is x itself where w = 1: within the ball it can become any other image."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(9, 2, bias=False)).double()
    nn.init.ones_(model[1].weight[0:1].data)
    nn.init.zeros_(model[1].weight[1:2].data)
    other = 0.3 + 0.4 * torch.rand(1, 3, 3, dtype=torch.float64)
    images = other + 0.24 * (torch.rand(2, 1, 3, 3, dtype=torch.float64) - 0.5)

    def unlike(maps):
        shares = maps.flatten(1) / maps.mean((1, 2, 3))[:, None]
        return (shares - other.flatten() / other.mean()).abs().amax(1)

    attack = Targeted(InputXGradient(), 0.5, 0.004, 35, target=other, weight=0.0, judge_every=35)
    found = attack(model, images, torch.zeros(2, dtype=torch.long)).images
    assert unlike(images).min() > 0.08
    assert unlike(found).max() < 0.02


def test_comes_nearer_to_the_target_than_the_original_map(relu_model):
    images = torch.rand(6, 2, 5, 5, dtype=torch.float64)
    target = torch.rand(6, 2, 5, 5, dtype=torch.float64)
    labels = relu_model(images).argmax(1)
    attack = Targeted(Gradient(), 0.2, 0.01, 30, target=target, judge_every=30, margin=0.1)
    outcome = attack(relu_model, images, labels)

    def scores(x, y):
        x = x.clone().requires_grad_(True)
        (gradient,) = torch.autograd.grad(relu_model(x).gather(1, y[:, None]).sum(), x)
        total = gradient.abs().sum(1).flatten(1)
        return total / total.mean(1, keepdim=True)

    wanted = scores(target, relu_model(target).argmax(1))
    before = (scores(images, labels) - wanted).square().mean(1)
    after = (scores(outcome.images, labels) - wanted).square().mean(1)
    assert (after[outcome.preserved] < before[outcome.preserved]).float().mean() > 0.7


def test_the_output_is_kept_the_better_the_more_it_counts(relu_model):
    images = torch.rand(8, 2, 5, 5, dtype=torch.float64)
    labels = relu_model(images).argmax(1)
    with torch.no_grad():
        before = relu_model(images).softmax(1)

        def moved(weight):
            attack = Targeted(Gradient(), 0.2, 0.01, 20, weight=weight, judge_every=20)
            after = relu_model(attack(relu_model, images, labels).images).softmax(1)
            return (after - before).abs().sum()

        assert moved(1e4) < 0.5 * moved(0.0)


def test_shuffled_targets_are_the_other_images_whatever_the_chunk():
    model = nn.Sequential(nn.Flatten(), nn.Linear(30, 12), nn.ReLU(), nn.Linear(12, 3)).double()
    images = torch.rand(5, 1, 5, 6, dtype=torch.float64)
    labels = model(images).argmax(1)
    attack = Targeted(Gradient(), 0.2, 0.02, 4, shuffled=True, seed=3)
    found = attack(model, images, labels).images
    named = dataclasses.replace(attack, target=images[others(5, 3)], shuffled=False)
    assert torch.equal(found, named(model, images, labels).images)
    in_chunks = dataclasses.replace(attack, chunk=2)(model, images, labels).images
    torch.testing.assert_close(in_chunks, found)
    reseeded = dataclasses.replace(attack, seed=4)
    assert others(5, 4) != others(5, 3)
    assert not torch.equal(reseeded(model, images, labels).images, found)


@pytest.mark.parametrize("count", [2, 3, 50])
def test_others_are_all_images_and_none_its_own(count):
    for seed in range(20):
        drawn = others(count, seed)
        assert sorted(drawn) == list(range(count))
        assert all(other != own for own, other in enumerate(drawn))
    assert count < 50 or others(count, 0) != others(count, 1)


def test_one_image_has_no_other(relu_model, own_errors):
    images = torch.rand(1, 2, 5, 5, dtype=torch.float64)
    with pytest.raises(InputError, match="images: expected several, each of which"):
        Targeted(Gradient(), 0.1, 0.1, 1, shuffled=True)(relu_model, images, torch.tensor([0]))


def test_shares_have_a_mean_of_one_and_nothing_stays_nothing():
    scores = torch.tensor([[1.0, 2.0, 6.0], [0.0, 0.0, 0.0]])
    assert shares(scores).mean(1).tolist() == pytest.approx([1.0, 0.0])


def test_the_far_map_has_its_middle_in_the_corners():
    maps = torch.zeros(1, 1, 4, 4)
    maps[0, 0, 1:3, 1:3] = 1
    corners = far_scores(maps).view(4, 4)
    assert corners[[0, 0, 3, 3], [0, 3, 0, 3]].tolist() == [4.0] * 4
    assert corners.sum() == 16


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"weight": -1.0}, "Targeted.weight"),
        ({"betas": (0.0, 10.0)}, "Targeted.betas"),
        ({"target": torch.full((1, 2, 2), 3.0)}, "Targeted.target"),
        ({"target": torch.zeros(1, 2, 2), "shuffled": True}, "Targeted.shuffled"),
    ],
)
def test_refuses_settings(settings, says, own_errors):
    with pytest.raises(InputError, match=says):
        Targeted(Gradient(), 0.1, 0.1, 1, **settings)


def test_refuses_a_target_of_another_shape(relu_model, own_errors):
    images = torch.rand(3, 2, 5, 5, dtype=torch.float64)
    attack = Targeted(Gradient(), 0.1, 0.1, 1, target=torch.rand(2, 4, 4))
    with pytest.raises(InputError, match=r"Targeted.target: expected shape \(2, 5, 5\)"):
        attack(relu_model, images, torch.tensor([0, 0, 0]))
