"""Gradient descent without gradients: SPSA estimates them from the model's answers."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Integer
from torch import Tensor, nn

from holdfast.adversarial.accuracy import correct
from holdfast.adversarial.ball import Norm, ball
from holdfast.adversarial.margin import margin
from holdfast.contracts import check_positive, checked, chunks, default_chunk, generators
from holdfast.models import classify, evaluating

__all__ = ["SPSA"]


@dataclass(frozen=True)
@checked
class SPSA:
    """Simultaneous perturbation stochastic approximation: an attack that needs no gradient.

    Each step perturbs the whole image by random signs ``±delta``, in both directions, sees how the
    margin between the label's logit and the highest other changes, averages over ``samples`` of
    such pairs, and lets Adam go down what it then takes for the gradient. An image is done when the
    model gets it wrong.

    Parameters
    ----------
    eps : float
        Radius ε of the ball, in pixel units on [0, 1].
    norm : {"linf", "l2"}
        The norm of the ball.
    steps : int
        Number of steps.
    samples : int
        Pairs of perturbed images a step. The model is asked up to ``steps · (2 · samples + 1)``
        times an image.
    delta : float
        Size of the perturbation by which the gradient is estimated, in pixel units. The model sees
        nothing outside [0, 1].
    step_size : float
        Adam's learning rate, about the length of a step in a pixel.
    seed : int
        Draws of an image depend on this and on the image's content alone.
    chunk : int, optional
        How many perturbed images to take at a time; by default chosen from their size. Images
        themselves are attacked one by one.

    Raises
    ------
    InputError
        If a setting is out of range.

    Notes
    -----
    An image that the model gets wrong from the start comes back as it was, one that it always gets
    right where the descent ended.

    References
    ----------
    Uesato et al., Adversarial Risk and the Dangers of Evaluating Against Weak Attacks (ICML 2018).

    Examples
    --------
    >>> from holdfast.adversarial import accuracy
    >>> model = nn.Flatten()  # the brightest of four pixels
    >>> images, labels = torch.tensor([[[[0.9, 0.1], [0.1, 0.1]]]]), torch.tensor([0])
    >>> accuracy(model, images, labels, SPSA(eps=0.3))
    1.0
    >>> accuracy(model, images, labels, SPSA(eps=0.5))
    0.0
    """

    eps: float
    norm: Norm = "linf"
    steps: int = 100
    samples: int = 128
    delta: float = 0.01
    step_size: float = 0.01
    seed: int = 0
    chunk: int | None = None

    def __post_init__(self) -> None:
        ball(self.norm, self.eps)
        check_positive(self, "steps", "samples", "delta", "step_size")

    def __call__(
        self,
        model: nn.Module,
        images: Float[Tensor, "n c h w"],
        labels: Integer[Tensor, " n"],
    ) -> Float[Tensor, "n c h w"]:
        """Attack each image away from its label; the model runs in eval mode.

        Returns the attacked images, ``(N, C, H, W)`` in [0, 1].
        """
        here = correct(model, images, labels).nonzero().flatten()
        attacked, labels = images.detach().clone(), labels.to(images.device, torch.long)
        if len(here) == 0:
            return attacked
        dice = generators(attacked[here], self.seed)
        with evaluating(model), torch.no_grad():
            for n, die in zip(here.tolist(), dice, strict=True):
                attacked[n] = self._descend(model, attacked[n : n + 1], labels[n : n + 1], die)[0]
        return attacked

    def _descend(
        self, model: nn.Module, image: Tensor, label: Tensor, die: torch.Generator
    ) -> Tensor:
        around = ball(self.norm, self.eps)
        x = image.clone()
        adam = torch.optim.Adam([x], lr=self.step_size)
        for _ in range(self.steps):
            x.grad = self._gradient(model, x, label, die)
            adam.step()
            x.copy_(around.project(x, image))
            if not margin(classify(model, x), label) > 0:
                break
        return x

    def _gradient(self, model: nn.Module, x: Tensor, label: Tensor, die: torch.Generator) -> Tensor:
        """Average the slope of the margin along random directions of signs."""
        shape = (self.samples, *x.shape[1:])
        # Drawn on the CPU, so that an image gets the same directions on every device.
        signs = (torch.randint(0, 2, shape, generator=die) * 2 - 1).to(x)
        total = torch.zeros_like(x)
        for part in chunks(self.samples, self.chunk or default_chunk(x, copies=2)):
            way = signs[part]
            both = torch.cat([x + self.delta * way, x - self.delta * way]).clamp(0, 1)
            up, down = margin(classify(model, both), label.expand(len(both))).chunk(2)
            slope = ((up - down) / (2 * self.delta)).nan_to_num(0, 0, 0)
            total += torch.einsum("s,schw->chw", slope, way)
        return total / self.samples
