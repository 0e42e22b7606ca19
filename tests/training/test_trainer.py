import os

import pytest
import torch

from holdfast.contracts import HoldfastError
from holdfast.training.recipe import load_recipe
from holdfast.training.trainer import check_trainer, in_our_words, make_trainer

WRONG = {
    "max_epochs": ("x", 1.5, True, 0, -2, 2**70, [1]),
    "max_steps": ("x", 1.5, 0, -2, "1_000"),
    "min_steps": (-1, "x"),
    "max_time": ("soon", "1:2:3", {"hour": 1}, {"hours": -1}, {}, {"days": 10**9}, 3),
    "limit_train_batches": (0, -1, 1.5, 0.0, "x", float("nan")),
    "limit_val_batches": (-1, 1.5, "x"),
    "overfit_batches": (-1, 1.5),
    "val_check_interval": (0, -0.5, 1.5, "x"),
    "check_val_every_n_epoch": (0, -1, 1.5),
    "num_sanity_val_steps": (-2, "x"),
    "log_every_n_steps": (-1, 0.5),
    "accumulate_grad_batches": (0, -1, {0: 2}, "x"),
    "gradient_clip_val": (-1, "x", float("inf")),
    "gradient_clip_algorithm": ("bogus", 3),
    "accelerator": ("quantum", 3, "tpu"),
    "strategy": ("bogus", 3),
    "devices": (0, -2, 100_000, 99999999999, "x", "0,0", [], [0, 0], [-1], 1.5, "9" * 20, [999]),
    "num_nodes": (0, -1, 5, "x"),
    "precision": ("17", 8, "x", 1.5),
    "deterministic": ("maybe", 3),
    "benchmark": ("x", 1),
    "detect_anomaly": ("x",),
    "profiler": ("bogus", 3),
    "logger": (True, "x"),
    "callbacks": ([],),
    "plugins": ("x",),
    "default_root_dir": ("x",),
    "fast_dev_run": (True,),
    "enable_checkpointing": (False,),
}


@pytest.mark.usefixtures("own_errors")
@pytest.mark.parametrize(
    ("name", "value"), [(name, value) for name, values in WRONG.items() for value in values]
)
def test_what_makes_no_sense_is_refused_by_its_name(name, value):
    with pytest.raises(HoldfastError, match=rf"^trainer\.{name}: ") as caught:
        check_trainer({"max_epochs": 1, name: value})
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "settings",
    [
        {"max_epochs": 1},
        {"max_steps": 3, "max_epochs": -1},
        {"max_time": "00:00:01:00"},
        {"max_time": {"minutes": 1}},
        {"max_epochs": 2, "devices": 1, "accelerator": "cpu", "num_nodes": 1, "strategy": "auto"},
        {"max_epochs": 2, "devices": "1", "precision": 32, "gradient_clip_val": 1},
        {"max_epochs": 2, "limit_train_batches": 0.5, "limit_val_batches": 0, "profiler": None},
        {"max_epochs": 2, "accumulate_grad_batches": 2, "val_check_interval": 1.0},
    ],
)
def test_what_makes_sense_is_taken(settings):
    check_trainer(settings)
    make_trainer(settings, logger=False, enable_checkpointing=False)


@pytest.mark.parametrize("settings", [{}, {"max_epochs": None}, {"max_steps": -1}, {"devices": 1}])
def test_something_says_how_long(settings):
    with pytest.raises(HoldfastError, match=r"^trainer.*limit|give max_epochs"):
        check_trainer(settings)


def test_nodes_are_those_that_were_started(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "8")
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    check_trainer({"max_epochs": 1, "num_nodes": 4})
    with pytest.raises(HoldfastError, match="num_nodes: expected 4, as many as torchrun"):
        check_trainer({"max_epochs": 1, "num_nodes": 2})
    monkeypatch.setenv("SLURM_NNODES", "3")
    check_trainer({"max_epochs": 1, "num_nodes": 3})


def test_accelerators_are_those_that_are_here(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    check_trainer({"max_epochs": 1, "devices": [0, 1]})
    check_trainer({"max_epochs": 1, "devices": "0,1", "accelerator": "gpu"})
    with pytest.raises(HoldfastError, match="devices: expected a number from 1, at most 2"):
        check_trainer({"max_epochs": 1, "devices": 3})
    with pytest.raises(HoldfastError, match="places from 0 on, at most 2"):
        check_trainer({"max_epochs": 1, "devices": "0,2"})
    check_trainer({"max_epochs": 1, "devices": os.cpu_count(), "accelerator": "cpu"})
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    with pytest.raises(HoldfastError, match="accelerator: expected one that is here"):
        check_trainer({"max_epochs": 1, "accelerator": "cuda"})


def test_what_lightning_refuses_is_told_in_one_line():
    with pytest.raises(HoldfastError, match=r"^trainer.*Lightning refuses it \(") as caught:
        make_trainer({"max_epochs": 1, "overfit_batches": 1}, logger=3, barebones=True)
    assert "\n" not in str(caught.value)


def test_errors_of_others_stay_what_they_are():
    with pytest.raises(ValueError, match="mine"), in_our_words({}):
        raise ValueError("mine")


def test_recipes_can_be_trained_here():
    for name in ("digits/art", "mnist/art", "cifar10/art", "flower17/wrn_art"):
        check_trainer(load_recipe(name).trainer)
