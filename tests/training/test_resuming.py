"""Trainings that are interrupted, in any way and at any step, end as one that was not."""

import os
import random
import signal
from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from torch import nn

import holdfast.training.checkpoints
from holdfast.contracts import HoldfastError
from holdfast.data import Augmentation, ImageData
from holdfast.training.fit import train
from holdfast.training.recipe import load_recipe

TINY = {"data.limit": 100, "batch_size": 16, "model.options": {"hidden": [16]}}
STEPS = []


class Gone(Exception):
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
def _settings(monkeypatch):
    """Leave the interruption out of what a recipe is known by."""
    real = holdfast.training.fit.to_settings

    def without(recipe):
        objective = recipe.objective
        if isinstance(objective, Interrupted):
            objective = objective.objective
        return real(replace(recipe, objective=objective))

    monkeypatch.setattr(holdfast.training.fit, "to_settings", without)
    STEPS.clear()


def results(folder):
    """What has to be equal: everything but checkpoints and TensorBoard's logs."""
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


def interrupted(recipe, out, steps, how):
    """Train, interrupted in the ``steps``-th calls, and go on each time."""
    ends = {"gone": Gone, "SIGINT": KeyboardInterrupt, "SIGTERM": SystemExit}
    for number, step in enumerate([*steps, 0]):
        STEPS.clear()
        objective = replace(recipe.objective, call=step, how=how)
        now = replace(recipe, objective=objective)
        resume = number > 0 and (out / "checkpoints").exists()
        if step:
            with pytest.raises(ends[how]):
                train(now, out, resume=resume, progress=False)
        else:
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
    "by step": {
        "optimizer": {"name": "sgd", "lr": 0.1, "schedule": {5: 0.01}, "interval": "step"}
    },
    "so many steps": {"trainer": {"max_steps": 15}},
    "every step logged": {"trainer": {"max_epochs": 3, "log_every_n_steps": 1}},
    "steps logged and validated": {
        "data": {"path": "digits", "size": 16, "limit": 100, "validation": 40},
        "trainer": {"max_steps": 15, "val_check_interval": 0.5, "log_every_n_steps": 1},
    },
}


@pytest.mark.parametrize("how", ["gone", "SIGINT", "SIGTERM"])
@pytest.mark.parametrize("kind", KINDS)
def test_ends_the_same(kind, how, tmp_path, monkeypatch):
    recipe = tiny(**KINDS[kind])
    train(recipe, tmp_path / "whole", progress=False)
    total = len(STEPS)
    expected = results(tmp_path / "whole")
    for interval in (0, 60):
        monkeypatch.setattr(holdfast.training.checkpoints, "_INTERVAL", interval)
        for step in range(1, total):
            out = tmp_path / f"{interval}-{step}"
            assert interrupted(recipe, out, [step], how) == expected, (interval, step)
    assert interrupted(recipe, tmp_path / "often", [3, 2, 4], how) == expected
