"""Where a map points: along the image, along another map, and at which place in it."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from holdfast.contracts import InputError, check_same_shape
from holdfast.metrics.scores import check_finite

__all__ = ["input_alignment", "input_cosine", "map_distance", "mass_centre"]


def input_alignment(
    images: Float[Tensor, "n c h w"], gradients: Float[Tensor, "n c h w"]
) -> Float[Tensor, " n"]:
    """Return the length of the image along its gradient: |⟨x, ∇Ψ⟩| / ‖∇Ψ‖₂.

    For a classifier that is linear around the image this is the distance to the boundary (Etmann
    et al., *On the Connection Between Adversarial Robustness and Saliency Map Interpretability*,
    2019); the more robust the model, the larger it is.

    Parameters
    ----------
    images : Tensor
        The images x ``(N, C, H, W)``, as the gradient was taken: pixels, or normalized input.
    gradients : Tensor
        ∇Ψ at them, of the same shape.

    Returns
    -------
    Tensor
        ``(N,)``, at least 0, in the units of the images; 0 where the gradient is zero.

    Raises
    ------
    InputError
        If the shapes differ or are not ``(N, C, H, W)``, or values are NaN or infinite.

    Examples
    --------
    >>> images = torch.tensor([[[[0.6, 0.8]]]])
    >>> input_alignment(images, gradients=torch.tensor([[[[0.0, -5.0]]]]))
    tensor([0.8000])
    """
    _check(images, gradients)
    return (images.flatten(1) * _unit(gradients)).sum(1).abs()


def input_cosine(
    images: Float[Tensor, "n c h w"], gradients: Float[Tensor, "n c h w"]
) -> Float[Tensor, " n"]:
    """Return the cosine between the image and its gradient: ⟨x, g⟩ / (‖x‖₂‖g‖₂), with its sign.

    What ART raises, and what figure 6 of *Attributional Robustness Training using Input-Gradient
    Spatial Alignment* (ECCV 2020) shows, with g the gradient of the true class's logit and x the
    input that the gradient is taken with respect to.

    Parameters
    ----------
    images : Tensor
        The images x ``(N, C, H, W)``, as the gradient was taken: pixels, or normalized input.
    gradients : Tensor
        g at them, of the same shape.

    Returns
    -------
    Tensor
        ``(N,)``, from −1 to 1; 0 where the image or the gradient is zero.

    Raises
    ------
    InputError
        If the shapes differ or are not ``(N, C, H, W)``, or values are NaN or infinite.

    Examples
    --------
    >>> images = torch.tensor([[[[0.6, 0.8]]]])
    >>> input_cosine(images, gradients=torch.tensor([[[[0.0, -5.0]]]]))
    tensor([-0.8000])
    """
    _check(images, gradients)
    return (_unit(images) * _unit(gradients)).sum(1)


def map_distance(
    first: Float[Tensor, "n c h w"], second: Float[Tensor, "n c h w"]
) -> Float[Tensor, " n"]:
    """Return the ℓ2 distance of two maps: ‖A − B‖₂ over all channels and pixels.

    Between a map and its boundary variant, the saliency map and `BoundarySaliency` or integrated
    gradients and `BoundaryIntegratedGradients` or `AGI`, it says how well the map is aligned with
    the normals of the decision boundaries nearby: the closer, the better (Wang et al., *Robust
    Models Are More Interpretable Because Attributions Look Normal*, 2022, section 5.1).

    Parameters
    ----------
    first, second : Tensor
        The two maps of each image ``(N, C, H, W)``, as they came, not scaled.

    Returns
    -------
    Tensor
        ``(N,)``, at least 0, in the units of the maps. Differentiable; where both are equal, with
        gradient 0.

    Raises
    ------
    InputError
        If the shapes differ or are not ``(N, C, H, W)``, or values are NaN or infinite.

    Examples
    --------
    >>> map_distance(torch.zeros(1, 1, 1, 2), torch.tensor([[[[3.0, -4.0]]]]))
    tensor([5.])
    """
    if first.ndim != 4 or 0 in first.shape[1:]:
        raise InputError("first", f"shape {tuple(first.shape)}", "shape (N, C, H, W)")
    check_same_shape(first, second, ("first", "second"))
    check_finite(first, "first")
    check_finite(second, "second")
    difference = (first - second).flatten(1)
    # Scaled first: squares of tiny differences would underflow, and those of huge ones overflow.
    largest = difference.detach().abs().amax(1, keepdim=True)
    scale = torch.where(largest > 0, largest, 1)
    return (difference / scale).norm(dim=1) * scale.squeeze(1)


def mass_centre(scores: Float[Tensor, "n p"], shape: tuple[int, int]) -> Float[Tensor, "n 2"]:
    """Return the centre of mass of pixel scores.

    Parameters
    ----------
    scores : Tensor
        Pixel scores ``(N, H·W)``, none of them negative.
    shape : tuple of int
        Height and width (H, W) of the map.

    Returns
    -------
    Tensor
        ``(N, 2)``, row and column (y, x) in pixels, the first pixel's being (0, 0). A map without
        any mass has its centre in the middle of the image, ((H − 1)/2, (W − 1)/2). Differentiable.

    Raises
    ------
    InputError
        If the scores are no matrix of H·W columns, are NaN, infinite or negative.

    Examples
    --------
    >>> mass_centre(torch.tensor([[0.0, 1.0, 0.0, 3.0]]), shape=(2, 2))
    tensor([[0.7500, 1.0000]])
    """
    height, width = shape
    if scores.ndim != 2 or height < 1 or width < 1 or scores.shape[1] != height * width:
        expected = f"shape (N, {height * width}), as shape is {(height, width)}"
        raise InputError("scores", f"shape {tuple(scores.shape)}", expected)
    check_finite(scores, "scores")
    if (scores < 0).any():
        raise InputError("scores", f"{float(scores.min()):g}", "values of at least 0")
    # Scaled first, so that neither tiny nor huge scores leave the range in the sum.
    largest = scores.detach().amax(1, keepdim=True)
    mass = torch.where(largest > 0, scores / torch.where(largest > 0, largest, 1), 1)
    share = (mass / mass.sum(1, keepdim=True)).view(-1, height, width)
    rows = torch.arange(height, dtype=scores.dtype, device=scores.device)
    columns = torch.arange(width, dtype=scores.dtype, device=scores.device)
    return torch.stack([(share.sum(2) * rows).sum(1), (share.sum(1) * columns).sum(1)], dim=1)


def _check(images: Tensor, gradients: Tensor) -> None:
    if images.ndim != 4 or images[:1].numel() == 0:
        raise InputError("images", f"shape {tuple(images.shape)}", "shape (N, C, H, W)")
    check_same_shape(images, gradients, ("images", "gradients"))
    check_finite(images, "images")
    check_finite(gradients, "gradients")


def _unit(maps: Tensor) -> Float[Tensor, "n p"]:
    """Scale each map to length 1; what is zero stays so."""
    flat = maps.flatten(1)
    # Scaled first: the squares of a saturated network's gradient would underflow to nothing.
    largest = flat.detach().abs().amax(1, keepdim=True)
    flat = flat / torch.where(largest > 0, largest, 1)
    return flat / torch.where(largest > 0, flat, 1).norm(dim=1, keepdim=True)
