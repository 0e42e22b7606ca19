"""The targeted attack: make the map look like any other map."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from jaxtyping import Float, Integer
from torch import Tensor, nn

from holdfast.contracts import (
    Attribution,
    InputError,
    Outcome,
    check_images,
    check_positive,
    checked,
    same_draws,
)
from holdfast.manipulation.descent import Loss, check_settings, descend
from holdfast.manipulation.judge import Judge
from holdfast.metrics import pixel_scores
from holdfast.models import classify

__all__ = ["Targeted", "far_scores", "others", "shares"]


@dataclass(frozen=True)
@checked
class Targeted:
    """Make the map look like another image's map, in an ℓ∞ ball, output kept.

    Each step descends ``‖A(x) − A_target‖² + γ‖f(x) − f(x₀)‖²``, where maps are pixel scores scaled
    to a mean of 1, and f is the classifier's probabilities. The sharpness β of the softplus
    surrogate grows from step to step, geometrically. Of all images on the way that keep the label,
    the one whose map has the lowest Kendall τ with the original map comes back.

    Parameters
    ----------
    attribution : Attribution
        The explanation under attack. It must be differentiable.
    eps : float
        Radius ε of the ℓ∞ ball, in pixel units on [0, 1].
    step_size : float
        Length α of a step.
    steps : int
        Number of steps.
    target : Tensor, optional
        The image whose map is the target, explained for the class that the model sees in it:
        ``(C, H, W)``, or one for each image, ``(N, C, H, W)``, in [0, 1]. By default the target is
        the image's own map, moved by half its height and width, so that the middle becomes the
        corners.
    shuffled : bool
        Whether the target is the map of another image instead, which `others` draws by ``seed``: of
        those that the attack is called with, of which there must be several. An audit draws it of
        all images of its data set, so that an image has the same one whatever the shards, and also
        measures how similar its map is to that one, before and after.
    weight : float
        γ, what keeping the output counts.
    betas : tuple of float
        Sharpness of the surrogate at the first and the last step.
    momentum : float
        How much of the last step's direction remains in the next.
    margin : float
        Where the label's lead in logits falls below this share of what it was, a step leads back up
        instead of down the loss.
    path_samples : int, optional
        Estimate maps that average over many inputs from so many, drawn anew each step; see `TopK`.
    judge_every : int
        Judge the map after every so many steps, and after the last.
    seed : int
        Draws of an image depend on this and on the image's content alone.
    chunk : int, optional
        How many images to take at a time; by default chosen from their size and the path's length.

    Raises
    ------
    InputError
        If a setting is out of range, ``path_samples`` is given for an attribution that has nothing
        to sample, ``target`` does not fit the images, or it is given and ``shuffled``, too. When
        called: if there is no other image to be shuffled with.

    References
    ----------
    Dombrowski et al., Explanations can be manipulated and geometry is to blame (NeurIPS 2019);
    Attributional Robustness Training (ECCV 2020), section 5, which shuffles 1,000 images of the
    test set, and appendix, figure 10.

    Examples
    --------
    >>> from holdfast.attributions import Gradient
    >>> model = nn.Sequential(nn.Flatten(), nn.Linear(64, 16), nn.ReLU(), nn.Linear(16, 2))
    >>> images, other = torch.rand(2, 1, 8, 8), torch.rand(1, 8, 8)
    >>> manipulate = Targeted(Gradient(), eps=0.1, step_size=0.02, steps=5, target=other)
    >>> outcome = manipulate(model, images, model(images).argmax(1))
    >>> bool((outcome.similarity <= 1).all())
    True
    """

    attribution: Attribution
    eps: float
    step_size: float
    steps: int
    target: Tensor | None = field(default=None, hash=False, compare=False)
    shuffled: bool = False
    weight: float = 10.0
    betas: tuple[float, float] = (10.0, 100.0)
    momentum: float = 0.0
    margin: float = 0.0
    path_samples: int | None = None
    judge_every: int = 1
    seed: int = 0
    chunk: int | None = None

    def __post_init__(self) -> None:
        check_positive(self, "weight", zero=True)
        check_settings(self)
        if not min(self.betas) > 0:
            raise InputError("Targeted.betas", self.betas, "two numbers above 0")
        if self.target is not None:
            if self.shuffled:
                raise InputError("Targeted.shuffled", True, "False where there is a target")
            whole = self.target if self.target.ndim == 4 else self.target[None]
            check_images(whole, "Targeted.target")

    def __call__(
        self,
        model: nn.Module,
        images: Float[Tensor, "n c h w"],
        labels: Integer[Tensor, " n"],
    ) -> Outcome:
        """Manipulate the map of each image's label; the model runs in eval mode."""
        check_images(images)
        targets = self._targets(images)

        def prepare(judge: Judge, part: slice) -> Loss:
            with torch.no_grad():
                output = classify(model, judge.images).softmax(1)
            if targets is None:
                wanted = far_scores(judge.maps)
            else:
                with same_draws(judge.images, targets[part]):
                    wanted = shares(pixel_scores(self.attribution(model, targets[part])))

            def loss(maps: Tensor, x: Tensor, _: int) -> Tensor:
                distance = (shares(pixel_scores(maps)) - wanted).square().mean(1)
                return distance + self.weight * _change(model, x, output)

            return loss

        first, last = self.betas
        growth = (last / first) ** (1 / max(1, self.steps - 1))
        return descend(self, model, images, labels, prepare, beta=lambda step: first * growth**step)

    def _targets(self, images: Tensor) -> Tensor | None:
        if self.shuffled:
            return images[others(len(images), self.seed)].detach()
        if self.target is None:
            return None
        if self.target.shape not in (images.shape, images.shape[1:]):
            expected = f"shape {tuple(images.shape[1:])} or {tuple(images.shape)}, as the images"
            raise InputError("Targeted.target", f"shape {tuple(self.target.shape)}", expected)
        return self.target.to(images).expand_as(images)


def others(count: int, seed: int) -> list[int]:
    """Draw for each of ``count`` images another one, all of them different.

    Raises
    ------
    InputError
        If there is one image alone.

    Examples
    --------
    >>> others(5, seed=0)
    [1, 3, 4, 2, 0]
    """
    if count == 1:
        expected = "several, each of which can have the map of another for its target"
        raise InputError("images", "one", expected)
    order = torch.randperm(count, generator=torch.Generator().manual_seed(seed))
    drawn = torch.empty_like(order)
    drawn[order] = order.roll(-1)
    return drawn.tolist()


def _change(model: nn.Module, x: Tensor, output: Tensor) -> Tensor:
    """Return how far the probabilities are from what they were, squared and summed."""
    return (classify(model, x).softmax(1) - output).square().sum(1)


def shares(scores: Float[Tensor, "n p"]) -> Float[Tensor, "n p"]:
    """Scale pixel scores to a mean of 1; a map without any importance stays as it is.

    Examples
    --------
    >>> shares(torch.tensor([[1.0, 3.0]]))
    tensor([[0.5000, 1.5000]])
    """
    mean = scores.mean(1, keepdim=True)
    return scores / torch.where(mean > 0, mean, 1)


def far_scores(maps: Float[Tensor, "n c h w"]) -> Float[Tensor, "n p"]:
    """Make a target that is far from a map: itself, moved by half its height and width.

    Examples
    --------
    >>> far_scores(torch.tensor([[[[3.0, 0.0], [0.0, 1.0]]]]))
    tensor([[1., 0., 0., 3.]])
    """
    height, width = maps.shape[-2:]
    return shares(pixel_scores(maps.roll((height // 2, width // 2), (-2, -1))))
