"""The softplus surrogate: a second derivative for networks of ReLUs, without touching them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from holdfast.contracts import InputError

__all__ = ["softplus"]


class softplus(TorchFunctionMode):  # noqa: N801 - used like torch.no_grad, named like it
    """Within the block, every ReLU of any model is softplus_β.

    ReLU's second derivative is zero almost everywhere, so an attack on gradients or a loss of
    gradients has nothing to follow. ``softplus_β(z) = log(1 + exp(βz)) / β`` approaches ReLU as β
    grows and can be differentiated twice. No model needs rewriting: calls of ``F.relu``,
    ``torch.relu``, ``Tensor.relu``, their in-place forms, and so ``nn.ReLU``, are intercepted.
    Models compiled to TorchScript are out of its reach.

    Parameters
    ----------
    beta : float
        Sharpness β, above 0.

    Raises
    ------
    InputError
        If ``beta`` is not above 0.

    References
    ----------
    Dombrowski et al., Explanations can be manipulated and geometry is to blame (NeurIPS 2019);
    Attributional Robustness Training (ECCV 2020), section 3.2.

    Examples
    --------
    >>> x = torch.zeros(1)
    >>> with softplus(beta=50.0):
    ...     torch.relu(x)
    tensor([0.0139])
    >>> torch.relu(x)
    tensor([0.])
    """

    def __init__(self, beta: float = 50.0) -> None:
        if not beta > 0:
            raise InputError("beta", beta, "a number above 0")
        super().__init__()
        self.beta = beta

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        """Answer a call of ReLU with softplus_β, and let every other function through."""
        kwargs = kwargs or {}
        if func in _OUT_OF_PLACE:
            return self._relu(*args, **kwargs)
        if func in _IN_PLACE:
            return self._relu_(*args, **kwargs)
        return func(*args, **kwargs)

    def _relu(self, input: Tensor, inplace: bool = False) -> Tensor:
        return self._relu_(input) if inplace else _softplus(input, self.beta)

    def _relu_(self, input: Tensor) -> Tensor:
        # The clone is what softplus keeps for its derivative; the input itself is overwritten, for
        # callers that go on with it and drop what the function returns.
        return input.copy_(_softplus(input.clone(), self.beta))


def _softplus(x: Tensor, beta: float) -> Tensor:
    if not (x.requires_grad and torch.is_grad_enabled()):
        return F.softplus(x, beta=beta)
    result: Tensor = _Softplus.apply(x, torch.sigmoid(beta * x), beta)
    return result


class _Softplus(Function):
    """Softplus that is given its own slope, so that each backward pass is a multiplication.

    The slope comes with its graph, through which second derivatives go.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, slope: Tensor, beta: float) -> Tensor:
        ctx.save_for_backward(slope)
        return F.softplus(x, beta=beta)

    @staticmethod
    def backward(ctx: Any, gradient: Any) -> Any:
        (slope,) = ctx.saved_tensors
        return gradient * slope, None, None


_OUT_OF_PLACE = frozenset({F.relu, torch.relu, Tensor.relu})
_IN_PLACE = frozenset({torch.relu_, Tensor.relu_})
