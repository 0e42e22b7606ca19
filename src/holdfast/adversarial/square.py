"""Square attack: random search with squares, for models that give logits but no gradients."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float, Integer
from torch import Tensor, nn

from holdfast.adversarial.accuracy import check_logits, right
from holdfast.adversarial.ball import Norm, ball
from holdfast.adversarial.margin import beyond_rounding, margin
from holdfast.contracts import (
    InputError,
    check_images,
    check_labels,
    check_positive,
    check_precision,
    checked,
    chunks,
    default_chunk,
    generators,
)
from holdfast.models import classify, evaluating

__all__ = ["Square"]


@dataclass(frozen=True)
@checked
class Square:
    """Square attack: random search with square patches that asks for logits, never for gradients.

    In ℓ∞ it begins with vertical stripes of ±ε. Each query then paints a square at a random place,
    channel by channel, with +ε or −ε. In ℓ2 it begins with a tiling by patches of two opposite
    bumps. Each query then moves the perturbation of one square window into another, and adds such a
    patch. What lowers the margin between the label's logit and the highest other is kept. Squares
    begin with a share of 0.8 of the pixels, which is halved nine times on the way.

    Parameters
    ----------
    eps : float
        Radius ε of the ball, in pixel units on [0, 1].
    norm : {"linf", "l2"}
        The norm of the ball.
    queries : int
        How many perturbations of an image the model may be asked about.
    restarts : int
        Number of searches of each image, with as many queries each; an image that has been fooled
        is not attacked again.
    seed : int
        Draws of an image depend on this and on the image's content alone.
    chunk : int, optional
        How many images to take at a time; by default chosen from their size.

    Raises
    ------
    InputError
        If a setting is out of range; when called with ``norm="l2"``, if an image is below 5 pixels
        high or wide.

    Notes
    -----
    No square is larger than the shorter side of the image. An image that the model gets wrong from
    the start, or never, comes back as it was; it is done as soon as the model gets it wrong by more
    than rounding. The share of pixels is halved after the queries that the authors' code names,
    after 10, 50, 200, 500, 1,000, 2,000, 4,000, 6,000 and 8,000 of 10,000, in proportion where
    there are fewer or more, and begins where it does in their AutoAttack.

    References
    ----------
    Andriushchenko et al., Square Attack: a Query-Efficient Black-Box Adversarial Attack via Random
    Search (ECCV 2020), algorithms 2 and 3.

    Examples
    --------
    >>> from holdfast.adversarial import accuracy
    >>> model = nn.Flatten()  # the brightest of four pixels
    >>> images, labels = torch.tensor([[[[0.9, 0.1], [0.1, 0.1]]]]), torch.tensor([0])
    >>> accuracy(model, images, labels, Square(eps=0.3, queries=100))
    1.0
    >>> accuracy(model, images, labels, Square(eps=0.5, queries=100))
    0.0
    """

    eps: float
    norm: Norm = "linf"
    queries: int = 5000
    restarts: int = 1
    seed: int = 0
    chunk: int | None = None

    def __post_init__(self) -> None:
        ball(self.norm, self.eps)
        check_positive(self, "queries", "restarts")

    def __call__(
        self,
        model: nn.Module,
        images: Float[Tensor, "n c h w"],
        labels: Integer[Tensor, " n"],
    ) -> Float[Tensor, "n c h w"]:
        """Attack each image away from its label; the model runs in eval mode.

        Returns the attacked images, ``(N, C, H, W)`` in [0, 1].
        """
        check_images(images)
        check_precision(images)
        check_labels(labels, len(images))
        height, width = images.shape[-2:]
        if self.norm == "l2" and min(height, width) < 5:
            came = f"{height}×{width} pixels"
            raise InputError("images", came, "at least 5×5 pixels, for Square in ℓ2")
        images, labels = images.detach().contiguous(), labels.to(images.device, torch.long)
        attacked = images.clone()
        with evaluating(model), torch.no_grad():
            for part in chunks(len(images), self.chunk or default_chunk(images)):
                attacked[part] = self._attack(model, images[part], labels[part])
        return attacked

    def _attack(self, model: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
        """Begin as many searches of each image as it takes."""
        attacked = images.clone()
        logits = classify(model, images)
        check_logits(logits, labels)
        left = right(logits, labels).nonzero().flatten()
        rngs = dict(zip(left.tolist(), generators(images[left], self.seed), strict=True))
        for _ in range(self.restarts):
            if len(left) == 0:
                break
            left = self._search(model, images, labels, attacked, left, rngs)
        return attacked

    def _search(
        self,
        model: nn.Module,
        images: Tensor,
        labels: Tensor,
        attacked: Tensor,
        place: Tensor,
        rngs: dict[int, torch.Generator],
    ) -> Tensor:
        """Lower the margins, write down what fools the model, and return which images do not.

        ``place`` tells which of the images are searched.
        """
        own, y = images[place], labels[place]

        def draw(count: int) -> Tensor:
            # Drawn on the CPU, so that an image gets the same squares on every device.
            drawn = [
                torch.rand(count, generator=rngs[n], dtype=torch.float32) for n in place.tolist()
            ]
            return torch.stack(drawn).to(own.device)

        linf = self.norm == "linf"
        x = best = _stripes(own, self.eps, draw) if linf else _tiles(own, self.eps, draw)
        lowest, draws = torch.full_like(own[:, 0, 0, 0], math.inf), draw(0)
        for query in range(self.queries):
            if query:
                if (query - 1) % _BLOCK == 0:
                    draws = draw(_BLOCK * (5 + own.shape[1])).unflatten(1, (_BLOCK, -1))
                side = _side(own.shape, query / self.queries, odd=not linf)
                propose = _painted if linf else _shifted
                x = propose(own, best, self.eps, side, draws[:, (query - 1) % _BLOCK])
            logits = classify(model, x)
            wrong, margins = ~right(logits, y), margin(logits, y)
            attacked[place[wrong]] = x[wrong]
            best = torch.where(_wide(margins < lowest), x, best)
            lowest = torch.minimum(margins.nan_to_num(math.inf, math.inf), lowest)
            done = beyond_rounding(logits, y)
            if done.any():
                rest = (tensor[~done] for tensor in (place, own, y, best, lowest, draws))
                place, own, y, best, lowest, draws = rest
                if len(place) == 0:
                    break
        return place


def _side(shape: tuple[int, ...], done: float, odd: bool) -> int:
    """Return the side of the squares when the share ``done`` of the queries has been spent."""
    height, width = shape[-2:]
    halvings = sum(int(10_000 * done) > mark for mark in _MARKS)
    side = max(round(math.sqrt(_SHARE / 2**halvings * height * width)), 3 if odd else 1)
    return min(side + (odd and side % 2 == 0), height, width)


def _stripes(images: Tensor, eps: float, draw: Callable[[int], Tensor]) -> Tensor:
    """Add ε or −ε to each column of each channel."""
    n, channels, _, width = images.shape
    signs = _signs(draw(channels * width)).view(n, channels, 1, width).to(images)
    return (images + eps * signs).clamp(0, 1)


def _painted(images: Tensor, best: Tensor, eps: float, side: int, u: Tensor) -> Tensor:
    """Repaint a square with ε or −ε, one sign for each channel, at the surface of the ball."""
    window = _window(images, side, u[:, 0], u[:, 1])
    signs = _signs(u[:, 5:]).to(images)[..., None]
    paint = (images.flatten(2).gather(2, window) + eps * signs).clamp(0, 1)
    return best.flatten(2).scatter(2, window, paint).view_as(images)


def _tiles(images: Tensor, eps: float, draw: Callable[[int], Tensor]) -> Tensor:
    """Lay patches of a fifth of the shorter side over the image, with a sign for each channel."""
    n, channels, height, width = images.shape
    side = min(height, width) // 5
    rows, columns = height // side, width // side
    u = draw((channels + 1) * rows * columns).view(n, channels + 1, rows, columns)
    patches = _patches(side, images.device)[(u[:, 0] < 0.5).long()]  # n, rows, columns, side²
    laid = _signs(u[:, 1:])[..., None] * patches[:, None]
    laid = laid.unflatten(-1, (side, side)).transpose(3, 4)  # n, c, rows, side, columns, side
    tiled = laid.reshape(n, channels, rows * side, columns * side)
    delta = torch.zeros_like(images, dtype=tiled.dtype)
    top, left = (height - rows * side) // 2, (width - columns * side) // 2
    delta[..., top : top + rows * side, left : left + columns * side] = tiled
    return _at_surface(images, delta.flatten(2), eps)


def _shifted(images: Tensor, best: Tensor, eps: float, side: int, u: Tensor) -> Tensor:
    """Move the budget of one window, and what is left of ε, into a patch in another."""
    to = _window(images, side, u[:, 0], u[:, 1])
    source = _window(images, side, u[:, 2], u[:, 3])
    wide = torch.promote_types(images.dtype, torch.float32)
    delta = (best.to(wide) - images.to(wide)).flatten(2)
    unused = (eps**2 - delta.square().sum((1, 2))).clamp_min(0) / images.shape[1]
    there = delta.gather(2, to)
    delta = delta.scatter(2, to, 0)
    taken = delta.gather(2, source).square().sum(2)  # without where the windows overlap
    delta = delta.scatter(2, source, 0)
    budget = there.square().sum(2) + taken + unused[:, None]
    patch = _patches(side, images.device).to(wide)[(u[:, 4] < 0.5).long()]
    new = _unit(there) + _signs(u[:, 5:]).to(wide)[..., None] * patch[:, None]
    return _at_surface(images, delta.scatter(2, to, _unit(new) * budget.sqrt()[..., None]), eps)


def _at_surface(images: Tensor, delta: Tensor, eps: float) -> Tensor:
    """Give perturbations ``(N, C, H · W)`` the length ε and add them, cut to [0, 1]."""
    delta = eps * _unit(delta.flatten(1)).view(images.shape)
    return (images.to(delta.dtype) + delta).clamp(0, 1).to(images.dtype)


def _window(images: Tensor, side: int, down: Tensor, along: Tensor) -> Tensor:
    """Return where a square's pixels lie among the H · W, ``(N, C, side²)``.

    Its place is given by two numbers in [0, 1); all places in the image are equally likely.
    """
    n, channels, height, width = images.shape
    top, left = (
        (share * (free + 1)).long().clamp_max(free)
        for share, free in ((down, height - side), (along, width - side))
    )
    steps = torch.arange(side, device=images.device)
    pixels = (top[:, None] + steps)[..., None] * width + (left[:, None] + steps)[:, None]
    return pixels.view(n, 1, -1).expand(n, channels, -1)


@functools.lru_cache(maxsize=32)
def _patches(side: int, device: torch.device) -> Tensor:
    """Return the patch of ℓ2 and its transpose, ``(2, side²)``, each of length 1.

    The upper half is a bump and the lower one a hollow. A bump is a sum of rectangles around its
    middle, of which the m-th reaches m pixels far and has a height of 1 / (m + 1)².
    """
    halves = []
    for height in (side // 2, side - side // 2):
        rows, columns = torch.arange(height) - height // 2, torch.arange(side) - side // 2
        reach = torch.maximum(rows.abs()[:, None], columns.abs())
        heights = 1 / torch.arange(1, max(height, side) // 2 + 2, dtype=torch.float32) ** 2
        halves.append(_unit(heights.flip(0).cumsum(0).flip(0)[reach].flatten()[None])[0])
    patch = _unit(torch.cat([halves[0], -halves[1]])[None]).view(side, side)
    return torch.stack([patch, patch.T]).flatten(1).to(device)


def _unit(x: Tensor) -> Tensor:
    """Scale vectors along the last dimension to length 1; zero stays zero."""
    return x / x.norm(dim=-1, keepdim=True).clamp_min(torch.finfo(x.dtype).tiny)


def _signs(u: Tensor) -> Tensor:
    return 1 - 2 * (u < 0.5).float()


def _wide(values: Tensor) -> Tensor:
    return values[:, None, None, None]


_SHARE = 0.8
"""The share of pixels in the first square."""
_MARKS = (10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000)
"""After which of 10,000 queries the share is halved."""
_BLOCK = 64
"""For how many queries random numbers are drawn at once."""
