"""What all training losses promise, one by one."""

import pytest
import torch
from torch import nn

from holdfast.adversarial import PGD
from holdfast.contracts import InputError, Objective
from holdfast.models import Attributing, WithDiscriminator
from holdfast.objectives import (
    ART,
    CURE,
    JARN,
    TRADES,
    AdversarialTraining,
    AttentionDropout,
    AttributionAlignment,
    AttributionRegularization,
    DefensiveDistillation,
    EnhancedRegularization,
    GradientStability,
    InputAlignment,
    JacobianRegularization,
    Natural,
    SaliencyTraining,
    Successive,
    UniformNoise,
)

ATTACK = PGD(eps=0.1, step_size=0.05, steps=2)


def teacher():
    return nn.Sequential(nn.Flatten(), nn.Dropout(), nn.Linear(50, 4))


OBJECTIVES = [
    Natural(),
    UniformNoise(eps=0.1),
    AdversarialTraining(ATTACK),
    TRADES(attack=ATTACK),
    ART(attack=ATTACK),
    ART(attack=ATTACK, negative="argmin", attack_cross_entropy=1.0),
    ART(attack=ATTACK, attack_top=20, aligned="both"),
    GradientStability(attack=ATTACK),
    InputAlignment(attack=ATTACK, distance="cosine"),
    InputAlignment(attack=ATTACK, distance="l2"),
    AttributionRegularization(steps=3, attack_steps=2, attack=ATTACK),
    EnhancedRegularization(steps=3, attack_steps=2, attack=ATTACK),
    EnhancedRegularization(steps=3, attack_steps=2, attack=ATTACK, rule="stratified"),
    EnhancedRegularization(steps=3, attack_steps=2, attack=ATTACK, change="path"),
    JacobianRegularization(),
    CURE(),
    CURE(squared=False, warmup=4),
    JARN(),
    DefensiveDistillation(teacher()),
    SaliencyTraining(source="masks"),
    SaliencyTraining(teacher=teacher()),
    Successive(SaliencyTraining(source="boxes"), TRADES(attack=ATTACK)),
    AttentionDropout(),
    AttributionAlignment(teacher()),
]


@pytest.fixture(params=OBJECTIVES, ids=repr)
def objective(request):
    return request.param


@pytest.fixture
def batch():
    return {
        "images": torch.rand(8, 2, 5, 5),
        "labels": torch.randint(4, (8,)),
        "boxes": torch.tensor([[1.0, 1.0, 4.0, 3.0]]).repeat(8, 1),
        "masks": torch.randint(2, (8, 5, 5)).float(),
        "saliency": torch.rand(8, 5, 5) * 2 - 1,
        "epoch": 2,
        "progress": 0.3,
    }


@pytest.fixture
def model(objective, stateful_model):
    if isinstance(objective, AttributionAlignment):
        return Attributing(stateful_model.eval(), (2, 5, 5), layer="2").train()
    if isinstance(objective, JARN):
        return WithDiscriminator(stateful_model, channels=2, width=2)
    return stateful_model


def test_leaves_a_model_in_eval_mode_untouched(objective, model, batch, untouched):
    assert isinstance(objective, Objective)
    model.eval()
    with untouched(model):
        terms = objective(model, batch)
    assert all(term.ndim == 0 and term.isfinite() for term in terms.values())


def test_counts_batch_statistics_once_and_trains_what_is_not_frozen(objective, model, batch):
    net = getattr(model, "classifier", model)
    modes = [module.training for module in model.modules()]
    gradients = [p.grad for p in model.parameters()]
    terms = objective(model, batch)
    assert net[1].num_batches_tracked == 1
    assert modes == [module.training for module in model.modules()]
    for before, parameter in zip(gradients, model.parameters(), strict=True):
        assert before is parameter.grad

    model.zero_grad()
    terms["loss"].backward()
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            assert parameter.grad is not None, name
            assert parameter.grad.isfinite().all(), name
        else:
            assert parameter.grad is None, name


@pytest.mark.parametrize(
    "objective", [o for o in OBJECTIVES if getattr(o, "teacher", None)], ids=repr, indirect=True
)
def test_leaves_its_teacher_untouched(objective, model, batch, untouched):
    with untouched(objective.teacher):
        objective(model, batch)["loss"].backward()
    assert all(p.grad is None for p in objective.teacher.parameters())


def test_of_one_image(objective, model, batch):
    one = {k: v[:1] if isinstance(v, torch.Tensor) else v for k, v in batch.items()}
    assert objective(model.eval(), one)["loss"].isfinite()


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"images": torch.full((8, 2, 5, 5), 2.0)}, r"images: expected values in \[0, 1\]"),
        ({"images": torch.full((8, 2, 5, 5), float("nan"))}, "images: expected finite"),
        ({"labels": torch.zeros(7).long()}, r"labels: expected shape \(8,\)"),
        ({"labels": torch.zeros(8)}, "labels: expected integers"),
    ],
)
def test_refuses_bad_batches(objective, model, batch, change, says, own_errors):
    with pytest.raises(InputError, match=says):
        objective(model, batch | change)
    with pytest.raises(InputError, match="batch: expected an entry 'labels', got images"):
        objective(model, {"images": batch["images"], "epoch": 1, "progress": 0.0})


@pytest.mark.parametrize(
    "objective",
    [o for o in OBJECTIVES if not isinstance(o, DefensiveDistillation)],  # which uses no labels
    ids=repr,
    indirect=True,
)
def test_refuses_labels_that_are_no_class(objective, model, batch):
    with pytest.raises(InputError, match="expected classes from 0 to 3, got 4"):
        objective(model, batch | {"labels": torch.full((8,), 4)})
