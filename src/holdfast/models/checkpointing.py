"""Models that trade time for memory, and why they must not where gradients are tampered with."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import torch.utils.checkpoint as checkpoint

__all__ = ["no_checkpointing"]


@contextmanager
def no_checkpointing() -> Iterator[None]:
    """Within the block, `torch.utils.checkpoint.checkpoint` keeps what it would compute anew.

    A checkpointed part of a model runs a second time when its gradient is asked for: then the
    surrogate may be left already, or backpropagation go through another thread, and the second run
    is another function than the first. Its reentrant form refuses gradients by images altogether.
    Here the part runs once, as written; values are the same, and memory is spent.

    The switch is PyTorch's own and counts for all threads, for which it changes no value either.

    Examples
    --------
    >>> import torch
    >>> x = torch.ones(1, requires_grad=True)
    >>> with no_checkpointing():
    ...     y = checkpoint.checkpoint(torch.exp, x, use_reentrant=True)
    >>> torch.autograd.grad(y, x)
    (tensor([2.7183]),)
    """
    global _depth
    with _lock:
        if _depth == 0:
            for name, plain in _PLAIN.items():
                if hasattr(checkpoint, name):
                    _kept[name] = getattr(checkpoint, name)
                    setattr(checkpoint, name, plain)
        _depth += 1
    try:
        yield
    finally:
        with _lock:
            _depth -= 1
            if _depth == 0:
                while _kept:
                    setattr(checkpoint, *_kept.popitem())


class _Plain:
    """In place of the reentrant checkpoint's autograd function: nothing but the call."""

    @staticmethod
    def apply(function: Callable[..., Any], preserve: bool, *args: Any) -> Any:
        return function(*args)


# Both are looked up when a checkpoint begins, however the model imported the function.
_PLAIN: dict[str, Any] = {
    "CheckpointFunction": _Plain,
    "_checkpoint_hook": lambda frame: nullcontext(),
}
_lock = threading.Lock()
_kept: dict[str, Any] = {}
_depth = 0
