"""One shard of an audit: its images go through the whole battery, check by check."""

from __future__ import annotations

import random
import warnings
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import replace
from functools import partial
from typing import Any, cast

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor, nn

from holdfast.audit.measured import after_attack, after_manipulation, is_correct
from holdfast.audit.repeatable import device_of, seeded
from holdfast.audit.unfinished import Finding, Record, Unfinished
from holdfast.audit.yardsticks import Yardsticks
from holdfast.contracts import Attack, Batch, Check, InputError, Manipulation, StuckWarning
from holdfast.manipulation import Targeted
from holdfast.parts import SCHEMA

__all__ = ["Examination", "part_of", "table_of"]


class Examination:
    """Takes the images of a shard through attacks, manipulations and checks.

    Parameters
    ----------
    audit : Audit
        The battery.
    model : Module
        The classifier, in eval mode.
    batch : Batch
        The images of the shard.
    drawn : collection of int
        The places in the shard of those whose explanations are attacked, and that are checked.
    shuffled : callable
        Returns, for a seed and places in the shard, other images of the data set.
    """

    def __init__(
        self,
        audit: Any,
        model: nn.Module,
        batch: Batch,
        drawn: Collection[int],
        shuffled: Callable[[int, list[int]], Tensor],
    ) -> None:
        self.audit, self.model, self.shuffled = audit, model, shuffled
        device = device_of(model)
        self.every = torch.arange(len(batch["labels"]), device=device)
        self.batch = part_of(batch, self.every, device)
        self.images, self.labels = self.batch["images"], self.batch["labels"]
        self.drawn = torch.zeros(len(self.every), dtype=torch.bool, device=device)
        self.drawn[list(drawn)] = True
        self.right = torch.zeros_like(self.drawn)
        self.attacked = self.every[:0]
        self._yardsticks: Yardsticks | None = None

    def __call__(self, number: int, unfinished: Unfinished) -> Finding:
        """Make what is not made yet, in the draws of the shard of this number."""
        with seeded(self.audit.seed, number), warnings.catch_warnings():
            # Said once for all images, in the end.
            warnings.simplefilter("ignore", StuckWarning)
            finding = unfinished.restore()
            for place, stage in enumerate(self._stages()):
                if place == 1:
                    self._remember(finding)
                if place < finding.stages:
                    continue
                # Torch's generators run on through the shard.
                own = self.audit.seed * 1_000_003 + number * 1_009 + place
                random.seed(own)
                np.random.seed(own % 2**32)
                stage(finding)
                finding.stages = place + 1
                unfinished.save(finding)
            self._remember(finding)
        return finding

    def _stages(self) -> Iterator[Callable[[Finding], None]]:
        yield self._clean
        for name, attack in self.audit.attacks.items():
            yield partial(self._attack, name=name, attack=attack)
        for name, manipulation in self.audit.manipulations.items():
            yield partial(self._manipulate, name=name, manipulation=manipulation)
        for name, check in self.audit.checks.items():
            yield partial(self._check, name=name, check=check)

    def _remember(self, finding: Finding) -> None:
        """Take from the first record which images are right."""
        self.right = finding.records[0].values.to(self.drawn.device) == 1
        self.attacked = self.every[self.drawn & self.right]

    def _clean(self, finding: Finding) -> None:
        right = is_correct(self.model, self.images, self.labels)
        self._note(finding, "clean", {"correct": right}, self.every)

    def _attack(self, finding: Finding, name: str, attack: Attack) -> None:
        measures = after_attack(attack, self.model, self.images, self.labels, self.right)
        self._note(finding, name, measures, self.every)

    def _manipulate(self, finding: Finding, name: str, manipulation: Manipulation) -> None:
        if len(self.attacked) == 0:
            return
        if self._yardsticks is None:
            chosen = self.images[self.attacked], self.labels[self.attacked]
            self._yardsticks = Yardsticks(self.model, *chosen, self.audit.k)
        if isinstance(manipulation, Targeted) and manipulation.shuffled:
            target = self.shuffled(manipulation.seed, self.attacked.tolist()).to(self.images)
            manipulation = replace(manipulation, target=target, shuffled=False)
        measures, outcome = after_manipulation(manipulation, self._yardsticks)
        self._note(finding, name, measures, self.attacked)
        for key, tensor in outcome.items():
            finding.outcomes[f"{name}|{key}"] = tensor.detach().cpu()

    def _check(self, finding: Finding, name: str, check: Check) -> None:
        chosen = self.every[self.drawn]
        if len(chosen) == 0:
            return
        few = part_of(self.batch, chosen, self.drawn.device)
        measures = check(self.model, few)
        for measure, values in measures.items():
            _refuse_other_shapes(name, measure, values, len(chosen))
        finite = {
            measure: torch.where(torch.isfinite(values), values, torch.nan)
            if values.is_floating_point()
            else values
            for measure, values in measures.items()
        }
        self._note(finding, name, finite, chosen)

    def _note(
        self, finding: Finding, check: str, measures: Mapping[str, Tensor], chosen: Tensor
    ) -> None:
        """Write down all values but NaN."""
        for measure, values in measures.items():
            values = values.detach().to(chosen.device).double()
            known = ~values.isnan()
            both = chosen[known].cpu(), values[known].cpu()
            finding.records.append(Record(check, measure, *both))


def part_of(batch: Batch, chosen: Tensor, device: torch.device) -> Batch:
    """Pick images of a batch, with all that belongs to them, and move them to a device."""
    columns = cast("dict[str, Tensor]", batch)
    part = {name: values[chosen.to(values.device)].to(device) for name, values in columns.items()}
    return cast("Batch", part)


def table_of(finding: Finding, indices: Tensor, labels: Tensor) -> pa.Table:
    """Turn what was found into records: of the images of these indices in the data set.

    Examples
    --------
    >>> found = Finding(1, [Record("clean", "correct", torch.tensor([0]), torch.tensor([1.0]))])
    >>> table_of(found, torch.tensor([50]), torch.tensor([3])).to_pylist()
    [{'index': 50, 'label': 3, 'check': 'clean', 'measure': 'correct', 'value': 1.0}]
    """
    columns: dict[str, list[Any]] = {name: [] for name in SCHEMA.names}
    for record in finding.records:
        columns["index"] += indices[record.places].tolist()
        columns["label"] += labels[record.places].tolist()
        columns["check"] += [record.check] * len(record.places)
        columns["measure"] += [record.measure] * len(record.places)
        columns["value"] += record.values.tolist()
    return pa.table(columns, schema=SCHEMA)


def _refuse_other_shapes(check: str, measure: str, values: Any, count: int) -> None:
    if not isinstance(values, Tensor) or values.shape != (count,):
        came = tuple(values.shape) if isinstance(values, Tensor) else type(values).__name__
        raise InputError(f"checks.{check}", f"{measure} of shape {came}", f"shape ({count},)")
