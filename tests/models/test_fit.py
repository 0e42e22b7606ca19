import pytest
import torch
from torch import nn

from holdfast.contracts import HoldfastError
from holdfast.models import SurrogateFit, surrogate_fit


class Called(nn.Module):
    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function(x)


def close(z, beta):
    return torch.logaddexp(beta * z, torch.zeros_like(z)) / beta


def test_figures_are_those_of_the_closed_form(untouched):
    torch.manual_seed(0)
    first, last = nn.Linear(12, 9), nn.Linear(9, 3)
    model = nn.Sequential(nn.Flatten(), first, nn.ReLU(), nn.Dropout(), last).double()
    images = torch.rand(50, 1, 3, 4).double()
    last.bias.data -= model.eval()(images).mean(0).detach()  # undecided
    with untouched(model):
        fit = surrogate_fit(model, images, beta=0.5)
    z = first(images.flatten(1))
    exact, smooth = last(z.relu()), last(close(z, 0.5))
    assert torch.equal(fit.agree, exact.argmax(1) == smooth.argmax(1))
    assert 0 < fit.agree.double().mean() < 1
    spread = exact.max(1).values - exact.min(1).values
    assert torch.allclose(fit.change, (smooth - exact).abs().max(1).values / spread)
    assert fit.replaced == 1
    assert not fit.change.requires_grad
    sharper = surrogate_fit(model, images, beta=2000.0)
    assert sharper.agree.all()
    assert sharper.change.max() < 0.01


@pytest.mark.parametrize(
    ("function", "replaced"),
    [(lambda x: x * (x > 0), 0), (torch.tanh, 0), (torch.abs, 1), (lambda x: x.clamp(0, 6), 1)],
)
def test_says_where_the_surrogate_reaches_nothing(function, replaced):
    model = nn.Sequential(nn.Flatten(), nn.Linear(4, 3), Called(function))
    fit = surrogate_fit(model, torch.rand(2, 1, 2, 2))
    assert fit.replaced == replaced
    if not replaced:
        expected = SurrogateFit(torch.ones(2, dtype=torch.bool), torch.zeros(2), 0)
        assert all(torch.equal(a, b) for a, b in zip(fit[:2], expected[:2], strict=True))


def test_constant_logits_that_change_have_changed_without_bound():
    model = nn.Sequential(nn.Flatten(), Called(lambda x: x.new_tensor([0.0, 1.0]) * (x - x).relu()))
    fit = surrogate_fit(model, torch.rand(2, 1, 1, 2))
    assert fit.change.tolist() == [torch.inf] * 2


def test_refuses_a_model_without_gradients():
    with pytest.raises(HoldfastError, match="no gradient"):
        surrogate_fit(Called(lambda x: x.detach().flatten(1)), torch.rand(1, 1, 2, 2))
