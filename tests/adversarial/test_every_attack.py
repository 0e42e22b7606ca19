"""What holds for every attack on predictions, whatever the model and the images."""

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import nn

from holdfast.adversarial import (
    APGD,
    CORRUPTIONS,
    FGSM,
    PGD,
    SPSA,
    BoundarySearch,
    CarliniWagner,
    Corruption,
    Spatial,
    Square,
    TargetedPGD,
    Transfer,
    UniformNoise,
)
from holdfast.contracts import Attack, InputError, StuckWarning

WITHIN = {
    "fgsm": lambda eps, norm: FGSM(eps),
    "pgd": lambda eps, norm: PGD(eps, eps / 2, 3, norm),
    "pgd-restarts": lambda eps, norm: PGD(eps, eps / 2, 2, norm, restarts=3),
    "targeted": lambda eps, norm: TargetedPGD(eps, eps / 2, 3, norm),
    "apgd": lambda eps, norm: APGD(eps, norm, steps=4),
    "apgd-dlr": lambda eps, norm: APGD(eps, norm, "dlr", steps=4),
    "square": lambda eps, norm: Square(eps, norm, queries=8),
    "spsa": lambda eps, norm: SPSA(eps, norm, steps=2, samples=4, step_size=0.1),
    "noise": lambda eps, norm: UniformNoise(eps, norm),
}
ALL = {name: make(0.1, "linf") for name, make in WITHIN.items()} | {
    "carlini-wagner": CarliniWagner(searches=2, steps=5),
    "spatial": Spatial(angles=3, shifts=3),
}
BLIND = {name: Corruption(name, 3) for name in CORRUPTIONS}  # these never ask the model
ALL |= BLIND


class Net(nn.Module):
    """A classifier with all that an attack might disturb: batch-norm, dropout, a frozen layer."""

    def __init__(self, channels, classes):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(channels, 3, 3),
            nn.BatchNorm2d(3),
            nn.ReLU(),
            nn.Dropout(0.5),
            nn.Flatten(),
            nn.LazyLinear(classes),
        )
        self.layers[1].eval()
        self.layers[0].weight.requires_grad_(False)

    def forward(self, x):
        return 5 * self.layers(x)


@st.composite
def cases(draw):
    """A model, images with black and white pixels among them, labels, and an ε."""
    torch.manual_seed(draw(st.integers(0, 2**16)))
    channels, classes = draw(st.integers(1, 3)), draw(st.integers(3, 5))
    height, width = draw(st.integers(5, 8)), draw(st.integers(5, 8))
    images = (1.5 * torch.rand(draw(st.integers(1, 3)), channels, height, width) - 0.25).clamp(0, 1)
    model = Net(channels, classes)
    with torch.no_grad():
        labels = model.eval()(images).argmax(1)  # what is right is attacked
    model.train()
    model.layers[1].eval()
    model.layers[5].weight.grad = torch.ones_like(model.layers[5].weight)
    return model, images, labels, draw(st.sampled_from([0.0, 0.01, 0.1, 0.5, 3.0]))


@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize("name", WITHIN)
@settings(
    max_examples=8,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(case=cases())
def test_stays_in_the_ball_and_leaves_no_trace(name, norm, case, untouched):
    model, images, labels, eps = case
    given, attack = images.clone(), WITHIN[name](eps, norm)
    with untouched(model):
        attacked = attack(model, images, labels)
    assert torch.equal(images, given)
    assert not attacked.requires_grad
    assert attacked.dtype == images.dtype
    assert attacked.shape == images.shape
    assert attacked.min() >= 0
    assert attacked.max() <= 1
    delta = (attacked - images).flatten(1)
    size = delta.abs().amax(1) if norm == "linf" or name == "fgsm" else delta.norm(dim=1)
    assert (size <= eps + 1e-6).all()


@pytest.mark.parametrize("attack", ALL.values(), ids=ALL)
def test_takes_the_shape_of_an_attack(attack, stateful_model, untouched):
    assert isinstance(attack, Attack)
    assert attack == type(attack)(**vars(attack))
    images, labels = torch.rand(4, 2, 5, 5), torch.tensor([0, 1, 2, 3], dtype=torch.int32)
    with untouched(stateful_model):
        attacked = attack(stateful_model, images, labels)
    assert attacked.min() >= 0
    assert attacked.max() <= 1
    transferred = Transfer(attack, stateful_model)
    with untouched(stateful_model), torch.no_grad():
        assert transferred(nn.Flatten(), images, labels).shape == images.shape


@pytest.mark.parametrize("attack", ALL.values(), ids=ALL)
def test_gradients_that_are_no_number_never_come_back(attack):
    class Broken(nn.Module):
        def forward(self, x):  # a fine answer, with a slope of 0/0 everywhere
            return 5 * x.flatten(1)[:, :3] + (x - x).flatten(1)[:, :3].sqrt()

    images = torch.rand(4, 1, 5, 5)
    for labels in (torch.tensor([0, 1, 2, 0]), images.flatten(1)[:, :3].argmax(1)):
        attacked = attack(Broken(), images, labels)
        assert attacked.isfinite().all()


@pytest.mark.parametrize("attack", ALL.values(), ids=ALL)
def test_answers_that_are_no_number_are_survived(attack):
    class Broken(nn.Module):
        def forward(self, x):  # fine on the images, NaN on anything else
            logits = x.flatten(1)[:, :3]
            known = torch.stack([(one == images).flatten(1).all(1).any() for one in x])
            return torch.where(known[:, None], logits, torch.nan)

    images = torch.rand(4, 1, 5, 5)
    attacked = attack(Broken(), images, images.flatten(1)[:, :3].argmax(1))
    assert attacked.isfinite().all()
    assert attacked.min() >= 0
    assert attacked.max() <= 1


@pytest.mark.parametrize("attack", ALL.values(), ids=ALL)
def test_refuses_bad_input(attack, stateful_model, own_errors):
    images, labels = torch.rand(2, 2, 5, 5), torch.tensor([0, 1])
    with pytest.raises(InputError, match=r"images: expected values in \[0, 1\]"):
        attack(stateful_model, 255 * images, labels)
    with pytest.raises(InputError, match="images"):
        attack(stateful_model, images[0], labels)
    with pytest.raises(InputError, match=r"labels: expected shape \(2,\)"):
        attack(stateful_model, images, torch.tensor([0]))
    with pytest.raises(InputError, match="labels: expected integers"):
        attack(stateful_model, images, torch.tensor([0.0, 1.0]))


@pytest.mark.parametrize("name", [name for name in ALL if name not in {"noise", *BLIND}])
def test_refuses_a_label_that_the_model_does_not_have(name, stateful_model, own_errors):
    with pytest.raises(InputError, match="labels: expected classes from 0 to 3, got 4"):
        ALL[name](stateful_model, torch.rand(2, 2, 5, 5), torch.tensor([0, 4]))


GRADIENT = {
    "fgsm": FGSM(0.1),
    "pgd": PGD(0.1, 0.02, 4),
    "pgd-l2": PGD(0.1, 0.02, 4, "l2"),
    "pgd-restarts": PGD(0.1, 0.02, 4, restarts=2),
    "targeted": TargetedPGD(0.1, 0.02, 4),
    "carlini-wagner": CarliniWagner(searches=2, steps=4),
}


class Rounding(nn.Module):
    """The gradient of its input is zero everywhere, as that of 8-bit quantization is."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, x):
        return self.model((x * 255).round() / 255)


@pytest.mark.parametrize("attack", GRADIENT.values(), ids=GRADIENT)
def test_an_attack_without_a_direction_says_so(attack, digits):
    model, images, labels = digits
    right = model(images).argmax(1) == labels
    images, labels = images[right][:4], labels[right][:4]
    with pytest.warns(StuckWarning, match=f"{type(attack).__name__}: for 4 of 4 images"):
        attack(Rounding(model), images, labels)
    _, stuck = attack.with_stuck(Rounding(model), images, labels)
    assert stuck.tolist() == [1.0] * 4


@pytest.mark.parametrize("attack", GRADIENT.values(), ids=GRADIENT)
def test_an_attack_with_directions_does_not_warn(attack, digits, recwarn):
    model, images, labels = digits
    attacked = attack(model, images[:4], labels[:4])
    assert not recwarn.list
    again, stuck = attack.with_stuck(model, images[:4], labels[:4])
    assert again.shape == attacked.shape
    assert (stuck < 0.5).all()


def test_every_gradient_attack_tells_of_its_steps():
    telling = {type(attack).__name__ for attack in GRADIENT.values()} | {"APGD"}
    blind = {"SPSA", "Square", "Spatial", "UniformNoise", "Corruption"}
    assert {type(attack).__name__ for attack in ALL.values()} == telling | blind


def test_the_boundary_search_says_where_it_had_no_direction(digits):
    model, images, _ = digits
    with pytest.warns(StuckWarning, match="BoundarySearch: for 2 of 2 images"):
        BoundarySearch()(Rounding(model), images[:2])
