import pytest
import torch
from sklearn.metrics import accuracy_score
from torch import nn

from holdfast.adversarial import PGD, UniformNoise, accuracy, correct
from holdfast.adversarial.accuracy import check_logits, right
from holdfast.contracts import InputError


@pytest.mark.parametrize("chunk", [None, 1, 3])
def test_is_what_scikit_learn_counts(smooth_model, chunk):
    images, labels = torch.rand(10, 2, 5, 5).double(), torch.randint(4, (10,))
    predicted = smooth_model(images).argmax(1)
    labels[:3] = predicted[:3]
    assert accuracy(smooth_model, images, labels, chunk=chunk) == accuracy_score(labels, predicted)
    assert torch.equal(correct(smooth_model, images, labels, chunk=chunk), predicted == labels)


def test_after_an_attack_it_is_that_of_the_attacked_images(smooth_model):
    with torch.no_grad():
        smooth_model[-1].bias.zero_()
        smooth_model[-1].weight *= 5
    images = torch.rand(20, 2, 5, 5).double()
    labels = smooth_model(images).argmax(1)
    attack = PGD(0.1, 0.03, 5, random_start=False)
    attacked = attack(smooth_model, images, labels)
    expected = (smooth_model(attacked).argmax(1) == labels).tolist()
    assert correct(smooth_model, images, labels, attack).tolist() == expected
    assert accuracy(smooth_model, images, labels, attack) == sum(expected) / 20
    assert 0 < sum(expected) < 20


def test_runs_in_eval_mode_and_leaves_no_trace(stateful_model, untouched):
    images, labels = torch.rand(4, 2, 5, 5), torch.tensor([0, 1, 2, 3])
    with untouched(stateful_model):
        once = correct(stateful_model, images, labels)
    assert torch.equal(once, stateful_model.eval()(images).argmax(1) == labels)


def test_an_answer_of_nan_is_wrong():
    logits = torch.tensor([[torch.nan, 1.0], [2.0, torch.nan], [2.0, 1.0], [torch.nan, torch.nan]])
    assert right(logits, torch.tensor([0, 0, 0, 0])).tolist() == [False, False, True, False]


def test_refuses_what_is_no_logits(own_errors):
    images, labels = torch.rand(2, 1, 1, 1), torch.tensor([0, 0])
    with pytest.raises(InputError, match="model: expected logits"):
        accuracy(nn.Flatten(), images, labels)
    with pytest.raises(InputError, match="model: expected logits"):
        accuracy(nn.Identity(), images, labels)
    with pytest.raises(InputError, match="at least 3 classes"):
        check_logits(torch.zeros(2, 2), labels, classes=3)


def test_refuses_images_and_labels(smooth_model, own_errors):
    images = torch.rand(2, 2, 5, 5).double()
    with pytest.raises(InputError, match="labels: expected classes from 0 to 3, got 4"):
        accuracy(smooth_model, images, torch.tensor([0, 4]))
    with pytest.raises(InputError, match="images"):
        accuracy(smooth_model, images * 255, torch.tensor([0, 1]), UniformNoise(0.1))
