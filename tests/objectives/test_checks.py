from dataclasses import dataclass

import pytest
import torch

from holdfast.contracts import InputError
from holdfast.objectives.checks import (
    check_share,
    classification_loss,
    classification_losses,
    entry,
)


def test_losses_are_negative_log_probabilities():
    logits, labels = torch.randn(3, 4).double(), torch.tensor([0, 3, 1])
    p = logits.exp()
    expected = torch.stack([-(p[i, y] / p[i].sum()).log() for i, y in enumerate(labels)])
    assert torch.allclose(classification_losses(logits, labels), expected)
    assert torch.allclose(classification_loss(logits, labels), expected.sum() / 3)


@pytest.mark.parametrize("function", [classification_loss, classification_losses])
def test_losses_refuse(function, own_errors):
    with pytest.raises(InputError, match=r"model: expected logits \(N, K\)"):
        function(torch.zeros(2, 3, 4, 4), torch.tensor([0, 1]))
    with pytest.raises(InputError, match="classes from 0 to 2, got -1"):
        function(torch.zeros(2, 3), torch.tensor([0, -1]))


def test_entry_of_an_empty_batch():
    with pytest.raises(InputError, match="an entry 'images', got an empty one"):
        entry({}, "images")


@pytest.mark.parametrize("value", [-0.1, 1.1, float("nan")])
def test_share(value):
    @dataclass
    class Method:
        part: float

    check_share(Method(0.0), "part")
    check_share(Method(1.0), "part")
    with pytest.raises(InputError, match=r"Method.part: expected a number in \[0, 1\]"):
        check_share(Method(value), "part")
