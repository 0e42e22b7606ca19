"""Batteries of localization and segmentation by maps alone, as ECCV 2020 measures them."""

from __future__ import annotations

from torch import nn

from holdfast.attributions import GradCAM, Gradient, IntegratedGradients
from holdfast.audit.battery import Audit
from holdfast.audit.localization_checks import ContourLocalization, WeaklySupervisedLocalization
from holdfast.contracts import HoldfastError
from holdfast.data import ImageDataset

__all__ = ["eccv2020_segmentation", "eccv2020_table2"]


def eccv2020_table2(data: ImageDataset, *, model: nn.Module | None = None) -> Audit:
    """Return boxes from gradients and Grad-CAM on all images (ECCV 2020, table 2: CUB).

    The paper's text says how boxes are drawn but for the border of its mean filter: ``wsol/…`` and
    ``wsol/gradient_zero_border``. Its public code draws them otherwise:
    ``wsol/gradient_public_code``. The table's second kind of map is called CAM; of networks that
    end in a mean and a dense layer, Grad-CAM is what of it is positive.

    Parameters
    ----------
    data : ImageDataset
        What will be audited on; needs boxes.
    model : nn.Module, optional
        The model that will be audited. This battery has no use for it.

    Raises
    ------
    HoldfastError
        If the data has no boxes.

    Examples
    --------
    >>> import torch
    >>> from holdfast.data.images import DecodedImages
    >>> images = DecodedImages(torch.zeros(2, 3, 8, 8, dtype=torch.uint8), torch.full((2, 2), 8))
    >>> labels, boxes = torch.tensor([0, 1]), torch.tensor([[1.0, 1.0, 4.0, 6.0]]).repeat(2, 1)
    >>> audit = eccv2020_table2(ImageDataset("birds", ("jay", "wren"), images, labels, boxes))
    >>> [name.removeprefix("wsol/") for name in audit.checks]
    ['gradient', 'gradient_zero_border', 'gradient_public_code', 'grad_cam']
    """
    _needs(data, "boxes", "a column bbox; holdfast data import cub-200 writes it")
    gradient = Gradient()
    return Audit(
        attacks={},
        manipulations={},
        checks={
            "wsol/gradient": WeaklySupervisedLocalization(gradient),
            "wsol/gradient_zero_border": WeaklySupervisedLocalization(gradient, border="zero"),
            "wsol/gradient_public_code": ContourLocalization(),
            "wsol/grad_cam": WeaklySupervisedLocalization(GradCAM()),
        },
    )


def eccv2020_segmentation(data: ImageDataset, *, model: nn.Module | None = None) -> Audit:
    """Return masks from Integrated Gradients and gradients (ECCV 2020, section 5: Flower).

    Top-1 Seg is over the images that have a mask. The paper has it for masks of 849 images, which
    are of all splits, and does not say whether the network was trained on them; here they are those
    among the images to test on.

    Parameters
    ----------
    data : ImageDataset
        What will be audited on; needs masks.
    model : nn.Module, optional
        The model that will be audited. This battery has no use for it.

    Raises
    ------
    HoldfastError
        If the data has no masks.

    Examples
    --------
    >>> import torch
    >>> from holdfast.data.images import DecodedImages
    >>> from holdfast.data.planes import DecodedPlanes
    >>> sizes, labels = torch.full((2, 2), 8), torch.tensor([0, 1])
    >>> images = DecodedImages(torch.zeros(2, 3, 8, 8, dtype=torch.uint8), sizes)
    >>> masks = DecodedPlanes(torch.ones(2, 8, 8), sizes)
    >>> data = ImageDataset("flowers", ("iris", "daisy"), images, labels, masks=masks)
    >>> list(eccv2020_segmentation(data).checks)
    ['wsol/integrated_gradients', 'wsol/gradient']
    """
    _needs(data, "masks", "a column mask; holdfast data import flower-17 writes it")
    return Audit(
        attacks={},
        manipulations={},
        checks={
            "wsol/integrated_gradients": WeaklySupervisedLocalization(IntegratedGradients()),
            "wsol/gradient": WeaklySupervisedLocalization(Gradient()),
        },
    )


def _needs(data: ImageDataset, entry: str, column: str) -> None:
    if entry not in data.batch([0]):
        raise HoldfastError(f"this battery needs {entry}, and {data.name} has none: {column}")
