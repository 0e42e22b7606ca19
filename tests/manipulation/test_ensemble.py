from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import pytest
import torch
from torch import nn

from holdfast.attributions import DeepLIFT, Gradient, IntegratedGradients
from holdfast.contracts import InputError
from holdfast.manipulation import Ensemble, RandomSign, RankCorrelation, TopK

SOURCES = {"rank", "top_k", "mass_centre", "targeted", "random_search"}


@pytest.fixture
def model():
    torch.manual_seed(3)
    return nn.Sequential(
        nn.Conv2d(1, 6, 3), nn.ReLU(), nn.Flatten(), nn.Linear(216, 16), nn.ReLU(), nn.Linear(16, 3)
    ).double()


@pytest.fixture
def images():
    return torch.rand(6, 1, 8, 8, dtype=torch.float64)


def test_is_stronger_than_each_single_attack(model, images):
    labels = model(images).argmax(1)
    ig = IntegratedGradients(steps=10)
    found = Ensemble(ig, 0.1)(model, images, labels).similarity.mean()
    singles = [
        TopK(ig, 8, 0.1, 0.01, 40),
        RankCorrelation(ig, 0.1, 0.01, 40),
        RandomSign(ig, 0.1, draws=20),
    ]
    for attack in singles:
        assert found < attack(model, images, labels).similarity.mean()


def test_says_which_attack_found_each(model, images):
    labels = model(images).argmax(1)
    labels[2] = model(images)[2].argmin()
    outcome = Ensemble(Gradient(), 0.003)(model, images, labels)
    assert outcome.found_by[2] == ""
    assert not outcome.preserved[2]
    assert {name for i, name in enumerate(outcome.found_by) if i != 2} <= SOURCES


def test_a_spent_budget_still_gives_an_answer(model, images):
    labels = model(images).argmax(1)
    hurried = Ensemble(Gradient(), 0.1, seconds=1e-6)(model, images, labels)
    unhurried = Ensemble(Gradient(), 0.1, seconds=1e6)(model, images, labels)
    assert set(hurried.found_by) <= {"rank", ""}
    assert (hurried.similarity >= unhurried.similarity).all()
    assert hurried.similarity.mean() < 1
    plain = Ensemble(Gradient(), 0.1)(model, images, labels)
    assert torch.equal(plain.images, unhurried.images)


def test_attacks_our_own_deep_lift(model, images):
    labels = model(images).argmax(1)
    outcome = Ensemble(DeepLIFT(), 0.1)(model, images, labels)
    assert outcome.similarity.mean() < 0.9


def test_refuses_a_budget_of_nothing(own_errors):
    with pytest.raises(InputError, match="Ensemble.seconds"):
        Ensemble(Gradient(), 0.1, seconds=0.0)


def attacked(shard):
    """Attack a shard of the same images in a process of its own."""
    torch.set_num_threads(1)
    torch.manual_seed(7)
    model = nn.Sequential(nn.Flatten(), nn.Linear(36, 12), nn.ReLU(), nn.Linear(12, 3)).double()
    images = torch.rand(6, 1, 6, 6, dtype=torch.float64)
    labels = model(images).argmax(1)
    torch.manual_seed(shard.start)  # whatever else a process has drawn
    found = Ensemble(IntegratedGradients(steps=8), 0.1)(model, images[shard], labels[shard])
    return found.images, found.similarity


def test_two_processes_find_what_one_finds():
    whole, tau = attacked(slice(0, 6))
    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as pool:
        halves = list(pool.map(attacked, [slice(0, 3), slice(3, 6)]))
    assert torch.allclose(torch.cat([images for images, _ in halves]), whole, atol=1e-9)
    assert torch.allclose(torch.cat([values for _, values in halves]), tau)
