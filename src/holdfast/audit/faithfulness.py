"""Faithfulness: what the model says when the pixels that a map names first go, or come back."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float, Float64, Integer
from torch import Tensor, nn
from torchvision.transforms.v2 import functional as tv

from holdfast.attributions.target import resolve_targets, select_output
from holdfast.audit.removal import check_maps, rank_pixels
from holdfast.contracts import (
    InputError,
    check_images,
    check_positive,
    checked,
    chunks,
    default_chunk,
)
from holdfast.models import classify, evaluating

__all__ = ["Deletion", "Insertion"]


@dataclass(frozen=True)
@checked
class Deletion:
    """Deletion: the probability of the class while the most important pixels are blotted out.

    A faithful map makes it fall at once: the lower the area under the curve, the better.

    Parameters
    ----------
    steps : int
        In how many equal parts the pixels go, most important first.
    value : float
        What they become, in [0, 1].
    chunk : int, optional
        How many images to take at a time; by default chosen from their size.

    Raises
    ------
    InputError
        If a setting is out of range.

    References
    ----------
    Petsiuk et al., RISE: Randomized Input Sampling for Explanation of Black-box Models (BMVC 2018).

    Examples
    --------
    >>> model = nn.Sequential(nn.Flatten(), nn.Linear(16, 2))
    >>> images = torch.rand(3, 1, 4, 4)
    >>> area = Deletion(steps=8)(model, images, maps=torch.rand(3, 1, 4, 4))
    >>> area.shape
    torch.Size([3])
    """

    steps: int = 50
    value: float = 0.0
    chunk: int | None = None

    def __post_init__(self) -> None:
        check_positive(self, "steps")
        if not 0 <= self.value <= 1:
            raise InputError("Deletion.value", self.value, "a number in [0, 1]")
        if self.chunk is not None:
            check_positive(self, "chunk")

    def __call__(
        self,
        model: nn.Module,
        images: Float[Tensor, "n c h w"],
        maps: Float[Tensor, "n d h w"],
        targets: Integer[Tensor, " n"] | None = None,
    ) -> Float64[Tensor, " n"]:
        """Return the area under the curve of each image, ``(N,)`` in [0, 1]."""
        return _area(self.curve(model, images, maps, targets), _counts(self.steps, maps))

    def curve(
        self,
        model: nn.Module,
        images: Float[Tensor, "n c h w"],
        maps: Float[Tensor, "n d h w"],
        targets: Integer[Tensor, " n"] | None = None,
    ) -> Float64[Tensor, "n s"]:
        """Return the probability of the class from no pixel gone to all, ``(N, steps + 1)``.

        Parameters
        ----------
        model : Module
            The classifier; it runs in eval mode.
        images : Tensor
            The images ``(N, C, H, W)`` in [0, 1].
        maps : Tensor
            What explains them, of any number of channels. Their pixel scores, which do not know a
            sign, give the order; of equal pixels those that come first in the image go first.
        targets : Tensor, optional
            The class of each image ``(N,)``; by default the predicted one.

        Raises
        ------
        InputError
            If images, maps or targets are not as above, or there are more steps than pixels.
        """
        return _curve(self, model, images, maps, targets, lambda x: (x, self.value))


@dataclass(frozen=True)
@checked
class Insertion:
    """Insertion: the probability of the class while a blurred image gets its pixels back.

    A faithful map makes it rise at once: the higher the area under the curve, the better.

    Parameters
    ----------
    steps : int
        In how many equal parts the pixels come, most important first.
    sigma : float
        Standard deviation in pixels of the Gaussian that blurs the image; 5 pixels suit
        photographs of 224×224. Its kernel is cut at 3σ, and the image mirrored at its border.
    chunk : int, optional
        How many images to take at a time; by default chosen from their size.

    Raises
    ------
    InputError
        If a setting is out of range.

    References
    ----------
    Petsiuk et al., RISE: Randomized Input Sampling for Explanation of Black-box Models (BMVC 2018).

    Examples
    --------
    >>> model = nn.Sequential(nn.Flatten(), nn.Linear(16, 2))
    >>> images = torch.rand(3, 1, 4, 4)
    >>> area = Insertion(steps=8, sigma=1.0)(model, images, maps=torch.rand(3, 1, 4, 4))
    >>> area.shape
    torch.Size([3])
    """

    steps: int = 50
    sigma: float = 5.0
    chunk: int | None = None

    def __post_init__(self) -> None:
        check_positive(self, "steps", "sigma")
        if self.chunk is not None:
            check_positive(self, "chunk")

    def __call__(
        self,
        model: nn.Module,
        images: Float[Tensor, "n c h w"],
        maps: Float[Tensor, "n d h w"],
        targets: Integer[Tensor, " n"] | None = None,
    ) -> Float64[Tensor, " n"]:
        """Return the area under the curve of each image, ``(N,)`` in [0, 1]."""
        return _area(self.curve(model, images, maps, targets), _counts(self.steps, maps))

    def curve(
        self,
        model: nn.Module,
        images: Float[Tensor, "n c h w"],
        maps: Float[Tensor, "n d h w"],
        targets: Integer[Tensor, " n"] | None = None,
    ) -> Float64[Tensor, "n s"]:
        """Return the probability of the class from no pixel back to all, ``(N, steps + 1)``.

        Arguments and errors are those of `Deletion.curve`; the class is predicted from the image
        as it is, not from the blurred one.
        """
        return _curve(self, model, images, maps, targets, lambda x: (_blur(x, self.sigma), x))


def _curve(
    method: Deletion | Insertion,
    model: nn.Module,
    images: Tensor,
    maps: Tensor,
    targets: Tensor | None,
    ends: Callable[[Tensor], tuple[Tensor, Tensor | float]],
) -> Float64[Tensor, "n s"]:
    """Go from the first of ``ends`` to the second, and watch the probability of the class."""
    check_images(images)
    check_maps(maps, images)
    ranks = rank_pixels(maps.detach())[:, None].to(images.device)
    counts = _counts(method.steps, maps)
    curves = []
    with evaluating(model), torch.no_grad():
        targets = resolve_targets(model, images, targets, method.chunk)
        for part in chunks(len(images), method.chunk or default_chunk(images)):
            before, after = ends(images[part])
            steps = [
                select_output(
                    classify(model, torch.where(ranks[part] < count, after, before)),
                    targets[part],
                    "probability",
                )
                for count in counts.tolist()
            ]
            curves.append(torch.stack(steps, dim=1).double())
    return torch.cat(curves)


def _counts(steps: int, maps: Tensor) -> Integer[Tensor, " s"]:
    """How many pixels are exchanged from step to step: from none to all."""
    pixels = maps.shape[2] * maps.shape[3]
    if steps > pixels:
        raise InputError("steps", steps, f"at most {pixels}, the pixels of a map")
    return torch.tensor([pixels * step // steps for step in range(steps + 1)])


def _area(curves: Float64[Tensor, "n s"], counts: Integer[Tensor, " s"]) -> Float64[Tensor, " n"]:
    """Trapezoids below the curve, over the share of pixels exchanged."""
    shares = counts.to(curves) / counts[-1]
    return torch.trapezoid(curves, shares, dim=1)


def _blur(images: Float[Tensor, "n c h w"], sigma: float) -> Float[Tensor, "n c h w"]:
    # A mirror is at most as long as the image.
    reach = [min(round(3 * sigma), side - 1) for side in images.shape[:1:-1]]
    return tv.gaussian_blur(images, [2 * r + 1 for r in reach], [sigma, sigma])
