"""Which layer of a network on tokens holds the last that say where something is."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from holdfast.contracts import InputError
from holdfast.models.classifier import classify, differentiate
from holdfast.models.state import evaluating
from holdfast.models.tokens import Grids, Layout, features_in

__all__ = ["blocklike", "first_tensor", "last_tokens", "token_layout"]


def last_tokens(model: nn.Module, image: Tensor) -> str:
    """Find the layer that holds the last tokens, or maps, of which every place still counts.

    Only layers on the main path are taken: blocks, and norms that read what a block reads or gives.

    Parameters
    ----------
    model : nn.Module
        The classifier.
    image : Tensor
        One image, ``(1, C, H, W)``, through which gradients are taken in eval mode.

    Returns
    -------
    str
        The layer's dotted name.

    Raises
    ------
    InputError
        If there is none, or blocks after it give tokens whose place in the image is unknown.
    """
    calls = _trace(model, image)
    for call in reversed(calls):
        if call.layout is None:
            if call.block and call.share > 0:
                shape = tuple(call.given.shape)
                came = f"None, and no place in the image is known for what {call.name!r} gives, "
                raise InputError("layer", f"{came}{shape}", _EXPECTED)
        elif call.share > 0.5 and _on_main_path(call, calls):
            # The outermost of these containers gives what its last block gave.
            same = (c for c in calls if c.given is call.given and _on_main_path(c, calls))
            name = next(same).name
            if call.layout.extra:
                token_layout(model, image, name)
            return name
    if not any(call.share for call in calls):
        came = "one whose gradient is zero throughout; a head that begins with zeros, perhaps"
        raise InputError("model", came, "a classifier whose logits depend on the image")
    raise InputError("layer", "None, and no layer of which every place counts", _EXPECTED)


_EXPECTED = (
    "the name of a layer that gives feature maps (N, F, Y, X) or the tokens of a grid of patches, "
    "as in model.named_modules()"
)


@dataclass
class _Call:
    """One call of a module.

    Attributes
    ----------
    share : float
        Of how many places in the image the output has an influence on the logits; of an output of
        unknown layout, whether it has any.
    """

    name: str
    module: nn.Module
    taken: Tensor | None
    given: Tensor
    layout: Layout | None
    block: bool
    share: float = 0.0

    def feel(self, gradient: Tensor) -> None:
        counts = gradient != 0
        if self.layout is None:
            self.share = float(counts.any())
        else:
            self.share = self.layout.to_maps(counts).any(1).double().mean().item()


def _trace(model: nn.Module, image: Tensor) -> list[_Call]:
    """Run one image forwards and backwards, and list the calls in the order of their end."""
    calls: list[_Call] = []
    grids = Grids((image.shape[2], image.shape[3]), 1)

    def note(name: str, module: nn.Module, taken: Tensor | None, output: Any) -> None:
        if isinstance(module, nn.Conv2d):
            grids.note(output)
        given = features_in(output)
        if not isinstance(given, Tensor):
            return
        layout = grids.layout(module, given)
        call = _Call(name, module, taken, given, layout, blocklike(module, taken, given, 1))
        calls.append(call)
        if given.requires_grad and (layout or call.block):
            given.register_hook(call.feel)

    x = image.detach().clone().requires_grad_(True)
    with evaluating(model), torch.enable_grad():
        with _noting(model, note):
            logits = classify(model, x)
        # Not their sum: of probabilities it is 1.
        value = (logits * torch.linspace(1, 2, logits.shape[1]).to(logits)).sum()
        differentiate(value, x)
    return calls


def _on_main_path(call: _Call, calls: list[_Call]) -> bool:
    """Tell blocks, and norms that read what blocks read or give, from the layers within."""
    makers = [c for c in calls if c.given is call.taken]
    above = [c for c in calls if call.name.startswith(f"{c.name}.")]
    if _is_norm(call.module):
        return any(not _is_leaf(c.module) for c in makers) or any(
            c.taken is call.taken for c in above
        )
    if _is_leaf(call.module):
        return False
    if makers:  # attention and perceptrons read a norm: they are branches
        return not all(_is_norm(c.module) for c in makers)
    return not any(c.block and c.taken is not call.taken for c in above)


def blocklike(module: nn.Module, taken: Tensor | None, given: Any, count: int) -> bool:
    """Tell whether a module works on many tokens of each image and keeps their shape.

    ``count`` is the number of images. Tokens may be in a grid, with channels last.

    Examples
    --------
    >>> block, tokens = nn.Sequential(nn.LayerNorm(3), nn.Linear(3, 3)), torch.rand(1, 4, 3)
    >>> [blocklike(module, tokens, module(tokens), 1) for module in (block, nn.ReLU())]
    [True, False]
    """
    if not isinstance(given, Tensor) or taken is None or taken.shape != given.shape:
        return False
    if given.ndim < 3 or given.numel() <= count * max(given.shape[-1:] + given.shape[1:-2]):
        return False  # one token for each image
    if _is_leaf(module):
        name = type(module).__name__.lower()
        return given.ndim == 3 and ("layernorm" in name or "rmsnorm" in name)
    dense = nn.Linear | nn.LayerNorm | nn.MultiheadAttention
    if given.ndim == 3:
        return next(module.parameters(), None) is not None
    return any(isinstance(part, dense) for part in module.modules())


def token_layout(model: nn.Module, image: Tensor, layer: str) -> Layout:
    """Tell where a layer keeps its tokens, tried on an image and another that differs everywhere.

    Tokens that are the same for both, before any attention, are class or register tokens.

    Raises
    ------
    InputError
        If these do not stand first, or the layout is unknown.
    """
    images = torch.cat([image, (image + 0.5) % 1]).detach()
    grids = Grids((image.shape[2], image.shape[3]), 2)
    first: dict[int, Tensor] = {}  # by the number of tokens
    last: dict[str, Tensor] = {}

    def note(name: str, module: nn.Module, taken: Tensor | None, output: Any) -> None:
        if isinstance(module, nn.Conv2d):
            grids.note(output)
        given = features_in(output)
        if isinstance(given, Tensor) and given.ndim == 3:
            for tokens in (given, given.transpose(0, 1)):
                if len(tokens) == 2:
                    first.setdefault(tokens.shape[1], tokens)
        if name == layer and isinstance(given, Tensor):
            last["output"] = given
            found = grids.layout(module, given)
            layouts.append(found)

    layouts: list[Layout | None] = []
    with evaluating(model), torch.no_grad(), _noting(model, note):
        classify(model, images)
    layout = layouts[-1] if layouts else None
    if layout is None:
        raise InputError("layer", repr(layer), _EXPECTED)
    tokens = first.get(layout.extra + layout.size[0] * layout.size[1])
    if layout.extra and tokens is not None:
        fixed = (tokens[0] == tokens[1]).all(-1).nonzero().flatten().tolist()
        if fixed and fixed != list(range(layout.extra)):
            came = f"{layer!r}, whose tokens {fixed} do not depend on the image"
            raise InputError("layer", came, f"{layout.extra} class and register tokens, first")
    return layout


def first_tensor(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor | None:
    """Return the first tensor among arguments.

    Examples
    --------
    >>> first_tensor((None,), {"hidden_states": torch.zeros(1)})
    tensor([0.])
    """
    return next((x for x in (*args, *kwargs.values()) if isinstance(x, Tensor)), None)


@contextmanager
def _noting(model: nn.Module, note: Any) -> Iterator[None]:
    """Within the block, note each call of a submodule: name, module, first input and output."""

    def watch(name: str) -> Any:
        return lambda module, args, kwargs, output: note(
            name, module, first_tensor(args, kwargs), output
        )

    hooks = [
        module.register_forward_hook(watch(name), with_kwargs=True)
        for name, module in model.named_modules()
        if name
    ]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _is_leaf(module: nn.Module) -> bool:
    return next(module.children(), None) is None


def _is_norm(module: nn.Module) -> bool:
    return _is_leaf(module) and "norm" in type(module).__name__.lower()
