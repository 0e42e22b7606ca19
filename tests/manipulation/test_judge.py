import pytest
import torch
from scipy import stats
from torch import nn

from holdfast.attributions import Gradient, InputXGradient, SmoothGrad
from holdfast.manipulation.judge import Judge


@pytest.fixture
def model():
    """The map of x·w is x where w = 1; class 1 wins where the first pixel is above 0.8."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(6, 2)).double()
    with torch.no_grad():
        model[1].weight[0] = 1
        model[1].weight[1] = torch.tensor([11.0, 1, 1, 1, 1, 1])
        model[1].bias[:] = torch.tensor([8.0, 0.0])
    return model


@pytest.fixture
def images():
    return torch.tensor([[0.1, 0.2, 0.3, 0.4, 0.5, 0.6], [0.5, 0.4, 0.3, 0.2, 0.1, 0.0]]).double()[
        :, None, None
    ]


LABELS = torch.tensor([0, 0])


def test_remembers_the_lowest_tau_of_those_that_keep_the_label(model, images):
    judge = Judge(InputXGradient(), model, images, LABELS)
    assert judge.similarity.tolist() == [1.0, 1.0]
    assert not judge.preserved.any()

    swapped = images.clone()
    swapped[0, 0, 0, :2] = torch.tensor([0.2, 0.1])
    first = judge(swapped, "swap")
    expected = stats.kendalltau(images[0].flatten(), swapped[0].flatten()).statistic
    assert first.tolist() == pytest.approx([expected, 1.0])

    lost = images.flip(3)
    lost[0, 0, 0, 0] = 0.9
    second = judge(lost, "flip")
    assert second.tolist() == [torch.inf, -1.0]
    assert judge.similarity.tolist() == pytest.approx([expected, -1.0])
    assert torch.equal(judge.best[0], swapped[0])
    assert torch.equal(judge.best[1], lost[1])
    assert judge.found_by == ["swap", "flip"]

    judge(images, "nothing")
    assert judge.found_by == ["swap", "flip"]


def test_an_image_without_its_label_stays_unpreserved(model, images):
    judge = Judge(InputXGradient(), model, images, torch.tensor([1, 0]))
    judge(images, "same")
    assert judge.preserved.tolist() == [False, True]
    assert judge.found_by == ["", "same"]


def test_a_judge_among_some_teaches_the_one_of_all(model, images):
    judge = Judge(InputXGradient(), model, images, LABELS)
    few = judge.among(torch.tensor([1]))
    few(images[1:].flip(3), "flip")
    assert judge.similarity.tolist() == [1.0, 1.0]
    judge.learn(torch.tensor([1]), few)
    assert judge.similarity.tolist() == [1.0, -1.0]
    assert judge.preserved.tolist() == [False, True]
    assert judge.found_by == ["", "flip"]
    assert torch.equal(judge.best[1], images[1].flip(2))


def test_lead_is_the_difference_of_logits(model, images):
    judge = Judge(Gradient(), model, images, LABELS)
    logits = model(images)
    assert torch.allclose(judge.lead(images), logits[:, 0] - logits[:, 1])
    some = torch.tensor([False, True])
    assert torch.allclose(judge.lead(images[some], some), (logits[:, 0] - logits[:, 1])[1:])
    x = images.clone().requires_grad_(True)
    (slope,) = torch.autograd.grad(judge.lead(x).sum(), x)
    assert torch.allclose(slope[0].flatten(), model[1].weight[0] - model[1].weight[1])


@pytest.mark.parametrize("random", ["attribution", "model"])
def test_maps_that_are_drawn_anew_in_each_call_are_noticed(random, model):
    class Drawn:
        def __call__(self, model, images, targets=None, *, create_graph=False):
            return Gradient()(model, images, targets) * torch.rand_like(images)

    class Dropping(nn.Module):
        def forward(self, x):
            return model(nn.functional.dropout(x, 0.5, training=True))

    images = torch.rand(2, 1, 2, 3, dtype=torch.float64)
    labels = model(images).argmax(1)
    drawn = (Drawn(), model) if random == "attribution" else (InputXGradient(), Dropping())
    with pytest.warns(UserWarning, match="the same image has another map in another call"):
        Judge(*drawn, images, labels)


def test_seeded_maps_are_not_taken_for_maps_drawn_anew(model, recwarn):
    images = torch.rand(2, 1, 2, 3, dtype=torch.float64)
    Judge(SmoothGrad(samples=3), model, images, model(images).argmax(1))
    assert not recwarn.list
