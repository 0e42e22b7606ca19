import dataclasses
import itertools
import random
import signal
import subprocess
import sys
import time
from dataclasses import dataclass

import captum.attr
import datasets
import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from torch import nn

import holdfast.training.fit
from holdfast.adversarial import PGD
from holdfast.attributions import GradCAM, Gradient, SmoothGrad, from_captum
from holdfast.audit import ROAR
from holdfast.contracts import HoldfastError, InputError
from holdfast.data import Augmentation, ImageData
from holdfast.models import Architecture
from holdfast.objectives import AdversarialTraining, DefensiveDistillation, Natural
from holdfast.training import load, load_recipe
from holdfast.training.fit import train
from holdfast.training.recipe import OptimizerSettings, Recipe

TINY = {
    "data.limit": 60,
    "batch_size": 20,
    "trainer": {"max_epochs": 2},
    "model.options": {"hidden": [16]},
}


@dataclass(frozen=True)
class Square:
    """A map that names the same square of every image: the first of 3×3 pixels."""

    corner: int = 0

    def __call__(self, model, images, targets=None, *, create_graph=False):
        maps = torch.zeros_like(images)
        maps[:, :, self.corner : self.corner + 3, self.corner : self.corner + 3] = 1.0
        return maps


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "huggingface")


@pytest.fixture
def recipe():
    return load_recipe("digits/natural", TINY)


@pytest.fixture
def model():
    return Architecture("mlp", classes=10, in_channels=1, size=16, options={"hidden": [16]}).build()


def accuracies(records):
    return {
        (row["attribution"], row["share"], row["repeat"]): row["accuracy"]
        for row in records.to_pylist()
    }


@pytest.fixture
def planted(tmp_path):
    """Noise of 8×8 pixels, whose class shows in a square of 3×3 pixels alone."""
    generator = np.random.default_rng(0)
    kinds = datasets.Features(image=datasets.Image(), label=datasets.ClassLabel(names=["a", "b"]))
    for split, count in (("train", 400), ("test", 200)):
        labels = np.arange(count) % 2
        pixels = generator.integers(0, 256, (count, 8, 8))
        pixels[:, :3, :3] = np.where(labels, 160, 90)[:, None, None] + pixels[:, :3, :3] // 16
        images = [Image.fromarray(p.astype(np.uint8)) for p in pixels]
        table = datasets.Dataset.from_dict({"image": images, "label": labels}, features=kinds)
        table.to_parquet(tmp_path / "planted" / f"{split}.parquet")
    return Recipe(
        data=ImageData(str(tmp_path / "planted")),
        model=Architecture("mlp", 2, 1, 8, options={"hidden": [32]}),
        objective=Natural(),
        optimizer=OptimizerSettings("adam", lr=0.01),
        batch_size=80,
        trainer={"max_epochs": 12},
    )


def test_the_true_map_takes_accuracy_to_chance_and_chance_does_not(planted, tmp_path):
    model = planted.model.build()  # these maps do not ask it
    roar = ROAR({"true": Square(0), "false": Square(4)}, shares=(0.15,))
    found = accuracies(roar(model, planted, tmp_path / "roar", progress=False))
    assert found["none", 0.0, 0] > 0.97
    # 10 of 64 pixels are removed; the square has 9.
    assert abs(found["true", 0.15, 0] - 0.5) < 0.12
    assert found["false", 0.15, 0] > 0.97
    assert found["random", 0.15, 0] > 0.9
    assert len(found) == 4


def test_without_holes_the_very_same_model_comes_out(recipe, model, tmp_path):
    original = train(recipe, tmp_path / "run", progress=False)
    records = ROAR({}, shares=(0.5,))(model, recipe, tmp_path / "roar", progress=False)
    again = load(tmp_path / "roar" / "none" / "0.0-0")
    for name, tensor in original.state_dict().items():
        assert torch.equal(tensor, again.state_dict()[name]), name
    batch = recipe.data.load("test").batch(range(60))
    right = (original(batch["images"]).argmax(1) == batch["labels"]).double().mean().item()
    assert accuracies(records)["none", 0.0, 0] == pytest.approx(right)


def test_whatever_a_model_was_trained_by_new_ones_are_trained_naturally(recipe, model, tmp_path):
    natural = train(recipe, tmp_path / "natural", progress=False)
    run = dataclasses.replace(recipe, objective=AdversarialTraining(PGD(0.3, 0.1, 2)))
    roar = ROAR({}, shares=(0.5,))
    roar(model, run, tmp_path / "roar", progress=False)
    again = load(tmp_path / "roar" / "none" / "0.0-0")
    for key, tensor in natural.state_dict().items():
        assert torch.equal(tensor, again.state_dict()[key]), key
    # Its own objective has to be asked for, and then it is another result.
    with pytest.raises(HoldfastError, match=r"other settings \(recipe.objective\)"):
        roar(model, run, tmp_path / "roar", retrain=run, progress=False)


def test_another_recipe_may_be_given_to_retrain_by(recipe, model, tmp_path, monkeypatch):
    trained = []

    def watch(recipe, out, **options):
        trained.append((len(recipe.data.load("train")), recipe.seed, recipe.objective))
        return model

    monkeypatch.setattr(holdfast.training.fit, "train", watch)
    run = dataclasses.replace(recipe, objective=AdversarialTraining(PGD(0.3, 0.1, 2)))
    other = dataclasses.replace(run, data=ImageData("digits", limit=40), seed=3)
    ROAR({}, shares=(0.5,))(model, recipe, tmp_path, retrain=other, progress=False)
    assert trained == [(40, 3, run.objective)] * 2


def test_what_depends_on_no_map_is_trained_once_for_several_models(
    recipe, model, tmp_path, monkeypatch
):
    roar = ROAR({"a": Gradient()}, shares=(0.5,))
    first = roar(model, recipe, tmp_path / "first", progress=False)
    trained = []

    def count(recipe, out, **options):
        trained.append(f"{out.parent.parent.name}/{out.parent.name}")
        return model

    monkeypatch.setattr(holdfast.training.fit, "train", count)
    other = Architecture("mlp", 10, 1, 16, options={"hidden": [9]}).build()
    named = dataclasses.replace(recipe, source="elsewhere", audit={"k": 3})
    like = [tmp_path / "nowhere", tmp_path / "first"]
    second = roar(other, named, tmp_path / "second", like=like, progress=False)
    assert trained == ["second/a"]
    for name in (("none", 0.0, 0), ("random", 0.5, 0)):
        assert accuracies(second)[name] == accuracies(first)[name]
    kept, copied = (
        tmp_path / f"{one}/random/0.5-0/model.safetensors" for one in ("first", "second")
    )
    assert copied.read_bytes() == kept.read_bytes()
    # What was trained otherwise is of no use.
    changed = dataclasses.replace(recipe, batch_size=30)
    roar(other, changed, tmp_path / "third", like=like, progress=False)
    assert trained[1:] == ["third/none", "third/a", "third/random"]


def test_models_are_trained_and_tested_on_images_with_holes(recipe, model, tmp_path, monkeypatch):
    seen = {}

    def watch(recipe, out, **options):
        seen[out.parent.name] = {s: recipe.data.load(s).batch(range(60)) for s in ("train", "test")}
        return train(recipe, out, **options)

    monkeypatch.setattr(holdfast.training.fit, "train", watch)
    ROAR({"square": Square(2)}, shares=(9 / 256,))(model, recipe, tmp_path, progress=False)
    train_images = recipe.data.load("train").batch(range(60))["images"]
    fill = round(float(train_images.double().mean()) * 255) / 255
    for split in ("train", "test"):
        original = recipe.data.load(split).batch(range(60))
        torch.testing.assert_close(seen["none"][split]["images"], original["images"])
        expected = original["images"].clone()
        expected[:, :, 2:5, 2:5] = fill
        torch.testing.assert_close(seen["square"][split]["images"], expected, atol=1e-6, rtol=0)
        changed = (seen["random"][split]["images"] == fill).flatten(1).sum(1)
        assert (changed >= 9).all()
        assert torch.equal(seen["square"][split]["labels"], original["labels"])


def test_explains_the_predicted_class_of_all_images(recipe, model, tmp_path):
    ROAR({"gradient": Gradient()}, shares=(0.5,))(model, recipe, tmp_path, progress=False)
    for split in ("train", "test"):
        images = recipe.data.load(split).batch(range(60))["images"].requires_grad_(True)
        logits = model(images)
        logits.max(1).values.sum().backward()
        scores = images.grad.abs().sum(1).flatten(1)
        ranks = np.load(tmp_path / "gradient" / "ranks" / f"{split}-0000000.npy").reshape(60, -1)
        ordered = np.take_along_axis(scores.numpy(), ranks.argsort(1), axis=1)
        assert (np.diff(ordered, axis=1) <= 1e-6).all()
        assert ranks.dtype == np.uint8


def test_validation_augmentation_and_a_teacher(recipe, model, tmp_path):
    train(recipe, tmp_path / "teacher", progress=False)
    recipe = dataclasses.replace(
        recipe,
        data=ImageData(
            "digits", limit=40, validation=20, balance=6, augmentation=Augmentation(crop=1)
        ),
        objective=DefensiveDistillation(teacher=load(tmp_path / "teacher")),
    )
    records = ROAR({}, shares=(0.5,))(model, recipe, tmp_path / "roar", progress=False)
    assert records.num_rows == 2
    cell = tmp_path / "roar" / "random" / "0.5-0"
    assert (cell / "best.safetensors").exists()
    assert load_recipe(cell / "config.yaml").objective == Natural()


def brightness(model, images, targets=None, *, create_graph=False):
    return images


def test_methods_of_captum_and_plain_functions_go_on_too(recipe, model, tmp_path):
    methods = {"captum": from_captum(captum.attr.InputXGradient), "function": brightness}
    roar = ROAR(methods, shares=(0.5,))
    records = roar(model, recipe, tmp_path, progress=False)
    assert records.num_rows == 4
    assert roar(model, recipe, tmp_path, progress=False).equals(records)


def test_files(recipe, model, tmp_path):
    out = tmp_path / "roar"
    records = ROAR({"g": Gradient()}, shares=(0.5,), repeats=2)(model, recipe, out, progress=False)
    assert records.schema.names == ["attribution", "share", "repeat", "accuracy"]
    assert list(accuracies(records)) == [
        (name, share, repeat)
        for name, share in (("none", 0.0), ("g", 0.5), ("random", 0.5))
        for repeat in (0, 1)
    ]
    assert pq.ParquetFile(out / "roar.parquet").read().equals(records)
    names = {path.name for path in (out / "g" / "0.5-1").iterdir()}
    assert names >= {"config.yaml", "model.safetensors", "record.parquet"}
    assert not names & {"data", "cache", "checkpoints"}
    assert not (tmp_path / "huggingface").exists()  # nothing is left in the user's cache
    config = load_recipe(out / "g" / "0.5-1" / "config.yaml")
    assert config.seed == recipe.seed + 1


def test_more_may_be_asked_for_later(recipe, model, tmp_path, monkeypatch):
    few = ROAR({"a": Gradient()}, shares=(0.5,))
    first = few(model, recipe, tmp_path, progress=False)
    trained = []

    def count(recipe, out, **options):
        trained.append(f"{out.parent.name}/{out.name}")
        return train(recipe, out, **options)

    monkeypatch.setattr(holdfast.training.fit, "train", count)
    more = ROAR({"b": Square()}, shares=(0.25, 0.5))(model, recipe, tmp_path, progress=False)
    assert trained == ["b/0.25-0", "b/0.5-0", "random/0.25-0"]
    assert accuracies(first).items() <= accuracies(more).items()
    assert list(accuracies(more))[1:3] == [("a", 0.5, 0), ("b", 0.25, 0)]
    assert few(model, recipe, tmp_path, progress=False).equals(more)
    assert len(trained) == 3


@pytest.mark.parametrize("stop", [0, 1, 2])
def test_goes_on_where_it_was_and_ends_the_same(stop, recipe, model, tmp_path, monkeypatch):
    roar = ROAR({"smooth": SmoothGrad(samples=2)}, shares=(0.5,))
    whole = roar(model, recipe, tmp_path / "whole", progress=False)
    calls = itertools.count()

    def fail(recipe, out, **options):
        trained = train(recipe, out, **options)
        if next(calls) == stop:
            raise RuntimeError("the power is gone")
        return trained

    with monkeypatch.context() as patch:
        patch.setattr(holdfast.training.fit, "train", fail)
        with pytest.raises(RuntimeError, match="the power is gone"):
            roar(model, recipe, tmp_path / "cut", progress=False)
    done = list((tmp_path / "cut").glob("*/*/record.parquet"))
    assert len(done) == stop
    kept = [file.stat().st_mtime_ns for file in done]
    if stop:
        assert pq.ParquetFile(tmp_path / "cut" / "roar.parquet").read().num_rows == stop
    assert roar(model, recipe, tmp_path / "cut", progress=False).equals(whole)
    assert [file.stat().st_mtime_ns for file in done] == kept


@pytest.mark.slow
@pytest.mark.harness
def test_survives_a_kill(tmp_path):
    """Killed in the middle of a training, the command run again ends as one never killed."""
    changes = dict(TINY, trainer={"max_epochs": 6})
    train(load_recipe("digits/natural", changes), tmp_path / "run", progress=False)
    arguments = ["roar", "run", "--methods=gradient", "--roar.shares=[0.5]", "--quiet", "--out"]
    command = [sys.executable, "-m", "holdfast", *arguments, "cut"]
    process = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.DEVNULL)
    config = tmp_path / "cut" / "gradient" / "0.5-0" / "config.yaml"
    latest = time.monotonic() + 120
    while not config.exists() and process.poll() is None and time.monotonic() < latest:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert (tmp_path / "cut" / "none" / "0.0-0" / "record.parquet").exists()
    assert not (config.parent / "record.parquet").exists()
    recipe = load_recipe(tmp_path / "run" / "config.yaml")
    roar = ROAR({"gradient": Gradient()}, shares=(0.5,))
    model = load(tmp_path / "run")
    again = roar(model, recipe, tmp_path / "cut", progress=False)
    assert again.equals(roar(model, recipe, tmp_path / "whole", progress=False))


def test_refuses_to_mix(recipe, model, tmp_path, monkeypatch):
    roar = ROAR({"a": Gradient()}, shares=(0.5,))
    roar(model, recipe, tmp_path, progress=False)
    other = dataclasses.replace(recipe, batch_size=30)
    with pytest.raises(HoldfastError, match=r"other settings \(recipe.batch_size\)"):
        roar(model, other, tmp_path, progress=False)
    with pytest.raises(HoldfastError, match=r"\(attributions.a\)"):
        dataclasses.replace(roar, attributions={"a": Square()})(model, recipe, tmp_path)
    with pytest.raises(HoldfastError, match=r"\(seed\)"):
        dataclasses.replace(roar, seed=1)(model, recipe, tmp_path)
    others = recipe.data.load("test")
    with monkeypatch.context() as patch:
        patch.setattr(ImageData, "load", lambda data, split: others)  # at the same path
        with pytest.raises(HoldfastError, match=r"\(data\)"):
            roar(model, recipe, tmp_path)
    with torch.no_grad():
        next(model.parameters()).add_(0.1)
    with pytest.raises(HoldfastError, match=r"\(model\)"):
        roar(model, recipe, tmp_path)


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"shares": (0.5, 0.0)}, "ROAR.shares: expected numbers above 0 and below 1, got 0.0"),
        ({"shares": (1.0,)}, "ROAR.shares"),
        ({"shares": (float("nan"),)}, "ROAR.shares"),
        ({"shares": (0.5, 0.5)}, "none twice"),
        ({"shares": ()}, "at least one share"),
        ({"repeats": 0}, "ROAR.repeats"),
        ({"attributions": {"random": Gradient()}}, "the name 'random'"),
        ({"attributions": {"none": Gradient()}}, "the name 'none'"),
        ({"attributions": {"../ig": Gradient()}}, "the name '../ig'"),
    ],
)
def test_bad_settings(settings, says, own_errors):
    with pytest.raises(InputError, match=says):
        ROAR(**settings)


@pytest.mark.parametrize("trainer", [{"devices": 2}, {"devices": "auto"}, {"num_nodes": 2}])
def test_several_devices_are_refused(trainer, recipe, model, tmp_path):
    recipe = dataclasses.replace(recipe, trainer={**recipe.trainer, **trainer})
    with pytest.raises(InputError, match="recipe.trainer.devices"):
        ROAR()(model, recipe, tmp_path)


def test_an_attribution_that_the_model_does_not_take_is_told_before_any_training(
    recipe, model, tmp_path
):
    with pytest.raises(InputError, match="convolution"):
        ROAR({"cam": GradCAM()}, shares=(0.5,))(model, recipe, tmp_path, progress=False)
    assert not list(tmp_path.glob("*/*/config.yaml"))


def test_leaves_model_and_generators_as_they_were(recipe, tmp_path, untouched, own_errors):
    # Without beartype, which draws the items of a list that it looks at.
    model = nn.Sequential(
        nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3), nn.Dropout(), nn.Flatten(), nn.Linear(588, 10)
    )
    model[0].weight.requires_grad_(False)
    model[4].bias.grad = torch.ones(10)
    before = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].copy()
    bars, cache = datasets.are_progress_bars_disabled(), datasets.config.HF_DATASETS_CACHE
    with untouched(model):
        ROAR({"g": Gradient()}, shares=(0.5,))(model, recipe, tmp_path / "out", progress=False)
    assert torch.equal(torch.get_rng_state(), before[0])
    assert random.getstate() == before[1]
    assert (np.random.get_state()[1] == before[2]).all()
    assert datasets.are_progress_bars_disabled() == bars
    assert cache == datasets.config.HF_DATASETS_CACHE


def test_two_functions_without_a_name_are_two_attributions(recipe, model, tmp_path):
    def squared(power):
        return lambda model, images, targets=None: Gradient()(model, images, targets).abs() ** power

    roar = ROAR({"a": squared(1)}, shares=(0.5,))
    roar(model, recipe, tmp_path, progress=False)
    with pytest.raises(HoldfastError, match=r"\(attributions.a\)"):
        ROAR({"a": squared(2)}, shares=(0.5,))(model, recipe, tmp_path)
