import copy

import pytest
import torch
from torch import nn

from holdfast.attributions import Gradient
from holdfast.contracts import HoldfastError
from holdfast.models import Normalized, evaluating, statistics_kept


def test_evaluating_restores_each_mode(stateful_model, untouched):
    images = torch.rand(4, 2, 5, 5)
    with untouched(stateful_model), evaluating(stateful_model):
        assert not any(module.training for module in stateful_model.modules())
        assert torch.equal(stateful_model(images), stateful_model(images))  # no dropout


def test_evaluating_restores_after_an_error(stateful_model, untouched):
    with untouched(stateful_model), pytest.raises(RuntimeError), evaluating(stateful_model):
        raise RuntimeError


class Counting(nn.Module):
    """Changes its buffers in eval mode, too, as observers of quantization do."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(4, 2)
        self.register_buffer("calls", torch.zeros((), dtype=torch.long))
        self.register_buffer("largest", torch.zeros(()))

    def forward(self, x):
        self.calls += 1
        self.largest.copy_(torch.maximum(self.largest, x.detach().amax()))
        return self.linear(x.flatten(1))


def test_evaluating_sets_buffers_back(untouched):
    model = Counting()
    with untouched(model):
        maps = Gradient()(model, torch.rand(3, 1, 2, 2), create_graph=True)
        with evaluating(model):
            model(torch.rand(3, 1, 2, 2))
            assert model.calls == 1
    maps.sum().backward()  # autograd holds none of them


def test_statistics_kept_allows_backward_later(stateful_model, untouched):
    images = torch.rand(4, 2, 5, 5)
    with untouched(stateful_model):
        with statistics_kept(stateful_model):
            loss = stateful_model(images).square().sum()
            changed = stateful_model[1].running_mean.clone()
        assert not torch.equal(changed, stateful_model[1].running_mean)
        torch.autograd.grad(loss, stateful_model[1].weight)


def dropping():
    return nn.Sequential(
        nn.Conv2d(1, 2, 3),
        nn.BatchNorm2d(2),
        nn.ReLU(),
        nn.Dropout(),
        nn.Flatten(),
        nn.Linear(8, 3),
    )


FORMS = {
    "exported": lambda model, x: torch.export.export(model, (x,)).module(),
    "traced": lambda model, x: torch.jit.trace(model, x, check_trace=False),
    "scripted": lambda model, x: torch.jit.script(model),
    "frozen": lambda model, x: torch.jit.freeze(torch.jit.script(model.eval())),
    "compiled": lambda model, x: torch.compile(model, backend="eager"),
    "parallel": lambda model, x: nn.DataParallel(model),
}


@pytest.mark.parametrize("inside", [False, True], ids=["alone", "in a module"])
@pytest.mark.parametrize("form", FORMS)
def test_evaluating_takes_models_that_are_no_plain_modules(form, inside):
    x = torch.rand(2, 1, 4, 4)
    eager = dropping().eval()
    model = FORMS[form](copy.deepcopy(eager), x)
    model = Normalized(model, 0.5, 0.5) if inside else model
    given = (x - 0.5) / 0.5 if inside else x
    modal = [module for module in model.modules() if hasattr(module, "training")]
    modes = [module.training for module in modal]
    with evaluating(model):
        assert torch.allclose(model(x), eager(given), atol=1e-6)
    assert modes == [module.training for module in modal]


@pytest.mark.parametrize("inside", [False, True], ids=["alone", "in a module"])
@pytest.mark.parametrize("form", ["exported", "traced"])
def test_evaluating_refuses_what_cannot_leave_train_mode(form, inside):
    model = FORMS[form](dropping().train(), torch.rand(2, 1, 4, 4))
    model = Normalized(model, 0.5, 0.5) if inside else model
    modes = [module.training for module in model.modules()]
    with pytest.raises(HoldfastError, match=f"it was {form} in train mode"), evaluating(model):
        pass
    assert modes == [module.training for module in model.modules()]


def test_evaluating_sets_scripted_models_to_eval_mode():
    model = torch.jit.script(dropping().train())
    with evaluating(model):
        assert not any(module.training for module in model.modules())
    assert all(module.training for module in model.modules())
