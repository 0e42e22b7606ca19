"""Fixtures shared by the whole suite."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

import jaxtyping
import pytest
import torch
from torch import Tensor, nn


@pytest.fixture
def own_errors() -> Iterator[None]:
    """Switch beartype's shape checks off, to see the errors that a user would see."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


@pytest.fixture
def smooth_model() -> nn.Module:
    """A float64 classifier of 2×5×5 images into 4 classes that is smooth everywhere."""
    return nn.Sequential(
        nn.Conv2d(2, 3, 3),
        nn.Softplus(),
        nn.Flatten(),
        nn.Linear(27, 8),
        nn.Tanh(),
        nn.Linear(8, 4),
    ).double()


@pytest.fixture
def relu_model() -> nn.Module:
    """A float64 classifier of 2×5×5 images into 4 classes, with ReLU in all its forms."""

    class Forms(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(2, 4, 3)
            self.hidden = nn.Linear(36, 16)
            self.last = nn.Linear(16, 4)
            self.relu = nn.ReLU(inplace=True)

        def forward(self, x: Tensor) -> Tensor:
            x = self.relu(self.conv(x)).flatten(1)
            return self.last(torch.relu(self.hidden(x)))

    return Forms().double()


@pytest.fixture
def stateful_model() -> nn.Module:
    """A classifier of 2×5×5 images in train mode, with batch-norm, dropout and one frozen layer."""
    model = nn.Sequential(
        nn.Conv2d(2, 4, 3),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.BatchNorm2d(4),
        nn.Dropout(0.5),
        nn.Flatten(),
        nn.Linear(36, 4),
    )
    model.train()
    model[3].eval()
    model[0].weight.requires_grad_(False)
    model[6].weight.grad = torch.ones_like(model[6].weight)
    return model


@pytest.fixture
def untouched() -> Callable[[nn.Module], AbstractContextManager[None]]:
    """Assert that a block leaves a model's modes, flags, gradients and buffers as they were."""

    @contextmanager
    def watch(model: nn.Module) -> Iterator[None]:
        before = _state(model)
        yield
        after = _state(model)
        assert before.keys() == after.keys()
        for name, value in before.items():
            same = torch.equal(value, after[name]) if isinstance(value, Tensor) else None
            assert same if same is not None else value == after[name], name

    return watch


def _state(model: nn.Module) -> dict[str, object]:
    state: dict[str, object] = {}
    for name, module in model.named_modules():
        state[f"mode of {name}"] = module.training
    for name, parameter in model.named_parameters():
        state[f"flag of {name}"] = parameter.requires_grad
        state[f"value of {name}"] = parameter.detach().clone()
        state[f"gradient of {name}"] = None if parameter.grad is None else parameter.grad.clone()
    for name, buffer in model.named_buffers():
        state[f"buffer {name}"] = buffer.clone()
    return state
