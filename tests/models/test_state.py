import pytest
import torch

from holdfast.models import evaluating, statistics_kept


def test_evaluating_restores_each_mode(stateful_model, untouched):
    images = torch.rand(4, 2, 5, 5)
    with untouched(stateful_model), evaluating(stateful_model):
        assert not any(module.training for module in stateful_model.modules())
        assert torch.equal(stateful_model(images), stateful_model(images))  # no dropout


def test_evaluating_restores_after_an_error(stateful_model, untouched):
    with untouched(stateful_model), pytest.raises(RuntimeError), evaluating(stateful_model):
        raise RuntimeError


def test_statistics_kept_allows_backward_later(stateful_model, untouched):
    images = torch.rand(4, 2, 5, 5)
    with untouched(stateful_model):
        with statistics_kept(stateful_model):
            loss = stateful_model(images).square().sum()
            changed = stateful_model[1].running_mean.clone()
        assert not torch.equal(changed, stateful_model[1].running_mean)
        torch.autograd.grad(loss, stateful_model[1].weight)
