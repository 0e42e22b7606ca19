"""DeepLIFT's rules for whole layers: softmax, attention and normalization, put together of steps.

Each takes the `Rules`, the function that was called and its arguments, and gives what the function
gives; ``NotImplemented`` where it is called in a form that has no rule.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from holdfast.attributions.rules import Rules
from holdfast.attributions.slopes import LogSumExp

__all__ = ["LAYER_CALLS"]


def _soft(rules: Rules, func: Any, x: Any, *rest: Any, **kwargs: Any) -> Any:
    """Softmax, softmin and log-softmax: ``log p = z − log Σ exp z``."""
    dim = kwargs.get("dim", rest[0] if rest else None)
    if not isinstance(dim, int) or not rules.paired(x) or dim % x.ndim == 0:
        return NotImplemented
    kinds = [value for value in (*rest, kwargs.get("dtype")) if isinstance(value, torch.dtype)]
    z = x.to(kinds[0]) if kinds else x
    logs = _log_softmax(rules, -z if func.__name__ == "softmin" else z, dim)
    return logs if func.__name__ == "log_softmax" else rules.rescale(torch.exp, logs)


def _log_softmax(rules: Rules, z: Tensor, dim: int) -> Tensor:
    return z - LogSumExp.apply(z, dim, rules.state)


def _logsumexp(rules: Rules, func: Any, x: Any, dim: Any, keepdim: bool = False) -> Any:
    dims = dim if isinstance(dim, tuple | list) else (dim,)
    if not rules.paired(x) or len(dims) != 1 or dims[0] % x.ndim == 0:
        return NotImplemented
    total = LogSumExp.apply(x, dims[0], rules.state)
    return total if keepdim else total.squeeze(dims[0])


def _attention(rules: Rules, func: Any, *args: Any, **kwargs: Any) -> Any:
    """Scaled dot-product attention: product, softmax, product."""
    names = ("query", "key", "value", "attn_mask", "dropout_p", "is_causal")
    given = {**dict(zip(names, args, strict=False)), **kwargs}
    q, k, v = (given[name] for name in names[:3])
    mask = given.get("attn_mask")
    if given.get("dropout_p") or given.get("enable_gqa") or not rules.paired(k):
        return NotImplemented
    scale = given.get("scale")
    scale = q.shape[-1] ** -0.5 if scale is None else scale
    if given.get("is_causal"):
        mask = q.new_ones(q.shape[-2], k.shape[-2], dtype=torch.bool).tril()
    weights = _weights(rules, q * scale, k, mask)
    return rules.multiply(weights, v, torch.matmul, least=3)


def _weights(rules: Rules, q: Tensor, k: Tensor, mask: Tensor | None) -> Tensor:
    scores = rules.multiply(q, k.transpose(-2, -1), torch.matmul, least=3)
    if mask is not None and mask.dtype == torch.bool:
        scores = scores.masked_fill(~mask, -torch.inf)
    elif mask is not None:
        scores = scores + mask
    return rules.rescale(torch.exp, _log_softmax(rules, scores, -1))


def _multi_head(rules: Rules, func: Any, *args: Any, **kwargs: Any) -> Any:
    """``nn.MultiheadAttention``, whose tensors are ``(L, N, E)``."""
    bound = inspect.signature(func).bind(*args, **kwargs)
    bound.apply_defaults()
    given = bound.arguments
    refused = ("bias_k", "bias_v", "add_zero_attn", "static_k", "static_v", "key_padding_mask")
    inputs = [given[name] for name in ("query", "key", "value")]
    dropped = given["training"] and given["dropout_p"]
    if dropped or inputs[0].ndim != 3 or any(given[name] not in (None, False) for name in refused):
        return NotImplemented
    if given["use_separate_proj_weight"]:
        projections = [given[f"{name}_proj_weight"] for name in ("q", "k", "v")]
    else:
        projections = given["in_proj_weight"].chunk(3)
    bias = given["in_proj_bias"]
    biases = (None, None, None) if bias is None else bias.chunk(3)
    heads, batch = given["num_heads"], inputs[0].shape[1]
    q, k, v = (
        F.linear(x.transpose(0, 1), weight, b).unflatten(-1, (heads, -1)).transpose(1, 2)
        for x, weight, b in zip(inputs, projections, biases, strict=True)
    )
    mask = given["attn_mask"]
    if mask is not None and mask.ndim == 3:
        mask = mask.view(batch, heads, *mask.shape[1:])
    if mask is not None and mask.dtype == torch.bool:
        mask = ~mask  # here True shuts out
    weights = _weights(rules, q * q.shape[-1] ** -0.5, k, mask)
    mixed = rules.multiply(weights, v, torch.matmul, least=3).transpose(1, 2).flatten(2)
    result = F.linear(mixed, given["out_proj_weight"], given["out_proj_bias"]).transpose(0, 1)
    if not given["need_weights"]:
        return result, None
    return result, weights.mean(1) if given["average_attn_weights"] else weights


def _standardized(rules: Rules, x: Tensor, dims: tuple[int, ...], eps: float) -> Tensor:
    centred = x - x.mean(dims, keepdim=True)
    return _unit(rules, centred, dims, eps)


def _unit(rules: Rules, x: Tensor, dims: tuple[int, ...], eps: float) -> Tensor:
    """Divide by the root of the mean square, in single precision at least."""
    wide = x.float() if x.dtype in (torch.half, torch.bfloat16) else x
    power = rules.rescale(torch.square, wide).mean(dims, keepdim=True) + eps
    return rules.multiply(wide, rules.rescale(torch.rsqrt, power)).to(x.dtype)


def _scaled(x: Tensor, weight: Tensor | None, bias: Tensor | None) -> Tensor:
    x = x if weight is None else x * weight
    return x if bias is None else x + bias


def _layer_norm(
    rules: Rules,
    func: Any,
    x: Any,
    normalized_shape: Any,
    weight: Any = None,
    bias: Any = None,
    eps: float = 1e-5,
    cudnn_enable: bool = True,
) -> Any:
    dims = tuple(range(-len(normalized_shape), 0))
    if not rules.paired(x) or len(dims) >= x.ndim:
        return NotImplemented
    return _scaled(_standardized(rules, x, dims, eps), weight, bias)


def _rms_norm(
    rules: Rules, func: Any, x: Any, normalized_shape: Any, weight: Any = None, eps: Any = None
) -> Any:
    dims = tuple(range(-len(normalized_shape), 0))
    if not rules.paired(x) or len(dims) >= x.ndim:
        return NotImplemented
    eps = torch.finfo(x.dtype).eps if eps is None else eps
    return _scaled(_unit(rules, x, dims, eps), weight, None)


def _group_norm(
    rules: Rules,
    func: Any,
    x: Any,
    num_groups: int,
    weight: Any = None,
    bias: Any = None,
    eps: float = 1e-5,
    cudnn_enabled: bool = True,
) -> Any:
    if not rules.paired(x):
        return NotImplemented
    groups = x.reshape(len(x), num_groups, -1)
    normal = _standardized(rules, groups, (2,), eps).view_as(x)
    return _scaled(normal, *(_per_channel(value, x) for value in (weight, bias)))


def _instance_norm(rules: Rules, func: Any, x: Any, *args: Any, **kwargs: Any) -> Any:
    bound = inspect.signature(func).bind(x, *args, **kwargs)
    bound.apply_defaults()
    given = bound.arguments
    if not given["use_input_stats"]:
        return NotImplemented  # linear
    weight, bias = given["weight"], given["bias"]
    return _group_norm(rules, func, x, x.shape[1], weight, bias, given["eps"])


def _per_channel(value: Tensor | None, x: Tensor) -> Tensor | None:
    return None if value is None else value.view(-1, *(1,) * (x.ndim - 2))


def _normalize(
    rules: Rules,
    func: Any,
    x: Any,
    p: float = 2.0,
    dim: Any = 1,
    eps: float = 1e-12,
    out: Any = None,
) -> Any:
    if p != 2 or out is not None or not rules.paired(x) or not _within(dim, x):
        return NotImplemented
    power = rules.rescale(torch.square, x).sum(dim, keepdim=True)
    return rules.multiply(x, rules.rescale(lambda s: _root(s).clamp(min=eps).reciprocal(), power))


def _norm(rules: Rules, func: Any, x: Any, *args: Any, **kwargs: Any) -> Any:
    """Compute the Euclidean norm along dimensions."""
    given = {**dict(zip(("p", "dim", "keepdim"), args, strict=False)), **kwargs}
    order = given.pop("ord", given.pop("p", 2))
    dim, keepdim = given.pop("dim", None), given.pop("keepdim", False)
    given = {name: value for name, value in given.items() if value is not None}
    vector = not isinstance(dim, tuple | list) or "vector" in func.__name__ or len(dim) == 1
    if given or dim is None or not rules.paired(x) or not _within(dim, x):
        return NotImplemented
    if not (order in (None, "fro") or (order == 2 and vector)):
        return NotImplemented
    return rules.rescale(_root, rules.rescale(torch.square, x).sum(dim, keepdim=keepdim))


def _root(x: Tensor) -> Tensor:
    # The root of zero has no finite derivative, and not even zero times it is a number.
    return x.clamp(min=torch.finfo(x.dtype).tiny).sqrt()


def _variance(rules: Rules, func: Any, x: Any, dim: Any = None, *args: Any, **kwargs: Any) -> Any:
    if args or isinstance(dim, bool) or not rules.paired(x) or not _within(dim, x):
        return NotImplemented
    squares = rules.rescale(torch.square, x - x.mean(dim, keepdim=True))
    keepdim = kwargs.pop("keepdim", False)
    less = kwargs.pop("correction", int(kwargs.pop("unbiased", True)))
    if kwargs:
        return NotImplemented
    total = squares.sum(dim, keepdim=keepdim)
    variance = total / (squares.numel() // total.numel() - less)
    return rules.rescale(_root, variance) if func.__name__ == "std" else variance


def _local_response(
    rules: Rules,
    func: Any,
    x: Any,
    size: int,
    alpha: float = 1e-4,
    beta: float = 0.75,
    k: float = 1.0,
) -> Any:
    if not rules.paired(x) or x.ndim != 4:
        return NotImplemented
    squares = F.pad(rules.rescale(torch.square, x), (0, 0, 0, 0, size // 2, (size - 1) // 2))
    power = F.avg_pool3d(squares[:, None], (size, 1, 1), stride=1)[:, 0] * alpha + k
    return rules.multiply(x, rules.rescale(lambda s: s.pow(-beta), power))


def _within(dim: Any, x: Tensor) -> bool:
    """Tell whether a sum over these dimensions keeps images apart."""
    dims = dim if isinstance(dim, tuple | list) else (dim,)
    return len(dims) > 0 and all(isinstance(d, int) and d % x.ndim != 0 for d in dims)


LAYER_CALLS: dict[Any, Callable[..., Any]] = {
    **dict.fromkeys((F.softmax, torch.softmax, Tensor.softmax, F.softmin), _soft),
    **dict.fromkeys((F.log_softmax, torch.log_softmax, Tensor.log_softmax), _soft),
    **dict.fromkeys((torch.logsumexp, Tensor.logsumexp), _logsumexp),
    F.scaled_dot_product_attention: _attention,
    F.multi_head_attention_forward: _multi_head,
    **dict.fromkeys((F.layer_norm, torch.layer_norm), _layer_norm),
    **dict.fromkeys((F.rms_norm, torch.rms_norm), _rms_norm),
    **dict.fromkeys((F.group_norm, torch.group_norm), _group_norm),
    F.instance_norm: _instance_norm,
    F.normalize: _normalize,
    **dict.fromkeys((torch.norm, Tensor.norm), _norm),
    **dict.fromkeys((torch.linalg.norm, torch.linalg.vector_norm), _norm),
    **dict.fromkeys((torch.var, Tensor.var, torch.std, Tensor.std), _variance),
    F.local_response_norm: _local_response,
}
