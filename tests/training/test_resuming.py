"""Trainings that are interrupted, in any way and at any step, end as one that was not."""

import errno
import os
import random
import signal
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
import torch
from torch import nn

import holdfast.training.checkpoints
from holdfast.contracts import HoldfastError
from holdfast.data import ImageData
from holdfast.files import locked
from holdfast.training.fit import train
from holdfast.training.recipe import load_recipe
from holdfast.training.saving import load_saved

TINY = {"data.limit": 100, "batch_size": 16, "model.options": {"hidden": [16]}}
STEPS = []


class Gone(Exception):  # noqa: N818
    """Stands for a kill: nothing of ours takes note of it."""


@dataclass(frozen=True)
class Interrupted:
    """An objective that draws from every generator, and in whose n-th call something happens."""

    objective: object
    call: int = 0
    how: str = "gone"

    def __call__(self, model, batch):
        STEPS.append(1)
        if len(STEPS) == self.call:
            if self.how == "gone":
                raise Gone
            os.kill(os.getpid(), getattr(signal, self.how))
        noise = torch.rand(1) + random.random() + np.random.rand()
        images = (batch["images"] + 0.1 * noise).clamp(0, 1)
        return self.objective(model, {**batch, "images": images})

    def __repr__(self):
        return f"Interrupted({self.objective})"


def tiny(name="digits/natural", call=0, how="gone", **changes):
    changes = {key.replace("__", "."): value for key, value in changes.items()}
    recipe = load_recipe(name, TINY | {"trainer": {"max_epochs": 3}} | changes)
    return replace(recipe, objective=Interrupted(recipe.objective, call, how))


@pytest.fixture(autouse=True)
def _settings(monkeypatch, own_errors):
    """Leave the interruption out of what a recipe is known by, and read images once.

    Without beartype, which draws the items of a list that it looks at.
    """
    real, read, images = holdfast.training.fit.to_settings, ImageData.load, {}

    def without(recipe):
        objective = recipe.objective
        if isinstance(objective, Interrupted):
            objective = objective.objective
        return real(replace(recipe, objective=objective))

    def load(self, split):
        if (self, split) not in images:
            images[self, split] = read(self, split)
        return images[self, split]

    monkeypatch.setattr(holdfast.training.fit, "to_settings", without)
    monkeypatch.setattr(ImageData, "load", load)
    STEPS.clear()


WHOLE = {}


@pytest.fixture
def whole(_settings, tmp_path_factory):
    """What an undisturbed training of `tiny` comes to, trained once for all."""
    if not WHOLE:
        folder = tmp_path_factory.mktemp("whole")
        train(tiny(), folder, progress=False)
        WHOLE.update(results(folder))
    STEPS.clear()
    return WHOLE


def results(folder):
    """What has to be equal: everything but checkpoints and TensorBoard's logs."""
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


ENDS = {"gone": Gone, "SIGINT": KeyboardInterrupt, "SIGTERM": SystemExit}


def interrupted(recipe, out, *ends):
    """Train, interrupted in so many steps in such ways, and go on each time."""
    for step, how in [*ends, (0, "")]:
        STEPS.clear()
        now = replace(recipe, objective=replace(recipe.objective, call=step, how=how))
        resume = (out / "checkpoints").exists()
        with pytest.raises(ENDS[how]) if step else nullcontext():
            train(now, out, resume=resume, progress=False)
    return results(out)


KINDS = {
    "natural": {},
    "art": {"name": "digits/art"},
    "accumulated": {"trainer": {"max_epochs": 3, "accumulate_grad_batches": 4}},
    "validated": {
        "data": {"path": "digits", "size": 16, "limit": 100, "validation": 40},
        "optimizer": {"name": "adam", "lr": 0.05},
    },
    "validated within": {
        "data": {"path": "digits", "size": 16, "limit": 100, "validation": 40},
        "optimizer": {"name": "adam", "lr": 0.05},
        "trainer": {"max_epochs": 3, "val_check_interval": 0.5},
    },
    "validated always": {
        "data": {"path": "digits", "size": 16, "limit": 100, "validation": 40},
        "trainer": {"max_epochs": 3, "val_check_interval": 1},
    },
    "augmented": {
        "data": {
            "path": "digits",
            "size": 16,
            "limit": 100,
            "balance": 12,
            "augmentation": {"crop": 2, "flip": True, "rotation": 10},
        }
    },
    "by epoch": {"optimizer": {"name": "sgd", "lr": 0.1, "schedule": {1: 0.01, 2: 0.001}}},
    "by step": {"optimizer": {"name": "sgd", "lr": 0.1, "schedule": {5: 0.01}, "interval": "step"}},
    "so many steps": {"trainer": {"max_steps": 15}},
    "with a discriminator": {
        "objective": {"class_path": "JARN", "init_args": {"every": 3}},
        "model.discriminator": True,
        "trainer": {"max_steps": 15},
    },
    "every step logged": {"trainer": {"max_epochs": 3, "log_every_n_steps": 1}},
    "steps logged and validated": {
        "data": {"path": "digits", "size": 16, "limit": 100, "validation": 40},
        "trainer": {"max_steps": 15, "val_check_interval": 0.5, "log_every_n_steps": 1},
    },
}


OFTEN = ("art", "accumulated", "validated within", "augmented", "by step")


@pytest.mark.parametrize(
    "kind",
    [pytest.param(kind, marks=() if kind in OFTEN else pytest.mark.harness) for kind in KINDS],
)
def test_ends_the_same(kind, tmp_path, monkeypatch):
    monkeypatch.setattr(holdfast.training.checkpoints, "_INTERVAL", 0)
    recipe = tiny(**KINDS[kind])
    train(recipe, tmp_path / "whole", progress=False)
    ends = [(4, "gone"), (3, "SIGINT"), (5, "SIGTERM"), (2, "gone")]
    assert interrupted(recipe, tmp_path / "cut", *ends) == results(tmp_path / "whole")


def test_a_discriminator_trains_on_and_is_not_saved(tmp_path):
    """From a checkpoint at the end of the first epoch of six steps; it has learned by then."""
    recipe = tiny(**KINDS["with a discriminator"])
    whole = train(recipe, tmp_path / "whole", progress=False)
    saved = load_saved(tmp_path / "whole")
    assert isinstance(saved, nn.Sequential)
    assert saved.state_dict().keys() == whole.state_dict().keys()
    assert interrupted(recipe, tmp_path / "cut", (8, "gone")) == results(tmp_path / "whole")
    with pytest.warns(UserWarning, match="it has ended"):
        again = train(recipe, tmp_path / "whole", resume=True, progress=False)
    pairs = zip(whole.parameters(), again.parameters(), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)


@pytest.mark.parametrize("step", [5, 6, pytest.param(7, marks=pytest.mark.harness), 8, 17])
def test_with_few_checkpoints_too(step, whole, tmp_path):
    """Of six steps an epoch: without a checkpoint, at an epoch's end, in the midst, in the last."""
    assert interrupted(tiny(), tmp_path, (step, "gone")) == whole


def begun(out, **changes):
    """A training that was interrupted in its ninth step, of six an epoch."""
    with pytest.raises(Gone):
        train(tiny(call=9, **changes), out, progress=False)
    STEPS.clear()


def files(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_without_resume_checkpoints_are_not_touched(tmp_path):
    begun(tmp_path)
    before = files(tmp_path)
    with pytest.raises(HoldfastError, match="holds checkpoints .* --resume .* another folder"):
        train(tiny(), tmp_path, progress=False)
    assert files(tmp_path) == before


@pytest.mark.parametrize(
    ("changes", "names"),
    [
        ({"seed": 1}, "seed"),
        ({"batch_size": 8}, "batch_size"),
        ({"name": "digits/art"}, "objective.*class_path"),
        ({"optimizer": {"name": "adam", "lr": 0.002}}, "optimizer.lr"),
        ({"trainer": {"max_epochs": 3, "accumulate_grad_batches": 2}}, "accumulate_grad_batches"),
        ({"trainer": {"max_epochs": 2}}, "trainer.max_epochs"),
        ({"trainer": {"max_epochs": 4, "max_steps": 30}}, "trainer.max_steps"),
    ],
)
def test_with_other_settings_nothing_is_touched(changes, names, tmp_path):
    begun(tmp_path)
    before = files(tmp_path)
    with pytest.raises(HoldfastError, match=rf"begun with other settings \(.*{names}"):
        train(tiny(**changes), tmp_path, resume=True, progress=False)
    assert files(tmp_path) == before


def test_nothing_to_go_on_from_is_said(whole, tmp_path):
    with pytest.warns(UserWarning, match="holds no checkpoint .* training begins anew"):
        train(tiny(), tmp_path / "new", resume=True, progress=False)
    assert results(tmp_path / "new") == whole


def test_what_has_ended_is_left_alone(tmp_path):
    trained = train(tiny(), tmp_path, progress=False)
    before = files(tmp_path)
    with pytest.warns(UserWarning, match="it has ended; nothing is left to do"):
        again = train(tiny(), tmp_path, resume=True, progress=False)
    assert files(tmp_path) == before
    assert not again.training
    for name, tensor in trained.state_dict().items():
        assert torch.equal(tensor, again.state_dict()[name])


def test_a_longer_training_ends_as_if_it_had_been_so_long_from_the_beginning(tmp_path):
    validated = KINDS["validated"]["data"]
    train(tiny(data=validated, trainer={"max_epochs": 4}), tmp_path / "long", progress=False)
    for epochs in (2, 4):
        recipe = tiny(data=validated, trainer={"max_epochs": epochs})
        train(recipe, tmp_path / "grown", resume=epochs > 2, progress=False)
    assert results(tmp_path / "grown") == results(tmp_path / "long")


@dataclass(frozen=True)
class Unlearning:
    """An objective that makes everything worse from the third epoch on."""

    def __call__(self, model, batch):
        loss = nn.functional.cross_entropy(model(batch["images"]), batch["labels"])
        return {"loss": loss if batch["epoch"] < 2 else -100 * loss}


def test_the_best_model_is_kept_when_training_goes_on(tmp_path):
    recipe = replace(tiny(**KINDS["validated"]), objective=Unlearning())
    train(replace(recipe, trainer={"max_epochs": 2}), tmp_path, progress=False)
    best = (tmp_path / "best.safetensors").read_bytes()[-1000:]
    train(recipe, tmp_path, resume=True, progress=False)
    assert (tmp_path / "best.safetensors").read_bytes()[-1000:] == best
    assert (tmp_path / "model.safetensors").read_bytes()[-1000:] != best


class TestBroken:
    """Checkpoints that are damaged, as by a power cut."""

    DAMAGE: ClassVar = {
        "cut off": lambda whole: whole[: len(whole) // 2],
        "empty": lambda whole: b"",
        "garbage": lambda whole: b"garbage" * 100,
        "a bit": lambda whole: bytes(b ^ (n == len(whole) // 2) for n, b in enumerate(whole)),
    }

    @pytest.mark.parametrize("damage", DAMAGE)
    def test_the_one_before_is_used(self, damage, whole, tmp_path):
        with pytest.raises(Gone):
            train(tiny(call=15), tmp_path / "cut", progress=False)
        last = tmp_path / "cut" / "checkpoints" / "last.ckpt"
        last.write_bytes(self.DAMAGE[damage](last.read_bytes()))
        with pytest.warns(UserWarning, match=r"last.ckpt is broken.*goes on from previous.ckpt"):
            train(tiny(), tmp_path / "cut", resume=True, progress=False)
        assert results(tmp_path / "cut") == whole

    def test_all_of_them(self, tmp_path):
        begun(tmp_path)
        for file in (tmp_path / "checkpoints").iterdir():
            file.write_bytes(b"")
        before = files(tmp_path)
        with pytest.raises(HoldfastError, match="no checkpoint in .* is whole .*last.ckpt"):
            train(tiny(), tmp_path, resume=True, progress=False)
        assert files(tmp_path) == before

    def test_nothing_is_unpickled(self, tmp_path):
        begun(tmp_path)
        marker = tmp_path.parent / "executed"

        class Evil:
            def __reduce__(self):
                return os.mkdir, (str(marker),)

        torch.save({"holdfast": Evil()}, tmp_path / "checkpoints" / "last.ckpt")
        with pytest.raises(HoldfastError, match="is whole"):
            train(tiny(), tmp_path, resume=True, progress=False)
        assert not marker.exists()


@pytest.mark.parametrize(
    "changes",
    [
        {"trainer": {"max_epochs": 1, "accelerator": "gpu", "devices": 99}},
        {"model.options": {"hidden": "many"}},
        {"data.path": "no/such/folder"},
    ],
)
def test_a_start_that_fails_changes_nothing(changes, tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "notes.txt").write_text("mine")
    before = files(tmp_path)
    for out in ("run", "new"):
        with pytest.raises(Exception):  # noqa: PT011
            train(tiny(**changes), tmp_path / out, progress=False)
    assert files(tmp_path) == before
    assert not (tmp_path / "new").exists()


def test_one_process_a_folder(tmp_path):
    with locked(tmp_path), pytest.raises(HoldfastError, match="works in"):
        train(tiny(), tmp_path, progress=False)


@pytest.mark.parametrize("file", ["checkpoints/last.ckpt", "metrics.csv", "config.yaml"])
def test_a_full_disk_is_a_line_and_what_was_whole_stays(file, whole, tmp_path, monkeypatch):
    rename = Path.replace

    def full(self, target):
        if str(target).endswith(file) and len(STEPS) > (0 if file == "config.yaml" else 8) - 1:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return rename(self, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", full)
        with pytest.raises(HoldfastError, match=f"{file} cannot be written: No space left"):
            train(tiny(), tmp_path / "cut", progress=False)
    STEPS.clear()
    resume = (tmp_path / "cut" / "checkpoints").exists()
    assert resume == (file != "config.yaml")
    train(tiny(), tmp_path / "cut", resume=resume, progress=False)
    assert results(tmp_path / "cut") == whole


def test_other_images_at_the_same_path_are_refused(tmp_path):
    recipe = tiny(call=10)
    with pytest.raises(Gone):
        train(recipe, tmp_path, progress=False)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    data = recipe.data.load("train")
    data.labels = data.labels.flip(0)
    STEPS.clear()
    with pytest.raises(HoldfastError, match="on other images or labels"):
        train(tiny(), tmp_path, resume=True, progress=False)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before
