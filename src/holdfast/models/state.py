"""Running a model without leaving a trace on it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn

__all__ = ["evaluating", "statistics_kept"]


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Within the block, every submodule is in eval mode; after it, in the mode it was in.

    Unlike ``model.eval()`` followed by ``model.train()``, this keeps submodules that the user
    froze on their own (batch-norm layers, say) as they were.

    Examples
    --------
    >>> model = nn.Sequential(nn.Dropout(), nn.BatchNorm1d(2).eval())
    >>> with evaluating(model):
    ...     [module.training for module in model]
    [False, False]
    >>> [module.training for module in model]
    [True, False]
    """
    modes = [(module, module.training) for module in model.modules()]
    try:
        if any(training for _, training in modes):
            model.eval()
        yield
    finally:
        for module, training in modes:
            module.training = training


@contextmanager
def statistics_kept(model: nn.Module) -> Iterator[None]:
    """Within the block, the model's buffers may change; after it, they are what they were.

    A second forward pass in train mode, for a term of the loss that is not the classification
    itself, would otherwise count into batch-norm's running statistics, too.

    Examples
    --------
    >>> import torch
    >>> norm = nn.BatchNorm1d(1)
    >>> with statistics_kept(norm):
    ...     _ = norm(torch.tensor([[1.0], [3.0]]))
    >>> norm.running_mean
    tensor([0.])
    """
    # Autograd may still need the changed buffers, so the originals are swapped back in rather than
    # copied over them.
    kept = []
    for module in model.modules():
        for name, buffer in module._buffers.items():
            if buffer is not None:
                kept.append((module, name, buffer))
                module._buffers[name] = buffer.clone()
    try:
        yield
    finally:
        for module, name, buffer in kept:
            module._buffers[name] = buffer
