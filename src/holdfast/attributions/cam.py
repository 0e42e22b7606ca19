"""Class activation maps: where the last convolutional features, or tokens, speak for a class.

A class activation map has one channel. As maps have the shape of the images, its value at a pixel
is divided equally among the channels: their sum is the class activation map.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Integer
from torch import Tensor, nn
from torch.nn import functional as F

from holdfast.attributions.guided import GuidedBackprop
from holdfast.attributions.target import resolve_targets, select_output
from holdfast.contracts import (
    InputError,
    Output,
    check_images,
    check_labels,
    checked,
    chunks,
    default_chunk,
)
from holdfast.models import (
    double_backward,
    evaluating,
    from_features,
    last_features,
    no_gradient,
    with_features,
)

__all__ = ["CAM", "GradCAM", "GradCAMPlusPlus", "GuidedGradCAM", "GuidedGradCAMPlusPlus"]


@dataclass(frozen=True)
@checked
class CAM:
    """The class activation map of a network that ends in global average pooling and a dense layer.

    ``Σ_k w_ck A_k``, with A_k the last feature maps and w_ck the weight of their mean for class c,
    signed, upsampled bilinearly to the image. No gradient is needed.

    Parameters
    ----------
    layer : str, optional
        The dotted name of the layer that is averaged; by default found by
        `holdfast.models.last_features`.
    chunk : int, optional
        How many images to take at a time; by default chosen from their size.

    Raises
    ------
    InputError
        When called: if the logits are not a dense layer of the layer's means. `GradCAM` works for
        any network.

    References
    ----------
    Zhou et al., Learning Deep Features for Discriminative Localization (CVPR 2016).

    Examples
    --------
    >>> pool = nn.AdaptiveAvgPool2d(1)
    >>> model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), pool, nn.Flatten(), nn.Linear(4, 2))
    >>> CAM()(model, torch.rand(3, 1, 8, 8)).shape
    torch.Size([3, 1, 8, 8])
    """

    layer: str | None = None
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
        check_images(images)
        maps = []
        with evaluating(model), torch.set_grad_enabled(create_graph):
            targets = resolve_targets(model, images, targets, self.chunk)
            for part in chunks(len(images), self.chunk or default_chunk(images)):
                weight, features = _head(model, images[part], self.layer)
                check_labels(targets, len(images), len(weight), "targets")
                maps.append(_upsample(features, weight[targets[part]], images))
        return _spread(torch.cat(maps), images)


@dataclass(frozen=True)
@checked
class GradCAM:
    """Grad-CAM: feature maps weighted by the mean gradient of the class score, what is positive.

    ``max(0, Σ_k w_k A_k)`` with ``w_k`` the mean over positions of ``∂f/∂A_k``, upsampled
    bilinearly to the image.

    Parameters
    ----------
    layer : str, optional
        The dotted name of the layer or block whose output is A, maps or tokens; by default found by
        `holdfast.models.last_features`: for a ResNet its last stage, for a ViT the first norm of
        its last block.
    output : {"logit", "probability", "log_probability", "loss"}
        What is differentiated.
    chunk : int, optional
        How many images to take at a time; by default chosen from their size.

    References
    ----------
    Selvaraju et al., Grad-CAM: Visual Explanations from Deep Networks via Gradient-based
    Localization (ICCV 2017).

    Examples
    --------
    >>> model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 2))
    >>> maps = GradCAM()(model, torch.rand(3, 1, 8, 8))
    >>> bool((maps >= 0).all())
    True
    """

    layer: str | None = None
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
        cam = _weighted(self, _mean, model, images, targets, create_graph)
        return _spread(cam, images)


@dataclass(frozen=True)
@checked
class GradCAMPlusPlus:
    """Grad-CAM++: like Grad-CAM, with positive gradients weighted by how few speak for the class.

    ``w_k = Σ_ij α_ij max(0, g_ij)`` with ``α_ij = g_ij² / (2 g_ij² + g_ij³ Σ A_k)`` and g the
    gradient of the class score with respect to A_k. As published, the score is the exponential of
    the logit; its factor ``exp f``, one for all pixels of an image, is left out.

    Parameters
    ----------
    layer : str, optional
        The dotted name of the layer or block whose output is A, maps or tokens; by default found by
        `holdfast.models.last_features`: for a ResNet its last stage, for a ViT the first norm of
        its last block.
    output : {"logit", "probability", "log_probability", "loss"}
        What is differentiated.
    chunk : int, optional
        How many images to take at a time; by default chosen from their size.

    References
    ----------
    Chattopadhyay et al., Grad-CAM++: Improved Visual Explanations for Deep Convolutional Networks
    (WACV 2018).

    Examples
    --------
    >>> model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 2))
    >>> GradCAMPlusPlus(layer="1")(model, torch.rand(3, 1, 8, 8)).shape
    torch.Size([3, 1, 8, 8])
    """

    layer: str | None = None
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
        cam = _weighted(self, _plus_plus, model, images, targets, create_graph)
        return _spread(cam, images)


@dataclass(frozen=True)
@checked
class GuidedGradCAM:
    """Guided backpropagation times Grad-CAM: fine detail, where it speaks for the class.

    Parameters
    ----------
    layer : str, optional
        The layer of `GradCAM`.
    output : {"logit", "probability", "log_probability", "loss"}
        What is differentiated.
    chunk : int, optional
        How many images to take at a time; by default chosen from their size.

    References
    ----------
    Selvaraju et al., Grad-CAM (ICCV 2017).

    Examples
    --------
    >>> model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 2))
    >>> GuidedGradCAM()(model, torch.rand(3, 1, 8, 8)).shape
    torch.Size([3, 1, 8, 8])
    """

    layer: str | None = None
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
        return _guided(self, _mean, model, images, targets, create_graph)


@dataclass(frozen=True)
@checked
class GuidedGradCAMPlusPlus:
    """Guided backpropagation times Grad-CAM++.

    Parameters
    ----------
    layer : str, optional
        The layer of `GradCAMPlusPlus`.
    output : {"logit", "probability", "log_probability", "loss"}
        What is differentiated.
    chunk : int, optional
        How many images to take at a time; by default chosen from their size.

    References
    ----------
    Chattopadhyay et al., Grad-CAM++ (WACV 2018).

    Examples
    --------
    >>> model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 2))
    >>> GuidedGradCAMPlusPlus()(model, torch.rand(3, 1, 8, 8)).shape
    torch.Size([3, 1, 8, 8])
    """

    layer: str | None = None
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
        return _guided(self, _plus_plus, model, images, targets, create_graph)


Method = GradCAM | GradCAMPlusPlus | GuidedGradCAM | GuidedGradCAMPlusPlus
Weigh = Callable[[Tensor, Tensor], Tensor]


def _guided(
    method: Method,
    weigh: Weigh,
    model: nn.Module,
    images: Tensor,
    targets: Tensor | None,
    create_graph: bool,
) -> Tensor:
    check_images(images)
    with evaluating(model):
        targets = resolve_targets(model, images, targets, method.chunk)
    guided = GuidedBackprop(output=method.output, chunk=method.chunk)
    cam = _weighted(method, weigh, model, images, targets, create_graph)
    return cam * guided(model, images, targets, create_graph=create_graph)


def _weighted(
    method: Method,
    weigh: Weigh,
    model: nn.Module,
    images: Tensor,
    targets: Tensor | None,
    create_graph: bool,
) -> Tensor:
    """Sum the features, weighted by what their gradients say, and keep what is positive."""
    check_images(images)
    parts = list(chunks(len(images), method.chunk or default_chunk(images)))
    layer = method.layer
    if layer is None and len(parts) > 1:
        # With the name, each part can leave out the graph before the layer.
        layer = last_features(model, images)
    maps = []
    twice = double_backward() if create_graph else nullcontext()
    with evaluating(model), torch.enable_grad(), twice:
        targets = resolve_targets(model, images, targets, method.chunk)
        for part in parts:
            if layer is None or create_graph:
                linked = create_graph and images.requires_grad
                x = images[part] if linked else images[part].detach().requires_grad_(True)
                logits, features = with_features(model, x, layer)
            else:
                logits, features = from_features(model, images[part].detach(), layer)
            value = select_output(logits, targets[part], method.output).sum()
            gradient = _slope(value, features, create_graph)
            inside = torch.is_inference_mode_enabled()
            if gradient is None and (inside or not features.requires_grad):
                raise no_gradient()
            if gradient is None:
                raise InputError("layer", repr(method.layer), "a layer that the logits depend on")
            features = features if create_graph else features.detach()
            maps.append(_upsample(features, weigh(features, gradient), images, lowest=0.0))
    return torch.cat(maps)


def _slope(value: Tensor, features: Tensor, create_graph: bool) -> Tensor | None:
    if not (value.requires_grad and features.requires_grad):
        return None
    (gradient,) = torch.autograd.grad(value, features, create_graph=create_graph, allow_unused=True)
    return gradient


def _mean(features: Tensor, gradient: Tensor) -> Tensor:
    return gradient.mean((2, 3))


def _plus_plus(features: Tensor, gradient: Tensor) -> Tensor:
    # α g = g³ / (2 g² + g³ Σ A) = g / (2 + g Σ A) where g > 0; only there the weights count.
    positive = gradient.clamp(min=0)
    return (positive / (2 + positive * features.sum((2, 3), keepdim=True))).sum((2, 3))


def _head(model: nn.Module, images: Tensor, layer: str | None) -> tuple[Tensor, Tensor]:
    """Find the weights by which the logits are a dense layer of the features' means."""
    ran: list[tuple[nn.Linear, Tensor, Tensor]] = []

    def note(module: nn.Module, inputs: Any, output: Any) -> None:
        assert isinstance(module, nn.Linear)
        ran.append((module, inputs[0], output))

    dense = [module for module in model.modules() if isinstance(module, nn.Linear)]
    hooks = [module.register_forward_hook(note) for module in dense]
    try:
        logits, features = with_features(model, images, layer)
    finally:
        for hook in hooks:
            hook.remove()
    means = features.mean((2, 3))
    near = max(1e-5, torch.finfo(means.dtype).eps)
    for module, taken, given in ran:
        fits = taken.shape == means.shape and given.shape == logits.shape
        last = fits and torch.equal(given.to(logits.dtype), logits)
        if last and torch.allclose(taken, means.to(taken.dtype), atol=near):
            return module.weight, features
    which = "the last convolution or tokens" if layer is None else repr(layer)
    expected = f"logits that are a dense layer of the means of {which}; GradCAM works without"
    raise InputError("model", type(model).__name__, expected)


def _upsample(
    features: Tensor, weights: Tensor, images: Tensor, lowest: float | None = None
) -> Tensor:
    """Weigh and sum the features, cut off what is below, and bring the map to the images' size."""
    maps = torch.einsum("nkyx,nk->nyx", features, weights)[:, None].to(images.dtype)
    maps = maps if lowest is None else maps.clamp(min=lowest)
    return F.interpolate(maps, size=images.shape[2:], mode="bilinear")


def _spread(maps: Tensor, images: Tensor) -> Tensor:
    """Divide a map of one channel equally among the channels of the images."""
    channels = images.shape[1]
    return (maps / channels).repeat(1, channels, 1, 1)
