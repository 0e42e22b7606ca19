"""The steps of DeepLIFT: activation functions, products, maxima, each without loss.

A step computes what the common function computes, and its gradient is the share of the change from
baseline to image. Steps that can be put together from these lose nothing, either.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from holdfast.attributions.slopes import Bilinear, PoolFrom, PoolTo, Slope, State

__all__ = ["CALLS", "Rules", "changes_in_place"]


class Rules:
    """The steps, on tensors that hold images in front and as many baselines behind.

    Parameters
    ----------
    count : int
        How many images and baselines there are together. A tensor whose length is no multiple is
        not made of them: a parameter of the model, say.
    """

    def __init__(self, count: int) -> None:
        self.count = count
        self.state = State()

    def paired(self, x: object) -> bool:
        """Tell whether this can be a tensor of images and baselines."""
        if not isinstance(x, Tensor) or x.ndim == 0 or not x.is_floating_point():
            return False
        return len(x) > 0 and len(x) % self.count == 0

    def rescale(self, activation: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
        """Compute a function of each value; the gradient is its slope from baseline to image."""
        held = x.clone()  # the original may be changed in place further on
        return Slope.apply(held, activation(held), self.state)

    def multiply(
        self, a: Any, b: Any, product: Callable[[Any, Any], Tensor] = torch.mul, least: int = 1
    ) -> Tensor:
        """Compute a bilinear function; each factor counts with the mean of the other's ends."""
        both = self.paired(a) and self.paired(b)
        # Anything else is a parameter or a constant, and the product is linear.
        if both and a.ndim == b.ndim >= least and len(a) == len(b):
            return Bilinear.apply(a, b, product, self.state)
        return product(a, b)

    def maximum(self, a: Tensor, b: Tensor) -> Tensor:
        """Compute the larger of two: ``b + relu(a − b)``."""
        above = a - b
        return b + (self.rescale(F.relu, above) if self.paired(above) else F.relu(above))

    def minimum(self, a: Tensor, b: Tensor) -> Tensor:
        """Compute the smaller of two: ``a − relu(a − b)``."""
        above = a - b
        return a - (self.rescale(F.relu, above) if self.paired(above) else F.relu(above))

    def pool(self, pooling: Callable[[Tensor], Any], x: Tensor) -> Any:
        """Pool so that the change of each window's maximum goes to the pixels that made it.

        Of the way from the baseline's maximum to the image's, what lies above the baseline's goes
        to the image's largest pixel, what lies below to the baseline's. Overlapping windows add up.
        """
        shares, plain = (pooling(copy) for copy in PoolFrom.apply(x, self.state))
        if isinstance(plain, tuple):  # maxima and where they are
            return type(plain)((PoolTo.apply(shares[0], plain[0], self.state), *plain[1:]))
        return PoolTo.apply(shares, plain, self.state)


def changes_in_place(func: Callable[..., Any], args: tuple[Any, ...], kwargs: Any) -> bool:
    """Tell whether a call writes its result into its first argument.

    Examples
    --------
    >>> changes_in_place(F.elu, (torch.zeros(1), 1.0, True), {})
    True
    """
    name = func.__name__
    if name.endswith("_") and not name.endswith("__"):
        return True
    place = _place_of_inplace(func)
    return bool(kwargs.get("inplace", len(args) > place and args[place]))


@functools.cache
def _place_of_inplace(func: Callable[..., Any]) -> int:
    try:
        names = list(inspect.signature(func).parameters)
    except (ValueError, TypeError):  # built in: these have a name of their own for it
        names = []
    return names.index("inplace") if "inplace" in names else 1_000


# Each rule takes the rules, the function called and its arguments; NotImplemented leaves the call.
Rule = Callable[..., Any]


def _elementwise(rules: Rules, func: Any, x: Any, *rest: Any, **kwargs: Any) -> Any:
    if not rules.paired(x):
        return NotImplemented

    def call(z: Tensor) -> Tensor:
        result: Tensor = func(z, *rest, **kwargs)
        return result

    if changes_in_place(func, (x, *rest), kwargs):
        return x.copy_(rules.rescale(lambda z: call(z.clone()), x))
    return rules.rescale(call, x)


def _clamp(rules: Rules, func: Any, x: Any, *rest: Any, **kwargs: Any) -> Any:
    names = {"clamp_min": ("min",), "clamp_max": ("max",)}
    bounds = dict(zip(names.get(func.__name__.rstrip("_"), ("min", "max")), rest, strict=False))
    bounds |= {name: kwargs[name] for name in ("min", "max") if name in kwargs}
    if not any(isinstance(bound, Tensor) and bound.ndim for bound in bounds.values()):
        return _elementwise(rules, func, x, *rest, **kwargs)
    y = x.clone()
    if bounds.get("min") is not None:
        y = rules.maximum(y, torch.as_tensor(bounds["min"]).to(y))
    if bounds.get("max") is not None:
        y = rules.minimum(y, torch.as_tensor(bounds["max"]).to(y))
    return x.copy_(y) if changes_in_place(func, (), {}) else y


def _root(rules: Rules, func: Any, x: Any, **kwargs: Any) -> Any:
    # The root of zero has no finite derivative, and not even zero times it is a number.
    if kwargs or not rules.paired(x):
        return NotImplemented
    y = rules.rescale(lambda z: z.clamp(min=torch.finfo(z.dtype).tiny).sqrt(), x)
    return x.copy_(y) if changes_in_place(func, (), {}) else y


def _power(rules: Rules, func: Any, x: Any, exponent: Any, **kwargs: Any) -> Any:
    if isinstance(exponent, Tensor) and exponent.numel() > 1:
        return NotImplemented
    return _elementwise(rules, func, x, exponent, **kwargs)


def _product(rules: Rules, func: Any, x: Any, other: Any, **kwargs: Any) -> Any:
    if kwargs:
        return NotImplemented
    if changes_in_place(func, (), {}):
        return x.copy_(rules.multiply(x.clone(), other))
    return rules.multiply(x, other)


def _quotient(rules: Rules, func: Any, x: Any, other: Any, **kwargs: Any) -> Any:
    if kwargs or not rules.paired(other) or (isinstance(x, Tensor) and x.ndim > other.ndim):
        return NotImplemented
    inverse = rules.rescale(torch.reciprocal, other)
    if changes_in_place(func, (), {}):
        return x.copy_(rules.multiply(x.clone(), inverse))
    return rules.multiply(x, inverse)


def _matmul(rules: Rules, func: Any, x: Any, other: Any, **kwargs: Any) -> Any:
    return NotImplemented if kwargs else rules.multiply(x, other, torch.matmul, least=3)


def _einsum(rules: Rules, func: Any, equation: Any, *operands: Any) -> Any:
    if len(operands) == 1 and isinstance(operands[0], list | tuple):
        operands = tuple(operands[0])
    if not isinstance(equation, str) or len(operands) != 2:
        return NotImplemented
    terms = equation.replace(" ", "").replace("->", ",").split(",")
    if len({term[:1] for term in terms}) > 1:  # the first index is no batch
        return NotImplemented
    return rules.multiply(*operands, lambda a, b: func(equation, a, b), least=2)


def _glu(rules: Rules, func: Any, x: Any, dim: int = -1) -> Any:
    if not rules.paired(x) or dim % x.ndim == 0:
        return NotImplemented
    a, b = x.chunk(2, dim)
    return rules.multiply(a, rules.rescale(torch.sigmoid, b))


def _maximum(rules: Rules, func: Any, x: Any, other: Any, **kwargs: Any) -> Any:
    return NotImplemented if kwargs else rules.maximum(x, other)


def _minimum(rules: Rules, func: Any, x: Any, other: Any, **kwargs: Any) -> Any:
    return NotImplemented if kwargs else rules.minimum(x, other)


def _pooling(rules: Rules, func: Any, x: Any, *rest: Any, **kwargs: Any) -> Any:
    if not rules.paired(x):
        return NotImplemented
    return rules.pool(lambda z: func(z, *rest, **kwargs), x)


def _largest(rules: Rules, func: Any, x: Any, *rest: Any, **kwargs: Any) -> Any:
    """Compute the maxima or minima over dimensions, or of two tensors."""
    low = func.__name__.endswith("min")
    if rest and isinstance(rest[0], Tensor):
        return rules.minimum(x, rest[0]) if low else rules.maximum(x, rest[0])
    dims = kwargs.get("dim", rest[0] if rest else None)
    dims = dims if isinstance(dims, tuple | list) else [dims]
    if not rules.paired(x) or not dims or any(d is None or d % x.ndim == 0 for d in dims):
        return NotImplemented
    if not low:
        return rules.pool(lambda z: func(z, *rest, **kwargs), x)
    highest = torch.amax if func.__name__ == "amin" else torch.max
    found = rules.pool(lambda z: highest(z, *rest, **kwargs), -x)
    return type(found)((-found[0], *found[1:])) if isinstance(found, tuple) else -found


def _named(*names: str, of: tuple[Any, ...] = (torch, Tensor, F)) -> list[Any]:
    """Every function of these names, in place or not, wherever PyTorch keeps it."""
    spelled = [spelling for name in names for spelling in (name, f"{name}_")]
    return [getattr(place, name) for place in of for name in spelled if hasattr(place, name)]


# What nn.Threshold calls has a private name.
_module_threshold = vars(F)["_threshold"]

CALLS: dict[Any, Rule] = {
    **dict.fromkeys(
        [
            *_named("relu", "relu6", "leaky_relu", "prelu", "rrelu", "elu", "celu", "selu"),
            *_named("sigmoid", "tanh", "hardtanh", "hardswish", "hardsigmoid", "threshold"),
            *_named("gelu", "silu", "mish", "softplus", "softsign", "logsigmoid", "tanhshrink"),
            *_named("softshrink", "hardshrink", "abs", "absolute", "exp", "exp2", "expm1", "log"),
            *_named("log1p", "log2", "log10", "rsqrt", "square", "reciprocal", "erf"),
            *_named("sin", "cos", "sinh", "cosh", "atan", "arctan", "asinh", "arcsinh"),
            *(_module_threshold, Tensor.__rdiv__, Tensor.__rpow__, torch.special.expit),
        ],
        _elementwise,
    ),
    **dict.fromkeys(_named("clamp", "clip", "clamp_min", "clamp_max"), _clamp),
    **dict.fromkeys(_named("sqrt"), _root),
    **dict.fromkeys([*_named("pow", "float_power"), Tensor.__pow__], _power),
    **dict.fromkeys([*_named("mul", "multiply"), Tensor.__mul__, Tensor.__rmul__], _product),
    **dict.fromkeys(
        [*_named("div", "divide", "true_divide"), Tensor.__truediv__, Tensor.__div__], _quotient
    ),
    **dict.fromkeys([*_named("matmul", "bmm"), Tensor.__matmul__], _matmul),
    torch.einsum: _einsum,
    F.glu: _glu,
    **dict.fromkeys(_named("maximum", "fmax"), _maximum),
    **dict.fromkeys(_named("minimum", "fmin"), _minimum),
    **dict.fromkeys(
        [
            *_named("max_pool1d", "max_pool2d", "max_pool3d", of=(torch, F)),
            *_named("adaptive_max_pool1d", "adaptive_max_pool2d", "adaptive_max_pool3d", of=(F,)),
            *(getattr(F, f"max_pool{n}d_with_indices") for n in (1, 2, 3)),
            *(getattr(F, f"adaptive_max_pool{n}d_with_indices") for n in (1, 2, 3)),
        ],
        _pooling,
    ),
    **dict.fromkeys(_named("max", "amax", "min", "amin", of=(torch, Tensor)), _largest),
}
