"""What every attack on explanations promises, whichever it is."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from torch import nn

from holdfast import manipulation
from holdfast.attributions import (
    BoundaryIntegratedGradients,
    DeepLIFT,
    GradCAM,
    Gradient,
    GradientSHAP,
    GuidedBackprop,
    IntegratedGradients,
    SmoothGrad,
)
from holdfast.contracts import InputError, Manipulation, StuckWarning
from holdfast.manipulation import (
    Ensemble,
    MassCentre,
    RandomSearch,
    RandomSign,
    RankCorrelation,
    Targeted,
    TopK,
)

IG = IntegratedGradients(steps=6)
WALKS = {
    "top_k": lambda a, eps, **more: TopK(a, 5, eps, 0.02, 6, **more),
    "mass_centre": lambda a, eps, **more: MassCentre(a, eps, 0.02, 6, **more),
    "rank": lambda a, eps, **more: RankCorrelation(a, eps, 0.02, 6, pairs=8, **more),
    "targeted": lambda a, eps, **more: Targeted(a, eps, 0.02, 6, **more),
}
EVERY = WALKS | {
    "random_sign": lambda a, eps: RandomSign(a, eps, draws=3),
    "random_search": lambda a, eps: RandomSearch(a, eps, queries=6),
    "ensemble": Ensemble,
}
all_here = pytest.mark.parametrize("name", list(EVERY))
# All attacks in turn take as long as all others of a test together.
every = pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=pytest.mark.harness if name == "ensemble" else ()) for name in EVERY],
)


@pytest.fixture
def images():
    return torch.rand(5, 2, 5, 5, dtype=torch.float64)


@pytest.fixture
def labels(relu_model, images):
    return relu_model(images).argmax(1)


def ig_scores(model, image, label, steps=6):
    mean = torch.zeros_like(image)
    for k in range(1, steps + 1):
        x = (image * k / steps).detach().requires_grad_(True)
        model(x[None])[0, label].backward()
        mean += x.grad / steps
    return (mean * image).abs().sum(0).flatten()


def test_every_manipulation_of_the_room_is_here():
    classes = {type(make(IG, 0.1)).__name__ for make in EVERY.values()}
    others = {"EnsembleOutcome", "Trust", "check", "doubts", "trust_figures"}
    assert classes == set(manipulation.__all__) - others
    assert all(isinstance(make(IG, 0.1), Manipulation) for make in EVERY.values())


@every
@pytest.mark.parametrize("eps", [0.0, 0.05, 0.4])
def test_stays_in_the_ball_in_range_and_in_the_class(name, eps, relu_model, images, labels):
    outcome = EVERY[name](IG, eps)(relu_model, images, labels)
    assert (outcome.images - images).abs().max() <= eps + 1e-12
    assert outcome.images.min() >= 0
    assert outcome.images.max() <= 1
    assert torch.equal(relu_model(outcome.images).argmax(1), labels)
    lost = ~outcome.preserved
    assert torch.equal(outcome.images[lost], images[lost])
    assert (outcome.similarity[lost] == 1).all()


@all_here
def test_reports_what_an_independent_judge_measures(name, relu_model, images, labels):
    outcome = EVERY[name](IG, 0.1)(relu_model, images, labels)
    assert outcome.preserved.any()
    for i in outcome.preserved.nonzero().flatten().tolist():
        before = ig_scores(relu_model, images[i], labels[i])
        after = ig_scores(relu_model, outcome.images[i], labels[i])
        tau = stats.kendalltau(before.numpy(), after.numpy()).statistic
        assert outcome.similarity[i].item() == pytest.approx(tau, abs=1e-9)


@every
def test_result_does_not_depend_on_the_batch(name, relu_model, images, labels):
    attack = EVERY[name](IG, 0.1)
    together = attack(relu_model, images, labels)
    order = torch.tensor([4, 0, 3, 1, 2])
    shuffled = attack(relu_model, images[order], labels[order])
    assert torch.allclose(shuffled.images, together.images[order], atol=1e-9)
    assert torch.allclose(shuffled.similarity, together.similarity[order])
    alone = attack(relu_model, images[3:4], labels[3:4])
    assert torch.allclose(alone.images, together.images[3:4], atol=1e-9)


@every
def test_an_image_of_another_class_comes_back_unpreserved(name, relu_model, images, labels):
    labels = labels.clone()
    labels[1] = relu_model(images)[1].argmin()
    outcome = EVERY[name](IG, 0.002)(relu_model, images, labels)
    assert not outcome.preserved[1]
    assert outcome.similarity[1] == 1
    assert torch.equal(outcome.images[1], images[1])


@every
def test_leaves_the_model_and_the_generator_as_they_were(
    name, stateful_model, untouched, monkeypatch
):
    monkeypatch.setattr(manipulation.ensemble, "RESTARTS", 1)  # more do nothing else
    images = torch.rand(2, 2, 5, 5)
    before = torch.get_rng_state()
    with untouched(stateful_model):
        EVERY[name](IG, 0.1)(stateful_model, images, torch.tensor([0, 1]))
    assert torch.equal(torch.get_rng_state(), before)


@every
def test_survives_a_model_without_any_gradient(name):
    class Constant(nn.Module):
        def forward(self, x):
            return x.flatten(1)[:, :3] * 0 + torch.tensor([1.0, 0.0, 0.0])

    attack = EVERY[name](Gradient(), 0.1)
    outcome = attack(Constant(), torch.rand(2, 1, 3, 3), torch.tensor([0, 0]))
    assert outcome.similarity.tolist() == [1.0, 1.0]
    assert outcome.preserved.all()
    # Whoever goes by gradients had none, and says so.
    stuck = outcome.stuck
    assert stuck.isnan().all() if name.startswith("random") else stuck.tolist() == [1.0, 1.0]


@every
def test_tells_how_far_images_moved(name, relu_model, images, labels):
    outcome = EVERY[name](IG, 0.1)(relu_model, images, labels)
    distance = [(a - b).abs().max().item() for a, b in zip(outcome.images, images, strict=True)]
    assert outcome.moved.tolist() == pytest.approx(distance, abs=1e-12)
    assert outcome.moved.max() > 0.01
    assert name.startswith("random") or (outcome.stuck < 0.5).all()


class Round(nn.Module):
    """Rounds its input, so that every gradient is zero, also those of maps."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, x):
        return self.model((x * 255).round() / 255)


@pytest.mark.parametrize("name", [*WALKS, "ensemble"])
@pytest.mark.parametrize("attribution", [IG, Gradient()], ids=repr)
def test_a_model_that_rounds_leaves_no_direction(name, attribution, relu_model, images, labels):
    model = Round(relu_model)
    with pytest.warns(StuckWarning, match="for 5 of 5 images most steps had no direction"):
        outcome = EVERY[name](attribution, 0.1)(model, images, model(images).argmax(1))
    assert outcome.stuck.tolist() == [1.0] * 5


class Hand(nn.Module):
    """A ReLU that no surrogate can see, spelled as a product."""

    def forward(self, x):
        return x * (x > 0)


@pytest.mark.parametrize("name", WALKS)
def test_what_the_surrogate_cannot_reach_is_noticed(name):
    model = nn.Sequential(nn.Flatten(), nn.Linear(25, 12), Hand(), nn.Linear(12, 3)).double()
    images = torch.rand(4, 1, 5, 5, dtype=torch.float64)
    with pytest.warns(StuckWarning, match="for 4 of 4 images"):
        outcome = WALKS[name](Gradient(), 0.1)(model, images, model(images).argmax(1))
    assert (outcome.stuck > 0.5).all()


class Cliff(nn.Module):
    """A classifier whose gradient is infinite or NaN where a pixel is exactly 0.25 or below."""

    def forward(self, x):
        steep = (x.flatten(1)[:, :3] - 0.25).sqrt()
        return steep + x.flatten(1)[:, 3:6]


@every
def test_never_returns_what_has_no_finite_map(name):
    images = 0.3 + 0.6 * torch.rand(6, 1, 3, 3, dtype=torch.float64)
    model = Cliff()
    labels = model(images).argmax(1)
    outcome = EVERY[name](Gradient(), 0.2)(model, images, labels)
    assert torch.isfinite(outcome.images).all()
    assert torch.isfinite(outcome.similarity).all()
    assert torch.isfinite(Gradient()(model, outcome.images, labels)).all()


@every
def test_says_so_where_the_original_map_is_not_finite(name, own_errors):
    images = torch.full((2, 1, 3, 3), 0.1)
    with pytest.raises(
        InputError, match="attribution: expected finite maps, got Gradient with NaN"
    ):
        EVERY[name](Gradient(), 0.2)(Cliff(), images, torch.tensor([0, 0]))


@every
@settings(max_examples=8, deadline=None)
@given(
    seed=st.integers(0, 2**31),
    eps=st.floats(0, 1),
    shape=st.tuples(st.integers(1, 3), st.integers(2, 6), st.integers(3, 6)),
    hidden=st.integers(1, 20),
)
def test_the_ball_and_the_range_hold_for_any_model(name, seed, eps, shape, hidden):
    torch.manual_seed(seed)
    pixels = shape[0] * shape[1] * shape[2]
    model = nn.Sequential(
        nn.Flatten(), nn.Linear(pixels, hidden), nn.ReLU(), nn.Linear(hidden, 3)
    ).double()
    images = torch.rand(2, *shape, dtype=torch.float64)
    labels = model(images).argmax(1)
    outcome = EVERY[name](Gradient(), eps)(model, images, labels)
    assert (outcome.images - images).abs().max() <= eps + 1e-12
    assert outcome.images.min() >= 0
    assert outcome.images.max() <= 1
    assert torch.equal(model(outcome.images).argmax(1), labels)
    assert (outcome.similarity.abs() <= 1 + 1e-12).all()


@pytest.mark.parametrize("name", list(WALKS))
@pytest.mark.parametrize(
    "attribution",
    [
        Gradient(),
        SmoothGrad(samples=4),
        GradientSHAP(samples=4),
        GradCAM(),
        BoundaryIntegratedGradients(steps=4),
    ],
    ids=lambda a: type(a).__name__,
)
def test_moves_every_differentiable_attribution(name, attribution):
    model = nn.Sequential(
        nn.Conv2d(2, 8, 3),
        nn.ReLU(),
        nn.Conv2d(8, 8, 3),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(288, 4),
    ).double()
    images = torch.rand(5, 2, 10, 10, dtype=torch.float64)
    labels = model(images).argmax(1)
    outcome = WALKS[name](attribution, 0.2)(model, images, labels)
    assert outcome.preserved.any()
    assert outcome.similarity[outcome.preserved].mean() < 0.98
    assert (outcome.moved[outcome.preserved] > 0.01).all()
    assert (outcome.stuck < 0.5).all()
    # An attack that may not move finds nothing: what it changed is not the noise of two draws.
    still = WALKS[name](attribution, 1e-9)(model, images, labels)
    assert (still.similarity > 0.999).all()


@pytest.mark.parametrize("attribution", [DeepLIFT(), GuidedBackprop()], ids=repr)
@pytest.mark.parametrize("name", ["random_search", "random_sign"])
def test_needs_no_derivative(name, attribution, relu_model, images, labels):
    outcome = EVERY[name](attribution, 0.1)(relu_model, images, labels)
    assert outcome.similarity.mean() < 0.99


@pytest.mark.parametrize("name", list(WALKS))
@pytest.mark.parametrize(
    ("more", "says"),
    [
        ({"momentum": 1.0}, "momentum: expected below 1"),
        ({"momentum": -0.1}, "momentum"),
        ({"margin": 1.5}, "margin: expected below 1"),
        ({"judge_every": 0}, "judge_every"),
        ({"path_samples": 0}, "path_samples"),
    ],
)
def test_refuses_settings(name, more, says, own_errors):
    with pytest.raises(InputError, match=says):
        WALKS[name](IG, 0.1, **more)


@pytest.mark.parametrize("name", list(WALKS))
def test_has_nothing_to_sample_of_a_single_gradient(name, own_errors):
    with pytest.raises(InputError, match=r"path_samples: expected IntegratedGradients, Bound"):
        WALKS[name](Gradient(), 0.1, path_samples=2)


@every
def test_refuses_bad_input(name, relu_model, images, labels, own_errors):
    attack = EVERY[name](IG, 0.1)
    with pytest.raises(InputError, match="images: expected values in"):
        attack(relu_model, images * 3, labels)
    with pytest.raises(InputError, match="labels: expected shape"):
        attack(relu_model, images, labels[:-1])
    with pytest.raises(InputError, match="eps"):
        EVERY[name](IG, -0.1)
