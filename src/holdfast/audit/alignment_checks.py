"""Checks of alignment: of the gradient with the image, and of maps with decision boundaries."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float64
from torch import Tensor, nn

from holdfast.adversarial import BoundaryPipeline, BoundarySearch
from holdfast.attributions import (
    AdversarialGradientIntegration,
    Gradient,
    IntegratedGradients,
    input_gradient,
    integrate,
    path_points,
    resolve_targets,
)
from holdfast.audit.measures import spread
from holdfast.contracts import Batch, check_positive, checked, chunks, default_chunk, same_draws
from holdfast.metrics import input_alignment, input_cosine, map_distance
from holdfast.models import Anchor, at_anchor, evaluating

__all__ = ["BoundaryAlignment", "ImageAlignment"]


@dataclass(frozen=True)
@checked
class ImageAlignment:
    """How far gradients point along the image: two published quantities, side by side.

    ``alignment`` is |⟨x, ∇Ψ⟩| / ‖∇Ψ‖₂, with Ψ the logit of the predicted class and x the pixels, in
    their units; ``absolute_cosine`` is that divided by ‖x‖₂, from 0 to 1 (Etmann et al.).

    ``signed_cosine`` is ⟨x, g⟩ / (‖x‖₂‖g‖₂), with g the gradient of the true class's logit and x
    what the model is aligned with, from −1 to 1 (ECCV 2020). The two may order models differently.

    Where the gradient or the image is zero, all three are 0.

    Parameters
    ----------
    anchor : {"normalized", "pixels"}
        The x of ``signed_cosine``, which g is taken with respect to, as in `ART`: the model's
        normalized input, or the pixels. A model without `Normalized` or `Standardized` around it
        has but its pixels.

    References
    ----------
    Etmann et al., On the Connection Between Adversarial Robustness and Saliency Map
    Interpretability (ICML 2019). Attributional Robustness Training using Input-Gradient Spatial
    Alignment (ECCV 2020), figure 6.

    Examples
    --------
    >>> model = nn.Sequential(nn.Flatten(), nn.Linear(2, 2))
    >>> model[1].weight.data = torch.tensor([[0.0, 5.0], [-1.0, 0.0]])
    >>> batch = Batch(images=torch.tensor([[[[0.6, 0.8]]]]), labels=torch.tensor([1]))
    >>> {name: round(float(value), 3) for name, value in ImageAlignment()(model, batch).items()}
    {'alignment': 0.8, 'absolute_cosine': 0.8, 'signed_cosine': -0.6}
    """

    anchor: Anchor = "normalized"

    def __call__(self, model: nn.Module, batch: Batch) -> dict[str, Float64[Tensor, " n"]]:
        """Return the three measures of each image, ``(N,)``."""
        images, labels = batch["images"], batch["labels"]
        pixels, of_prediction = images.double(), Gradient()(model, images).double()
        with evaluating(model), torch.no_grad():
            seen, inside = at_anchor(model, images, self.anchor)
            of_truth = [
                input_gradient(inside, seen[part], labels[part])
                for part in chunks(len(images), default_chunk(images))
            ]
        return {
            "alignment": input_alignment(pixels, of_prediction),
            "absolute_cosine": input_cosine(pixels, of_prediction).abs(),
            "signed_cosine": input_cosine(seen.double(), torch.cat(of_truth).double()),
        }


@dataclass(frozen=True)
@checked
class BoundaryAlignment:
    """How far maps of the predicted class are from their boundary variants, in ℓ2.

    ``sm_bsm`` is ‖SM − BSM‖₂, between the gradient at the image and at the nearest boundary;
    ``ig_big`` is ‖IG − BIG‖₂, between Integrated Gradients from black and from that boundary;
    ``ig_agi`` is ‖IG − AGI‖₂. The closer, the better maps tell of the boundaries nearby. An image
    without a boundary, or with no path of AGI to another class, has no value.

    Parameters
    ----------
    search : BoundarySearch or BoundaryPipeline
        How the nearest boundary is found, once for both variants.
    steps : int
        Points on the path from the boundary for BIG.
    integrated_gradients : IntegratedGradients
        What is compared with BIG and AGI; by default with 20 points and the trapezoid rule, as
        published (appendix B.3) and as BIG has them.
    agi : AdversarialGradientIntegration
        The settings of AGI.

    References
    ----------
    Wang et al., Robust Models Are More Interpretable Because Attributions Look Normal (ICLR 2022),
    section 5.1.

    Examples
    --------
    >>> model = nn.Sequential(nn.Flatten(), nn.Linear(4, 2))
    >>> batch = Batch(images=torch.rand(3, 1, 2, 2), labels=torch.tensor([0, 1, 0]))
    >>> measures = BoundaryAlignment()(model, batch)
    >>> list(measures), measures["sm_bsm"].shape
    (['sm_bsm', 'ig_big', 'ig_agi'], torch.Size([3]))
    """

    search: BoundarySearch | BoundaryPipeline = BoundarySearch()
    steps: int = 20
    integrated_gradients: IntegratedGradients = IntegratedGradients(steps=20, rule="trapezoid")
    agi: AdversarialGradientIntegration = AdversarialGradientIntegration()

    def __post_init__(self) -> None:
        check_positive(self, "steps")

    def __call__(self, model: nn.Module, batch: Batch) -> dict[str, Float64[Tensor, " n"]]:
        """Return the three distances of each image, ``(N,)``."""
        images = batch["images"]
        with evaluating(model):
            targets = resolve_targets(model, images, None)
            saliency = Gradient()(model, images, targets)
            ig = self.integrated_gradients(model, images, targets)
            agi, reached = self.agi.with_found(model, images, targets)
            boundary = self.search(model, images)
            with same_draws(images, boundary.points):
                bsm, big = self._from_boundary(model, images, boundary.points, targets)
        found = boundary.found
        return {
            **spread({"sm_bsm": map_distance(saliency, bsm)[found]}, found),
            **spread({"ig_big": map_distance(ig, big)[found]}, found),
            **spread({"ig_agi": map_distance(ig, agi)[reached]}, reached),
        }

    def _from_boundary(
        self, model: nn.Module, images: Tensor, points: Tensor, targets: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Return BSM and BIG of boundary points that are known."""
        positions, weights = path_points("trapezoid", self.steps, images)
        big = integrate(model, images, points, targets, positions, weights)
        return Gradient()(model, points, targets), big
