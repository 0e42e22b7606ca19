"""Feature maps in every layout: channels first or last, and tokens of a grid of patches."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor, nn

__all__ = ["Grids", "Layout", "features_in", "with_features_in"]

Size = tuple[int, int]
# Class, distillation and register tokens together; more were never seen.
MOST_EXTRA_TOKENS = 16


@dataclass(frozen=True)
class Layout:
    """Where a layer's output keeps the features of each position.

    Parameters
    ----------
    kind : {"maps", "channels_last", "tokens", "tokens_first"}
        ``(N, F, Y, X)``, ``(N, Y, X, F)``, ``(N, L, F)`` or ``(L, N, F)``.
    size : tuple of int
        Y and X.
    extra : int
        How many tokens stand before those of the grid: class, distillation, register tokens.

    Examples
    --------
    >>> layout, tokens = Layout("tokens", (2, 3), extra=1), torch.rand(5, 7, 4)
    >>> maps = layout.to_maps(tokens)
    >>> maps.shape, bool((maps[0, :, 1, 2] == tokens[0, 6]).all())
    (torch.Size([5, 4, 2, 3]), True)
    >>> bool((layout.from_maps(maps, tokens) == tokens).all())
    True
    """

    kind: Literal["maps", "channels_last", "tokens", "tokens_first"]
    size: Size
    extra: int = 0

    def to_maps(self, output: Tensor) -> Tensor:
        """Return the feature maps ``(N, F, Y, X)``."""
        if self.kind == "maps":
            return output
        if self.kind == "channels_last":
            return output.permute(0, 3, 1, 2)
        tokens = output.transpose(0, 1) if self.kind == "tokens_first" else output
        return tokens[:, self.extra :].transpose(1, 2).unflatten(2, self.size)

    def from_maps(self, maps: Tensor, output: Tensor) -> Tensor:
        """Return an output with these feature maps, and all else as in the one that is given."""
        if self.kind == "maps":
            return maps
        if self.kind == "channels_last":
            return maps.permute(0, 2, 3, 1)
        tokens = maps.flatten(2).transpose(1, 2)
        if self.kind == "tokens":
            return torch.cat([output[:, : self.extra], tokens], 1)
        return torch.cat([output[: self.extra], tokens.transpose(0, 1)])


@dataclass
class Grids:
    """The sizes of the feature maps that convolutions gave so far, in one forward pass.

    Parameters
    ----------
    image : tuple of int
        Height and width of the images.
    count : int
        How many images there are.
    seen : list of tuple of int
        The sizes, the latest last.

    Examples
    --------
    >>> grids = Grids(image=(64, 48), count=2)
    >>> grids.note(torch.rand(2, 8, 4, 3))
    >>> grids.layout(nn.LayerNorm(8), torch.rand(2, 13, 8))
    Layout(kind='tokens', size=(4, 3), extra=1)
    >>> grids.layout(nn.LayerNorm(8), torch.rand(2, 2, 2, 8))
    Layout(kind='channels_last', size=(2, 2), extra=0)
    """

    image: Size
    count: int
    seen: list[Size] = field(default_factory=list)

    def note(self, output: Any) -> None:
        """Take down what a convolution gave."""
        if isinstance(output, Tensor) and output.ndim == 4:
            size = (output.shape[2], output.shape[3])
            if size == (1, 1) and self.seen:
                return  # a dense layer in disguise, as in squeeze-and-excitation
            if size in self.seen:
                self.seen.remove(size)
            self.seen.append(size)

    def layout(self, module: nn.Module, output: Any) -> Layout | None:
        """Tell how this module's output holds feature maps; None if it does not, or who knows."""
        if not isinstance(output, Tensor) or not output.is_floating_point():
            return None
        if output.ndim == 4 and len(output) == self.count:
            return self._of_maps(module, output)
        if output.ndim == 3 and self.count in output.shape[:2]:
            batch_first = len(output) == self.count and (self.count > 1 or output.shape[1] > 1)
            found = self._of_tokens(output.shape[1 if batch_first else 0])
            return found and Layout("tokens" if batch_first else "tokens_first", *found)
        return None

    def _of_maps(self, module: nn.Module, output: Tensor) -> Layout | None:
        _, a, b, c = output.shape
        first, last = self._fits((b, c)), self._fits((a, b))
        if last and type(module) is nn.LayerNorm and module.normalized_shape == (c,):
            first = False
        if last and not first:
            return Layout("channels_last", (a, b))
        made = isinstance(module, nn.Conv2d | nn.BatchNorm2d) or "Pool" in type(module).__name__
        return Layout("maps", (b, c)) if first or made or not self.seen else None

    def _fits(self, size: Size) -> bool:
        return any(size == smaller for grid in self._plausible() for smaller in _halvings(grid))

    def _of_tokens(self, count: int) -> tuple[Size, int] | None:
        if count == 1:
            return None  # a class token alone
        grids = list(self._plausible()) if self.seen else list(self._cuts())
        extras = [(count - y * x, (y, x)) for y, x in grids]
        extras = [(extra, grid) for extra, grid in extras if 0 <= extra <= MOST_EXTRA_TOKENS]
        if extras:
            extra, grid = min(extras, key=lambda pair: pair[0])
            return grid, extra
        merged = (s for grid in grids for s in _halvings(grid) if s[0] * s[1] == count)
        return next(((size, 0) for size in merged), None)

    def _plausible(self) -> Iterator[Size]:
        """Yield the sizes seen, the latest first, that have about the shape of the image."""
        height, width = self.image
        for y, x in reversed(self.seen):
            if abs(y * width - x * height) <= 2 * max(height, width):
                yield y, x

    def _cuts(self) -> Iterator[Size]:
        """Yield the grids of square patches without a rest, as models cut them out by hand."""
        height, width = self.image
        for side in range(1, min(height, width) + 1):
            if height % side == width % side == 0:
                yield height // side, width // side


def _halvings(grid: Size) -> Iterator[Size]:
    """Yield the grid, and what strides and merged patches make of it, with or without the rest."""
    y, x = grid
    yield grid
    for stride in range(2, max(grid) + 1):
        yield -(-y // stride), -(-x // stride)
        yield max(1, y // stride), max(1, x // stride)
        yield max(1, y // stride - 1), max(1, x // stride - 1)


def features_in(output: Any) -> Any:
    """Return the tensor of features in what a layer gave: the first of a tuple or mapping.

    Examples
    --------
    >>> features_in((torch.zeros(1), "attention"))
    tensor([0.])
    """
    if isinstance(output, Mapping) and output:
        return next(iter(output.values()))
    return output[0] if isinstance(output, tuple | list) and output else output


def with_features_in(output: Any, features: Tensor) -> Any:
    """Return an output with other features, and all else as it was.

    Examples
    --------
    >>> with_features_in((torch.zeros(1), "attention"), torch.ones(1))
    (tensor([1.]), 'attention')
    """
    if isinstance(output, Mapping):
        changed: Any = copy.copy(output)
        changed[next(iter(output))] = features
        return changed
    if hasattr(output, "_replace"):  # a named tuple
        return output._replace(**{output._fields[0]: features})
    if isinstance(output, tuple | list):
        return type(output)([features, *output[1:]])
    return features
