from dataclasses import dataclass

import pytest
import torch
from torch import nn

from holdfast.adversarial import PGD, UniformNoise
from holdfast.attributions import Gradient
from holdfast.contracts import InputError, Outcome
from holdfast.manipulation import (
    Ensemble,
    RankCorrelation,
    Targeted,
    TopK,
    check,
    doubts,
    trust_figures,
)
from holdfast.manipulation.trust import unearned

RANK = RankCorrelation(Gradient(), eps=0.1, step_size=0.01, steps=15)
QUICK = {"stronger": (PGD(0.1, 0.02, 40, seed=0),), "queries": 10}


@pytest.fixture
def model():
    torch.manual_seed(0)
    layers = nn.Flatten(), nn.Linear(16, 20), nn.Tanh(), nn.Linear(20, 3)
    model = nn.Sequential(*layers).double()
    with torch.no_grad():
        model[1].weight *= 4
    return model


@pytest.fixture
def images():
    return torch.rand(24, 1, 4, 4, dtype=torch.float64)


def test_finds_nothing_against_an_honest_model(model, images):
    trust = check(model, images, model(images).argmax(1), RANK, **QUICK)
    assert trust.doubts == ()
    assert trust.figures["zero_gradient"] == 0
    assert trust.figures["correct_no_bound"] == 0
    assert "Nothing speaks against" in str(trust)


@pytest.mark.harness
def test_figures_are_those_of_the_attacks_themselves(model, images):
    labels = model(images).argmax(1)
    trust = check(model, images, labels, RANK, **QUICK)
    longer = RankCorrelation(Gradient(), eps=0.1, step_size=0.01, steps=30)
    wider = RankCorrelation(Gradient(), eps=0.2, step_size=0.01, steps=15)
    for name, attack in {
        "tau": RANK,
        "tau_twice_steps": longer,
        "tau_twice_eps": wider,
    }.items():
        expected = attack(model, images, labels).similarity.mean().item()
        assert trust.figures[name] == pytest.approx(expected)
    attacked = PGD(0.1, 0.1 / 8, 20, seed=0)(model, images, labels)
    right = (model(attacked).argmax(1) == labels).double().mean().item()
    assert trust.figures["correct_pgd"] == pytest.approx(right)


@pytest.mark.harness
def test_sees_saturated_gradients(images):
    """A classifier that rounds its input is masked: no gradient, but not robust."""

    class Rounded(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = nn.Sequential(nn.Flatten(), nn.Linear(16, 3)).double()

        def forward(self, x):
            return self.inner((x * 10).round() / 10)

    model = Rounded()
    labels = model(images).argmax(1)
    trust = check(model, images, labels, RANK, stronger=(UniformNoise(1.0, seed=0),), queries=5)
    assert trust.figures["zero_gradient"] == 1
    assert any("zero at 100%" in doubt for doubt in trust.doubts)
    assert any("Uniform noise is stronger than PGD" in doubt for doubt in trust.doubts)
    assert any("without a bound" in doubt for doubt in trust.doubts)


def test_sees_an_attack_that_weakens_with_steps_and_loses_to_chance(model, images):
    @dataclass(frozen=True)
    class Backwards:
        attribution: Gradient = Gradient()
        eps: float = 0.1
        steps: int = 10

        def __call__(self, model, images, labels):
            tau = torch.full((len(images),), 0.9 + 0.001 * self.steps + 0.3 * self.eps)
            return Outcome(images, tau, torch.ones(len(images), dtype=torch.bool))

    labels = model(images).argmax(1)
    trust = check(model, images, labels, Backwards(), stronger=(), queries=20, tolerance=0.005)
    said = " ".join(trust.doubts)
    assert "Twice the steps make the attack weaker" in said
    assert "A ball twice as large makes the attack weaker" in said
    assert "Random search beats gradients" in said


def test_takes_the_attacks_of_the_papers(model, images):
    attack = TopK(Gradient(), k=4, eps=0.1, step_size=0.02, steps=5)
    trust = check(model, images[:4], model(images[:4]).argmax(1), attack, queries=3)
    assert {"correct_pgd_100", "correct_pgd_500", "correct_spsa"} <= set(trust.figures)


def test_refuses_what_has_no_steps(model, images, own_errors):
    with pytest.raises(InputError, match="manipulation: expected one with eps and steps"):
        check(model, images, model(images).argmax(1), Ensemble(Gradient(), 0.1))


def test_refuses_targets_that_depend_on_the_other_images(model, images, own_errors):
    shuffled = Targeted(Gradient(), 0.1, 0.1, 1, shuffled=True)
    with pytest.raises(InputError, match="manipulation.shuffled: expected one whose targets"):
        check(model, images, model(images).argmax(1), shuffled)


@pytest.mark.harness
def test_figures_are_image_by_image(model, images):
    labels = model(images).argmax(1)
    figures = trust_figures(model, images, labels, RANK, **QUICK)
    assert list(figures) == [
        "tau",
        "tau_twice_steps",
        "tau_twice_eps",
        "tau_random_search",
        "tau_random_sign",
        "moved",
        "no_direction",
        "zero_gradient",
        "surrogate_agrees",
        "correct_pgd",
        "correct_pgd_40",
        "correct_no_bound",
    ]
    torch.testing.assert_close(figures["tau"], RANK(model, images, labels).similarity)
    attacked = PGD(0.1, 0.02, 40, seed=0)(model, images, labels)
    right = (model(attacked).argmax(1) == labels).double()
    assert torch.equal(figures["correct_pgd_40"], right)
    means = {name: values.mean().item() for name, values in figures.items()}
    trust = check(model, images, labels, RANK, **QUICK)
    assert trust.figures == pytest.approx(means)


@pytest.mark.parametrize(
    ("figures", "says"),
    [
        ({"tau": 0.5, "tau_twice_steps": 0.53}, "Twice the steps make the attack weaker"),
        ({"tau": 0.5, "tau_twice_eps": 0.53}, "A ball twice as large makes the attack weaker"),
        ({"tau": 0.5, "tau_random_search": 0.47}, "Random search beats gradients"),
        ({"zero_gradient": 0.01}, "The gradient is zero at 1% of the images"),
        ({"correct_pgd": 0.5, "correct_pgd_500": 0.4}, "PGD-500 is stronger than PGD: 40.0%"),
        ({"correct_pgd": 0.5, "correct_uniform_noise": 0.4}, "Uniform noise is stronger than PGD"),
        ({"correct_no_bound": 0.03}, "An attack without a bound leaves 3.0% accuracy"),
    ],
)
def test_each_doubt_of_means_alone(figures, says):
    (doubt,) = doubts(figures)
    assert says in doubt
    assert doubts(figures, tolerance=0.2) == (() if "zero_gradient" not in figures else (doubt,))


def test_sees_an_attack_that_has_no_direction(images):
    """The second derivative of ``x * (x > 0)`` is zero, and no surrogate reaches it."""

    class Positive(nn.Module):
        def forward(self, x):
            return x * (x > 0)

    torch.manual_seed(0)
    layers = nn.Flatten(), nn.Linear(16, 20), Positive(), nn.Linear(20, 3)
    hidden = nn.Sequential(*layers).double()
    labels = hidden(images).argmax(1)
    trust = check(hidden, images, labels, RANK, **QUICK)
    assert trust.figures["tau"] == 1
    assert trust.figures["moved"] == 0
    assert trust.figures["no_direction"] == 1
    assert trust.figures["tau_random_sign"] < 0.9
    said = " ".join(trust.doubts)
    assert "100% of the steps of the attack had no direction" in said
    assert "The attack moved no image" in said
    assert "Random signs change the maps more" in said
    plain = nn.Sequential(*layers[:2], nn.ReLU(), layers[3])
    figures = check(plain, images, labels, RANK, **QUICK).figures
    assert figures["tau_random_sign"] == trust.figures["tau_random_sign"]
    assert figures["tau"] < figures["tau_random_sign"]
    assert figures["surrogate_agrees"] > 0.9


def test_unearned_figures():
    assert unearned({}) == ()
    sound = {"tau": 0.5, "tau_random_sign": 0.6, "no_direction": 0.5, "moved": 0.01}
    assert unearned(sound) == ()
    assert unearned({**sound, "tau_random_sign": 0.49}) == ()  # by chance
    assert len(unearned({**sound, "tau_random_sign": 0.47})) == 1
    assert len(unearned({**sound, "tau_random_sign": 0.47}, tolerance=0.05)) == 0
    assert len(unearned({"tau": 1.0, "no_direction": 0.51, "moved": 0.0})) == 2


def test_sees_a_surrogate_that_is_another_model():
    assert doubts({"surrogate_agrees": 0.95}) == ()
    (said,) = doubts({"surrogate_agrees": 0.25})
    assert "75% of the images another class" in said
