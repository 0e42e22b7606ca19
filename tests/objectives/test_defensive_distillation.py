import pytest
import torch
from torch import nn

from holdfast.contracts import InputError
from holdfast.objectives import DefensiveDistillation


@pytest.fixture
def teacher():
    return nn.Sequential(nn.Flatten(), nn.Linear(50, 4)).double()


@pytest.mark.parametrize(("temperature", "own"), [(100.0, 1.0), (5.0, 5.0), (1.0, 1.0)])
def test_equals_the_naive_computation(
    smooth_model, teacher, images, labels, temperature, own, same_gradients
):
    objective = DefensiveDistillation(teacher, temperature, own)
    ours = objective(smooth_model, {"images": images, "labels": labels})["loss"]
    naive = 0.0
    for z, t in zip(smooth_model(images), teacher(images).detach(), strict=True):
        soft = [(v / temperature).exp() / (t / temperature).exp().sum() for v in t]
        naive = naive - sum(
            soft[k] * ((z[k] / own).exp() / (z / own).exp().sum()).log() for k in range(4)
        )
    assert ours.item() == pytest.approx(naive.item() / 3, rel=1e-10)
    same_gradients(smooth_model, ours, naive / 3)


def test_is_least_where_the_student_has_the_teachers_softened_logits(teacher, images, labels):
    """At z_student = z_teacher / T the loss is the entropy of the targets, and has no slope."""
    student = nn.Sequential(nn.Flatten(), nn.Linear(50, 4)).double()
    student.load_state_dict({k: v / 10 for k, v in teacher.state_dict().items()})
    batch = {"images": images, "labels": labels}
    loss = DefensiveDistillation(teacher, temperature=10.0)(student, batch)["loss"]
    p = (teacher(images) / 10).softmax(1)
    assert loss.item() == pytest.approx(-(p * p.log()).sum(1).mean().item())
    (slope,) = torch.autograd.grad(loss, student[1].weight)
    assert slope.abs().max() < 1e-12


def test_labels_make_no_difference(smooth_model, teacher, images, labels):
    objective = DefensiveDistillation(teacher)
    first = objective(smooth_model, {"images": images, "labels": labels})["loss"]
    assert first == objective(smooth_model, {"images": images, "labels": labels.flip(0)})["loss"]


def test_refuses(teacher, images, labels, own_errors):
    with pytest.raises(InputError, match=r"DefensiveDistillation.temperature"):
        DefensiveDistillation(teacher, temperature=0.0)
    other = nn.Sequential(nn.Flatten(), nn.Linear(50, 5)).double()
    with pytest.raises(InputError, match=r"model: expected logits \(3, 4\), like the teacher's"):
        DefensiveDistillation(teacher)(other, {"images": images, "labels": labels})
