"""DeepLIFT: differences from a baseline, passed back through every layer without loss."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Float, Integer
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from holdfast.attributions.baseline import check_baseline, expand_baseline, same_settings
from holdfast.attributions.layer_rules import LAYER_CALLS
from holdfast.attributions.rules import CALLS, Rules
from holdfast.attributions.target import resolve_targets, select_output
from holdfast.contracts import check_images, checked, chunks, default_chunk
from holdfast.models import classify, differentiate, double_backward, evaluating

__all__ = ["DeepLIFT", "deep_lift", "lift_in_parts"]


@dataclass(frozen=True)
@checked
class DeepLIFT:
    """DeepLIFT with the rescale rule: slopes from the baseline to the image, layer by layer.

    Back through an activation function, the gradient is replaced by the slope
    ``(σ(z) − σ(z₀)) / (z − z₀)`` between the image's and the baseline's activation. The change of a
    product is shared exactly, ``Δ(a b) = Δa b̄ + ā Δb`` with the means of both ends; that of softmax
    by ``Δp = L (Δz − Σ L Δz / Σ L)``, L the logarithmic mean of p and p₀; normalization and
    attention are put together of these. The map sums to ``f(x) − f(x₀)``, f the logit, exactly, for
    networks of linear layers, activation functions, pooling, residual connections, products
    (squeeze-and-excitation), batch-, layer-, group- and RMS-norm and attention. What has no rule
    (comparisons, rounding, custom and scripted operations) is differentiated as usual. Where a sum
    then misses by more than 1 % there is a warning with the figure.

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
    deep neural networks (ICLR 2018). The rules for products and softmax are ours.

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
        targets: Integer[Tensor, " n"] | None = None,
        *,
        create_graph: bool = False,
    ) -> Float[Tensor, "n c h w"]:
        """Return the map of each image, ``(N, C, H, W)``; the model runs in eval mode."""
        check_images(images)
        size = self.chunk or default_chunk(images, 2)
        baselines = expand_baseline(self.baseline, images)
        with evaluating(model):
            targets = resolve_targets(model, images, targets, size)
            return lift_in_parts("DeepLIFT", model, images, baselines, targets, size, create_graph)


def deep_lift(
    model: nn.Module,
    images: Float[Tensor, "n c h w"],
    baselines: Float[Tensor, "n c h w"],
    targets: Integer[Tensor, " n"],
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
    return lift_in_parts(
        "deep_lift", model, images, baselines, targets, max(1, len(images)), create_graph
    )


def lift_in_parts(
    method: str,
    model: nn.Module,
    images: Float[Tensor, "n c h w"],
    baselines: Float[Tensor, "n c h w"],
    targets: Integer[Tensor, " n"],
    size: int,
    create_graph: bool,
) -> Float[Tensor, "n c h w"]:
    """Explain so many images at a time, and warn once, in the method's name, where sums miss."""
    maps, changes, slack = [], [], []
    for part in chunks(len(images), size):
        made, outputs = _lift(model, images[part], baselines[part], targets[part], create_graph)
        maps.append(made)
        changes.append(outputs[0] - outputs[1])
        # Logits are themselves known to about half their digits at worst. Maps whose parts are so
        # large that rounding alone breaks the sum are no excuse: they are rounding.
        slack.append(torch.finfo(outputs.dtype).eps ** 0.5 * outputs.abs().amax(0))
    found = torch.cat(maps)
    _check_sums(method, found.detach().flatten(1).sum(1), torch.cat(changes), torch.cat(slack))
    return found


def _lift(
    model: nn.Module, images: Tensor, baselines: Tensor, targets: Tensor, create_graph: bool
) -> tuple[Tensor, Tensor]:
    """Return the maps, and the logits of images and baselines ``(2, N)``."""
    with torch.enable_grad():
        linked = create_graph and (images.requires_grad or baselines.requires_grad)
        both = torch.cat([images, baselines])
        both = both if linked else both.detach().requires_grad_(True)
        with double_backward() if create_graph else nullcontext(), _Rescaling(len(both)):
            values = select_output(classify(model, both), targets.repeat(2))
            # Image and baseline get the same multipliers; those of the images are half of all.
            multipliers = differentiate(values.sum(), both, create_graph=create_graph)
    maps = (images - baselines) * multipliers[: len(images)]
    return maps if create_graph else maps.detach(), values.detach().view(2, -1)


def _check_sums(method: str, sums: Tensor, changes: Tensor, slack: Tensor) -> None:
    """Warn where maps do not sum to the change of the logit by more than a hundredth of it."""
    miss = (sums - changes).abs()
    # Written so that a sum that is no number misses.
    missed = ~(miss <= (0.01 * changes.abs()).maximum(slack))
    if not missed.any():
        return
    relative = (miss / changes.abs()).nan_to_num(torch.inf, torch.inf)[missed]
    warnings.warn(
        f"{method}: {int(missed.sum())} of {len(missed)} maps do not sum to f(x) - f(x0); the sum "
        f"misses it by {relative.median():.1%} in the median of them and {relative.max():.1%} at "
        "most. The model computes something that has no rule, and whose gradient was taken "
        "instead: a comparison, rounding, a custom, scripted or fused operation, or one that mixes "
        "the images of a batch. Or the map is rounding: a baseline without any contrast, as black "
        "is, leaves normalization layers nothing to normalize",
        stacklevel=4,
    )


class _Rescaling(TorchFunctionMode):
    """Within the block, what has a rule passes back shares of the change, not gradients.

    Every batch holds as many baselines behind as images in front. Calls are intercepted, not
    modules, so that functional, shared and in-place forms count, and layers may touch.
    """

    def __init__(self, count: int) -> None:
        super().__init__()
        self.rules = Rules(count)

    def __exit__(self, *error: Any) -> None:
        self.rules.state.active = False
        super().__exit__(*error)

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        kwargs = dict(kwargs or {})
        rule = None if self.rules.state.inside else _CALLS.get(func)
        if rule is None:
            return func(*args, **kwargs)
        if not args and "input" in kwargs:
            args = (kwargs.pop("input"),)
        result = rule(self.rules, func, *args, **kwargs)
        return func(*args, **kwargs) if result is NotImplemented else result


_CALLS = CALLS | LAYER_CALLS
