import threading

import pytest
import torch
from torch import nn
from torch.utils import checkpoint as module
from torch.utils.checkpoint import checkpoint

from holdfast.attributions import Gradient
from holdfast.models import classify, double_backward, softplus
from holdfast.models.checkpointing import no_checkpointing


class Checkpointed(nn.Module):
    """A convolution and an activation that are computed twice, and how often they were."""

    def __init__(self, reentrant):
        super().__init__()
        self.reentrant, self.runs = reentrant, 0
        self.conv, self.head = nn.Conv2d(1, 4, 3), nn.Linear(16, 3)

    def part(self, x):
        self.runs += 1
        return torch.relu(self.conv(x))

    def plain(self, x):
        return self.head(torch.relu(self.conv(x)).flatten(1))

    def forward(self, x):
        return self.head(checkpoint(self.part, x, use_reentrant=self.reentrant).flatten(1))


@pytest.fixture(params=[True, False], ids=["reentrant", "not reentrant"])
def model(request):
    torch.manual_seed(0)
    return Checkpointed(request.param).double()


def test_parts_run_once_within_the_block(model):
    x = torch.rand(2, 1, 4, 4, dtype=torch.float64, requires_grad=True)
    with no_checkpointing(), no_checkpointing():
        model(x).sum().backward()
    assert model.runs == 1
    model(x).sum().backward()
    assert model.runs == 3
    assert module.CheckpointFunction.__module__ == "torch.utils.checkpoint"


def test_gradients_and_second_derivatives_through_the_surrogate(model):
    images = torch.rand(2, 1, 4, 4, dtype=torch.float64)

    def second(run):
        x = images.clone().requires_grad_(True)
        with softplus(beta=5.0), double_backward():
            logits = run(x)
        (first,) = torch.autograd.grad(logits[:, 0].sum(), x, create_graph=True)
        return first, torch.autograd.grad(first.square().sum(), x)[0]

    checkpointed, plain = second(model), second(model.plain)
    assert all(map(torch.equal, checkpointed, plain))
    assert plain[1].any()


def test_reentrant_checkpoints_are_explained(model):
    """PyTorch alone refuses `torch.autograd.grad` here."""
    images, targets = torch.rand(2, 1, 4, 4, dtype=torch.float64), torch.tensor([0, 2])
    x = images.clone().requires_grad_(True)
    (expected,) = torch.autograd.grad(model.plain(x).gather(1, targets[:, None]).sum(), x)
    assert torch.equal(Gradient()(model, images, targets), expected)


def test_training_on_images_without_gradients_stays_checkpointed(model):
    classify(model, torch.rand(2, 1, 4, 4, dtype=torch.float64)).sum().backward()
    assert model.runs == (2 if not model.reentrant else 1)  # PyTorch: none of its inputs has one


def test_threads_share_the_switch(model):
    inside, leave = threading.Event(), threading.Event()

    def other():
        with no_checkpointing():
            inside.set()
            leave.wait(10)

    thread = threading.Thread(target=other)
    thread.start()
    inside.wait(10)
    with no_checkpointing():
        pass
    x = torch.rand(2, 1, 4, 4, dtype=torch.float64, requires_grad=True)
    model(x).sum().backward()  # still inside the other's block
    assert model.runs == 1
    leave.set()
    thread.join()
    model(x).sum().backward()
    assert model.runs == 3
