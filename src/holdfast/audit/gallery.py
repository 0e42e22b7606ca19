"""The gallery of an audit: a few images with their maps before and after, kept for reports."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Protocol, runtime_checkable

import pyarrow as pa
import pyarrow.compute as pc
import torch
from safetensors.torch import save as serialize
from torch import Tensor, nn

from holdfast.audit.map_checks import similarities
from holdfast.contracts import Batch, Check, Manipulation, same_draws

__all__ = ["Pictured", "correct_images", "gallery", "worst_cases"]


@runtime_checkable
class Pictured(Protocol):
    """A check that has something to show: ``pictures(model, batch) → {name: (N, …)}``."""

    def pictures(self, model: nn.Module, batch: Batch) -> Mapping[str, Tensor]:
        """Return tensors by name, which the gallery keeps as ``CHECK|name``."""
        ...


def gallery(
    model: nn.Module,
    batch: Batch,
    index: list[int],
    worst: list[bool],
    manipulations: Mapping[str, Manipulation],
    checks: Mapping[str, Check],
    k: int,
    classes: tuple[str, ...],
) -> bytes:
    """Attack a few images once more, and keep pictures and maps as a safetensors file.

    Parameters
    ----------
    model : Module
        The classifier.
    batch : Batch
        The images, perhaps none, all of which the model gets right.
    index, worst : list
        The number of each image in the data set, and whether it was chosen as a worst case.
    manipulations, checks : mapping
        Those of the audit, by name. Of the checks, those that are `Pictured` are shown.
    k : int
        How many of the highest pixels ``top_k_intersection`` compares.
    classes : tuple of str
        The names of the classes.

    Returns
    -------
    bytes
        ``index``, ``label``, ``worst (n,)``, ``images (n, C, H, W)``, if the data has them
        ``boxes (n, 4)`` and ``masks (n, H, W)``, with zeros for an image without a mask; for each
        manipulation ``CHECK|images``, ``CHECK|maps``, ``CHECK|perturbed_images``,
        ``CHECK|perturbed_maps`` ``(n, C, H, W)``, ``CHECK|kendall_tau``,
        ``CHECK|top_k_intersection`` and ``CHECK|preserved`` ``(n,)``; and what checks show.

    Examples
    --------
    >>> from safetensors.torch import load
    >>> model = nn.Sequential(nn.Flatten(), nn.Linear(4, 2))
    >>> batch = Batch(images=torch.rand(1, 1, 2, 2), labels=torch.tensor([0]))
    >>> sorted(load(gallery(model, batch, [7], [False], {}, {}, 1, ("cat", "dog"))))
    ['images', 'index', 'label', 'worst']
    """
    images, labels = batch["images"], batch["labels"]
    tensors = {
        "index": torch.tensor(index, dtype=torch.int64),
        "label": labels,
        "worst": torch.tensor(worst, dtype=torch.bool),
        "images": images,
    }
    if "boxes" in batch:
        tensors["boxes"] = batch["boxes"]
    if "masks" in batch:
        tensors["masks"] = batch["masks"].nan_to_num(0)
    if index:
        for name, manipulation in manipulations.items():
            shown = _before_and_after(model, images, labels, manipulation, k)
            tensors |= {f"{name}|{key}": tensor for key, tensor in shown.items()}
        for name, check in checks.items():
            if isinstance(check, Pictured):
                shown = dict(check.pictures(model, batch))
                tensors |= {f"{name}|{key}": tensor for key, tensor in shown.items()}
    # Copies, as safetensors refuses tensors that share memory.
    kept = {
        name: (tensor.float() if tensor.is_floating_point() else tensor).to("cpu", copy=True)
        for name, tensor in tensors.items()
    }
    kept = {name: tensor.contiguous() for name, tensor in kept.items()}
    return serialize(kept, {"classes": json.dumps(list(classes), ensure_ascii=False)})


def correct_images(records: pa.Table) -> frozenset[int]:
    """Return the images that the model gets right when nobody attacks it.

    Examples
    --------
    >>> records = pa.table({"index": [3, 5], "check": ["clean"] * 2, "measure": ["correct"] * 2,
    ...                     "value": [0.0, 1.0]})
    >>> correct_images(records)
    frozenset({5})
    """
    right = pc.and_(pc.equal(records["check"], "clean"), pc.equal(records["value"], 1.0))
    return frozenset(records.filter(right)["index"].to_pylist())


def worst_cases(records: pa.Table, check: str, count: int) -> list[int]:
    """Return the images with the lowest Kendall's τ under a check, the lowest first.

    Examples
    --------
    >>> records = pa.table({"index": [3, 5, 8], "check": ["top_k"] * 3,
    ...                     "measure": ["kendall_tau"] * 3, "value": [0.2, -0.1, 0.7]})
    >>> worst_cases(records, "top_k", 2)
    [5, 3]
    """
    rows = records.filter(
        pc.and_(pc.equal(records["check"], check), pc.equal(records["measure"], "kendall_tau"))
    )
    ranked = rows.sort_by([("value", "ascending"), ("index", "ascending")])
    lowest: list[int] = ranked["index"][:count].to_pylist()
    return lowest


def _before_and_after(
    model: nn.Module, images: Tensor, labels: Tensor, manipulation: Manipulation, k: int
) -> dict[str, Tensor]:
    found = manipulation(model, images, labels)
    before = manipulation.attribution(model, images, labels)
    with same_draws(images, found.images):
        after = manipulation.attribution(model, found.images, labels)
    scores = similarities(before, after, k)
    return {
        "images": images,
        "maps": before,
        "perturbed_images": found.images,
        "perturbed_maps": after,
        "kendall_tau": scores["kendall_tau"],
        "top_k_intersection": scores["top_k_intersection"],
        "preserved": found.preserved,
    }
