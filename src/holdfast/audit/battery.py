"""The audit: how a model's predictions and explanations stand up to attacks, image by image."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import torch
import yaml
from rich.progress import track
from safetensors.torch import save as serialize
from torch import Tensor, nn

from holdfast.adversarial import PGD
from holdfast.attributions import IntegratedGradients
from holdfast.contracts import Attack, HoldfastError, Manipulation, check_labels, check_positive
from holdfast.data import ImageDataset
from holdfast.files import whole
from holdfast.manipulation import TopK
from holdfast.metrics import kendall_tau, pixel_scores, spearman_rho, top_k_intersection
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
class Audit:
    """A battery of attacks on predictions and on explanations.

    Called with a model, a data set and a folder, it writes ``part-*.parquet``: one row an image,
    check and measure. The data set is cut into fixed shards, each seeded by its number and written
    when it is done; an audit that was stopped goes on where it was, with the same records in the
    end.

    Parameters
    ----------
    attacks : dict of str to Attack
        Attacks on predictions by the name of their check. Each image's measure is ``correct``.
    manipulations : dict of str to Manipulation
        Attacks on explanations by the name of their check, ``attack/attribution``. Images that the
        model gets right are attacked. Measures are ``preserved``, whether a perturbation kept the
        label, and where one did ``top_k_intersection``, ``kendall_tau`` and ``spearman_rho``
        between the maps before and after.
    k : int
        How many of the highest pixels ``top_k_intersection`` compares.
    explained : int, optional
        Attack the explanations of at most so many images, drawn at random, the same for every
        model. By default all.
    gallery : int
        How many images to keep with their maps, for reports.
    shard : int
        Images in a shard.
    seed : int
        Seeds the draw of images and, with the shard's number, whatever the attacks draw.

    Raises
    ------
    HoldfastError
        If the folder holds an audit of another model or with other settings.

    Examples
    --------
    >>> import tempfile
    >>> from holdfast.data import ImageData
    >>> data = ImageData("digits", limit=20).load("test")
    >>> model = nn.Sequential(nn.Flatten(), nn.Linear(256, 10))
    >>> audit = Audit({"pgd": PGD(eps=0.1, step_size=0.05, steps=3)}, manipulations={})
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     records = audit(model, data, folder, progress=False)
    >>> records.num_rows  # clean and pgd, for 20 images
    40
    """

    attacks: dict[str, Attack] = field(default_factory=_attacks)
    manipulations: dict[str, Manipulation] = field(default_factory=_manipulations)
    k: int = 100
    explained: int | None = None
    gallery: int = 8
    shard: int = 50
    seed: int = 0

    def __post_init__(self) -> None:
        check_positive(self, "k", "shard")
        check_positive(self, "gallery", zero=True)
        if self.explained is not None:
            check_positive(self, "explained", zero=True)

    def __call__(
        self, model: nn.Module, data: ImageDataset, out: str | Path, *, progress: bool = True
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

        Returns
        -------
        pyarrow.Table
            All records.
        """
        out = Path(out)
        self._claim(out, model, data)
        device = next((p.device for p in model.parameters()), torch.device("cpu"))
        explained = self._explained(len(data))
        among = frozenset(explained)
        starts = range(0, len(data), self.shard)
        with evaluating(model):
            for number, start in enumerate(
                track(starts, f"Auditing {data.name}", disable=not progress)
            ):
                part = out / f"part-{number:05d}.parquet"
                if part.exists():
                    continue
                indices = list(range(start, min(start + self.shard, len(data))))
                with _seeded(self.seed, number):
                    rows = list(self._examine(model, data, indices, among, device))
                with whole(part) as temporary:
                    pq.write_table(_table(rows), temporary)
            if not (out / "gallery.safetensors").exists():
                with _seeded(self.seed, -1), whole(out / "gallery.safetensors") as temporary:
                    temporary.write_bytes(self._gallery(model, data, explained, device))
        parts = sorted(out.glob("part-*.parquet"))
        return pa.concat_tables([pq.ParquetFile(part).read() for part in parts])

    def _examine(
        self,
        model: nn.Module,
        data: ImageDataset,
        indices: list[int],
        explained: frozenset[int],
        device: torch.device,
    ) -> Iterator[tuple[int, int, str, str, float]]:
        """Yield the records of one shard."""
        batch = data.batch(indices)
        images, labels = batch["images"].to(device), batch["labels"].to(device)

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
        right = _correct(model, images, labels)
        yield from records("clean", "correct", every, right)
        for check, attack in self.attacks.items():
            attacked = attack(model, images, labels)
            yield from records(check, "correct", every, _correct(model, attacked, labels))

        drawn = torch.tensor([i in explained for i in indices], device=device)
        chosen = every[drawn & right]
        if len(chosen) == 0:
            return
        for check, manipulation in self.manipulations.items():
            found = manipulation(model, images[chosen], labels[chosen])
            yield from records(check, "preserved", chosen, found.preserved)
            kept = chosen[found.preserved]
            if len(kept) == 0:
                continue
            perturbed = found.images[found.preserved]
            before = manipulation.attribution(model, images[kept], labels[kept])
            after = manipulation.attribution(model, perturbed, labels[kept])
            for measure, values in self._similarities(before, after).items():
                yield from records(check, measure, kept, values)

    def _similarities(self, before: Tensor, after: Tensor) -> dict[str, Tensor]:
        first, second = pixel_scores(before), pixel_scores(after)
        return {
            "top_k_intersection": top_k_intersection(first, second, self.k),
            "kendall_tau": kendall_tau(first, second),
            "spearman_rho": spearman_rho(first, second),
        }

    def _explained(self, count: int) -> list[int]:
        """Draw the images whose explanations are attacked, in the order of the draw."""
        generator = torch.Generator().manual_seed(self.seed)
        return torch.randperm(count, generator=generator).tolist()[: self.explained]

    def _gallery(
        self, model: nn.Module, data: ImageDataset, explained: list[int], device: torch.device
    ) -> bytes:
        """Attack a few images once more and keep pictures and maps."""
        tensors: dict[str, Tensor] = {}
        order = explained[: 4 * self.gallery]
        batch = data.batch(order)
        images, labels = batch["images"].to(device), batch["labels"].to(device)
        right = _correct(model, images, labels).nonzero().flatten()[: self.gallery]
        images, labels = images[right], labels[right]
        tensors["index"] = torch.tensor(order)[right.cpu()]
        tensors["label"] = labels
        for check, manipulation in self.manipulations.items():
            if len(right) == 0:
                break
            found = manipulation(model, images, labels)
            before = manipulation.attribution(model, images, labels)
            after = manipulation.attribution(model, found.images, labels)
            scores = self._similarities(before, after)
            tensors |= {
                f"{check}|images": images,
                f"{check}|maps": before,
                f"{check}|perturbed_images": found.images,
                f"{check}|perturbed_maps": after,
                f"{check}|kendall_tau": scores["kendall_tau"],
                f"{check}|top_k_intersection": scores["top_k_intersection"],
                f"{check}|preserved": found.preserved,
            }
        kept = {
            name: (tensor.float() if tensor.is_floating_point() else tensor).cpu().contiguous()
            for name, tensor in tensors.items()
        }
        return serialize(kept, {"classes": json.dumps(list(data.classes), ensure_ascii=False)})

    def _claim(self, out: Path, model: nn.Module, data: ImageDataset) -> None:
        """Write down what the audit is made with, or see that it is what was begun here."""
        settings = {
            "data": {"name": data.name, "images": len(data), "shape": list(data.shape)},
            "model": _fingerprint(model),
            **to_settings(self)["init_args"],
        }
        file = out / "settings.yaml"
        if file.exists():
            begun = yaml.safe_load(file.read_text(encoding="utf-8"))
            differ = [key for key, value in settings.items() if begun.get(key) != value]
            if differ:
                raise HoldfastError(
                    f"{out} holds an audit with other settings ({', '.join(differ)}); "
                    "remove it or choose another folder"
                )
            return
        versions = {name: version(name) for name in ("holdfast", "torch", "torchvision", "numpy")}
        with whole(file) as temporary:
            text = yaml.safe_dump({**settings, "versions": versions}, sort_keys=False)
            temporary.write_text(text, encoding="utf-8")


def _correct(model: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
    with torch.no_grad():
        logits = model(images)
    check_labels(labels, len(images), logits.shape[1])
    return logits.argmax(1) == labels


def _table(rows: list[tuple[int, int, str, str, float]]) -> pa.Table:
    columns = zip(*rows, strict=True)
    return pa.table(dict(zip(SCHEMA.names, columns, strict=True)), schema=SCHEMA)


def _fingerprint(model: nn.Module) -> str:
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy())
    return digest.hexdigest()[:16]


@contextmanager
def _seeded(seed: int, shard: int) -> Iterator[None]:
    """Draw from generators seeded by the shard, and leave the caller's as they were."""
    with torch.random.fork_rng():
        torch.manual_seed(seed * 1_000_003 + shard)
        yield
