"""DeepLIFT: differences from a baseline, passed back through every layer without loss."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from holdfast.attributions.baseline import check_baseline, expand_baseline, same_settings
from holdfast.attributions.target import resolve_targets, select_output
from holdfast.contracts import check_images, chunks, default_chunk
from holdfast.models import evaluating

__all__ = ["DeepLIFT", "deep_lift"]


@dataclass(frozen=True)
class DeepLIFT:
    """DeepLIFT with the rescale rule: slopes from the baseline to the image, layer by layer.

    Back through an activation function, the gradient is replaced by the slope
    ``(σ(z) − σ(z₀)) / (z − z₀)`` between the image's and the baseline's activation. The map sums to
    ``f(x) − f(x₀)``, f the logit, exactly, for networks of linear layers, batch-norm, activation
    functions, max-pooling and residual connections; products of activations (attention,
    squeeze-and-excitation) are differentiated as usual and break the sum.

    Parameters
    ----------
    baseline : float or Tensor
        The baseline x₀: the value of every pixel (0.0 is black, the default, and 1.0 white), or an
        image ``(C, H, W)``, or one for each image, ``(N, C, H, W)``, in [0, 1].
    chunk : int, optional
        How many images to take at a time, each beside its baseline; by default chosen from their
        size.

    References
    ----------
    Shrikumar et al., Learning Important Features Through Propagating Activation Differences (ICML
    2017); Ancona et al., Towards better understanding of gradient-based attribution methods for
    deep neural networks (ICLR 2018).

    Examples
    --------
    >>> model = nn.Sequential(nn.Flatten(), nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2)).double()
    >>> images = torch.rand(2, 1, 2, 2).double()
    >>> maps = DeepLIFT()(model, images, torch.tensor([0, 1]))
    >>> change = (model(images) - model(0 * images)).diagonal()
    >>> torch.allclose(maps.flatten(1).sum(1), change)
    True
    """

    baseline: float | Tensor = field(default=0.0, hash=False)
    chunk: int | None = None

    def __post_init__(self) -> None:
        check_baseline(self)

    def __eq__(self, other: object) -> bool:
        return same_settings(self, other)

    def __call__(
        self,
        model: nn.Module,
        images: Float[Tensor, "n c h w"],
        targets: Int[Tensor, " n"] | None = None,
        *,
        create_graph: bool = False,
    ) -> Float[Tensor, "n c h w"]:
        """Return the map of each image, ``(N, C, H, W)``; the model runs in eval mode."""
        check_images(images)
        size = self.chunk or default_chunk(images, 2)
        baselines = expand_baseline(self.baseline, images)
        with evaluating(model):
            targets = resolve_targets(model, images, targets, size)
            return torch.cat(
                [
                    deep_lift(
                        model,
                        images[part],
                        baselines[part],
                        targets[part],
                        create_graph=create_graph,
                    )
                    for part in chunks(len(images), size)
                ]
            )


def deep_lift(
    model: nn.Module,
    images: Float[Tensor, "n c h w"],
    baselines: Float[Tensor, "n c h w"],
    targets: Int[Tensor, " n"],
    *,
    create_graph: bool = False,
) -> Float[Tensor, "n c h w"]:
    """Explain the difference of the logit between each image and its own baseline.

    The plain function below `DeepLIFT`; the model runs in the mode it is in, on images and
    baselines in one batch, and must not mix the images of a batch.

    Examples
    --------
    >>> model = nn.Sequential(nn.Flatten(), nn.Linear(1, 2, bias=False))
    >>> image, black = torch.ones(1, 1, 1, 1), torch.zeros(1, 1, 1, 1)
    >>> bool(deep_lift(model, image, black, torch.tensor([1])) == model[1].weight[1])
    True
    """
    with torch.enable_grad():
        linked = create_graph and (images.requires_grad or baselines.requires_grad)
        both = torch.cat([images, baselines])
        both = both if linked else both.detach().requires_grad_(True)
        with _Rescaling(len(both)):
            value = select_output(model(both), targets.repeat(2)).sum()
            # Image and baseline get the same multipliers; those of the images are half of all.
            (multipliers,) = torch.autograd.grad(value, both, create_graph=create_graph)
    maps = (images - baselines) * multipliers[: len(images)]
    return maps if create_graph else maps.detach()


class _Rescaling(TorchFunctionMode):
    """Within the block, activation functions and max-pooling pass gradients back by their slope.

    Every batch holds as many baselines behind as images in front. Calls are intercepted, not
    modules, so that functional, shared and in-place forms count, and layers may touch.
    """

    def __init__(self, count: int) -> None:
        super().__init__()
        self.count = count
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
        kwargs = dict(kwargs or {})
        if not (func in _ACTIVATIONS or func in _POOLING):
            return func(*args, **kwargs)
        x, *rest = args or (kwargs.pop("input"),)

        def call(z: Tensor) -> Tensor:
            return func(z, *rest, **kwargs)

        if x.ndim == 0 or len(x) % self.count:
            # No batch of images and baselines: a parameter of the model, say.
            return call(x)
        if func in _POOLING:
            return self._pool(call, x)
        if func.__name__.endswith("_") or kwargs.get("inplace", False):
            return x.copy_(self._rescale(lambda z: call(z.clone()), x.clone()))
        return self._rescale(call, x)

    def _rescale(self, activation: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
        return _Slope.apply(x, activation(x), self)

    def _pool(self, pooling: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
        """Pool so that the change of each window's maximum goes to the pixels that made it.

        Of the way from the baseline's maximum to the image's, what lies above the baseline's goes
        to the image's largest pixel, what lies below to the baseline's. Overlapping windows add up.
        """
        shares, plain = _PoolFrom.apply(x, self)
        return _PoolTo.apply(pooling(shares), pooling(plain), self)


class _Slope(torch.autograd.Function):
    """``y = σ(x)``, whose gradient is the slope from baseline to image.

    Where both are equal there is no slope, and the gradient takes its usual way, through y.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, y: Tensor, rules: _Rescaling) -> Tensor:
        ctx.rules = rules
        ctx.save_for_backward(x, y)
        return y.clone()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (gradient,) = gradients
        if not ctx.rules.active:
            return None, gradient, None
        x, y = ctx.saved_tensors
        moved, way = _way(x)
        slope = torch.where(moved, _twice(_difference(y)) / way, 0)
        return gradient * slope, torch.where(moved, 0, gradient), None


class _PoolFrom(torch.autograd.Function):
    """Where max-pooling takes its input: once for shares of the change, once for the gradient.

    Backwards, shares are divided by the change of the pixel, which makes them a slope.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, rules: _Rescaling) -> tuple[Tensor, Tensor]:
        ctx.rules = rules
        ctx.save_for_backward(x)
        return x.clone(), x.clone()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        shares, plain = gradients
        if not ctx.rules.active:
            return plain, None
        (x,) = ctx.saved_tensors
        moved, way = _way(x)
        whole = _twice(torch.add(*shares.chunk(2)))
        return torch.where(moved, whole / way, plain), None


class _PoolTo(torch.autograd.Function):
    """Where max-pooling gives its output, the same twice; backwards, each half gets its share."""

    @staticmethod
    def forward(ctx: Any, shares: Tensor, plain: Tensor, rules: _Rescaling) -> Tensor:
        ctx.rules = rules
        ctx.save_for_backward(shares)
        return plain.clone()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (gradient,) = gradients
        if not ctx.rules.active:
            return None, gradient, None
        (y,) = ctx.saved_tensors
        image, baseline = y.chunk(2)
        top = torch.maximum(image, baseline)
        return gradient * torch.cat([top - baseline, image - top]), gradient, None


def _way(x: Tensor) -> tuple[Tensor, Tensor]:
    """Tell where image and baseline differ, and by how much (1 where they do not)."""
    difference = _difference(x)
    moved = difference.abs() > 1e-10
    return _twice(moved), _twice(torch.where(moved, difference, 1))


def _difference(both: Tensor) -> Tensor:
    image, baseline = both.chunk(2)
    return image - baseline


def _twice(half: Tensor) -> Tensor:
    return torch.cat([half, half])


_ACTIVATIONS: frozenset[Any] = frozenset(
    {
        *(F.relu, torch.relu, Tensor.relu, torch.relu_, Tensor.relu_),
        *(F.sigmoid, torch.sigmoid, Tensor.sigmoid, torch.sigmoid_, Tensor.sigmoid_),
        *(F.tanh, torch.tanh, Tensor.tanh, torch.tanh_, Tensor.tanh_),
        *(F.leaky_relu, F.leaky_relu_, F.elu, F.elu_, F.celu, F.selu, F.relu6, F.hardtanh),
        *(F.gelu, F.silu, F.mish, F.softplus, F.softsign, F.logsigmoid, F.hardswish),
        F.hardsigmoid,
    }
)
_POOLING: frozenset[Any] = frozenset({F.max_pool2d, torch.max_pool2d, F.adaptive_max_pool2d})
