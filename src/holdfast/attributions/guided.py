"""Guided backpropagation, for any activation function and without hooks on modules."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Integer
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from holdfast.attributions.gradient import Gradient
from holdfast.contracts import Output, checked
from holdfast.models import double_backward
from holdfast.models.activations import POOLING, SMOOTH, recognize
from holdfast.models.scope import Scope

__all__ = ["GuidedBackprop"]


@dataclass(frozen=True)
@checked
class GuidedBackprop:
    """The gradient of the class score with what is negative behind each activation left out.

    On the way back through a ReLU, gradients pass where its input was positive, as always, and only
    if they are positive themselves. Other activation functions have the same rule: what comes from
    behind passes if it is positive, times the derivative of the function, whatever sign that has.
    These are all that the softplus surrogate replaces (`holdfast.models.softplus`; not pooling),
    and sigmoid, tanh, GELU, SiLU, Mish, softplus, softsign, log-sigmoid and tanhshrink. Module,
    shared, functional and in-place forms all count, so models need no rewriting. What is written
    in arithmetic, as ``x * (x > 0)``, and softmax are passed as the gradient passes them.

    A model in which no such function is met gets its plain gradient, and a warning that says so.

    Parameters
    ----------
    output : {"logit", "probability", "log_probability", "loss"}
        What is differentiated.
    chunk : int, optional
        How many images to take at a time; by default chosen from their size.

    References
    ----------
    Springenberg et al., Striving for Simplicity: The All Convolutional Net (2014).

    Examples
    --------
    >>> dense = nn.Linear(1, 2, bias=False)
    >>> _ = dense.weight.data.copy_(torch.tensor([[1.0], [-1.0]]))
    >>> model = nn.Sequential(nn.Flatten(), nn.ReLU(), dense)
    >>> maps = GuidedBackprop()(model, torch.ones(2, 1, 1, 1), torch.tensor([0, 1]))
    >>> maps.flatten()
    tensor([1., 0.])
    """

    output: Output = "logit"
    chunk: int | None = None

    def __call__(
        self,
        model: nn.Module,
        images: Float[Tensor, "n c h w"],
        targets: Integer[Tensor, " n"] | None = None,
        *,
        create_graph: bool = False,
    ) -> Float[Tensor, "n c h w"]:
        """Return the map of each image, ``(N, C, H, W)``; the model runs in eval mode."""
        gradient = Gradient(output=self.output, chunk=self.chunk)
        with double_backward() if create_graph else nullcontext(), _Guiding() as guiding:
            maps = gradient(model, images, targets, create_graph=create_graph)
        if not guiding.met:
            warnings.warn(
                "GuidedBackprop: the model calls no activation function that could be guided "
                "(compiled to TorchScript, or written in arithmetic?); its maps are the plain "
                "gradient",
                stacklevel=2,
            )
        return maps


class _Guiding(TorchFunctionMode):
    """Within the block, gradients that reach an activation from behind lose what is negative."""

    def __init__(self) -> None:
        super().__init__()
        self.active, self.met = True, False
        self._scope = Scope()

    def __enter__(self) -> _Guiding:
        self._scope.__enter__()
        super().__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        # What the block computed may be differentiated in turn, and that by the common rules.
        self.active = False
        super().__exit__(*error)
        self._scope.__exit__(*error)

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        call = recognize(func, args, kwargs, self._scope)
        guided = func in SMOOTH if call is None else call.name not in POOLING
        overwritten = None
        if guided and (call.inplace if call else _is_inplace(func, args, kwargs)):
            # A clone is activated and copied back: what is overwritten may be a part of the tensor
            # that the model goes on with, to which no hook on the result would belong.
            overwritten = call.input if call else args[0] if args else kwargs["input"]
            clone = overwritten.clone()
            args = tuple(clone if each is overwritten else each for each in args)
            kwargs = {key: clone if x is overwritten else x for key, x in kwargs.items()}
        result = func(*args, **kwargs)
        if guided and result.requires_grad:
            self.met = True
            # A hook belongs to the tensor as it is now: a later in-place change leaves it alone.
            result.register_hook(self._positive)
        return result if overwritten is None else overwritten.copy_(result)

    def _positive(self, gradient: Tensor | None) -> Tensor | None:
        # None stands for a gradient of zeros.
        if not self.active or gradient is None:
            return gradient
        with torch._C.DisableTorchFunction():  # no activation of the model's
            return gradient.clamp(min=0)


def _is_inplace(func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    """Tell whether a smooth activation function overwrites its input."""
    name = getattr(func, "__name__", "").split(".")[0]  # of operators, the overload is left out
    # As in `F.silu(x, True)`.
    flag = kwargs.get("inplace", len(args) > 1 and args[1] is True)
    return bool(flag) or (name.endswith("_") and not name.endswith("__"))
