from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from scipy import stats
from torch import nn

from holdfast.adversarial import PGD
from holdfast.attributions import Gradient, GradientSHAP, IntegratedGradients
from holdfast.audit import Audit
from holdfast.audit.map_checks import similarities
from holdfast.audit.yardsticks import Yardsticks
from holdfast.contracts import Outcome, StuckWarning
from holdfast.data import ImageData
from holdfast.manipulation import Ensemble, RandomSign, TopK

TOP = TopK(Gradient(), k=20, eps=0.1, step_size=0.03, steps=6)
PGD_ = PGD(eps=0.1, step_size=0.03, steps=6, random_start=False)


class Positive(nn.Module):
    """ReLU in a spelling that no surrogate reaches."""

    def forward(self, x):
        return x * (x > 0)


class Rounding(nn.Module):
    def forward(self, x):
        return (8 * x).round() / 8


@pytest.fixture(scope="module")
def data():
    return ImageData("digits", limit=16).load("test")


@pytest.fixture(scope="module")
def net():
    torch.manual_seed(0)
    train = ImageData("digits", limit=400).load("train").batch(range(400))
    net = nn.Sequential(nn.Flatten(), nn.Linear(256, 24), nn.ReLU(), nn.Linear(24, 10))
    optimizer = torch.optim.Adam(net.parameters(), lr=0.01)
    for _ in range(50):
        loss = nn.functional.cross_entropy(net(train["images"]), train["labels"])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return net.eval()


def audited(model, data, folder, manipulations=None, attacks=None):
    audit = Audit(attacks or {}, manipulations or {"top": TOP}, k=20, gallery=1, worst=1, shard=8)
    records = audit(model, data, folder, progress=False)
    found = {}
    for row in records.to_pylist():
        found.setdefault((row["check"], row["measure"]), {})[row["index"]] = row["value"]
    return found


def mean(values):
    return sum(values.values()) / len(values)


@pytest.mark.harness
def test_records_say_how_far_images_moved(net, data, tmp_path):
    found = audited(net, data, tmp_path, attacks={"pgd": PGD_})
    images, labels = data.batch(range(16))["images"], data.batch(range(16))["labels"]
    attacked = PGD_(net, images, labels)
    for index, moved in found["pgd", "moved"].items():
        assert moved == pytest.approx((attacked[index] - images[index]).abs().max().item())
    assert set(found["pgd", "no_direction"].values()) == {0.0}
    for index, moved in found["top", "moved"].items():
        alone = TOP(net, images[index : index + 1], labels[index : index + 1])
        assert moved == pytest.approx((alone.images[0] - images[index]).abs().max().item())
    assert mean(found["top", "no_direction"]) < 0.1
    assert ("top", "random_search_kendall_tau") not in found
    assert ("pgd", "random_search_correct") not in found


def test_the_audit_measures_the_distance_itself(net, data, tmp_path):
    @dataclass(frozen=True)
    class Boastful:
        """An attack that does nothing and says that it went far."""

        attribution: Gradient = Gradient()
        eps: float = 0.1

        def __call__(self, model, images, labels):
            one = torch.ones(len(images))
            return Outcome(images, one, one.bool(), moved=0.1 * one)

    found = audited(net, data, tmp_path, {"boast": Boastful()})
    assert set(found["boast", "moved"].values()) == {0.0}
    assert ("boast", "no_direction") not in found  # it takes no steps
    assert mean(found["boast", "random_sign_kendall_tau"]) < 0.95
    assert mean(found["boast", "random_search_kendall_tau"]) < 0.95


def test_random_signs_are_compared_by_hand(net, data):
    images = data.batch(range(6))["images"]
    labels = net(images).argmax(1)
    measures = Yardsticks(net, images, labels, k=20)(replace(TOP, attribution=Gradient()))

    def scores(x, y):
        x = x[None].clone().requires_grad_(True)
        net(x)[0, y].backward()
        return x.grad.abs().flatten().numpy()

    signs = RandomSign(Gradient(), 0.1, draws=4)(net, images, labels)
    assert signs.preserved.all()
    for i in range(6):
        before, after = scores(images[i], labels[i]), scores(signs.images[i], labels[i])
        expected = stats.kendalltau(before, after).statistic
        assert measures["random_sign_kendall_tau"][i].item() == pytest.approx(expected, abs=1e-6)
        top = [set(np.argsort(-s, kind="stable")[:20].tolist()) for s in (before, after)]
        shared = len(top[0] & top[1]) / 20
        assert measures["random_sign_top_k_intersection"][i].item() == pytest.approx(shared)
    # The gradient of a network of ReLUs is the same a millionth away.
    assert measures["no_change_kendall_tau"].min() > 0.999


def test_maps_with_draws_are_compared_under_the_same_ones(net, data):
    images = data.batch(range(4))["images"]
    yardsticks = Yardsticks(net, images, net(images).argmax(1), k=20)
    attack = replace(TOP, attribution=GradientSHAP(samples=3))
    # Blank pixels tie at 0, and a millionth breaks the ties: far from the 1 of one draw, had it
    # drawn anew, is nothing but the ink.
    same = yardsticks(attack)["no_change_kendall_tau"]
    once = GradientSHAP(samples=3)(net, images, net(images).argmax(1))
    other = GradientSHAP(samples=3, seed=1)(net, images, net(images).argmax(1))
    for i in range(4):
        ink = (images[i] > 0).flatten()
        drawn = stats.kendalltau(
            once[i].abs().flatten()[ink].numpy(), other[i].abs().flatten()[ink].numpy()
        )
        assert drawn.statistic < 0.9

    def tau(perturbed):
        after = yardsticks.maps_after(attack.attribution, perturbed, torch.ones(4).bool())
        return similarities(yardsticks.maps(attack.attribution), after, 20)["kendall_tau"]

    assert tau(images + 0.0).tolist() == [1.0] * 4
    assert tau((images * (1 - 1e-6)).clamp(0, 1)).min() > 0.99
    assert same.isfinite().all()


def test_chance_is_measured_once_for_each_map_and_eps(net, data, tmp_path, monkeypatch):
    calls = []
    call = RandomSign.__call__
    monkeypatch.setattr(
        RandomSign, "__call__", lambda self, *a: (calls.append(self.eps), call(self, *a))[1]
    )
    ig = IntegratedGradients(steps=2)
    manipulations = {
        "one": TOP,
        "again": replace(TOP, attribution=Gradient(), k=9),
        "wider": replace(TOP, eps=0.2),
        "ig": replace(TOP, attribution=ig),
        "signs": RandomSign(Gradient(), eps=0.1),
    }
    few = ImageData("digits", limit=8).load("test")
    found = audited(net, few, tmp_path, manipulations)
    own = 1  # and the gallery attacks nothing again
    assert sorted(calls) == sorted([1e-6, 1e-6, 0.1, 0.1, 0.2] + [0.1] * own)
    assert found["one", "random_sign_kendall_tau"] == found["again", "random_sign_kendall_tau"]
    assert found["one", "random_sign_kendall_tau"] != found["wider", "random_sign_kendall_tau"]
    assert ("signs", "random_sign_kendall_tau") not in found


@pytest.mark.parametrize(
    "kind", [TOP, pytest.param(Ensemble(Gradient(), eps=0.1), marks=pytest.mark.harness)]
)
def test_an_activation_out_of_reach_is_noticed(kind, net, data, tmp_path):
    hidden = nn.Sequential(*list(net[:2]), Positive(), net[3])
    with pytest.warns(StuckWarning, match="most steps of top had no direction"):
        found = audited(hidden, data, tmp_path / "hidden", {"top": kind})
    assert mean(found["top", "no_direction"]) == 1
    images = found["top", "kendall_tau"].keys()
    assert found["top", "random_search_kendall_tau"].keys() == images
    # What chance does to the maps is the same, however the activation is spelt.
    plain = audited(net, data, tmp_path / "plain")
    assert mean(found["top", "random_sign_kendall_tau"]) == pytest.approx(
        mean(plain["top", "random_sign_kendall_tau"])
    )
    assert mean(found["top", "random_search_kendall_tau"]) < 0.95
    if kind is TOP:
        assert set(found["top", "kendall_tau"].values()) == {1.0}
        assert set(found["top", "moved"].values()) == {0.0}


def test_a_linear_model_has_maps_that_nothing_moves(data, tmp_path):
    torch.manual_seed(0)
    train = ImageData("digits", limit=300).load("train").batch(range(300))
    model = nn.Sequential(nn.Flatten(), nn.Linear(256, 10))
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    for _ in range(40):
        loss = nn.functional.cross_entropy(model(train["images"]), train["labels"])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    with pytest.warns(StuckWarning):
        found = audited(model, data, tmp_path)
    for measure in ("kendall_tau", "random_sign_kendall_tau", "random_search_kendall_tau"):
        assert set(found["top", measure].values()) == {1.0}
    assert set(found["top", "no_direction"].values()) == {1.0}


def test_a_model_that_rounds_is_attacked_without_gradients(net, data, tmp_path):
    model = nn.Sequential(Rounding(), net)
    with (
        pytest.warns(UserWarning, match="The gradient is zero at 8 of 8 images"),
        pytest.warns(StuckWarning) as caught,
    ):
        found = audited(model, data, tmp_path, attacks={"pgd": PGD_})
    said = [str(warning.message) for warning in caught if warning.category is StuckWarning]
    assert len(said) == 1  # for all shards together
    assert said[0].startswith("most steps of pgd, top had no direction")
    right = found["clean", "correct"]
    assert found["pgd", "correct"] == right
    assert set(found["pgd", "no_direction"].values()) == {1.0}
    searched = found["pgd", "random_search_correct"]
    assert searched.keys() == {i for i, value in right.items() if value}
    assert mean(searched) < 0.9


def test_a_network_of_relu6_is_attacked_as_the_same_of_relu(net, data, tmp_path):
    class Rewritten(nn.Module):
        def forward(self, x):
            return x.relu() - (x - 6).relu()

    found = {}
    for name, activation in (("relu6", nn.ReLU6()), ("relu", Rewritten())):
        model = nn.Sequential(net[0], net[1], activation, net[3])
        found[name] = audited(model, data, tmp_path / name)
    for measure in ("kendall_tau", "no_direction", "random_sign_kendall_tau"):
        six, two = (mean(found[name]["top", measure]) for name in ("relu6", "relu"))
        assert six == pytest.approx(two, abs=0.02), measure
    assert mean(found["relu6"]["top", "no_direction"]) < 0.5
    chance = mean(found["relu6"]["top", "random_sign_kendall_tau"])
    assert mean(found["relu6"]["top", "kendall_tau"]) < chance
