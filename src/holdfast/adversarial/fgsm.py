"""The fast gradient sign method, the cheapest attack there is."""

from __future__ import annotations

from dataclasses import dataclass

from jaxtyping import Float, Integer
from torch import Tensor, nn

from holdfast.adversarial.ball import ball
from holdfast.adversarial.pgd import PGD
from holdfast.adversarial.slope import warn_if_stuck
from holdfast.contracts import checked

__all__ = ["FGSM"]


@dataclass(frozen=True)
@checked
class FGSM:
    """Fast gradient sign method: one step of length ε along the sign of the loss's gradient.

    Parameters
    ----------
    eps : float
        Length ε of the step, in pixel units on [0, 1]; the ℓ∞ distance that no pixel exceeds.
    chunk : int, optional
        How many images to take at a time; by default chosen from their size.

    Raises
    ------
    InputError
        If ``eps`` is below 0.

    References
    ----------
    Goodfellow et al., Explaining and Harnessing Adversarial Examples (ICLR 2015).

    Examples
    --------
    >>> import torch
    >>> model = nn.Sequential(nn.Flatten(), nn.Linear(2, 2))
    >>> model[1].weight.data = torch.tensor([[1.0, -1.0], [0.0, 0.0]])
    >>> FGSM(eps=0.25)(model, torch.full((1, 1, 1, 2), 0.5), torch.tensor([0]))
    tensor([[[[0.2500, 0.7500]]]])
    """

    eps: float
    chunk: int | None = None

    def __post_init__(self) -> None:
        ball("linf", self.eps)

    def __call__(
        self,
        model: nn.Module,
        images: Float[Tensor, "n c h w"],
        labels: Integer[Tensor, " n"],
    ) -> Float[Tensor, "n c h w"]:
        """Move each image one step away from its label; the model runs in eval mode.

        Returns the moved images, ``(N, C, H, W)`` in [0, 1].
        """
        attacked, stuck = self.with_stuck(model, images, labels)
        warn_if_stuck(self, stuck)
        return attacked

    def with_stuck(
        self,
        model: nn.Module,
        images: Float[Tensor, "n c h w"],
        labels: Integer[Tensor, " n"],
    ) -> tuple[Float[Tensor, "n c h w"], Float[Tensor, " n"]]:
        """Return the moved images, and 1 where there was no direction, else 0; no warning."""
        step = PGD(self.eps, self.eps, steps=1, random_start=False, chunk=self.chunk)
        return step.with_stuck(model, images, labels)
