"""The audit: how a model's predictions and explanations stand up to attacks, image by image."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any, cast

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import torch
from rich.progress import track
from torch import Tensor, nn

from holdfast import plain_yaml
from holdfast.adversarial import PGD
from holdfast.adversarial.slope import MOSTLY
from holdfast.attributions import IntegratedGradients
from holdfast.audit.fitness import check_fitness
from holdfast.audit.gallery import correct_images, gallery, worst_cases
from holdfast.audit.measured import after_attack, after_manipulation, is_correct
from holdfast.audit.repeatable import device_of, fingerprint, provenance, seeded
from holdfast.audit.yardsticks import Yardsticks
from holdfast.contracts import (
    Attack,
    Batch,
    Check,
    HoldfastError,
    InputError,
    Manipulation,
    StuckWarning,
    check_positive,
    checked,
)
from holdfast.data import ImageDataset
from holdfast.files import whole
from holdfast.manipulation import TopK
from holdfast.models import evaluating
from holdfast.training.recipe import to_settings

__all__ = ["Audit"]

SCHEMA = pa.schema(
    {
        "index": pa.int64(),
        "label": pa.int64(),
        "check": pa.string(),
        "measure": pa.string(),
        "value": pa.float64(),
    }
)


def _attacks() -> dict[str, Attack]:
    return {"pgd": PGD(eps=8 / 255, step_size=2 / 255, steps=40)}


def _manipulations() -> dict[str, Manipulation]:
    attack = TopK(IntegratedGradients(steps=50), k=100, eps=8 / 255, step_size=1 / 255, steps=50)
    return {"top_k/integrated_gradients": attack}


@dataclass(frozen=True)
@checked
class Audit:
    """A battery of attacks on predictions and on explanations, and of other checks.

    Called with a model, a data set and a folder, it writes ``part-*.parquet``: one row an image,
    check and measure. The data set is cut into fixed shards, each seeded by its number and written
    when it is done; an audit that was stopped goes on where it was, with the same records in the
    end.

    Parameters
    ----------
    attacks : dict of str to Attack
        Attacks on predictions by the name of their check. The measure of an image is ``correct``.
    manipulations : dict of str to Manipulation
        Attacks on explanations by the name of their check, ``attack/attribution``. Images that the
        model gets right are attacked. Measures are ``preserved``, whether a perturbation kept the
        label, and where one did ``top_k_intersection``, ``kendall_tau`` and ``spearman_rho``
        between the maps before and after.
    checks : dict of str to Check
        What else is measured, by name, on the images that are drawn: where maps point, what the
        model does without the pixels they name, whether the attacks can be trusted. An image for
        which a measure is NaN or infinite has no record of it.
    k : int
        How many of the highest pixels ``top_k_intersection`` compares.
    explained : int, optional
        Attack the explanations of at most so many images, drawn at random, the same for every
        model, and make the checks on them. By default all.
    gallery : int
        How many images to keep with their maps, for reports: the first drawn that the model gets
        right.
    worst : int
        How many more to keep for each manipulation, those with the lowest ``kendall_tau``.
    shard : int
        Images in a shard.
    seed : int
        Seeds the draw of images and, with the shard's number, whatever the attacks draw.

    Raises
    ------
    HoldfastError
        If the folder holds an audit of another model or with other settings; or the model and the
        data do not fit each other, see `check_fitness`.

    Notes
    -----
    An attack that did not move is no evidence. So each attack also has ``moved``, by how much the
    audit found the image changed (in ℓ∞, in pixel units; 0 where no perturbation kept the label),
    and ``no_direction``, the share of its gradient steps that had none, where the attack knows.
    Beside each attack on explanations with an ``eps`` stand the same similarities after random
    signs at this ε, ``random_sign_kendall_tau`` and so on, and ``no_change_kendall_tau``, after
    random signs too small to mean anything, which is below 1 where pixels of a map tie. Where most
    steps had no direction, ``random_search_…`` is what a short search without gradients found.
    What was seen of the model before the audit began is in ``fitness.yaml``.

    Examples
    --------
    >>> import tempfile
    >>> from holdfast.data import ImageData
    >>> data = ImageData("digits", limit=20).load("test")
    >>> model = nn.Sequential(nn.Flatten(), nn.Linear(256, 10))
    >>> audit = Audit({"pgd": PGD(eps=0.1, step_size=0.05, steps=3)}, manipulations={})
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     records = audit(model, data, folder, progress=False)
    >>> sorted(set(zip(records["check"].to_pylist(), records["measure"].to_pylist())))
    [('clean', 'correct'), ('pgd', 'correct'), ('pgd', 'moved'), ('pgd', 'no_direction')]
    """

    attacks: dict[str, Attack] = field(default_factory=_attacks)
    manipulations: dict[str, Manipulation] = field(default_factory=_manipulations)
    checks: dict[str, Check] = field(default_factory=dict)
    k: int = 100
    explained: int | None = None
    gallery: int = 8
    worst: int = 3
    shard: int = 50
    seed: int = 0

    def __post_init__(self) -> None:
        check_positive(self, "k", "shard")
        check_positive(self, "gallery", "worst", zero=True)
        names = ["clean", *self.attacks, *self.manipulations, *self.checks]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise InputError("Audit", f"several checks named {', '.join(twice)}", "different names")
        if self.explained is not None:
            check_positive(self, "explained", zero=True)

    def __call__(
        self,
        model: nn.Module,
        data: ImageDataset,
        out: str | Path,
        *,
        progress: bool = True,
        rank: int = 0,
        world: int = 1,
    ) -> pa.Table:
        """Examine the model on every image of the data set.

        Parameters
        ----------
        model : Module
            The classifier; it runs in eval mode, where its weights are.
        data : ImageDataset
            The images.
        out : str or Path
            The folder for records, settings and gallery.
        progress : bool
            Show a progress bar.
        rank, world : int
            Of ``world`` processes that share the work this is number ``rank``: it takes every
            ``world``-th shard, from shard ``rank`` on. When all are done, one of them calls
            `finish`.

        Returns
        -------
        pyarrow.Table
            All records; where the work is shared, those of this process's shards.

        Raises
        ------
        HoldfastError
            If the folder holds an audit of another model or with other settings.
        InputError
            If ``rank`` is not below ``world``.
        """
        if not 0 <= rank < world:
            raise InputError("rank", rank, f"a number from 0 to {world - 1}, as world is {world}")
        out = Path(out)
        findings = self._begin(out, model, data)
        if findings and rank == 0:
            warnings.warn(" ".join(findings), stacklevel=2)
        drawn = frozenset(self._explained(len(data)))
        mine = range(rank, -(-len(data) // self.shard), world)
        parts = [out / f"part-{number:05d}.parquet" for number in mine]
        shown = track(mine, f"Auditing {data.name}", disable=not progress)
        with evaluating(model):
            for number, part in zip(shown, parts, strict=True):
                if part.exists():
                    continue
                start = number * self.shard
                indices = list(range(start, min(start + self.shard, len(data))))
                with seeded(self.seed, number), warnings.catch_warnings():
                    # Said once for all images, in the end.
                    warnings.simplefilter("ignore", StuckWarning)
                    rows = list(self._examine(model, data, indices, drawn))
                with whole(part) as temporary:
                    pq.write_table(_table(rows), temporary)
        return self.finish(model, data, out) if world == 1 else _read(parts)

    def finish(self, model: nn.Module, data: ImageDataset, out: str | Path) -> pa.Table:
        """Write the gallery when all shards are done, and return all records.

        A call that does all the work itself ends with this.

        Raises
        ------
        HoldfastError
            If shards are missing, or the folder holds another audit.
        """
        out = Path(out)
        self._claim(out, model, data)
        count = -(-len(data) // self.shard)
        parts = [out / f"part-{number:05d}.parquet" for number in range(count)]
        missing = sum(not part.exists() for part in parts)
        if missing:
            raise HoldfastError(f"{out} lacks {missing} of {count} shards; audit those first")
        records = _read(parts)
        file = out / "gallery.safetensors"
        if not file.exists():
            with (
                evaluating(model),
                seeded(self.seed, -1),
                warnings.catch_warnings(),
                whole(file) as temporary,
            ):
                warnings.simplefilter("ignore", StuckWarning)
                temporary.write_bytes(self._gallery(model, data, records))
        if stuck := _stuck(records):
            warnings.warn(
                f"most steps of {', '.join(stuck)} had no direction; that these attacks changed "
                "little is no evidence of robustness",
                StuckWarning,
                stacklevel=2,
            )
        return records

    def _examine(
        self,
        model: nn.Module,
        data: ImageDataset,
        indices: list[int],
        explained: frozenset[int],
    ) -> Iterator[tuple[int, int, str, str, float]]:
        """Yield the records of one shard."""
        device = device_of(model)
        batch = _part(data.batch(indices), torch.arange(len(indices)), device)
        images, labels = batch["images"], batch["labels"]

        def records(check: str, measure: str, chosen: Tensor, values: Tensor) -> Any:
            where = chosen.tolist()
            return zip(
                [indices[i] for i in where],
                labels[chosen].tolist(),
                [check] * len(where),
                [measure] * len(where),
                values.double().tolist(),
                strict=True,
            )

        every = torch.arange(len(indices), device=device)
        right = is_correct(model, images, labels)
        yield from records("clean", "correct", every, right)
        for name, attack in self.attacks.items():
            for measure, values in after_attack(attack, model, images, labels, right).items():
                known = ~values.isnan()
                yield from records(name, measure, every[known], values[known])

        drawn = torch.tensor([i in explained for i in indices], device=device)
        chosen = every[drawn & right]
        if len(chosen) and self.manipulations:
            yardsticks = Yardsticks(model, images[chosen], labels[chosen], self.k)
            for name, manipulation in self.manipulations.items():
                for measure, values in after_manipulation(manipulation, yardsticks).items():
                    known = ~values.isnan()
                    yield from records(name, measure, chosen[known], values[known])

        chosen = every[drawn]
        if len(chosen) == 0:
            return
        few = _part(batch, chosen, device)
        for name, check in self.checks.items():
            for measure, values in check(model, few).items():
                _check_measure(name, measure, values, len(chosen))
                finite = torch.isfinite(values).to(device)
                yield from records(name, measure, chosen[finite], values.to(device)[finite])

    def _explained(self, count: int) -> list[int]:
        """Draw the images whose explanations are attacked, in the order of the draw."""
        generator = torch.Generator().manual_seed(self.seed)
        return torch.randperm(count, generator=generator).tolist()[: self.explained]

    def _gallery(self, model: nn.Module, data: ImageDataset, records: pa.Table) -> bytes:
        """Show the first drawn images that the model gets right, and the worst cases."""
        right = correct_images(records)
        first = [i for i in self._explained(len(data)) if i in right][: self.gallery]
        worst = {i for name in self.manipulations for i in worst_cases(records, name, self.worst)}
        index = first + sorted(worst.difference(first))
        shown = _part(data.batch(index), torch.arange(len(index)), device_of(model))
        is_worst = [i in worst for i in index]
        return gallery(
            model, shown, index, is_worst, self.manipulations, self.checks, self.k, data.classes
        )

    def _begin(self, out: Path, model: nn.Module, data: ImageDataset) -> Sequence[str]:
        """See that the audit can begin or go on; return what was found of a model that is new."""
        file = out / "fitness.yaml"
        fitness = None
        if not file.exists():
            methods = {id(m.attribution): m.attribution for m in self.manipulations.values()}
            fitness = check_fitness(model, data, list(methods.values()))
        self._claim(out, model, data)
        if fitness is None:
            return ()
        text = plain_yaml.dump({**asdict(fitness), "findings": list(fitness.findings)})
        with whole(file) as temporary:
            temporary.write_text(text, encoding="utf-8")
        return fitness.findings

    def _claim(self, out: Path, model: nn.Module, data: ImageDataset) -> None:
        """Write down what the audit is made with, or see that it is what was begun here."""
        settings = {
            "data": {"name": data.name, "images": len(data), "shape": list(data.shape)},
            "model": fingerprint(model),
            **to_settings(self)["init_args"],
        }
        file = out / "settings.yaml"
        if not file.exists():
            made_with = {name: version(name) for name in _VERSIONS}
            told = {**settings, **provenance(model), "versions": made_with}
            text = plain_yaml.dump(told)
            with whole(file) as temporary:
                temporary.write_text(text, encoding="utf-8")
        # What stands there is read back in any case: another process may have been first.
        # A setting that an older Holdfast did not have yet was what it is by default.
        older = to_settings(type(self)())["init_args"]
        begun = older | plain_yaml.read_mapping(file)
        differ = [key for key, value in settings.items() if begun.get(key) != value]
        if differ:
            raise HoldfastError(
                f"{out} holds an audit with other settings ({', '.join(differ)}); "
                "remove it or choose another folder"
            )


_VERSIONS = ("holdfast", "torch", "torchvision", "numpy")


def _stuck(records: pa.Table) -> list[str]:
    """Name the attacks most of whose steps had no direction."""
    rows = records.filter(pc.equal(records["measure"], "no_direction"))
    means = rows.group_by("check", use_threads=False).aggregate([("value", "mean")])
    return [row["check"] for row in means.to_pylist() if row["value_mean"] > MOSTLY]


def _read(parts: list[Path]) -> pa.Table:
    tables = [pq.ParquetFile(part).read() for part in parts]
    return pa.concat_tables(tables) if tables else SCHEMA.empty_table()


def _part(batch: Batch, chosen: Tensor, device: torch.device) -> Batch:
    """Pick images of a batch, with all that belongs to them, and move them to a device."""
    columns = cast("dict[str, Tensor]", batch)
    part = {name: values[chosen.to(values.device)].to(device) for name, values in columns.items()}
    return cast("Batch", part)


def _check_measure(check: str, measure: str, values: Any, count: int) -> None:
    if not isinstance(values, Tensor) or values.shape != (count,):
        came = tuple(values.shape) if isinstance(values, Tensor) else type(values).__name__
        raise InputError(f"checks.{check}", f"{measure} of shape {came}", f"shape ({count},)")


def _table(rows: list[tuple[int, int, str, str, float]]) -> pa.Table:
    columns = zip(*rows, strict=True)
    return pa.table(dict(zip(SCHEMA.names, columns, strict=True)), schema=SCHEMA)
