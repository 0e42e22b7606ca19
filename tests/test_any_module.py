"""A classifier that Holdfast knows nothing of goes through every kind of method, as it is."""

import pytest
import torch
import torchvision

from holdfast.adversarial import PGD
from holdfast.attributions import Gradient, IntegratedGradients
from holdfast.contracts import Attack, Attribution, Manipulation, Objective
from holdfast.manipulation import TopK
from holdfast.objectives import ART, AdversarialTraining, AttributionRegularization, Natural

ATTACK = PGD(eps=8 / 255, step_size=4 / 255, steps=2)
IG = IntegratedGradients(steps=3)
OBJECTIVES = [
    Natural(),
    AdversarialTraining(ATTACK),
    AttributionRegularization(steps=2, attack_steps=2, attack=ATTACK),
    ART(attack=ATTACK),
]


@pytest.fixture(scope="module")
def batch():
    return {"images": torch.rand(2, 3, 32, 32), "labels": torch.tensor([1, 3])}


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return torchvision.models.resnet18(num_classes=4)  # in-place ReLU, shared between convolutions


@pytest.mark.parametrize("objective", OBJECTIVES, ids=lambda o: type(o).__name__)
def test_objectives_train_it(objective, model, batch):
    assert isinstance(objective, Objective)
    model.train()
    model.zero_grad()
    terms = objective(model, batch)
    terms["loss"].backward()
    assert all(value.ndim == 0 and value.isfinite() for value in terms.values())
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


def test_attacks_and_attributions_run_on_it(model, batch, untouched):
    model.train()
    with untouched(model):
        assert isinstance(ATTACK, Attack)
        assert ATTACK(model, **batch).shape == batch["images"].shape
        for method in (Gradient(), IG):
            assert isinstance(method, Attribution)
            maps = method(model, batch["images"], batch["labels"])
            assert maps.abs().sum() > 0


def test_its_explanations_can_be_attacked(model, batch, untouched):
    labels = model.eval()(batch["images"]).argmax(1)
    for method, samples in ((Gradient(), None), (IG, None), (IG, 2)):
        attack = TopK(method, k=100, eps=4 / 255, step_size=1 / 255, steps=3, path_samples=samples)
        assert isinstance(attack, Manipulation)
        with untouched(model):
            outcome = attack(model, batch["images"], labels)
        assert outcome.similarity[outcome.preserved].max() < 1
