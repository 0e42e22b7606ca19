import pytest
import torch
from torch import nn

from holdfast.adversarial import PGD, UniformNoise
from holdfast.attributions import Gradient
from holdfast.audit import Trustworthiness
from holdfast.contracts import Batch, InputError
from holdfast.manipulation import Ensemble, RankCorrelation, check

RANK = RankCorrelation(Gradient(), eps=0.1, step_size=0.01, steps=4)


@pytest.fixture
def model():
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(16, 9), nn.Tanh(), nn.Linear(9, 3)).double()


def test_figures_are_those_of_the_images_that_the_model_gets_right(model):
    images = torch.rand(6, 1, 4, 4).double()
    labels = model(images).argmax(1)
    labels[1] = (labels[1] + 1) % 3
    right = [0, 2, 3, 4, 5]
    attack, stronger = PGD(0.1, 0.02, 5, seed=0), (UniformNoise(0.5, seed=0),)
    measures = Trustworthiness(RANK, attack, stronger, queries=4)(
        model, Batch(images=images, labels=labels)
    )
    trust = check(
        model, images[right], labels[right], RANK, attack=attack, stronger=stronger, queries=4
    )
    assert set(measures) == set(trust.figures)
    assert {"tau", "correct_uniform_noise", "correct_no_bound"} <= set(measures)
    for name, values in measures.items():
        assert values[1].isnan()
        assert values[right].mean().item() == pytest.approx(trust.figures[name]), name


def test_no_figures_where_the_model_is_never_right(model):
    images = torch.rand(2, 1, 4, 4).double()
    wrong = (model(images).argmax(1) + 1) % 3
    assert Trustworthiness(RANK)(model, Batch(images=images, labels=wrong)) == {}


def test_refuses_settings(own_errors):
    with pytest.raises(InputError, match="Trustworthiness.manipulation: expected one with eps and"):
        Trustworthiness(Ensemble(Gradient(), 0.1))
    with pytest.raises(InputError, match="Trustworthiness.queries"):
        Trustworthiness(RANK, queries=0)
