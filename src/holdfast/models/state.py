"""Running a model without leaving a trace on it."""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from holdfast.contracts import HoldfastError, InputError

__all__ = ["check_watchable", "evaluating", "statistics_kept"]


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Within the block, every submodule is in eval mode; after it, in the mode it was in.

    Unlike ``model.eval()`` followed by ``model.train()``, this keeps submodules that the user
    froze on their own (batch-norm layers, say) as they were. Programs exported by `torch.export`
    and modules frozen by `torch.jit.freeze` have the mode in which that was done, and keep it.

    Raises
    ------
    HoldfastError
        If an exported program or a traced module was made of a model in train mode, so that it
        drops out values or normalizes by the batch for good.

    Examples
    --------
    >>> model = nn.Sequential(nn.Dropout(), nn.BatchNorm1d(2).eval())
    >>> with evaluating(model):
    ...     [module.training for module in model]
    [False, False]
    >>> [module.training for module in model]
    [True, False]
    """
    modes = [(module, module.training) for module in model.modules() if hasattr(module, "training")]
    try:
        if any(training for _, training in modes):
            _eval(model)
        _check_scripted(model)
        yield
    finally:
        for module, training in modes:
            module.training = training


def _eval(module: nn.Module) -> None:
    """Call ``eval()``, where it is refused that of the submodules."""
    try:
        module.eval()
    except NotImplementedError:  # the answer of exported programs, and of what holds one
        if isinstance(module, torch.fx.GraphModule):
            calls = [node for node in module.graph.nodes if node.op == "call_function"]
            if any(_trains(getattr(call.target, "_schema", None), call.args) for call in calls):
                raise _in_train_mode("exported") from None
        module.training = False
        for child in module.children():
            _eval(child)


def check_watchable(model: nn.Module) -> None:
    """Refuse TorchScript, whose layers cannot be watched from outside.

    Raises
    ------
    InputError
        If the model is TorchScript or holds some.

    Examples
    --------
    >>> check_watchable(nn.Sequential(nn.ReLU()))
    """
    if any(isinstance(module, torch.jit.ScriptModule) for module in model.modules()):
        expected = "a module whose layers can be watched, as the one that it was made of"
        raise InputError("model", "TorchScript", expected)


def _check_scripted(model: nn.Module) -> None:
    """Refuse TorchScript whose dropout and batch-norm are in train mode for good."""
    for module in model.modules():
        if isinstance(module, torch.jit.ScriptModule) and module not in _checked:
            graph: Any = module.inlined_graph  # its nodes live as long as it does
            for kind in ("aten::batch_norm", "aten::dropout", "aten::feature_dropout"):
                for node in graph.findAllNodes(kind):
                    if _trains(torch._C.parse_schema(node.schema()), map(_constant, node.inputs())):
                        raise _in_train_mode("traced")
            _checked.update(module.modules())


def _trains(schema: Any, values: Any) -> bool:
    """Tell whether a call of that schema has a flag for training, and it is set."""
    if schema is None:
        return False
    flags = zip(schema.arguments, values, strict=False)
    return any(flag.name in ("train", "training") and value is True for flag, value in flags)


def _constant(value: Any) -> Any:
    return value.toIValue() if value.node().kind() == "prim::Constant" else None


def _in_train_mode(how: str) -> HoldfastError:
    return HoldfastError(
        f"model: it was {how} in train mode, so that it drops out values or normalizes by the "
        f"batch whatever mode it is set to; call its eval() first, and have it {how} again"
    )


# TorchScript that was looked through; to find its calls takes as long as some forward passes.
_checked: weakref.WeakSet[nn.Module] = weakref.WeakSet()


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
