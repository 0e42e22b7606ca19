"""Where a call comes from: out of a module's forward pass, or from the code around the model."""

from __future__ import annotations

import threading
import weakref
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.module import (
    register_module_forward_hook,
    register_module_forward_pre_hook,
)

__all__ = ["Scope"]


class Scope:
    """Within the block, tells whether a call is made by a forward pass that the block has begun.

    ``abs``, ``clamp`` and ``max`` are activations in a network and plain arithmetic in a loss. What
    tells them apart is whether a module is running; the forward pass of a module that was under way
    before the block does not count, nor do other threads.

    Attributes
    ----------
    curved : bool
        Whether the forward pass under way has met a function with a second derivative; kept by
        whoever uses the scope, and reset when another forward pass begins.

    Examples
    --------
    >>> class Asks(nn.Module):
    ...     def forward(self, scope):
    ...         return scope.inside
    >>> with Scope() as scope:
    ...     scope.inside, Asks()(scope)
    (False, True)
    """

    def __init__(self) -> None:
        self.curved = False
        self._entered = 0
        self._thread = 0
        self._depth = 0
        self._hooks: list[Any] = []
        self._image: weakref.ref[Tensor] | None = None
        self._shape: torch.Size | None = None

    def __enter__(self) -> Scope:
        if not self._entered:
            self._thread = threading.get_ident()
            self._hooks = [
                register_module_forward_pre_hook(self._begin),
                register_module_forward_hook(self._end, always_call=True),
            ]
        self._entered += 1
        return self

    def __exit__(self, *error: Any) -> None:
        self._entered -= 1
        if not self._entered:
            self._depth = 0
            for hook in self._hooks:
                hook.remove()

    @property
    def inside(self) -> bool:
        """Whether the call under way belongs to a forward pass."""
        return self._depth > 0

    def image_shaped(self, x: Tensor) -> bool:
        """Tell whether that has the shape of what the outermost module was given."""
        return self._shape is not None and x.shape == self._shape

    def is_input(self, x: Tensor) -> bool:
        """Tell whether that very tensor is what the outermost module was given."""
        return self._image is not None and self._image() is x

    def _begin(self, module: nn.Module, inputs: tuple[Any, ...]) -> None:
        if threading.get_ident() == self._thread:
            if self._depth == 0:
                self._look_at(inputs)
            self._depth += 1

    def _end(self, module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        if threading.get_ident() == self._thread:
            # A pass that began before the block may end within it.
            self._depth = max(0, self._depth - 1)

    def _look_at(self, inputs: tuple[Any, ...]) -> None:
        image = inputs[0] if inputs and isinstance(inputs[0], Tensor) else None
        self._image = None if image is None else weakref.ref(image)
        self._shape = None if image is None else image.shape
        self.curved = False
