"""How far smoothing brings maps to the decision boundaries nearby, over how much is smoothed."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from jaxtyping import Float64
from torch import Tensor, nn

from holdfast.attributions import BoundarySmoothGrad, resolve_targets
from holdfast.audit.measures import spread
from holdfast.contracts import Batch, InputError, checked
from holdfast.metrics import map_distance
from holdfast.models import evaluating

__all__ = ["SmoothedAlignment"]


@dataclass(frozen=True)
@checked
class SmoothedAlignment:
    """How far SmoothGrad is from its boundary variant, in ℓ2, for several amounts of noise.

    ``sg_bsg/σ`` is ‖SG − BSG‖₂ under noise of standard deviation σ: the mean gradients over the
    same noisy copies at the image and where the smoothed classifier gives another class, both of
    the predicted class. Theorem 1 has it shrink as σ grows. An image without such a point has no
    value; ``found/σ`` is 1 for an image that has one, else 0.

    Parameters
    ----------
    noises : tuple of float
        The σ, in pixel units on [0, 1]. Measures are named by them.
    method : BoundarySmoothGrad
        How points are searched for and how many copies there are; its own ``noise`` is not used.

    Raises
    ------
    InputError
        If there is no σ, one is not above 0, or two are the same.

    Notes
    -----
    The published search goes on until nearly no copy keeps its class, and the more noise there is,
    the farther that is from the image: so the distance may grow with σ where at the boundary of the
    mean logits, with a `BoundarySearch`, it shrinks.

    References
    ----------
    Wang et al., Robust Models Are More Interpretable Because Attributions Look Normal (ICLR 2022),
    theorem 1, figure 10 and appendix B.5.

    Examples
    --------
    >>> import torch
    >>> model = nn.Sequential(nn.Flatten(), nn.Linear(4, 2))
    >>> batch = Batch(images=torch.rand(3, 1, 2, 2), labels=torch.tensor([0, 1, 0]))
    >>> list(SmoothedAlignment(noises=(0.1, 0.3))(model, batch))
    ['sg_bsg/0.1', 'found/0.1', 'sg_bsg/0.3', 'found/0.3']
    """

    noises: tuple[float, ...] = (0.05, 0.1, 0.15, 0.25, 0.5)
    method: BoundarySmoothGrad = BoundarySmoothGrad()

    def __post_init__(self) -> None:
        names = {f"{noise:g}" for noise in self.noises}
        if not self.noises or min(self.noises) <= 0 or len(names) < len(self.noises):
            expected = "different numbers above 0, at least one"
            raise InputError("SmoothedAlignment.noises", self.noises, expected)

    def __call__(self, model: nn.Module, batch: Batch) -> dict[str, Float64[Tensor, " n"]]:
        """Return the distance of each image, ``(N,)``, and whether it has one, for each σ."""
        images, measures = batch["images"], dict[str, Tensor]()
        with evaluating(model):
            targets = resolve_targets(model, images, None)
            for noise in self.noises:
                method = dataclasses.replace(self.method, noise=noise)
                boundary = method.boundary(model, images)
                here = method.smooth_gradient(model, images, targets)
                there = method.smooth_gradient(model, boundary.points, targets)
                found = boundary.found
                distance = {f"sg_bsg/{noise:g}": map_distance(here, there)[found]}
                measures |= spread(distance, found) | {f"found/{noise:g}": found.double()}
        return measures
