import pytest
import torch
from torch import nn

from holdfast.adversarial import FGSM, PGD, Transfer, accuracy
from holdfast.contracts import Attack, InputError


def test_is_the_attack_on_the_source(smooth_model, relu_model):
    images, labels = torch.rand(4, 2, 5, 5).double(), torch.tensor([0, 1, 2, 3])
    attack = PGD(0.1, 0.03, 4, seed=0)
    crafted = Transfer(attack, smooth_model)(relu_model, images, labels)
    assert torch.equal(crafted, attack(smooth_model, images, labels))
    assert not torch.equal(crafted, attack(relu_model, images, labels))


def test_asks_the_source_alone():
    class Silent(nn.Module):
        def forward(self, x):
            raise AssertionError("asked")

    source = nn.Sequential(nn.Flatten(), nn.Linear(4, 2))
    images, labels = torch.rand(2, 1, 2, 2), torch.tensor([0, 1])
    assert Transfer(FGSM(0.1), source)(Silent(), images, labels).shape == images.shape


def test_leaves_both_models_as_they_were(stateful_model, smooth_model, untouched):
    images, labels = torch.rand(4, 2, 5, 5), torch.tensor([0, 1, 2, 3])
    with untouched(stateful_model), untouched(smooth_model):
        Transfer(PGD(0.1, 0.02, 3), stateful_model)(smooth_model, images, labels)


def test_weaker_than_an_attack_on_the_model_itself(digits):
    model, images, labels = digits
    torch.manual_seed(1)
    other = nn.Sequential(nn.Flatten(), nn.Linear(64, 32), nn.Tanh(), nn.Linear(32, 10))
    adam = torch.optim.Adam(other.parameters(), 0.01)
    for _ in range(100):
        adam.zero_grad()
        nn.functional.cross_entropy(other(images), labels).backward()
        adam.step()
    attack = PGD(0.15, 0.03, 20, seed=0)
    itself = accuracy(model, images, labels, attack)
    crafted = accuracy(model, images, labels, Transfer(attack, other))
    assert itself < crafted < accuracy(model, images, labels)


def test_is_a_value_with_a_short_name():
    source = nn.Sequential(nn.Flatten(), nn.Linear(4, 2))
    attack = Transfer(FGSM(0.1), source)
    assert isinstance(attack, Attack)
    assert repr(attack) == "Transfer(attack=FGSM(eps=0.1, chunk=None), source=Sequential)"
    assert attack == Transfer(FGSM(0.1), source)
    assert hash(attack) == hash(Transfer(FGSM(0.1), source))
    assert attack != Transfer(FGSM(0.1), nn.Flatten())


def test_refuses_a_source_that_is_no_module(own_errors):
    with pytest.raises(InputError, match=r"Transfer\.source: expected an nn\.Module, got str"):
        Transfer(FGSM(0.1), "resnet18")
