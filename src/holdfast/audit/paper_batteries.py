"""Batteries that give a published table or figure, each named after it.

They hold what the paper measures and nothing else, with the paper's own ε, and take all images of
the data; ``--data.limit`` and ``--audit.explained`` make them shorter.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from torch import nn

from holdfast.adversarial import ECCV2020_CORRUPTIONS, Corruption
from holdfast.adversarial.corruptions.corruption import CorruptionName
from holdfast.attributions import IntegratedGradients
from holdfast.audit.alignment_checks import ImageAlignment
from holdfast.audit.battery import Audit
from holdfast.audit.wsol_batteries import eccv2020_segmentation, eccv2020_table2
from holdfast.contracts import Attack
from holdfast.data import ImageDataset
from holdfast.manipulation import Targeted

__all__ = [
    "PAPER_BATTERIES",
    "corruptions",
    "eccv2020_figure6",
    "eccv2020_section5",
    "eccv2020_table3",
]


def eccv2020_table3(data: ImageDataset, *, model: nn.Module | None = None) -> Audit:
    """Return accuracy under fifteen common corruptions at five severities (ECCV 2020, table 3).

    A row of the table is the mean over the severities; the report has it, and the mean of all.

    Parameters
    ----------
    data : ImageDataset
        What will be audited on.
    model : nn.Module, optional
        The model that will be audited. This battery has no use for it.

    Examples
    --------
    >>> from holdfast.data import ImageData
    >>> audit = eccv2020_table3(ImageData("digits").load("test"))
    >>> len(audit.attacks), list(audit.attacks)[-1]
    (75, 'corruption/speckle_noise/5')
    """
    return Audit(corruptions(ECCV2020_CORRUPTIONS, range(1, 6)), manipulations={}, gallery=0)


def eccv2020_figure6(data: ImageDataset, *, model: nn.Module | None = None) -> Audit:
    """Return the cosine of image and gradient, image by image (ECCV 2020, figure 6).

    The measure is ``signed_cosine`` of ``alignment/image``, which the report draws as box plots.

    Parameters
    ----------
    data : ImageDataset
        What will be audited on.
    model : nn.Module, optional
        The model that will be audited. This battery has no use for it.

    Examples
    --------
    >>> from holdfast.data import ImageData
    >>> eccv2020_figure6(ImageData("digits").load("test")).checks
    {'alignment/image': ImageAlignment(anchor='normalized')}
    """
    return Audit({}, manipulations={}, checks={"alignment/image": ImageAlignment()}, gallery=0)


def eccv2020_section5(data: ImageDataset, *, model: nn.Module | None = None) -> Audit:
    """Return the targeted attack on Integrated Gradients with shuffled targets (ECCV 2020, § 5).

    The target of an image is the map of another one, of 1,000 images. The paper reports the
    measures ``top_k_intersection`` and ``kendall_tau``, to the original map. It does not say by
    which ε, step and k: they are those of its other attack on CIFAR-10 (appendix A.3.5).

    Parameters
    ----------
    data : ImageDataset
        What will be audited on: at least two images.
    model : nn.Module, optional
        The model that will be audited. This battery has no use for it.

    Examples
    --------
    >>> from holdfast.data import ImageData
    >>> list(eccv2020_section5(ImageData("digits").load("test")).manipulations)
    ['targeted_shuffled/integrated_gradients']
    """
    _, height, width = data.shape
    attack = Targeted(IntegratedGradients(), 8 / 255, 1 / 255, 50, shuffled=True)
    return Audit(
        {},
        manipulations={"targeted_shuffled/integrated_gradients": attack},
        k=min(100, height * width),
        explained=1000,
    )


PAPER_BATTERIES: dict[str, Callable[..., Audit]] = {
    "eccv2020/figure6": eccv2020_figure6,
    "eccv2020/section5": eccv2020_section5,
    "eccv2020/segmentation": eccv2020_segmentation,
    "eccv2020/table2": eccv2020_table2,
    "eccv2020/table3": eccv2020_table3,
}
"""Every one of them by its name."""


def corruptions(names: Iterable[CorruptionName], severities: Sequence[int]) -> dict[str, Attack]:
    """Name corruptions at severities as checks: ``corruption/NAME/SEVERITY``.

    Examples
    --------
    >>> corruptions(["fog"], [3])
    {'corruption/fog/3': Corruption(name='fog', severity=3, seed=0)}
    """
    return {
        f"corruption/{name}/{severity}": Corruption(name, severity, seed=0)
        for name in names
        for severity in severities
    }
