"""An audit at work in its folder: it begins, takes shards, and finishes."""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, fields
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import torch
from torch import Tensor, nn

from holdfast import plain_yaml
from holdfast.adversarial.slope import MOSTLY
from holdfast.audit.binding import claim
from holdfast.audit.examination import Examination, part_of, table_of
from holdfast.audit.fitness import Fitness, check_fitness
from holdfast.audit.gallery import Candidates, Contest, gallery
from holdfast.audit.progress import progress
from holdfast.audit.repeatable import device_of, seeded
from holdfast.audit.sealed import read_sealed, write_sealed
from holdfast.audit.unfinished import Finding, Unfinished
from holdfast.contracts import HoldfastError, InputError, StuckWarning
from holdfast.data import ImageDataset
from holdfast.data.digests import digests_of
from holdfast.files import whole
from holdfast.manipulation.targeted import others
from holdfast.models import evaluating
from holdfast.parts import SCHEMA, DamagedError, part_file, read_part, write_part

__all__ = ["Running"]


class Running:
    """What one process does for an audit.

    Parameters
    ----------
    audit : Audit
        The battery.
    model : Module
        The classifier; it runs in eval mode, where its weights are.
    data : ImageDataset
        The images.
    out : Path
        The folder.
    digests : mapping, optional
        `digests_of` the data, if they are known: to look at every image takes a while.
    """

    def __init__(
        self,
        audit: Any,
        model: nn.Module,
        data: ImageDataset,
        out: Path,
        digests: Mapping[str, str] | None = None,
    ) -> None:
        self.audit, self.model, self.data, self.out = audit, model, data, out
        self.digests = digests_of(data) if digests is None else digests
        self.count = -(-len(data) // audit.shard)
        self.drawn = _draw(len(data), audit.seed)[: audit.explained]
        self._digest = ""

    def claim(self) -> None:
        """Make the folder this audit's, or see that it is.

        Raises
        ------
        HoldfastError
            If it is another's.
        """
        self._digest = claim(self.out, self.audit, self.model, self.data, self.digests)

    def begin(self, *, say: bool = True) -> None:
        """See that model and data fit each other, and claim the folder.

        Raises
        ------
        HoldfastError
            If they do not, or the folder is another audit's.
        """
        for name, manipulation in self.audit.manipulations.items():
            if getattr(manipulation, "shuffled", False) and len(self.data) == 1:
                expected = "more than one image to draw the targets from"
                raise InputError(f"Audit.manipulations.{name}.shuffled", "one image", expected)
        file = self.out / "fitness.yaml"
        fitness = None
        if not _is_fitness(file):
            methods = {id(m.attribution): m.attribution for m in self.audit.manipulations.values()}
            fitness = check_fitness(self.model, self.data, list(methods.values()))
        self.claim()
        if fitness is None:
            return
        if file.exists():
            _say(f"{file} is damaged, and is made anew")
        told = {**asdict(fitness), "findings": list(fitness.findings)}
        text = plain_yaml.dump(told)
        with whole(file) as unfinished:
            unfinished.write_text(text, encoding="utf-8")
        if fitness.findings and say:
            _say(" ".join(fitness.findings))

    def share(self, rank: int = 0, world: int = 1) -> pa.Table:
        """Examine every ``world``-th shard from shard ``rank`` on; return their records."""
        contest, tables = Contest(self.audit, self.drawn), []
        with evaluating(self.model):
            for number in range(rank, self.count, world):
                table = self._read(number)
                if table is None:
                    table, finding = self._examine(number)
                    contest.enter(table)
                    self._keep(number, table, finding, contest.chosen()[0])
                    write_part(self.out, number, table, self._digest)
                else:
                    contest.enter(table)
                Unfinished(self.out, number, self._digest).remove()
                tables.append(table)
        return pa.concat_tables(tables) if tables else SCHEMA.empty_table()

    def missing(self) -> list[int]:
        """Return the numbers of the shards that are not there, or not whole."""
        return [number for number in range(self.count) if self._read(number) is None]

    def take(self, number: int, files: Mapping[str, bytes]) -> None:
        """Write what another process has found of a shard: candidates before the part.

        Raises
        ------
        HoldfastError
            If it is not whole, or not of this audit.
        """
        for name, content in sorted(files.items()):
            with whole(self.out / name) as unfinished:
                unfinished.write_bytes(content)
        if self._read(number) is None:
            raise HoldfastError(f"shard {number} of {self.out} did not come back whole")

    def finish(self, shown: bool = False) -> pa.Table:
        """Write the gallery, and return all records.

        Raises
        ------
        HoldfastError
            If shards are missing.
        """
        tables = [self._read(number) for number in range(self.count)]
        missing = sum(table is None for table in tables)
        if missing:
            raise HoldfastError(
                f"{self.out} lacks {missing} of {self.count} shards; audit those first"
            )
        contest = Contest(self.audit, self.drawn)
        for table in tables:
            contest.enter(table)
        records = pa.concat_tables(tables) if tables else SCHEMA.empty_table()
        self._finish_gallery(*contest.chosen(), records, shown)
        Candidates(self.out, self.audit, self._digest).remove()
        if stuck := _stuck(records):
            warnings.warn(
                f"most steps of {', '.join(stuck)} had no direction; that these attacks changed "
                "little is no evidence of robustness",
                StuckWarning,
                stacklevel=3,
            )
        return records

    def shown(self, progress_shown: bool = True) -> AbstractContextManager[None]:
        """Show how many shards are there, whoever has written them."""

        def done() -> int:
            return sum(1 for _ in self.out.glob("part-*.parquet"))

        task = f"Auditing {self.data.name}"
        return progress(task, self.count, "shards", done, shown=progress_shown)

    def _indices(self, number: int) -> range:
        start = number * self.audit.shard
        return range(start, min(start + self.audit.shard, len(self.data)))

    def _read(self, number: int) -> pa.Table | None:
        """Return a part that is there and whole; say so of one that is not."""
        file = part_file(self.out, number)
        if not file.exists():
            return None
        try:
            return read_part(file, self._digest)
        except DamagedError as error:
            _say(f"{error}; shard {number} of {self.out} is audited anew")
            file.unlink()
            return None

    def _examine(self, number: int) -> tuple[pa.Table, Finding]:
        indices = self._indices(number)
        drawn = set(self.drawn)
        places = [place for place, index in enumerate(indices) if index in drawn]
        batch = self.data.batch(indices)
        unfinished = Unfinished(self.out, number, self._digest)
        shuffled = partial(self._shuffled, indices)
        examination = Examination(self.audit, self.model, batch, places, shuffled)
        finding = examination(number, unfinished)
        return table_of(finding, torch.tensor(indices), batch["labels"].cpu()), finding

    def _shuffled(self, indices: range, seed: int, places: list[int]) -> Tensor:
        """Return another image of the data set for each image at these places of a shard."""
        drawn = others(len(self.data), self.audit.seed * 1_000_003 + seed)
        return self.data.batch([drawn[indices[place]] for place in places])["images"]

    def _keep(self, number: int, table: pa.Table, finding: Finding, chosen: Sequence[int]) -> None:
        """Keep for the gallery what was found of the chosen images that are of this shard."""
        drawn, right = set(self.drawn), pc.equal(table["measure"], "correct")
        clean = table.filter(pc.and_(pc.equal(table["check"], "clean"), right))
        pairs = zip(clean["index"].to_pylist(), clean["value"].to_pylist(), strict=True)
        attacked = [index for index, value in pairs if value == 1 and index in drawn]
        mine = sorted(set(chosen).intersection(attacked))
        Candidates(self.out, self.audit, self._digest).keep(number, finding, attacked, mine)

    def _finish_gallery(
        self, index: list[int], worst: set[int], records: pa.Table, shown: bool
    ) -> None:
        file = self.out / "gallery.safetensors"
        what = f"{self._digest} gallery"
        if file.exists():
            try:
                read_sealed(file, what)
                return
            except DamagedError as error:
                _say(f"{error}; the gallery of {self.out} is made anew")
        outcomes: dict[int, dict[str, Tensor]] = {}
        with (
            progress("Gallery", len(index), "images", lambda: len(outcomes), shown=shown),
            evaluating(self.model),
            seeded(self.audit.seed, -1),
            warnings.catch_warnings(),
        ):
            warnings.simplefilter("ignore", StuckWarning)
            self._collect(index, outcomes)
            names = outcomes[index[0]] if index else {}
            kept = {name: torch.stack([outcomes[i][name] for i in index]) for name in names}
            batch = part_of(self.data.batch(index), torch.arange(len(index)), device_of(self.model))
            tensors = gallery(self.model, batch, index, worst, kept, records, self.audit)
            classes = json.dumps(list(self.data.classes), ensure_ascii=False)
            write_sealed(file, tensors, what, {"classes": classes})

    def _collect(self, index: list[int], outcomes: dict[int, dict[str, Tensor]]) -> None:
        """Bring together what attacks left of these images; examine again where that is lost."""
        candidates = Candidates(self.out, self.audit, self._digest)
        for number in sorted({i // self.audit.shard for i in index}):
            mine = sorted(i for i in index if i // self.audit.shard == number)
            held: dict[str, Tensor] = {}
            if self.audit.manipulations:
                try:
                    held = candidates.read(number, mine)
                except DamagedError:
                    table, finding = self._examine(number)
                    self._keep(number, table, finding, mine)
                    held = candidates.read(number, mine)
                    Unfinished(self.out, number, self._digest).remove()
            for place, image in enumerate(mine):
                outcomes[image] = {name: values[place] for name, values in held.items()}


def _draw(count: int, seed: int) -> list[int]:
    """Draw the images whose explanations are attacked, in the order of the draw."""
    order: list[int] = torch.randperm(count, generator=torch.Generator().manual_seed(seed)).tolist()
    return order


def _say(text: str) -> None:
    warnings.warn(text, stacklevel=4)


def _is_fitness(file: Path) -> bool:
    """Tell whether what was seen before the audit began can still be read."""
    try:
        told = plain_yaml.read(file)
    except HoldfastError:
        return False
    return isinstance(told, dict) and {field.name for field in fields(Fitness)} <= told.keys()


def _stuck(records: pa.Table) -> list[str]:
    """Name the attacks most of whose steps had no direction."""
    rows = records.filter(pc.equal(records["measure"], "no_direction"))
    means = rows.group_by("check", use_threads=False).aggregate([("value", "mean")])
    return [row["check"] for row in means.to_pylist() if row["value_mean"] > MOSTLY]
