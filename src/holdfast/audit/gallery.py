"""The gallery of an audit: a few images with their maps before and after, kept for reports.

What attacks found is kept shard by shard, of the images that may be among the few in the end; so no
attack is made twice, and the pictures are of what was measured.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import pyarrow as pa
import pyarrow.compute as pc
import torch
from torch import Tensor, nn

from holdfast.audit.sealed import read_sealed, write_sealed
from holdfast.audit.unfinished import Finding
from holdfast.audit.yardsticks import equal
from holdfast.contracts import Batch, Manipulation
from holdfast.parts import SCHEMA, DamagedError

__all__ = [
    "Candidates",
    "Contest",
    "Pictured",
    "correct_images",
    "gallery",
    "worst_cases",
]


@runtime_checkable
class Pictured(Protocol):
    """A check that has something to show: ``pictures(model, batch) → {name: (N, …)}``."""

    def pictures(self, model: nn.Module, batch: Batch) -> Mapping[str, Tensor]:
        """Return tensors by name, which the gallery keeps as ``CHECK|name``."""
        ...


def gallery(
    model: nn.Module,
    batch: Batch,
    index: Sequence[int],
    worst: Collection[int],
    outcomes: Mapping[str, Tensor],
    records: pa.Table,
    audit: Any,
) -> dict[str, Tensor]:
    """Bring together what is shown of a few images; nothing is attacked.

    Parameters
    ----------
    model : Module
        The classifier.
    batch : Batch
        The images, perhaps none, all of which the model gets right.
    index : sequence of int
        The number of each image in the data set.
    worst : collection of int
        The numbers of those that were chosen as worst cases.
    outcomes : mapping
        What `Candidates` has kept of these images.
    records : Table
        Those of the audit: the similarities shown are the ones that were measured.
    audit : Audit
        The battery. Of its checks, those that are `Pictured` are shown.

    Returns
    -------
    dict of str to Tensor
        ``index``, ``label``, ``worst (n,)``, ``images (n, C, H, W)``, if the data has them
        ``boxes (n, 4)`` and ``masks (n, H, W)``, with zeros for an image without a mask; for each
        manipulation ``CHECK|images``, ``CHECK|maps``, ``CHECK|perturbed_images``,
        ``CHECK|perturbed_maps`` ``(n, C, H, W)``, ``CHECK|kendall_tau``,
        ``CHECK|top_k_intersection`` and ``CHECK|preserved`` ``(n,)``; and what checks show.
    """
    images = batch["images"]
    tensors = {
        "index": torch.tensor(list(index), dtype=torch.int64),
        "label": batch["labels"],
        "worst": torch.tensor([i in worst for i in index], dtype=torch.bool),
        "images": images,
    }
    if "boxes" in batch:
        tensors["boxes"] = batch["boxes"]
    if "masks" in batch:
        tensors["masks"] = batch["masks"].nan_to_num(0)
    if index:
        for name, first in first_alike(audit.manipulations).items():
            scores = _scores(records, name, index)
            tensors |= {
                f"{name}|images": images,
                f"{name}|maps": outcomes[f"{first}|before"],
                f"{name}|perturbed_images": outcomes[f"{name}|images"],
                f"{name}|perturbed_maps": outcomes[f"{name}|maps"],
                **{f"{name}|{measure}": values for measure, values in scores.items()},
            }
        for name, check in audit.checks.items():
            if isinstance(check, Pictured):
                shown = dict(check.pictures(model, batch))
                tensors |= {f"{name}|{key}": tensor for key, tensor in shown.items()}
    exact = ("|kendall_tau", "|top_k_intersection")
    return {
        name: t.float() if t.is_floating_point() and not name.endswith(exact) else t
        for name, t in tensors.items()
    }


class Contest:
    """Which images may still be in the gallery, as far as shards are known.

    Parameters
    ----------
    audit : Audit
        With its ``gallery``, ``worst`` and manipulations.
    drawn : sequence of int
        The images whose explanations are attacked, in the order of the draw.
    """

    def __init__(self, audit: Any, drawn: Sequence[int]) -> None:
        self._audit = audit
        self._drawn = {image: rank for rank, image in enumerate(drawn)}
        self._records = SCHEMA.empty_table()

    def enter(self, records: pa.Table) -> None:
        """Let the images of a shard take part, and forget those that cannot win any more."""
        telling = pc.is_in(records["measure"], pa.array(["correct", "kendall_tau"]))
        both = [self._records, records.filter(telling).select(SCHEMA.names)]
        self._records = pa.concat_tables(both).combine_chunks()
        index, _ = self.chosen()
        keep = pc.is_in(self._records["index"], pa.array(index, pa.int64()))
        self._records = self._records.filter(keep)

    def chosen(self) -> tuple[list[int], set[int]]:
        """Return the first drawn that are right, and the worst cases after them; and the worst."""
        audit = self._audit
        right = [image for image in correct_images(self._records) if image in self._drawn]
        first = sorted(right, key=self._drawn.__getitem__)[: audit.gallery]
        worst = {
            image
            for name in audit.manipulations
            for image in worst_cases(self._records, name, audit.worst)
        }
        return first + sorted(worst.difference(first)), worst


class Candidates:
    """The files that hold, shard by shard, what attacks left of the images that may be shown.

    Parameters
    ----------
    out : Path
        The folder of the audit.
    audit : Audit
        The battery.
    digest : str
        That of the settings.
    """

    def __init__(self, out: Path, audit: Any, digest: str) -> None:
        self._out, self._audit, self._digest = out, audit, digest

    def keep(
        self, number: int, finding: Finding, attacked: Sequence[int], index: list[int]
    ) -> None:
        """Keep what was found of the images ``index``, which are among the ``attacked``.

        Parameters
        ----------
        number : int
            The shard.
        finding : Finding
            What was found of it.
        attacked : sequence of int
            The number in the data set of each image that has an outcome.
        index : list of int
            The images to keep.
        """
        if not index or not self._audit.manipulations:
            return
        place = {image: n for n, image in enumerate(attacked)}
        chosen = torch.tensor([place[image] for image in index])
        first = first_alike(self._audit.manipulations)
        tensors = {
            name: values[chosen]
            for name, values in finding.outcomes.items()
            # Of attacks on the same map, the first has it.
            if not name.endswith("|before") or name.removesuffix("|before") in first.values()
        }
        tensors["index"] = torch.tensor(index)
        write_sealed(self._file(number), tensors, self._seal(number))

    def read(self, number: int, index: list[int]) -> dict[str, Tensor]:
        """Return what was kept of these images of a shard, in this order.

        Raises
        ------
        DamagedError
            If it is not there, not whole or not of this audit.
        """
        held = read_sealed(self._file(number), self._seal(number))
        kept = held.pop("index").tolist()
        if not set(index) <= set(kept):
            raise DamagedError(f"{self._file(number).name} lacks images")
        chosen = torch.tensor([kept.index(image) for image in index])
        return {name: values[chosen] for name, values in held.items()}

    def remove(self) -> None:
        """Remove the files: the gallery is there."""
        for file in self._out.glob("candidates-*.safetensors"):
            file.unlink(missing_ok=True)

    def _file(self, number: int) -> Path:
        return self._out / f"candidates-{number:05d}.safetensors"

    def _seal(self, number: int) -> str:
        return f"{self._digest} candidates {number}"


def first_alike(manipulations: Mapping[str, Manipulation]) -> dict[str, str]:
    """Name for each manipulation the first one that attacks the same map.

    Examples
    --------
    >>> from holdfast.attributions import Gradient
    >>> from holdfast.manipulation import RandomSign
    >>> first_alike({"a": RandomSign(Gradient(), eps=0.1), "b": RandomSign(Gradient(), eps=0.2)})
    {'a': 'a', 'b': 'a'}
    """
    return {
        name: next(n for n, o in manipulations.items() if equal(o.attribution, one.attribution))
        for name, one in manipulations.items()
    }


def _scores(records: pa.Table, check: str, index: Sequence[int]) -> dict[str, Tensor]:
    """Look up what was measured; a map that no perturbation has changed is like itself."""
    rows = records.filter(pc.equal(records["check"], check))
    found = {
        (measure, image): value
        for measure, image, value in zip(
            *(rows[name].to_pylist() for name in ("measure", "index", "value")), strict=True
        )
    }
    scores = {
        measure: torch.tensor([found.get((measure, i), 1.0) for i in index], dtype=torch.float64)
        for measure in ("kendall_tau", "top_k_intersection")
    }
    preserved = [found[("preserved", i)] == 1.0 for i in index]
    return {**scores, "preserved": torch.tensor(preserved)}


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
