import itertools
import math

import pytest
import torch

from holdfast.attributions import IntegratedGradients
from holdfast.manipulation import RankCorrelation, TopK
from holdfast.manipulation.rank import drawn_pairs, pair_agreement


def test_pair_agreement_equals_a_loop_over_pairs():
    before, after = torch.rand(2, 3, 7, dtype=torch.float64)
    before[:, 2] = before[:, 5]
    others = drawn_pairs(7, 4, seed=3)
    for n, found in enumerate(pair_agreement(before, after, others).tolist()):
        mean, total = after[n].mean().item(), 0.0
        for i in range(7):
            for j in others[i].tolist():
                sign = (before[n, i] > before[n, j]).int() - (before[n, i] < before[n, j]).int()
                total += math.tanh((after[n, i] - after[n, j]).item() / mean) * int(sign)
        assert found == pytest.approx(total / 28, abs=1e-12)


def test_all_pairs_of_far_apart_scores_are_kendalls_tau():
    """With differences much larger than the mean of the rest, tanh is the sign: τ-a."""
    before = torch.rand(1, 6, dtype=torch.float64)
    after = torch.randn(1, 6, dtype=torch.float64).mul(1e6)
    after = after - after.mean() + 1
    everyone = drawn_pairs(6, 5, seed=0)
    pairs = itertools.combinations(range(6), 2)
    signs = [
        math.copysign(1, (before[0, i] - before[0, j]) * (after[0, i] - after[0, j]))
        for i, j in pairs
    ]
    found = pair_agreement(before, after, everyone).item()
    assert found == pytest.approx(sum(signs) / len(signs), abs=1e-9)


def test_is_differentiable(smooth_model):
    before = torch.rand(2, 5, dtype=torch.float64)
    after = torch.rand(2, 5, dtype=torch.float64, requires_grad=True)
    others = drawn_pairs(5, 3, seed=0)
    scale = after.detach().mean(1, keepdim=True)

    def by_hand(scores):
        difference = (scores[:, :, None] - scores[:, others]) / scale[:, :, None]
        return (difference.tanh() * (before[:, :, None] - before[:, others]).sign()).mean((1, 2))

    ours = torch.autograd.grad(pair_agreement(before, after, others).sum(), after)[0]
    theirs = torch.autograd.grad(by_hand(after).sum(), after)[0]
    assert torch.allclose(ours, theirs, atol=1e-12)


def test_no_pixel_is_compared_with_itself_and_none_twice():
    others = drawn_pairs(9, 8, seed=1)
    for i in range(9):
        assert sorted(others[i].tolist()) == [j for j in range(9) if j != i]
    assert drawn_pairs(9, 100, seed=1).shape == (9, 8)
    assert drawn_pairs(1, 4, seed=1).tolist() == [[0]]


def test_lowers_tau_further_than_the_top_k_attack(relu_model):
    images = torch.rand(20, 2, 5, 5, dtype=torch.float64)
    labels = relu_model(images).argmax(1)
    ig = IntegratedGradients(steps=5)
    rank = RankCorrelation(ig, 0.1, 0.01, 20, margin=0.05)(relu_model, images, labels)
    top_k = TopK(ig, 5, 0.1, 0.01, 20, margin=0.05)(relu_model, images, labels)
    assert rank.similarity.mean() < top_k.similarity.mean()
