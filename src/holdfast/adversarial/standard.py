"""Attacks of the standard evaluation, run through torchattacks: APGD and Square."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from holdfast.adversarial.accuracy import check_logits, right
from holdfast.adversarial.ball import Norm, ball
from holdfast.contracts import (
    InputError,
    check_images,
    check_labels,
    check_positive,
    chunks,
    default_chunk,
)
from holdfast.models import evaluating

__all__ = ["APGD", "Square"]


@dataclass(frozen=True)
class APGD:
    """Auto-PGD: projected gradient ascent with momentum that finds its own step size.

    Parameters
    ----------
    eps : float
        Radius ε of the ball, in pixel units on [0, 1].
    norm : {"linf", "l2"}
        The norm of ball and steps.
    loss : {"ce", "dlr"}
        What is ascended: the cross-entropy, or the difference of logits ratio, which does not
        change with the scale of the logits and so finds a gradient where the softmax saturates. It
        needs at least three classes.
    steps : int
        Number of steps.
    restarts : int
        Number of ascents of each image; an image that has been fooled is not attacked again.
    seed : int
        Seeds the random starts. All images get the same draws.
    chunk : int, optional
        How many images to take at a time; by default chosen from their size.

    Raises
    ------
    InputError
        If a setting is out of range; when called with ``loss="dlr"``, if the model has fewer than
        three classes.

    Notes
    -----
    What comes back is the last point on the way that the model gets wrong. An image that it gets
    wrong from the start, or never, comes back as it was. Points of an image do not depend on its
    batch, up to rounding.

    References
    ----------
    Croce and Hein, Reliable Evaluation of Adversarial Robustness with an Ensemble of Diverse
    Parameter-Free Attacks (ICML 2020).

    Examples
    --------
    >>> from holdfast.adversarial import accuracy
    >>> model = nn.Flatten()  # the brightest of four pixels
    >>> images, labels = torch.tensor([[[[0.9, 0.1], [0.1, 0.1]]]]), torch.tensor([0])
    >>> accuracy(model, images, labels, APGD(eps=0.3, loss="dlr"))
    1.0
    >>> accuracy(model, images, labels, APGD(eps=0.5, loss="dlr"))
    0.0
    """

    eps: float
    norm: Norm = "linf"
    loss: Literal["ce", "dlr"] = "ce"
    steps: int = 100
    restarts: int = 1
    seed: int = 0
    chunk: int | None = None

    def __post_init__(self) -> None:
        ball(self.norm, self.eps)
        check_positive(self, "steps", "restarts")
        if self.loss not in ("ce", "dlr"):
            raise InputError("APGD.loss", repr(self.loss), "'ce' or 'dlr'")

    def __call__(
        self,
        model: nn.Module,
        images: Float[Tensor, "n c h w"],
        labels: Int[Tensor, " n"],
    ) -> Float[Tensor, "n c h w"]:
        """Attack each image away from its label; the model runs in eval mode.

        Returns the attacked images, ``(N, C, H, W)`` in [0, 1].
        """
        import torchattacks  # here, because it is slow to import

        def made(seen: _Seen) -> Any:
            return torchattacks.APGD(
                seen,
                norm=_NORMS[self.norm],
                eps=self.eps,
                steps=self.steps,
                n_restarts=self.restarts,
                seed=self.seed,
                loss=self.loss,
            )

        return _run(self, made, model, images, labels, classes=3 if self.loss == "dlr" else 2)


@dataclass(frozen=True)
class Square:
    """Square attack: random search with square patches that asks for logits, never for gradients.

    Parameters
    ----------
    eps : float
        Radius ε of the ball, in pixel units on [0, 1].
    norm : {"linf", "l2"}
        The norm of the ball.
    queries : int
        How often the model may be asked about an image.
    restarts : int
        Number of searches of each image, with as many queries each; an image that has been fooled
        is not attacked again.
    seed : int
        Seeds the search. All images get the same draws.
    chunk : int, optional
        How many images to take at a time; by default chosen from their size.

    Raises
    ------
    InputError
        If a setting is out of range; when called with ``norm="l2"``, if an image is below 5 pixels
        high or wide.

    Notes
    -----
    The side of the first square is 0.9 times that of the image, the shorter one. An image that the
    model gets wrong from the start, or never, comes back as it was. Points of an image do not
    depend on its batch, up to rounding.

    References
    ----------
    Andriushchenko et al., Square Attack: a Query-Efficient Black-Box Adversarial Attack via Random
    Search (ECCV 2020).

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
        labels: Int[Tensor, " n"],
    ) -> Float[Tensor, "n c h w"]:
        """Attack each image away from its label; the model runs in eval mode.

        Returns the attacked images, ``(N, C, H, W)`` in [0, 1].
        """
        import torchattacks  # here, because it is slow to import

        check_images(images)
        height, width = images.shape[-2:]
        if self.norm == "l2":
            if min(height, width) < 5:
                came = f"{height}×{width} pixels"
                raise InputError("images", came, "at least 5×5 pixels, for Square in ℓ2")
            height, width = _tiled(height, width)
        share = 0.8 * min(height, width) / max(height, width)  # squares must fit into the image

        def made(seen: _Seen) -> Any:
            square = torchattacks.Square(
                seen,
                norm=_NORMS[self.norm],
                eps=self.eps,
                n_queries=self.queries,
                n_restarts=self.restarts,
                p_init=share,
                seed=self.seed,
            )
            # Positions from 0 to side − square, as the paper has them; torchattacks leaves the last
            # one out, and so the last row and column as they were at the start.
            upto = square.random_int
            square.random_int = lambda low, high: upto(low, high + 1)
            return square

        return _run(self, made, model, images, labels, size=(height, width))


# --- what stands between torchattacks and the rest -----------------------------------------------

_NORMS = {"linf": "Linf", "l2": "L2"}


def _run(
    attack: APGD | Square,
    made: Callable[[_Seen], Any],
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    classes: int = 2,
    size: tuple[int, int] | None = None,
) -> Tensor:
    """Attack the images that the model gets right, and make sure of what comes back.

    Where a ``size`` is given, torchattacks sees images of that size: black pixels are added, which
    the model does not see.
    """
    check_images(images)
    check_labels(labels, len(images))
    images, labels = images.detach(), labels.to(images.device, torch.long)
    attacked = images.clone()
    height, width = images.shape[-2:]
    more = (0, size[1] - width, 0, size[0] - height) if size else (0, 0)
    with evaluating(model), _generators_kept():
        for part in chunks(len(images), attack.chunk or default_chunk(images)):
            with torch.no_grad():
                logits = model(images[part])
            check_logits(logits, labels[part], classes)
            here = right(logits, labels[part]).nonzero().flatten() + part.start
            if len(here) == 0:
                continue
            with _SameDraws() as draws:
                theirs = made(_Seen(model, images, draws))
                found = theirs(F.pad(images[here], more), labels[here]).detach()
            found = found[..., :height, :width]
            found = ball(attack.norm, attack.eps).project(found, images[here])
            whole = found.isfinite().flatten(1).all(1)[:, None, None, None]
            attacked[here] = torch.where(whole, found, images[here])
    return attacked


def _tiled(height: int, width: int) -> tuple[int, int]:
    """Round the size up to one on which Square's first tiles, a fifth of the height, fit.

    It begins to lay them so that five are centred in the height, at the same distance from the left
    edge, and lays as many as the size has room for without that distance.
    """
    while True:
        tile = height // 5
        begin = (height - 5 * tile) // 2
        if tile == 1 or height % tile >= begin:
            break
        height += 1
    while tile > 1 and width % tile < begin:
        width += 1
    return height, width


class _Seen(nn.Module):
    """The model as torchattacks sees it, so that it cannot do the model harm.

    Its modes are its own, since torchattacks sets them; it has a parameter, by which torchattacks
    finds the device; its logits may be written over, as Square does; and its gradients are numbers.
    """

    def __init__(self, model: nn.Module, images: Tensor, draws: _SameDraws) -> None:
        super().__init__()
        self.place = nn.Parameter(torch.zeros((), device=images.device), requires_grad=False)
        self.ask = (model,)  # in a tuple, where nn.Module does not look for submodules
        self.draws = draws
        self.height, self.width = images.shape[-2:]

    def forward(self, images: Tensor) -> Tensor:
        images = images[..., : self.height, : self.width]  # a view of its own, for the hook below
        if not images.requires_grad:
            with self.draws.off(), torch.no_grad():
                return self.ask[0](images).clone()
        images.register_hook(lambda gradient: gradient.nan_to_num(0, 0, 0))
        with self.draws.off():
            return self.ask[0](images)


class _SameDraws(TorchFunctionMode):
    """Give all images of a batch the same random numbers, whoever else is in the batch."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        drawn = func in (torch.rand, torch.randn) and isinstance(args[0], list | tuple)
        if drawn and len(args[0]) == 4:
            count, *rest = args[0]
            return func((1, *rest)).expand(count, *rest)
        return func(*args, **(kwargs or {}))

    @contextmanager
    def off(self) -> Iterator[None]:
        """Leave the model's own draws alone."""
        self.__exit__(None, None, None)
        try:
            yield
        finally:
            self.__enter__()


@contextmanager
def _generators_kept() -> Iterator[None]:
    """Restore torch's global generators, on all devices, since torchattacks seeds them all."""
    count = torch.cuda.device_count() if torch.cuda.is_initialized() else 0
    with torch.random.fork_rng(devices=range(count)):
        yield
