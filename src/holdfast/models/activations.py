"""Activation functions recognized in every spelling, and told apart from plain arithmetic."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from holdfast.models.scope import Scope

__all__ = ["AMBIGUOUS", "CURVED", "POOLING", "SMOOTH", "Call", "constant", "recognize"]

_PARAMETERS = {
    "relu": "inplace",
    "relu6": "inplace",
    "leaky_relu": "negative_slope inplace",
    "prelu": "weight",
    "_prelu_kernel": "weight",
    "rrelu": "lower upper training inplace",
    "hardtanh": "min_val max_val inplace",
    "threshold": "threshold value inplace",
    "_threshold": "threshold value inplace",
    "hardswish": "inplace",
    "hardsigmoid": "inplace",
    "softshrink": "lambd",
    "hardshrink": "lambd",
    "elu": "alpha scale input_scale",  # `F.elu` has other ones
    "selu": "inplace",
    "celu": "alpha inplace",
    "abs": "",
    "absolute": "",
    "clamp": "min max",
    "clip": "min max",
    "clamp_min": "min",
    "clamp_max": "max",
    "maximum": "other",
    "minimum": "other",
    "fmax": "other",
    "fmin": "other",
    "max": "dim keepdim",  # or ``other``
    "min": "dim keepdim",
    "amax": "dim keepdim",
    "amin": "dim keepdim",
    **dict.fromkeys(
        [f"max_pool{n}d" for n in (1, 2, 3)],
        "kernel_size stride padding dilation ceil_mode return_indices",
    ),
    **dict.fromkeys([f"adaptive_max_pool{n}d" for n in (1, 2, 3)], "output_size return_indices"),
}
_NAMES = {
    "_prelu_kernel": "prelu",
    "_threshold": "threshold",
    "absolute": "abs",
    "clip": "clamp",
    "clamp_min": "clamp",
    "clamp_max": "clamp",
    "fmax": "maximum",
    "fmin": "minimum",
}
# What NumPy calls these arguments, PyTorch takes, too; and its operators call the first one self.
_ALIASES = {
    **dict.fromkeys(["self", "x", "a", "x1"], "input"),
    **{"x2": "other", "axis": "dim", "keepdims": "keepdim"},
}
_SMOOTH = (
    *("sigmoid", "tanh", "gelu", "silu", "mish", "softplus", "softsign", "logsigmoid"),
    *("log_sigmoid", "tanhshrink", "special_expit"),
)
_MIXING = ("softmax", "log_softmax", "glu", "scaled_dot_product_attention")
_TINY = 1.001e-3  # a thousandth, in any precision


def _spellings(name: str) -> Iterator[tuple[Callable[..., Any], bool]]:
    """Find the functions of that name wherever PyTorch has them; True is said of in-place ones."""
    for spelled in (name, name + "_"):
        for owner in (torch, Tensor, F, torch._C._nn, torch.ops.aten):
            found = getattr(owner, spelled, None)
            if found is None:
                continue
            yield found, spelled != name
            if owner is torch.ops.aten:
                yield from ((getattr(found, each), spelled != name) for each in found.overloads())


def _all(names: Iterable[str]) -> frozenset[Callable[..., Any]]:
    return frozenset(found for name in names for found, _ in _spellings(name))


def _table() -> dict[Callable[..., Any], tuple[str, list[str], bool]]:
    table: dict[Callable[..., Any], tuple[str, list[str], bool]] = {}
    for name, parameters in _PARAMETERS.items():
        for found, inplace in _spellings(name):
            table.setdefault(found, (name, parameters.split(), inplace))
    table[F.elu] = ("elu", ["alpha", "inplace"], False)
    for name in ("adaptive_max_pool1d", "adaptive_max_pool2d", "adaptive_max_pool3d"):
        for owner in (torch, torch._C._nn, torch.ops.aten):  # these return indices always
            table.pop(getattr(owner, name, None), None)  # type: ignore[arg-type]
    return table


_TABLE = _table()
SMOOTH = _all(_SMOOTH)
"""Activation functions of one argument that are smooth as they are."""
CURVED = SMOOTH | _all(_MIXING)
"""What gives a network a second derivative by itself."""
POOLING = frozenset(
    {
        *("max", "min", "amax", "amin"),
        *(name for name in _PARAMETERS if "pool" in name),
    }
)
"""Names of what takes the largest of many values."""
AMBIGUOUS = frozenset({"abs", "clamp", "maximum", "minimum"}) | POOLING
"""Names of what is an activation in a network, and plain arithmetic elsewhere."""


@dataclass
class Call:
    """A call of a piecewise-linear activation function, however it was spelled.

    Attributes
    ----------
    name : str
        The function's plain name.
    input : Tensor
        Its first argument.
    given : dict
        Its other arguments by name, as far as they were given.
    inplace : bool
        Whether the input is to be overwritten.
    """

    name: str
    input: Tensor
    given: dict[str, Any]
    inplace: bool


def recognize(
    func: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any], scope: Scope
) -> Call | None:
    """Tell which piecewise-linear activation function is called; None if it is none.

    Calls on anything but dense floating-point tensors, and those with ``out=``, are none. Those of
    ambiguous functions are activations within a module's forward pass only, on what depends on
    images or weights and is no weight itself, and if they are no guard: see `_is_guard`.

    Examples
    --------
    >>> recognize(F.hardtanh, (torch.zeros(1), 0.0, 6.0), {}, Scope())
    Call(name='hardtanh', input=tensor([0.]), given={'min_val': 0.0, 'max_val': 6.0}, inplace=False)
    >>> recognize(torch.clamp, (torch.zeros(1),), {"min": 0}, Scope())
    """
    entry = _TABLE.get(func)
    if entry is None:
        return None
    name, parameters, inplace = entry
    given = {_ALIASES.get(key, key): value for key, value in kwargs.items()}
    if args:
        given["input"] = args[0]
        if len(args) > 1 and name in ("max", "min") and isinstance(args[1], Tensor):
            parameters = ["other"]
        given.update(zip(parameters, args[1:], strict=False))
    x = given.pop("input", None)
    if not _is_dense(x) or given.get("out") is not None:
        return None
    inplace = bool(given.pop("inplace", False)) or inplace
    name = _NAMES.get(name, name)
    if "other" in given and name in ("max", "min"):
        name += "imum"
    call = Call(name, x, given, inplace)
    if name in ("maximum", "minimum"):
        other = given.get("other")
        if not _is_dense(other) or (entry[0] in ("fmax", "fmin") and _has_nan(x, other)):
            return None
        call = _bounded(call)
    return call if call.name not in AMBIGUOUS or _is_activation(call, scope) else None


def constant(value: Any) -> Any:
    """Return the number that a bound consists of; None and tensors of many values stay.

    Examples
    --------
    >>> constant(torch.tensor(6)), constant(1), constant(None)
    (6.0, 1.0, None)
    """
    if value is None or (isinstance(value, Tensor) and (value.numel() != 1 or value.requires_grad)):
        return value
    return float(value)


def _is_dense(x: Any) -> bool:
    return (
        isinstance(x, Tensor)
        and x.is_floating_point()
        and x.layout == torch.strided
        and not x.is_nested
    )


def _has_nan(*tensors: Any) -> bool:
    return any(bool(x.isnan().any()) for x in tensors)


def _bounded(call: Call) -> Call:
    """Spell the maximum with a constant as the clamp that it is."""
    for x, other in ((call.input, call.given["other"]), (call.given["other"], call.input)):
        bound = constant(other)
        plain = isinstance(bound, float) and other.ndim <= x.ndim
        if plain and torch.result_type(x, other) == x.dtype:
            return Call("clamp", x, {"min" if call.name == "maximum" else "max": bound}, False)
    return call


def _is_activation(call: Call, scope: Scope) -> bool:
    if not scope.inside:
        return False
    tensors = [call.input, *(x for x in call.given.values() if isinstance(x, Tensor))]
    if all(isinstance(x, nn.Parameter) or x.ndim == 0 for x in tensors):
        return False
    if torch.is_grad_enabled() and not any(x.requires_grad for x in tensors):
        return False  # indices, masks, positions
    return call.name != "clamp" or not _is_guard(call, scope)


def _is_guard(call: Call, scope: Scope) -> bool:
    """Tell whether a clamp keeps values where they are safe, and bends nothing.

    Such are clamps with a tiny bound, against a division by zero or the logarithm of it; those
    without any; a lower bound above 0 of one number an image, as of its deviation; and those of the
    image itself, or of what has its shape and lies in [0, 1], to [0, 1].
    """
    x, low, high = call.input, call.given.get("min"), call.given.get("max")
    if (low is None and high is None) or _is_tiny(low) or _is_tiny(high):
        return True
    low, high = constant(low), constant(high)
    if isinstance(low, Tensor) or isinstance(high, Tensor):
        return False
    if high is None and low > 0 and x.ndim and x.numel() == len(x):
        return True
    if (low, high) != (0.0, 1.0) or not scope.image_shaped(x):
        return False
    return scope.is_input(x) or bool(((x >= 0) & (x <= 1)).all())


def _is_tiny(bound: Any) -> bool:
    if isinstance(bound, Tensor):
        size = bound.detach().abs()
        return bool(not bound.requires_grad and ((size > 0) & (size <= _TINY)).all())
    return bound is not None and 0 < abs(bound) <= _TINY
