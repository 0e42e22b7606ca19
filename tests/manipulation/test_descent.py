"""The walk below every gradient manipulation; what it promises as a whole is tested in
test_every_manipulation."""

import pytest
import torch
from torch import nn

from holdfast.attributions import InputXGradient
from holdfast.manipulation.descent import Walk, off_the_kinks
from holdfast.manipulation.judge import Judge


@pytest.fixture
def model():
    """The label 0 leads by the mean of the pixels less 0.3."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(4, 2)).double()
    with torch.no_grad():
        model[1].weight[0], model[1].weight[1] = 0.25, 0.0
        model[1].bias[:] = torch.tensor([0.0, 0.3])
    return model


@pytest.fixture
def judge(model):
    images = torch.full((2, 1, 2, 2), 0.5, dtype=torch.float64)
    return Judge(InputXGradient(), model, images, torch.tensor([0, 0]))


def estimate(x, step):
    return x


def test_a_step_goes_down_by_its_size_and_stays_in_the_ball(judge):
    walk = Walk(judge, 0.25, judge.images)
    slopes = torch.tensor([[1.0, -2.0], [0.0, 3.0]], dtype=torch.float64)
    for number, expected in enumerate([0.1, 0.2, 0.25]):
        walk.step(estimate, lambda maps, x, _: (maps * slopes).sum((1, 2, 3)), number, 0.1, 50.0)
        assert torch.allclose(walk.x - 0.5, -expected * slopes.sign())
    assert walk.judge.directionless.tolist() == [0, 0]


def test_each_image_may_have_its_own_step(judge):
    walk = Walk(judge, 0.4, judge.images)
    sizes = torch.tensor([0.1, 0.3], dtype=torch.float64)[:, None, None, None]
    walk.step(estimate, lambda maps, x, _: maps.sum((1, 2, 3)), 0, sizes, 50.0)
    assert torch.allclose(walk.x, 0.5 - sizes.expand_as(walk.x))


def test_momentum_remembers_the_last_direction(judge):
    walk = Walk(judge, 0.4, judge.images, momentum=0.7)
    walk.step(estimate, lambda maps, x, _: maps.sum((1, 2, 3)), 0, 0.1, 50.0)
    # Without any gradient of its own, the next step still goes the same way, and counts as stuck.
    walk.step(estimate, lambda maps, x, _: 0 * maps.sum((1, 2, 3)), 1, 0.1, 50.0)
    assert torch.allclose(walk.x, torch.tensor(0.3, dtype=torch.float64))
    assert walk.judge.directionless.tolist() == [1, 1]
    # A gradient of the same strength turns it around: 1 beats 0.7 of what remained.
    walk.step(estimate, lambda maps, x, _: -maps.sum((1, 2, 3)), 2, 0.1, 50.0)
    assert torch.allclose(walk.x, torch.tensor(0.4, dtype=torch.float64))


def test_margin_keeps_a_label_that_would_be_lost(judge):
    """Down the loss the mean falls to 0.1 and the label with it; steering stops at the floor."""

    def down(maps, x, _):
        return maps.sum((1, 2, 3))

    lost = Walk(judge, 0.4, judge.images)
    kept = Walk(judge, 0.4, judge.images, margin=0.25)
    for number in range(60):
        lost.step(estimate, down, number, 0.02, 50.0)
        kept.step(estimate, down, number, 0.02, 50.0)
    assert (judge.lead(lost.x) < 0).all()
    # A quarter of the lead of 0.2 is the floor; one step of 0.02 may lie below it.
    assert (judge.lead(kept.x) >= 0.05 - 0.02 - 1e-9).all()
    assert (judge.lead(kept.x) <= 0.05 + 0.02 + 1e-9).all()


def test_gradients_that_are_no_numbers_move_nothing(judge):
    walk = Walk(judge, 0.4, judge.images, momentum=0.5)

    def cliff(maps, x, _):
        return (maps - 0.5).abs().sqrt().sum((1, 2, 3))

    walk.step(lambda x, step: x, lambda maps, x, n: cliff(x, x, n), 0, 0.1, 50.0)
    assert torch.equal(walk.x, judge.images)
    assert walk.judge.directionless.tolist() == [1, 1]


def test_off_the_kinks_moves_black_and_white_inside():
    x = torch.tensor([0.0, 0.5, 1.0], dtype=torch.float64)
    assert off_the_kinks(x).tolist() == pytest.approx([0.001, 0.5, 0.999])
