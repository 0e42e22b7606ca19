"""The audit: how a model's predictions and explanations stand up to attacks, image by image."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa
from torch import nn

from holdfast.adversarial import PGD
from holdfast.attributions import IntegratedGradients
from holdfast.audit.running import Running
from holdfast.contracts import (
    Attack,
    Check,
    InputError,
    Manipulation,
    check_positive,
    checked,
)
from holdfast.data import ImageDataset
from holdfast.files import locked
from holdfast.manipulation import TopK

__all__ = ["Audit"]


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
    end. It is bound to its images, its model and its settings, and goes on with no others.

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
        If the folder holds an audit of another model, of other images or with other settings, or
        another process works in it; or the model and the data do not fit each other, see
        `check_fitness`.

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
            Show a progress bar; where there is no terminal, a line now and then.
        rank, world : int
            Of ``world`` processes that share the work this is number ``rank``: it takes every
            ``world``-th shard, from shard ``rank`` on. When all are done, one of them calls
            `finish`. Whoever starts them sees that nobody else works in the folder, see
            `holdfast.files.locked`; a process that does all the work does so itself.

        Returns
        -------
        pyarrow.Table
            All records; where the work is shared, those of this process's shards.

        Raises
        ------
        HoldfastError
            If the folder holds an audit of another model, of other images or with other settings,
            or another process works in it.
        InputError
            If ``rank`` is not below ``world``.
        """
        if not 0 <= rank < world:
            raise InputError("rank", rank, f"a number from 0 to {world - 1}, as world is {world}")
        running = Running(self, model, data, Path(out))
        if world > 1:
            running.begin(say=rank == 0)
            return running.share(rank, world)
        with locked(Path(out)):
            running.begin()
            with running.shown(progress):
                running.share()
            return running.finish(progress)

    def finish(self, model: nn.Module, data: ImageDataset, out: str | Path) -> pa.Table:
        """Write the gallery when all shards are done, and return all records.

        A call that does all the work itself ends with this.

        Raises
        ------
        HoldfastError
            If shards are missing, or the folder holds another audit.
        """
        running = Running(self, model, data, Path(out))
        running.claim()
        return running.finish()
