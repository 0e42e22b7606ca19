"""How much of a map lies on the object, by its box or its mask.

All take signed maps: what an attribution says about a pixel is z, its sum over the channels. S₊ are
the pixels with z > 0 and S_b those of the object.
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Float64
from scipy import ndimage
from torch import Tensor

from holdfast.contracts import InputError
from holdfast.metrics.regions import Regions, region_masks
from holdfast.metrics.scores import check_finite

__all__ = ["concentration", "energy_game", "loc", "pointing_game", "positive_percentage"]


def loc(maps: Float[Tensor, "n c h w"], regions: Regions) -> Float64[Tensor, " n"]:
    """Localization (Loc): how well the pixels with positive attribution and the object coincide.

    |S₊ ∩ S_b| / (|S_b| + |S₊ ∖ S_b|), which is the intersection over the union of both (Wang et
    al., *Robust Models Are More Interpretable Because Attributions Look Normal*, 2022,
    definition 8, after Chattopadhyay et al., *Grad-CAM++*, 2018).

    Parameters
    ----------
    maps : Tensor
        Attribution maps ``(N, C, H, W)``, signed.
    regions : Tensor
        The object of each image: boxes ``(N, 4)``, x0, y0, x1, y1 in pixels, or masks
        ``(N, H, W)``.

    Returns
    -------
    Tensor
        ``(N,)`` in [0, 1], float64; no gradient flows. 0 where nothing is positive or the object
        has no pixel. An object that fills the image gives the share of positive pixels.

    Raises
    ------
    InputError
        If the maps are no finite ``(N, C, H, W)``, or the regions do not fit them.

    Examples
    --------
    >>> maps = torch.tensor([[[[2.0, 1.0, -1.0, 3.0]]]])
    >>> loc(maps, torch.tensor([[0.0, 0.0, 3.0, 1.0]]))  # 2 of 3 in the box, and 1 outside
    tensor([0.5000], dtype=torch.float64)
    """
    z, inside = _summed(maps, regions)
    positive = z > 0
    return _ratio(_count(positive & inside), _count(positive | inside))


def energy_game(maps: Float[Tensor, "n c h w"], regions: Regions) -> Float64[Tensor, " n"]:
    """Energy game (EG): the share of the positive attribution that lies on the object.

    Σ_{S₊ ∩ S_b} z / Σ_{S₊} z (Wang et al., *Robust Models Are More Interpretable Because
    Attributions Look Normal*, 2022, definition 9, after Wang et al., *Score-CAM*, 2020).

    Parameters
    ----------
    maps : Tensor
        Attribution maps ``(N, C, H, W)``, signed.
    regions : Tensor
        The object of each image: boxes ``(N, 4)``, x0, y0, x1, y1 in pixels, or masks
        ``(N, H, W)``.

    Returns
    -------
    Tensor
        ``(N,)`` in [0, 1], float64; no gradient flows. 0 where nothing is positive or the object
        has no pixel; 1 where the object fills the image and anything is positive.

    Raises
    ------
    InputError
        If the maps are no finite ``(N, C, H, W)``, or the regions do not fit them.

    Examples
    --------
    >>> maps = torch.tensor([[[[2.0, 1.0, -1.0, 1.0]]]])
    >>> energy_game(maps, torch.tensor([[0.0, 0.0, 3.0, 1.0]]))
    tensor([0.7500], dtype=torch.float64)
    """
    z, inside = _summed(maps, regions)
    energy = z.clamp_min(0)
    return _ratio((energy * inside).sum((1, 2)), energy.sum((1, 2)))


def positive_percentage(maps: Float[Tensor, "n c h w"], regions: Regions) -> Float64[Tensor, " n"]:
    """Positive percentage (PP): how much of the attribution on the object is positive.

    Σ_{S₊ ∩ S_b} z / Σ_{S_b} |z| (Wang et al., *Robust Models Are More Interpretable Because
    Attributions Look Normal*, 2022, definition 10). Random attributions have a half.

    Parameters
    ----------
    maps : Tensor
        Attribution maps ``(N, C, H, W)``, signed.
    regions : Tensor
        The object of each image: boxes ``(N, 4)``, x0, y0, x1, y1 in pixels, or masks
        ``(N, H, W)``.

    Returns
    -------
    Tensor
        ``(N,)`` in [0, 1], float64; no gradient flows. 0 where the map is zero all over the object
        or the object has no pixel.

    Raises
    ------
    InputError
        If the maps are no finite ``(N, C, H, W)``, or the regions do not fit them.

    Examples
    --------
    >>> maps = torch.tensor([[[[2.0, 1.0, -1.0, 1.0]]]])
    >>> positive_percentage(maps, torch.tensor([[0.0, 0.0, 3.0, 1.0]]))
    tensor([0.7500], dtype=torch.float64)
    """
    z, inside = _summed(maps, regions)
    return _ratio((z.clamp_min(0) * inside).sum((1, 2)), (z.abs() * inside).sum((1, 2)))


def concentration(maps: Float[Tensor, "n c h w"], regions: Regions) -> Float64[Tensor, " n"]:
    """Concentration (Con): how close the attribution on the object stands around its centre.

    Σ_{i ∈ S_b} ẑ_i / ‖i − c‖, with ẑ = |z| / Σ_{S_b} |z| and c = Σ_{i ∈ S_b} ẑ_i i, their centre of
    mass (Wang et al., *Robust Models Are More Interpretable Because Attributions Look Normal*,
    2022, definition 11). Coordinates are those of the pixels' centres, scaled so that the image
    reaches from 0 to 1 both ways. A pixel nearer to the centre than half a pixel, of the longer
    side of the image, counts as that far from it: the paper leaves open what the pixel in the
    centre counts, which would be infinity.

    Parameters
    ----------
    maps : Tensor
        Attribution maps ``(N, C, H, W)``. Their sign does not count.
    regions : Tensor
        The object of each image: boxes ``(N, 4)``, x0, y0, x1, y1 in pixels, or masks
        ``(N, H, W)``.

    Returns
    -------
    Tensor
        ``(N,)``, float64, from 0 to 2 max(H, W), which a single pixel has; no gradient flows. 0
        where the map is zero all over the object or the object has no pixel.

    Raises
    ------
    InputError
        If the maps are no finite ``(N, C, H, W)``, or the regions do not fit them.

    Examples
    --------
    Two pixels of equal weight, each half a pixel, an eighth of the image, from their centre:

    >>> maps = torch.tensor([0.0, 1.0, -1.0, 0.0]).expand(1, 1, 4, 4) * torch.eye(4)[1][:, None]
    >>> concentration(maps, torch.tensor([[0.0, 0.0, 4.0, 4.0]]))
    tensor([8.], dtype=torch.float64)
    """
    z, inside = _summed(maps, regions)
    mass = z.abs() * inside
    total = mass.sum((1, 2), keepdim=True)
    share = mass / torch.where(total > 0, total, 1)
    _, height, width = z.shape
    y = ((torch.arange(height, device=z.device, dtype=z.dtype) + 0.5) / height)[:, None]
    x = ((torch.arange(width, device=z.device, dtype=z.dtype) + 0.5) / width)[None, :]
    centre_y = (share * y).sum((1, 2), keepdim=True)
    centre_x = (share * x).sum((1, 2), keepdim=True)
    distance = torch.hypot(y - centre_y, x - centre_x).clamp_min(0.5 / max(height, width))
    return (share / distance).sum((1, 2))


def pointing_game(
    maps: Float[Tensor, "n c h w"], regions: Regions, tolerance: int = 0
) -> Float64[Tensor, " n"]:
    """Pointing game: whether the pixel with the highest attribution lies on the object.

    Zhang et al., *Top-down Neural Attention by Excitation Backprop*, 2016.

    Parameters
    ----------
    maps : Tensor
        Attribution maps ``(N, C, H, W)``, signed.
    regions : Tensor
        The object of each image: boxes ``(N, 4)``, x0, y0, x1, y1 in pixels, or masks
        ``(N, H, W)``.
    tolerance : int
        A pixel at most so many pixels from one of the object counts as on it. The paper grants 15
        to photographs.

    Returns
    -------
    Tensor
        ``(N,)``, float64, 1 for a hit and 0 for a miss; no gradient flows. Where several pixels
        share the highest attribution, the share of them that hit. 0 where nothing is positive,
        as such a map points nowhere, or the object has no pixel.

    Raises
    ------
    InputError
        If the maps are no finite ``(N, C, H, W)``, the regions do not fit them, or ``tolerance`` is
        negative.

    Examples
    --------
    >>> maps = torch.tensor([[[[0.0, 3.0, 1.0]]], [[[2.0, 0.0, 1.0]]]])
    >>> pointing_game(maps, torch.tensor([[1.0, 0.0, 3.0, 1.0]]).expand(2, 4))
    tensor([1., 0.], dtype=torch.float64)
    """
    if tolerance < 0:
        raise InputError("tolerance", tolerance, "pixels, at least 0")
    z, inside = _summed(maps, regions)
    if tolerance > 0:
        inside = _widened(inside, tolerance)
    highest = (z == z.amax((1, 2), keepdim=True)) & (z > 0)
    return _ratio(_count(highest & inside), _count(highest))


def _summed(
    maps: Float[Tensor, "n c h w"], regions: Regions
) -> tuple[Float64[Tensor, "n h w"], Bool[Tensor, "n h w"]]:
    """Check the input; return z, and which pixels are of the object."""
    if maps.ndim != 4 or 0 in maps.shape[1:]:
        raise InputError("maps", f"shape {tuple(maps.shape)}", "shape (N, C, H, W)")
    check_finite(maps, "maps")
    inside = region_masks(regions, maps)
    maps = maps.detach().double()
    # By a power of two, which changes no digit: no later sum can overflow or vanish.
    exponent = torch.frexp(maps.abs().amax((1, 2, 3), keepdim=True)).exponent.clamp(-1000, 1000)
    return torch.ldexp(maps, -exponent).sum(1), inside


def _widened(inside: Bool[Tensor, "n h w"], tolerance: int) -> Bool[Tensor, "n h w"]:
    near = torch.zeros_like(inside)
    for n, mask in enumerate(inside.cpu().numpy()):
        if mask.any():
            near[n] = torch.from_numpy(ndimage.distance_transform_edt(~mask) <= tolerance)
    return near


def _count(pixels: Bool[Tensor, "n h w"]) -> Float64[Tensor, " n"]:
    return pixels.sum((1, 2)).double()


def _ratio(part: Float64[Tensor, " n"], whole: Float64[Tensor, " n"]) -> Float64[Tensor, " n"]:
    return part / torch.where(whole > 0, whole, 1)
