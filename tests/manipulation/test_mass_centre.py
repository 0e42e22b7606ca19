import itertools

import pytest
import torch
from torch import nn

from holdfast.attributions import InputXGradient
from holdfast.manipulation import MassCentre
from holdfast.manipulation.mass_centre import centre_distance, nudged


def test_distance_equals_that_of_weighted_coordinates():
    scores = torch.rand(3, 12, dtype=torch.float64)
    before = torch.rand(3, 2, dtype=torch.float64)
    found = centre_distance(before, scores, (3, 4))
    for n in range(3):
        total = scores[n].sum()
        row = sum(scores[n, 4 * r + c] * r for r in range(3) for c in range(4)) / total
        column = sum(scores[n, 4 * r + c] * c for r in range(3) for c in range(4)) / total
        expected = ((row - before[n, 0]) ** 2 + (column - before[n, 1]) ** 2) ** 0.5
        assert found[n].item() == pytest.approx(expected.item(), abs=1e-12)


def test_moves_the_centre_of_a_linear_map_as_far_as_the_ball_allows():
    """The map of x·w is x itself where w = 1; the farthest corner of the ball by trying all."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(6, 2, bias=False)).double()
    nn.init.ones_(model[1].weight[0:1].data)
    nn.init.zeros_(model[1].weight[1:2].data)
    images = torch.full((1, 1, 1, 6), 0.5, dtype=torch.float64)
    attack = MassCentre(InputXGradient(), eps=0.2, step_size=0.05, steps=30, judge_every=30)
    found = attack(model, images, torch.tensor([0])).images.flatten()

    def moved(pixels):
        return abs(sum(i * float(p) for i, p in enumerate(pixels)) / float(sum(pixels)) - 2.5)

    farthest = max(moved(corner) for corner in itertools.product([0.3, 0.7], repeat=6))
    assert moved(found.tolist()) == pytest.approx(farthest)


def test_nudges_depend_on_the_image_alone():
    images = 0.3 + 0.4 * torch.rand(4, 1, 3, 3)
    together = nudged(images, 0.1, seed=0)
    assert torch.equal(nudged(images[2:3], 0.1, seed=0), together[2:3])
    assert 0.05 < (together - images).abs().max() <= 0.1 + 1e-6
    assert not torch.equal(nudged(images, 0.1, seed=1), together)


def test_survives_scores_that_are_not_finite():
    scores = torch.tensor([[1.0, float("nan")], [0.0, 1.0]])
    assert torch.isfinite(centre_distance(torch.zeros(2, 2), scores, (1, 2))).all()
