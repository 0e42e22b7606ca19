"""Convolutional features: which layer holds the last ones, and what they are for a batch."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from holdfast.contracts import InputError
from holdfast.models.state import evaluating

__all__ = ["from_features", "last_convolution", "with_features"]


def last_convolution(model: nn.Module, images: Float[Tensor, "n c h w"]) -> str:
    """Find the layer that holds the last convolutional features.

    It is the last module in the forward pass whose output still has the height and width of the
    last convolution's: of a ResNet the last stage (``"layer4"``), of a VGG the last ReLU before the
    last pooling. 1×1 convolutions of one pixel, as in squeeze-and-excitation, are dense layers in
    disguise and do not count. One image is run through the model, in eval mode.

    Parameters
    ----------
    model : nn.Module
        The classifier.
    images : Tensor
        Any images that it takes, ``(N, C, H, W)``; the first is used.

    Returns
    -------
    str
        The layer's dotted name, as in ``model.get_submodule(name)``.

    Raises
    ------
    InputError
        If no ``nn.Conv2d`` runs in the model.

    Examples
    --------
    >>> model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten())
    >>> last_convolution(model, torch.rand(1, 1, 6, 6))
    '1'
    """
    with _watching(model) as last, evaluating(model), torch.no_grad():
        model(images[:1])
    return last.name


def with_features(
    model: nn.Module, images: Float[Tensor, "n c h w"], layer: str | None = None
) -> tuple[Float[Tensor, "n k"], Float[Tensor, "n f y x"]]:
    """Classify images and return the features that a layer gives on the way.

    The logits are computed from the features that come back, so they can be differentiated with
    respect to them. The model runs in the mode it is in.

    Parameters
    ----------
    model : nn.Module
        The classifier.
    images : Tensor
        The images, ``(N, C, H, W)``.
    layer : str, optional
        The layer's dotted name; by default that of :func:`last_convolution`. If the layer runs more
        than once, its last output counts.

    Returns
    -------
    logits : Tensor
        ``(N, K)``
    features : Tensor
        ``(N, F, Y, X)``

    Raises
    ------
    InputError
        If the model has no such layer, or the layer does not run or gives no feature maps.

    Examples
    --------
    >>> model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(inplace=True), nn.Flatten())
    >>> _ = nn.init.constant_(model[0].weight, -1.0)
    >>> logits, features = with_features(model, torch.full((1, 1, 6, 6), 0.5), "0")
    >>> bool(features.max() < 0)  # as the convolution made them, before the ReLU overwrote them
    True
    """
    if layer is None:
        with _watching(model) as last:
            logits = model(images)
        if not last.changed_in_place():
            return logits, last.maps
        layer = last.name
    return _tapped(model, images, layer, lambda output: output)


def from_features(
    model: nn.Module, images: Float[Tensor, "n c h w"], layer: str
) -> tuple[Float[Tensor, "n k"], Float[Tensor, "n f y x"]]:
    """Classify images and return the features of a layer, from which the graph begins.

    Like :func:`with_features`, for derivatives with respect to the features alone: nothing is
    recorded of the layers before, which saves the memory of their outputs.

    Examples
    --------
    >>> model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(inplace=True), nn.Flatten())
    >>> logits, features = from_features(model, torch.rand(1, 1, 6, 6), "0")
    >>> features.is_leaf, logits.requires_grad
    (True, True)
    """

    def begin(output: Tensor) -> Tensor:
        torch.set_grad_enabled(True)
        return output.detach().requires_grad_(True)

    with torch.no_grad():  # ends what was enabled, too
        return _tapped(model, images, layer, begin)


def _tapped(
    model: nn.Module, images: Tensor, layer: str, keep: Callable[[Tensor], Tensor]
) -> tuple[Tensor, Tensor]:
    """Go on from what is kept of a layer's output, and return it beside the logits."""
    outputs: list[Any] = []

    def hook(_: nn.Module, __: Any, output: Any) -> Any:
        outputs.append(keep(output) if isinstance(output, Tensor) else output)
        # The copy may be changed in place further on; what was kept stays as the layer gave it.
        return outputs[-1].clone() if isinstance(output, Tensor) else output

    try:
        module = model.get_submodule(layer)
    except AttributeError as error:
        known = ", ".join(name for name, _ in model.named_children())
        raise InputError("layer", repr(layer), f"a submodule, in one of {known}") from error
    handle = module.register_forward_hook(hook)
    try:
        logits = model(images)
    finally:
        handle.remove()
    if not outputs:
        raise InputError("layer", f"{layer!r}, which does not run", "a layer that runs")
    if not isinstance(outputs[-1], Tensor) or outputs[-1].ndim != 4:
        came = f"{layer!r}, whose output is no such tensor"
        raise InputError("layer", came, "a layer that gives feature maps (N, F, Y, X)")
    return logits, outputs[-1]


class _Last:
    """The last convolutional features of a forward pass, as they come by."""

    def __init__(self, model: nn.Module) -> None:
        self.model = type(model).__name__
        self._found: tuple[str, Tensor, int] | None = None

    def note(self, name: str, module: nn.Module, output: Any) -> None:
        if not isinstance(output, Tensor) or output.ndim != 4:
            return
        size = output.shape[2:]
        if isinstance(module, nn.Conv2d):
            counts = not set(module.kernel_size) == set(size) == {1}
        else:
            counts = self._found is not None and self._found[1].shape[2:] == size
        if counts:
            self._found = name, output, output._version

    @property
    def name(self) -> str:
        return self._get()[0]

    @property
    def maps(self) -> Tensor:
        return self._get()[1]

    def changed_in_place(self) -> bool:
        _, maps, version = self._get()
        return maps._version != version

    def _get(self) -> tuple[str, Tensor, int]:
        if self._found is None:
            raise InputError("model", self.model, "a classifier with a convolution")
        return self._found


@contextmanager
def _watching(model: nn.Module) -> Iterator[_Last]:
    last = _Last(model)

    def watch(name: str) -> Callable[[nn.Module, Any, Any], None]:
        return lambda module, _, output: last.note(name, module, output)

    # The model itself is no layer of its own.
    named = [(name, module) for name, module in model.named_modules() if name]
    hooks = [module.register_forward_hook(watch(name)) for name, module in named]
    try:
        yield last
    finally:
        for hook in hooks:
            hook.remove()
