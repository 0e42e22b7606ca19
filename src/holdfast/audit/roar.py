"""ROAR: the accuracy of models that are retrained without the pixels that maps name."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from rich.console import Console
from rich.progress import track
from torch import Tensor, nn

from holdfast import plain_yaml
from holdfast.adversarial.accuracy import correct
from holdfast.attributions import METHODS
from holdfast.audit.removal import (
    SHARD,
    fill_first,
    mean_colour,
    rank_by_chance,
    rank_pixels,
    undrawn,
    write_edited,
)
from holdfast.audit.repeatable import device_of, fingerprint, seeded
from holdfast.audit.retraining import naturally, on_one_device
from holdfast.audit.roar_cells import CHANCE, NOTHING, Cell, gather, is_begun, ranks_file
from holdfast.contracts import (
    Attribution,
    HoldfastError,
    InputError,
    check_positive,
    checked,
    chunks,
)
from holdfast.data import ImageDataset
from holdfast.data.digests import digests_of
from holdfast.files import locked, whole
from holdfast.models import evaluating
from holdfast.training.recipe import Recipe, to_settings

__all__ = ["ROAR"]


def _attributions() -> dict[str, Attribution]:
    return {name: METHODS[name] for name in ("gradient", "ig")}


@dataclass(frozen=True)
@checked
class ROAR:
    """Remove and retrain: whether maps find the pixels that decide the class.

    The most important pixels of every image, to train and to test on, become the mean colour of the
    training images; a model is trained from scratch on what is left, and tested. The lower its
    accuracy, the more of the pixels that matter a map has named. Retraining is what sets this apart
    from `Deletion`: the retrained model knows images with holes, so that only what was lost counts.

    Called with a model, the recipe that it was trained by and a folder, it retrains once for each
    attribution, share and repeat; naturally, however the model itself was trained. A call that was
    stopped goes on where it was, with the same numbers in the end, in the midst of a training, too.
    More attributions, shares and repeats may be asked for later in the same folder.

    Parameters
    ----------
    attributions : dict of str to Attribution
        The explanations by name; gradient and Integrated Gradients by default. The class explained
        is the predicted one, of images to train and to test on alike, as in the authors' code: maps
        of the true class would carry the label into the images that the accuracy is measured on.
    shares : tuple of float
        Which shares of the pixels are removed, above 0 and below 1; the nearest whole number of
        pixels. Pixels are ranked by their scores, which do not know a sign; of equal ones those
        that come first in the image go first.
    repeats : int
        How often to retrain, each time from another seed: the recipe's, the next one, and so on.
    seed : int
        Seeds the control, and what attributions draw.

    Raises
    ------
    InputError
        If a name cannot be that of a folder or is ``none`` or ``random``, or a share is out of
        range or given twice.

    Notes
    -----
    Two names are always there. ``none`` is share 0, the same training with all pixels kept.
    ``random`` is the control: it ranks the pixels of each image by chance, anew in each repeat. A
    map whose accuracy is not below the control's has not been shown to be faithful. Nor has it been
    shown to be unfaithful: where the holes are can tell the class, too (Rong et al.).

    References
    ----------
    Hooker et al., A Benchmark for Interpretability Methods in Deep Neural Networks (NeurIPS 2019).
    Rong et al., A Consistent and Efficient Evaluation Strategy for Attribution Methods (ICML 2022).

    Examples
    --------
    >>> import tempfile
    >>> from holdfast.training import load_recipe
    >>> recipe = load_recipe("digits/natural", {"data.limit": 40, "trainer": {"max_steps": 2}})
    >>> model = nn.Sequential(nn.Flatten(), nn.Linear(256, 10))
    >>> roar = ROAR({"gradient": METHODS["gradient"]}, shares=(0.5,))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     records = roar(model, recipe, folder, progress=False)
    >>> records["attribution"].to_pylist(), records["share"].to_pylist()
    (['none', 'gradient', 'random'], [0.0, 0.5, 0.5])
    """

    attributions: dict[str, Attribution] = field(default_factory=_attributions)
    shares: tuple[float, ...] = (0.2, 0.4, 0.6, 0.8)
    repeats: int = 1
    seed: int = 0

    def __post_init__(self) -> None:
        check_positive(self, "repeats")
        for name in self.attributions:
            if name in (NOTHING, CHANCE) or not re.fullmatch(r"\w[\w -]*", name):
                expected = f"letters, digits, - and _, and neither {NOTHING} nor {CHANCE}"
                raise InputError("ROAR.attributions", f"the name {name!r}", expected)
        for share in self.shares:
            if not 0 < share < 1:
                raise InputError("ROAR.shares", share, "numbers above 0 and below 1")
        if len(set(self.shares)) < len(self.shares) or not self.shares:
            raise InputError("ROAR.shares", self.shares, "at least one share, and none twice")

    def __call__(
        self,
        model: nn.Module,
        recipe: Recipe,
        out: str | Path,
        *,
        retrain: Recipe | None = None,
        like: Sequence[str | Path] = (),
        progress: bool = True,
    ) -> pa.Table:
        """Explain every image, remove pixels, retrain and test.

        Parameters
        ----------
        model : Module
            The classifier that is explained, where its weights are.
        recipe : Recipe
            What it was trained by: its data is what pixels are removed from. The new models train
            on one device, and what counts is the model of the last epoch.
        out : str or Path
            The folder. ``roar.parquet`` grows there by a row a retrained model. The model itself is
            in ``<attribution>/<share>-<repeat>/``, a run folder without its checkpoints and its
            data, both removed when it is done; in ``<attribution>/ranks/`` stands at which place in
            the order of importance, from 0 on, each pixel of each image came.
        retrain : Recipe, optional
            What new models are trained by instead, on its data and as it says. By default they have
            the data, the optimizer, the length and the network of ``recipe``, with fresh weights,
            and are trained naturally: so models that were trained in different ways are compared by
            what their maps leave in the images, not by what each way of training makes of that.
        like : sequence of str or Path
            Folders of other models. The new models of ``none`` and ``random`` do not depend on the
            one that is explained: where they were trained there in the same way, on the same
            images, they are copied.
        progress : bool
            Show progress bars.

        Returns
        -------
        pyarrow.Table
            All that the folder holds: ``attribution``, ``share``, ``repeat`` and ``accuracy``, from
            0 to 1, of the retrained model on the test images with the same share removed.

        Raises
        ------
        HoldfastError
            If the folder holds results of another model, of retraining by another recipe, of
            another seed or another attribution of the same name, or another process works there.
        InputError
            If the recipe wants several devices.
        """
        out, recipe = Path(out), on_one_device(retrain or naturally(recipe))
        with locked(out):
            return self._go_on(model, recipe, out, [Path(one) for one in like], progress)

    def _go_on(
        self, model: nn.Module, recipe: Recipe, out: Path, like: list[Path], progress: bool
    ) -> pa.Table:
        """Make what is missing in the folder."""
        data = {split: undrawn(recipe.data).load(split) for split in ("train", "test")}
        self._claim(out, model, recipe, data)
        for cell in self._cells():
            cell.copy(out, like)
        missing = [cell for cell in self._cells() if not cell.record(out).exists()]
        if missing:
            fill = mean_colour(replace(recipe.data, balance=None, augmentation=None).load("train"))
            for name, attribution in self.attributions.items():
                if name in {cell.attribution for cell in missing}:
                    self._rank(name, attribution, model, data, out, progress)
        for number, cell in enumerate(missing, 1):
            if progress:
                Console().print(f"{number} of {len(missing)}: {cell}")
            accuracy = self._retrain(cell, recipe, data, fill, out, progress)
            with whole(cell.record(out)) as unfinished:
                pq.write_table(cell.row(accuracy), unfinished)
            gather(out)
        return gather(out)

    def _cells(self) -> list[Cell]:
        """List the models to train, a whole curve of each attribution before it is repeated."""
        return [
            cell
            for repeat in range(self.repeats)
            for cell in (
                Cell(NOTHING, 0.0, repeat),
                *(
                    Cell(name, share, repeat)
                    for name in (*self.attributions, CHANCE)
                    for share in self.shares
                ),
            )
        ]

    def _rank(
        self,
        name: str,
        attribution: Attribution,
        model: nn.Module,
        data: dict[str, ImageDataset],
        out: Path,
        progress: bool,
    ) -> None:
        """Explain all images and write down the order of their pixels, where that is missing."""
        parts = [
            (split, part) for split, images in data.items() for part in chunks(len(images), SHARD)
        ]
        shown = track(parts, f"Explaining by {name}", disable=not progress)
        for number, (split, part) in enumerate(shown):
            file = ranks_file(out, name, split, part)
            if file.exists():
                continue
            images = data[split].batch(range(part.start, part.stop))["images"].to(device_of(model))
            with evaluating(model), seeded(self.seed, number):
                ranks = rank_pixels(attribution(model, images).detach()).cpu().numpy()
            with whole(file) as unfinished, unfinished.open("wb") as opened:
                np.save(opened, ranks.astype(np.min_scalar_type(ranks.max())))

    def _retrain(
        self,
        cell: Cell,
        recipe: Recipe,
        data: dict[str, ImageDataset],
        fill: Tensor,
        out: Path,
        progress: bool,
    ) -> float:
        """Train and test one model on images with holes, from the last checkpoint on."""
        # Lightning takes seconds to import, and other audits do not need it.
        from lightning.pytorch.utilities.seed import isolate_rng

        from holdfast.training.fit import train

        folder = cell.folder(out)
        begun = is_begun(folder)
        shutil.rmtree(folder / "cache" if begun else folder, ignore_errors=True)

        def with_holes(split: str, images: Tensor, part: slice) -> Tensor:
            if cell.attribution == NOTHING:
                return images
            if cell.attribution == CHANCE:
                ranks = rank_by_chance(images, self.seed * 1_000_003 + cell.repeat)
            else:
                file = ranks_file(out, cell.attribution, split, part)
                ranks = torch.from_numpy(np.load(file).astype(np.int64))
            return fill_first(images, ranks, cell.share, fill)

        for split, images in data.items():
            file = folder / "data" / f"{split}.parquet"
            if not file.exists():
                write_edited(images, file, partial(with_holes, split))
        holes = replace(
            recipe.data,
            path=str(folder / "data"),
            config=None,
            train_split="train",
            test_split="test",
            image_column="image",
            label_column="label",
            size=None,
            resize=None,
        )
        recipe = replace(recipe, data=holes, seed=recipe.seed + cell.repeat)
        with _datasets_cached_in(folder / "cache"), isolate_rng():
            retrained = train(recipe, folder, resume=begun, progress=progress)
            accuracy = _accuracy(retrained, holes.load("test"))
        for waste in ("data", "cache", "checkpoints"):
            shutil.rmtree(folder / waste, ignore_errors=True)
        return accuracy

    def _claim(
        self, out: Path, model: nn.Module, recipe: Recipe, data: dict[str, ImageDataset]
    ) -> None:
        """Write down what the results are made with, or see that it is what was begun here."""
        now = {
            "model": fingerprint(model),
            "data": {split: digests_of(images) for split, images in data.items()},
            "seed": self.seed,
            **{f"recipe.{key}": value for key, value in to_settings(recipe).items()},
            **{f"attributions.{name}": to_settings(a) for name, a in self.attributions.items()},
        }
        now = plain_yaml.parse(plain_yaml.dump(now), "settings.yaml")  # as they are read back
        file = out / "settings.yaml"
        begun: dict[str, Any] = {}
        if file.exists():
            begun = plain_yaml.read_mapping(file)
        # Of attributions, those that are not there yet may join.
        joins = {key for key in now if key.startswith("attributions.") and key not in begun}
        differ = [key for key in now if begun and key not in joins and begun.get(key) != now[key]]
        if differ:
            raise HoldfastError(
                f"{out} holds results with other settings ({', '.join(differ)}); "
                "remove it or choose another folder"
            )
        if joins or not begun:
            made_with = {name: version(name) for name in ("holdfast", "torch", "lightning")}
            text = plain_yaml.dump({"versions": made_with, **begun, **now})
            with whole(file) as unfinished:
                unfinished.write_text(text, encoding="utf-8")


# --- training ------------------------------------------------------------------------------------


def _accuracy(model: nn.Module, data: ImageDataset) -> float:
    right = 0
    for part in chunks(len(data), SHARD):
        batch = data.batch(range(part.start, part.stop))
        images = batch["images"].to(device_of(model))
        right += int(correct(model, images, batch["labels"]).sum())
    return right / len(data)


@contextmanager
def _datasets_cached_in(folder: Path) -> Iterator[None]:
    """Let ``datasets`` put its copies where they go with the rest, and show no bars of its own."""
    config: Any = datasets.config
    before, shown = config.HF_DATASETS_CACHE, not datasets.are_progress_bars_disabled()
    folder.mkdir(parents=True, exist_ok=True)
    config.HF_DATASETS_CACHE = folder
    datasets.disable_progress_bars()
    try:
        yield
    finally:
        config.HF_DATASETS_CACHE = before
        if shown:
            datasets.enable_progress_bars()
