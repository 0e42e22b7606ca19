import copy
import pickle

import pytest
import torch
from torch import nn

from holdfast.attributions import Gradient
from holdfast.contracts import InputError
from holdfast.objectives import AttributionAlignment, DefensiveDistillation, SaliencyTraining
from holdfast.objectives.teacher import explain, predict


@pytest.fixture
def teacher():
    model = nn.Sequential(nn.Flatten(), nn.BatchNorm1d(4), nn.Dropout(), nn.Linear(4, 2))
    return model.train()


def test_answers_in_eval_mode_without_a_trace(teacher, untouched):
    images, labels = torch.rand(3, 1, 2, 2, requires_grad=True), torch.tensor([0, 1, 1])
    reference = copy.deepcopy(teacher).eval()
    with untouched(teacher):
        logits = predict(teacher, images)
        maps = explain(teacher, Gradient(), images, labels)
    assert torch.equal(logits, reference(images))
    assert torch.equal(maps, Gradient()(reference, images.detach(), labels))
    assert not logits.requires_grad
    assert not maps.requires_grad


@pytest.mark.parametrize("kind", [DefensiveDistillation, AttributionAlignment, SaliencyTraining])
def test_is_no_setting(kind, teacher):
    objective = kind(teacher=teacher)
    assert "teacher=Sequential(...)" in repr(objective)
    assert "\n" not in repr(objective)
    assert objective == kind(teacher=copy.deepcopy(teacher))
    assert hash(objective) == hash(kind(teacher=copy.deepcopy(teacher)))
    assert pickle.loads(pickle.dumps(objective)) == objective


@pytest.mark.parametrize("kind", [DefensiveDistillation, AttributionAlignment, SaliencyTraining])
def test_must_be_a_model(kind, own_errors):
    with pytest.raises(InputError, match=f"{kind.__name__}.teacher: expected a trained model"):
        kind(teacher="runs/teacher")
