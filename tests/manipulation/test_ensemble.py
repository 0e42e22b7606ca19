from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import pytest
import torch
from torch import nn

from holdfast.attributions import DeepLIFT, GradCAM, Gradient, IntegratedGradients
from holdfast.contracts import InputError, StuckWarning
from holdfast.manipulation import (
    Ensemble,
    RandomSearch,
    RandomSign,
    RankCorrelation,
    TopK,
    ensemble,
)

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


@pytest.mark.harness
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


@pytest.mark.harness
def test_a_spent_budget_still_gives_an_answer(model, images, monkeypatch):
    monkeypatch.setattr(ensemble, "RESTARTS", 0)  # they take most of the time
    images = images[:3]
    labels = model(images).argmax(1)
    hurried = Ensemble(Gradient(), 0.1, seconds=1e-6)(model, images, labels)
    unhurried = Ensemble(Gradient(), 0.1, seconds=1e6)(model, images, labels)
    assert set(hurried.found_by) <= {"rank", "random_search", ""}
    assert (hurried.similarity >= unhurried.similarity).all()
    assert hurried.similarity.mean() < 1
    plain = Ensemble(Gradient(), 0.1)(model, images, labels)
    assert torch.equal(plain.images, unhurried.images)


def test_never_ends_before_an_attack_without_gradients(model, images, monkeypatch):
    images, searched = images[:4], []
    labels = model(images).argmax(1)

    def search(judge, eps, queries, seed, source):
        searched.append(len(judge.images))

    monkeypatch.setattr(ensemble, "search", search)
    Ensemble(Gradient(), 0.1, seconds=1e-6, chunk=2)(model, images, labels)
    assert searched == [2, 2]


class Round(nn.Module):
    """Rounds images of more than half the mean brightness 0.5: gradients of zero for some."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, x):
        bright = (x.mean((1, 2, 3)) > 0.5)[:, None, None, None]
        return self.model(torch.where(bright, (x * 255).round() / 255, x))


@pytest.mark.harness
def test_spends_its_budget_on_random_search_where_there_is_no_direction(model, images):
    images = images * torch.linspace(0.5, 1, 6).view(-1, 1, 1, 1).double()
    images[3:] = (images[3:] + 0.4).clamp(0, 1)
    rounding = Round(model)
    bright = images.mean((1, 2, 3)) > 0.5
    assert bright.tolist() == [False] * 3 + [True] * 3
    labels = rounding(images).argmax(1)
    with pytest.warns(StuckWarning, match="Ensemble: for 3 of 6 images"):
        outcome = Ensemble(GradCAM(), 0.02)(rounding, images, labels)
    assert torch.equal(outcome.gradient_free, bright)
    changed = (outcome.similarity[3:] < 1).tolist()  # a map of zeros may stay one
    assert any(changed)
    assert outcome.found_by[3:] == tuple("random_search" if c else "rank" for c in changed)
    # As much as a random search of that length finds alone; the others as without rounding.
    search = RandomSearch(GradCAM(), 0.02, queries=270)(rounding, images[3:], labels[3:])
    assert outcome.similarity[3:].mean() <= search.similarity.mean() + 0.02
    plain = Ensemble(GradCAM(), 0.02)(model, images[:3], labels[:3])
    assert torch.equal(outcome.images[:3], plain.images)


@pytest.mark.harness
def test_attacks_our_own_deep_lift(model, images, monkeypatch):
    monkeypatch.setattr(ensemble, "RESTARTS", 0)  # they take most of the time
    images = images[:2]
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


@pytest.mark.harness
def test_two_processes_find_what_one_finds():
    whole, tau = attacked(slice(0, 6))
    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as pool:
        halves = list(pool.map(attacked, [slice(0, 3), slice(3, 6)]))
    assert torch.allclose(torch.cat([images for images, _ in halves]), whole, atol=1e-9)
    assert torch.allclose(torch.cat([values for _, values in halves]), tau)
