import pytest
import torch
from torch import nn

from holdfast.attributions import resolve_targets, select_output
from holdfast.contracts import InputError

LOGITS = torch.tensor([[1.0, 2.0, 4.0], [0.5, 0.5, 0.5]], dtype=torch.float64)


@pytest.mark.parametrize(
    ("output", "of_class"),
    [
        ("logit", lambda z, t: z[t]),
        ("probability", lambda z, t: z[t].exp() / z.exp().sum()),
        ("log_probability", lambda z, t: (z[t].exp() / z.exp().sum()).log()),
        ("loss", lambda z, t: -(z[t].exp() / z.exp().sum()).log()),
    ],
)
def test_select_output(output, of_class):
    targets = torch.tensor([2, 0])
    expected = torch.stack([of_class(z, t) for z, t in zip(LOGITS, targets, strict=True)])
    assert torch.allclose(select_output(LOGITS, targets, output), expected)


@pytest.mark.parametrize("targets", [torch.tensor([0, 3]), torch.tensor([-1, 0])])
def test_refuses_targets_out_of_range(targets):
    with pytest.raises(InputError, match="targets: expected classes from 0 to 2"):
        select_output(LOGITS, targets)


def test_refuses_logits_that_are_no_matrix(own_errors):
    with pytest.raises(InputError, match="logits"):
        select_output(torch.zeros(2, 3, 4, 4), torch.tensor([0, 0]))


def test_refuses_an_unknown_output(own_errors):
    with pytest.raises(InputError, match="output: expected one of logit, probability"):
        select_output(LOGITS, torch.tensor([0, 0]), "odds")


def test_resolve_targets_predicts_in_chunks():
    model = nn.Flatten()
    images = torch.rand(7, 1, 2, 2)
    assert torch.equal(resolve_targets(model, images, None, 3), images.flatten(1).argmax(1))
    given = torch.zeros(7, dtype=torch.long)
    assert torch.equal(resolve_targets(model, images, given), given)
