"""The softplus surrogate: a second derivative for piecewise-linear networks, left untouched."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from holdfast.contracts import InputError
from holdfast.models import smooth
from holdfast.models.activations import CURVED, POOLING, Call, constant, recognize
from holdfast.models.checkpointing import no_checkpointing
from holdfast.models.scope import Scope
from holdfast.models.smooth_pool import adaptive_max_pool, max_pool

__all__ = ["softplus"]


class softplus(TorchFunctionMode):  # noqa: N801 - used like torch.no_grad, named like it
    """Within the block, every ReLU of any model is softplus_β, and all its relatives follow.

    ReLU's second derivative is zero almost everywhere, so an attack on gradients or a loss of
    gradients has nothing to follow. ``softplus_β(z) = log(1 + exp(βz)) / β`` approaches ReLU as β
    grows and can be differentiated twice. So do the smooth forms of all other piecewise-linear
    functions, in which each kink is a softplus and each jump a sigmoid: ReLU6, leaky, parametric
    and randomized ReLU, hard tanh, threshold, hard swish, hard sigmoid, soft and hard shrinkage,
    ELU, SELU and CELU, whose second derivative jumps; and, within the forward pass of a module that
    begins in the block, ``abs``, ``clamp``, ``maximum`` and ``minimum``. There max-pooling, too, is
    replaced where no curved function came before it in the same pass, which leaves networks of ReLU
    and max-pooling to their ReLUs.

    No model needs rewriting: calls are intercepted as module, function, method of a tensor or
    operator, in-place or not. Models compiled to TorchScript, and functions written in arithmetic,
    as ``x * (x > 0)``, are out of reach. Guards stay as they are: clamps with a tiny bound, or of
    the image to [0, 1].

    Parameters
    ----------
    beta : float
        Sharpness β, above 0.

    Attributes
    ----------
    replaced : Counter
        How often each function has been replaced, by its name; empty if the surrogate reached
        nothing.

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
    >>> with softplus(beta=50.0) as surrogate:
    ...     torch.relu(x)
    tensor([0.0139])
    >>> torch.relu(x), surrogate.replaced
    (tensor([0.]), Counter({'relu': 1}))
    """

    def __init__(self, beta: float = 50.0) -> None:
        if not beta > 0:
            raise InputError("beta", beta, "a number above 0")
        super().__init__()
        self.beta = beta
        self.replaced: Counter[str] = Counter()
        self._scope = Scope()
        self._entered: list[ExitStack] = []

    def __enter__(self) -> softplus:
        with ExitStack() as stack:
            # What is computed again for the backward pass would be so without the surrogate.
            stack.enter_context(no_checkpointing())
            stack.enter_context(self._scope)
            self._entered.append(stack.pop_all())
        super().__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        self._entered.pop().close()

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        """Answer a call of an activation function smoothly, and let every other one through."""
        kwargs = kwargs or {}
        call = recognize(func, args, kwargs, self._scope)
        if call is None and func not in CURVED:
            return func(*args, **kwargs)
        if call is None or (call.name in POOLING and self._scope.curved):
            self._scope.curved |= call is None
            return func(*args, **kwargs)
        result = self._smooth(call)
        if result is None:
            return func(*args, **kwargs)
        self.replaced[call.name] += 1
        self._scope.curved |= call.name not in POOLING
        return result

    def _smooth(self, call: Call) -> Any:
        # What the smooth form consists of is nobody's activation function.
        with torch._C.DisableTorchFunction():
            form = _FORMS[call.name]
            if not call.inplace:
                return form(call.input, self.beta, **call.given)
            # The clone is what is kept for the derivative; the input itself is overwritten, for
            # callers that go on with it and drop what the function returns.
            result = form(call.input.clone(), self.beta, **call.given)
            return None if result is None else call.input.copy_(result)


# How each function's arguments are read. None is the answer where the function stays as it is.


def _rrelu(
    z: Tensor,
    beta: float,
    lower: float = 1 / 8,
    upper: float = 1 / 3,
    training: bool = False,
    generator: torch.Generator | None = None,
) -> Tensor:
    middle = (lower + upper) / 2
    if not training:
        return smooth.leaky_relu(z, middle, beta)
    drawn = torch.ones_like(z)
    torch.ops.aten.rrelu_with_noise(z.detach(), drawn, lower, upper, True, generator)
    # A slope is drawn for what is below 0 only.
    return smooth.prelu(z, drawn.where(z.detach() <= 0, middle), beta)


def _prelu(z: Tensor, beta: float, weight: Tensor) -> Tensor:
    if weight.ndim == 1 and z.ndim > 1:
        weight = weight.view(1, -1, *[1] * (z.ndim - 2))
    return smooth.prelu(z, weight, beta)


def _clamp(z: Tensor, beta: float, min: Any = None, max: Any = None) -> Tensor:
    low, high = constant(min), constant(max)
    if isinstance(low, Tensor) or isinstance(high, Tensor):
        return smooth.clamp_between(z, low, high, beta)
    if low is not None and high is not None and low > high:
        low = high  # so is a clamp defined
    return smooth.clamp(z, low, high, beta)


def _max(z: Tensor, beta: float, dim: Any = None, keepdim: bool = False) -> Any:
    if dim is None:
        return smooth.maximum_over(z, range(z.ndim), beta)
    exact = torch.max(z.detach(), dim, keepdim)
    values = _amax(z, beta, dim, keepdim)
    return torch.return_types.max((values, exact.indices))


def _min(z: Tensor, beta: float, dim: Any = None, keepdim: bool = False) -> Any:
    if dim is None:
        return -smooth.maximum_over(-z, range(z.ndim), beta)
    values, indices = _max(-z, beta, dim, keepdim)
    return torch.return_types.min((-values, indices))


def _amax(z: Tensor, beta: float, dim: Any = (), keepdim: bool = False) -> Tensor:
    dims = [dim] if isinstance(dim, int) else list(dim) or list(range(z.ndim))
    result = smooth.maximum_over(z, dims, beta)
    for gone in sorted(each % z.ndim for each in dims) if keepdim else ():
        result = result.unsqueeze(gone)
    return result


def _amin(z: Tensor, beta: float, dim: Any = (), keepdim: bool = False) -> Tensor:
    return -_amax(-z, beta, dim, keepdim)


def _max_pool(dimensions: int) -> Callable[..., Tensor | None]:
    exact = getattr(F, f"max_pool{dimensions}d")

    def pool(
        x: Tensor,
        beta: float,
        kernel_size: Any,
        stride: Any = None,
        padding: Any = 0,
        dilation: Any = 1,
        ceil_mode: bool = False,
        return_indices: bool = False,
    ) -> Tensor | None:
        if return_indices:
            return None
        window = (kernel_size, stride or None, padding, dilation)
        shape = exact(x.detach(), *window, ceil_mode).shape[-dimensions:]
        return max_pool(x, shape, *window, beta)

    return pool


def _adaptive_max_pool(dimensions: int) -> Callable[..., Tensor | None]:
    exact = getattr(F, f"adaptive_max_pool{dimensions}d")

    def pool(
        x: Tensor, beta: float, output_size: Any, return_indices: bool = False
    ) -> Tensor | None:
        if return_indices:
            return None
        return adaptive_max_pool(x, exact(x.detach(), output_size).shape[-dimensions:], beta)

    return pool


_SELU = (1.6732632423543772848170429916717, 1.0507009873554804934193349852946)
_FORMS: dict[str, Callable[..., Any]] = {
    "relu": smooth.relu,
    "relu6": lambda z, beta: _clamp(z, beta, 0.0, 6.0),
    "leaky_relu": lambda z, beta, negative_slope=0.01: smooth.leaky_relu(z, negative_slope, beta),
    "prelu": _prelu,
    "rrelu": _rrelu,
    "hardtanh": lambda z, beta, min_val=-1.0, max_val=1.0: _clamp(z, beta, min_val, max_val),
    "threshold": lambda z, beta, threshold, value: smooth.threshold(z, threshold, value, beta),
    "hardswish": smooth.hardswish,
    "hardsigmoid": smooth.hardsigmoid,
    "softshrink": lambda z, beta, lambd=0.5: smooth.softshrink(z, lambd, beta),
    "hardshrink": lambda z, beta, lambd=0.5: smooth.hardshrink(z, lambd, beta),
    "elu": lambda z, beta, alpha=1.0, scale=1.0, input_scale=1.0: smooth.elu(
        z, alpha, scale, input_scale, beta
    ),
    "selu": lambda z, beta: smooth.elu(z, *_SELU, 1.0, beta),
    "celu": lambda z, beta, alpha=1.0: smooth.elu(z, alpha, 1.0, 1 / alpha, beta),
    "abs": smooth.absolute,
    "clamp": _clamp,
    "maximum": lambda z, beta, other: smooth.larger(z, other, beta),
    "minimum": lambda z, beta, other: smooth.smaller(z, other, beta),
    "max": _max,
    "min": _min,
    "amax": _amax,
    "amin": _amin,
    **{f"max_pool{n}d": _max_pool(n) for n in (1, 2, 3)},
    **{f"adaptive_max_pool{n}d": _adaptive_max_pool(n) for n in (1, 2, 3)},
}
