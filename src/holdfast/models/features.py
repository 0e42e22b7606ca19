"""Convolutional features and tokens: which layer holds the last, and what they are for a batch."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from holdfast.contracts import InputError
from holdfast.models.classifier import classify
from holdfast.models.state import check_watchable, evaluating
from holdfast.models.tokens import Grids, Layout, features_in, with_features_in
from holdfast.models.trace import blocklike, first_tensor, last_tokens, token_layout

__all__ = ["from_features", "last_convolution", "last_features", "with_features"]


def last_features(model: nn.Module, images: Float[Tensor, "n c h w"]) -> str:
    """Find the layer that holds the last features with a place in the image.

    Of a convolutional network it is the last module in the forward pass whose output still has the
    height and width of the last convolution's: of a ResNet the last stage (``"layer4"``), of a VGG
    the last ReLU before the last pooling. Convolutions of a whole map to one pixel, as in
    squeeze-and-excitation, are dense layers in disguise and do not count.

    Of a network on tokens (ViT, Swin, Mixer …) it is the last normalized tokens, or output of a
    block, of which every position still has an influence on the logits. Where tokens are averaged
    that is the last norm (of torchvision's Swin ``"norm"``). Where a class token is read, the other
    tokens matter for the last time in the attention of the last block, and it is the norm before
    that (of torchvision's ViT-B ``"encoder.layers.encoder_layer_11.ln_1"``, of timm's
    ``"blocks.11.norm1"``).

    One image is run through the model, in eval mode.

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
        If no ``nn.Conv2d`` runs in the model and no layer gives tokens of a grid of patches, or
        blocks of the model give tokens whose place in the image is unknown.

    Examples
    --------
    >>> model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten())
    >>> last_features(model, torch.rand(1, 1, 6, 6))
    '1'
    """
    with _watching(model, 1) as last, evaluating(model), torch.no_grad():
        classify(model, images[:1])
    return last_tokens(model, images[:1]) if last.left_behind else last.name


# Its name before there were tokens.
last_convolution = last_features


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
        The dotted name of a layer or block; by default that of :func:`last_features`. It may give
        maps with channels first or last, or tokens of a grid of patches, also as the first item of
        a tuple. If it runs more than once, its last output counts.

    Returns
    -------
    logits : Tensor
        ``(N, K)``
    features : Tensor
        ``(N, F, Y, X)``; of tokens, those of the grid, without class and register tokens.

    Raises
    ------
    InputError
        If the model has no such layer, or the layer does not run or gives no feature maps and no
        tokens whose place in the image is known.

    Examples
    --------
    >>> model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(inplace=True), nn.Flatten())
    >>> _ = nn.init.constant_(model[0].weight, -1.0)
    >>> logits, features = with_features(model, torch.full((1, 1, 6, 6), 0.5), "0")
    >>> bool(features.max() < 0)  # as the convolution made them, before the ReLU overwrote them
    True
    """
    if layer is None:
        with _watching(model, len(images)) as last:
            logits = classify(model, images)
        if not last.left_behind and not last.changed_in_place():
            return logits, last.maps
        layer = last_tokens(model, images[:1]) if last.left_behind else last.name
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
    """Go on from what is kept of a layer's features, and return it beside the logits."""
    try:
        check_watchable(model)
        module = model.get_submodule(layer)
    except AttributeError as error:
        known = ", ".join(name for name, _ in model.named_children())
        raise InputError("layer", repr(layer), f"a submodule, in one of {known}") from error
    with _tap(model, module, images, keep) as outputs:
        logits = classify(model, images)
    if not outputs:
        raise InputError("layer", f"{layer!r}, which does not run", "a layer that runs")
    features, layout, output = outputs[-1]
    if layout is None:
        raise _no_maps(layer, output)
    if layout.extra or (output.ndim == 3 and output.shape[0] == output.shape[1]):
        # Which tokens are of the grid, and which dimension they are in, shows on another batch.
        true = token_layout(model, images[:1], layer)
        if true != layout:
            with _tap(model, module, images, keep, true) as outputs:
                logits = classify(model, images)
            features = outputs[-1][0]
    return logits, features


@contextmanager
def _tap(
    model: nn.Module,
    module: nn.Module,
    images: Tensor,
    keep: Callable[[Tensor], Tensor],
    layout: Layout | None = None,
) -> Iterator[list[tuple[Tensor, Layout | None, Any]]]:
    """Within the block, note features, layout and output of a module, and go on from the first."""
    check_watchable(model)
    outputs: list[tuple[Tensor, Layout | None, Any]] = []
    grids = Grids((images.shape[2], images.shape[3]), len(images))

    def hook(_: nn.Module, __: Any, output: Any) -> Any:
        given = features_in(output)
        found = layout or grids.layout(module, given)
        if found is None:
            outputs.append((given, None, given))
            return output
        features = keep(found.to_maps(given))
        outputs.append((features, found, given))
        # The copy may be changed in place further on; what was kept stays as the layer gave it.
        return with_features_in(output, found.from_maps(features.clone(), given))

    convolutions = [part for part in model.modules() if isinstance(part, nn.Conv2d)]
    hooks = [
        part.register_forward_hook(lambda _, __, output: grids.note(output))
        for part in convolutions
    ]
    hooks.append(module.register_forward_hook(hook))
    try:
        yield outputs
    finally:
        for handle in hooks:
            handle.remove()


def _no_maps(layer: str, output: Any) -> InputError:
    shape = f"of shape {tuple(output.shape)}" if isinstance(output, Tensor) else "no tensor"
    return InputError(
        "layer",
        f"{layer!r}, whose output is {shape}",
        "a layer that gives feature maps (N, F, Y, X) or the tokens of a grid of patches "
        "(N, L, F), class tokens first: a block or a norm, say, of those among "
        "model.named_modules()",
    )


class _Last:
    """The last convolutional features of a forward pass, as they come by.

    Attributes
    ----------
    left_behind : bool
        Whether blocks on tokens ran after them: then these are not the last features.
    """

    def __init__(self, model: nn.Module, count: int) -> None:
        self.model, self.count = type(model).__name__, count
        self.left_behind = False
        self._found: tuple[str, Tensor, int] | None = None

    def note(self, name: str, module: nn.Module, taken: Any, output: Any) -> None:
        if self._counts(module, taken, output):
            self._found = name, output, output._version
            self.left_behind = False
        elif blocklike(module, taken, features_in(output), self.count):
            self.left_behind = True

    def _counts(self, module: nn.Module, taken: Any, output: Any) -> bool:
        if not isinstance(output, Tensor) or output.ndim != 4:
            return False
        size = output.shape[2:]
        if isinstance(module, nn.Conv2d):
            # A dense layer in disguise sees all there is, and gives a single pixel.
            whole = taken is not None and module.kernel_size == tuple(taken.shape[2:])
            return not (set(size) == {1} and (whole or set(module.kernel_size) == {1}))
        return self._found is not None and self._found[1].shape[2:] == size

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
            raise InputError("model", self.model, "a classifier with a convolution or tokens")
        return self._found


@contextmanager
def _watching(model: nn.Module, count: int) -> Iterator[_Last]:
    check_watchable(model)
    last = _Last(model, count)

    def watch(name: str) -> Callable[[nn.Module, Any, Any, Any], None]:
        return lambda module, args, kwargs, output: last.note(
            name, module, first_tensor(args, kwargs), output
        )

    # The model itself is no layer of its own.
    named = [(name, module) for name, module in model.named_modules() if name]
    hooks = [module.register_forward_hook(watch(name), with_kwargs=True) for name, module in named]
    try:
        yield last
    finally:
        for hook in hooks:
            hook.remove()
