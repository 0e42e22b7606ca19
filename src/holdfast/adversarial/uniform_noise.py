"""Random noise: the control that every attack must beat."""

from __future__ import annotations

from dataclasses import dataclass

from jaxtyping import Float, Integer
from torch import Tensor, nn

from holdfast.adversarial.ball import Norm, ball
from holdfast.contracts import check_images, check_labels, checked, generators

__all__ = ["UniformNoise"]


@dataclass(frozen=True)
@checked
class UniformNoise:
    """A random point of the ball around each image: what chance does where an attack searches.

    The point is uniform in the ball and then clipped to [0, 1], so that a black pixel stays black
    in half of all draws.

    Parameters
    ----------
    eps : float
        Radius ε of the ball, in pixel units on [0, 1].
    norm : {"linf", "l2"}
        The norm of the ball.
    seed : int, optional
        Draw the noise of an image from this seed and the image's content alone, the same in any
        batch. By default it comes from torch's global generator.

    Raises
    ------
    InputError
        If ``eps`` is below 0 or the norm is another.

    Examples
    --------
    >>> import torch
    >>> images, labels = torch.full((2, 1, 8, 8), 0.5), torch.tensor([0, 1])
    >>> noisy = UniformNoise(eps=0.1, seed=0)(nn.Flatten(), images, labels)
    >>> bool((noisy - images).abs().max() <= 0.1)
    True
    """

    eps: float
    norm: Norm = "linf"
    seed: int | None = None

    def __post_init__(self) -> None:
        ball(self.norm, self.eps)

    def __call__(
        self,
        model: nn.Module,
        images: Float[Tensor, "n c h w"],
        labels: Integer[Tensor, " n"],
    ) -> Float[Tensor, "n c h w"]:
        """Add noise to each image, ``(N, C, H, W)`` in [0, 1]; the model is not asked."""
        check_images(images)
        check_labels(labels, len(images))
        images = images.detach()
        own = None if self.seed is None else generators(images, self.seed)
        around = ball(self.norm, self.eps)
        return around.project(around.start(images, own), images)
