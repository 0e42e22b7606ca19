"""Guided backpropagation, for ReLU in any form and without hooks on modules."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from holdfast.attributions.gradient import Gradient
from holdfast.contracts import Output

__all__ = ["GuidedBackprop"]


@dataclass(frozen=True)
class GuidedBackprop:
    """The gradient of the class score with what is negative behind each ReLU left out.

    On the way back through a ReLU, gradients pass where its input was positive, as always, and only
    if they are positive themselves. Module, shared, functional and in-place ReLU all count, so
    models need no rewriting; a model without ReLU gets its plain gradient.

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
        targets: Int[Tensor, " n"] | None = None,
        *,
        create_graph: bool = False,
    ) -> Float[Tensor, "n c h w"]:
        """Return the map of each image, ``(N, C, H, W)``; the model runs in eval mode."""
        gradient = Gradient(output=self.output, chunk=self.chunk)
        with _Guiding():
            return gradient(model, images, targets, create_graph=create_graph)


class _Guiding(TorchFunctionMode):
    """Within the block, gradients that reach a ReLU from behind lose what is negative."""

    def __init__(self) -> None:
        super().__init__()
        self.active = True

    def __exit__(self, *error: Any) -> None:
        # What the block computed may be differentiated in turn, and that by the common rules.
        self.active = False
        super().__exit__(*error)

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        if func in _RELU and result.requires_grad:
            # A hook belongs to the tensor as it is now: a later in-place change leaves it alone.
            result.register_hook(self._positive)
        return result

    def _positive(self, gradient: Tensor | None) -> Tensor | None:
        # None stands for a gradient of zeros.
        return gradient.clamp(min=0) if self.active and gradient is not None else gradient


_RELU = frozenset({F.relu, torch.relu, Tensor.relu, torch.relu_, Tensor.relu_})
