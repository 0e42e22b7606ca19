import csv
import threading
from dataclasses import dataclass, replace

import pytest
import torch
import yaml
from torch import nn

import holdfast
from holdfast.contracts import HoldfastError
from holdfast.data import ImageData
from holdfast.training.fit import TrainingModule, train
from holdfast.training.recipe import OptimizerSettings, Recipe, build, load_recipe

TINY = {
    "data.limit": 96,
    "batch_size": 32,
    "model.options": {"hidden": [16]},
}


def weights(model):
    return torch.cat([p.detach().flatten() for p in model.parameters()])


@pytest.fixture
def recipe():
    return load_recipe("digits/natural", TINY | {"trainer": {"max_epochs": 2}})


def test_writes_a_run_that_loads_anywhere(recipe, tmp_path):
    model = train(recipe, tmp_path / "run", progress=False)
    assert not model.training
    assert (tmp_path / "run" / "checkpoints" / "last.ckpt").exists()
    saved = build(Recipe, yaml.safe_load((tmp_path / "run" / "config.yaml").read_text()))
    assert saved.objective == recipe.objective
    assert (saved.model.classes, saved.model.in_channels, saved.model.size) == (10, 1, 16)

    loaded = holdfast.load(tmp_path / "run")
    images = ImageData("digits", limit=8).load("test").batch(range(8))["images"]
    assert torch.equal(loaded(images), model(images))
    assert loaded.classes == tuple("0123456789")

    rows = list(csv.DictReader((tmp_path / "run" / "metrics.csv").open()))
    losses = [float(row["loss"]) for row in rows if row["loss"]]
    assert losses[-1] < losses[0]


def test_equals_a_plain_loop(tmp_path):
    """The same steps without Lightning: seeds, order of images, optimizer and loss."""
    import lightning
    from torch.utils.data import DataLoader

    recipe = load_recipe("digits/natural", TINY | {"trainer": {"max_epochs": 1}})
    trained = train(recipe, tmp_path / "run", progress=False)

    lightning.seed_everything(recipe.seed, verbose=False)
    data = recipe.data.load("train")
    model = build(type(recipe.model), {**recipe.model.__dict__, "size": 16}).build()
    model.train()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.001)
    order = torch.Generator().manual_seed(recipe.seed)
    loader = DataLoader(data, batch_size=32, shuffle=True, drop_last=True, generator=order)
    for batch in loader:
        loss = nn.functional.cross_entropy(model(batch["images"]), batch["labels"])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert torch.allclose(weights(trained), weights(model), atol=1e-6)


def test_same_seed_same_weights_other_seed_others(tmp_path):
    def run(name, seed):
        changes = {"seed": seed, "trainer": {"max_steps": 3}}
        return weights(
            train(load_recipe("digits/art", TINY | changes), tmp_path / name, progress=False)
        )

    first = run("a", 0)
    assert torch.equal(first, run("b", 0))
    assert not torch.equal(first, run("c", 1))


def test_does_not_overwrite_a_trained_model(recipe, tmp_path):
    (tmp_path / "model.safetensors").write_bytes(b"precious")
    with pytest.raises(HoldfastError, match="already holds a trained model"):
        train(recipe, tmp_path, progress=False)
    assert (tmp_path / "model.safetensors").read_bytes() == b"precious"


@pytest.mark.parametrize(
    ("trainer", "says"),
    [
        ({"max_epochs": 1, "bogus": 2}, "no setting bogus"),
        ({"max_epochs": 1, "logger": False}, "no setting logger"),
        ({}, "give max_epochs, max_steps or max_time"),
    ],
)
def test_refuses_trainer_settings(trainer, says, tmp_path):
    with pytest.raises(HoldfastError, match=says):
        train(load_recipe("digits/natural", {"trainer": trainer}), tmp_path, progress=False)


def for_256_pixels():
    return nn.Sequential(nn.Flatten(), nn.Linear(256, 10))


def of_two_classes():
    return nn.Sequential(nn.Flatten(), nn.Linear(256, 2))


@pytest.mark.parametrize(
    ("function", "size", "says"),
    [
        ("for_256_pixels", 8, "cannot take the images of digits, 1×8×8 .*see data.size"),
        ("of_two_classes", 16, "has 2 logits, but digits has 10 classes"),
    ],
)
def test_refuses_a_model_that_does_not_fit_the_data(function, size, says, tmp_path):
    named = {"model": {"name": f"{__name__}:{function}"}, "model.options": {}, "data.size": size}
    recipe = load_recipe("digits/natural", TINY | named)
    with pytest.raises(HoldfastError, match=says):
        train(recipe, tmp_path, progress=False)
    assert not list(tmp_path.iterdir())


def test_a_users_interval_of_logging(tmp_path):
    trainer = {"max_epochs": 2, "log_every_n_steps": 2}
    train(load_recipe("digits/natural", TINY | {"trainer": trainer}), tmp_path, progress=False)
    rows = csv.DictReader((tmp_path / "metrics.csv").open())
    assert [int(row["step"]) for row in rows] == [1, 3, 5]


def test_a_loss_that_is_no_number_ends_the_run_with_its_step(tmp_path):
    changes = TINY | {"optimizer": {"name": "sgd", "lr": 1e30}, "trainer": {"max_epochs": 3}}
    with pytest.raises(HoldfastError, match="the loss became .* at step"):
        train(load_recipe("digits/natural", changes), tmp_path, progress=False)
    assert not (tmp_path / "model.safetensors").exists()


NOTES = []


@dataclass(frozen=True)
class Noting:
    """An objective that notes how far training is."""

    def __call__(self, model, batch):
        NOTES.append((batch["epoch"], batch.get("progress")))
        return {"loss": model(batch["images"]).square().mean()}


@pytest.mark.parametrize(
    ("trainer", "expected"),
    [
        ({"max_epochs": 2}, [(n // 3, n / 6) for n in range(6)]),
        ({"max_steps": 4}, [(n // 3, n / 4) for n in range(4)]),
    ],
)
def test_batches_say_how_far_training_is(trainer, expected, tmp_path):
    NOTES.clear()
    recipe = replace(load_recipe("digits/natural", TINY | {"trainer": trainer}), objective=Noting())
    train(recipe, tmp_path / "run", progress=False)
    assert expected == NOTES


def test_without_a_length_there_is_no_progress(tmp_path):
    NOTES.clear()
    recipe = load_recipe("digits/natural", TINY | {"trainer": {"max_time": {"seconds": 1}}})
    train(replace(recipe, objective=Noting()), tmp_path / "run", progress=False)
    assert NOTES[0] == (0, None)


class TestValidation:
    def accuracies(self, folder):
        rows = csv.DictReader((folder / "metrics.csv").open())
        return [float(row["validation_accuracy"]) for row in rows if row["validation_accuracy"]]

    def test_the_best_model_is_the_one_of_the_best_epoch(self, tmp_path):
        data = ImageData("digits", limit=200, validation=60)
        # A rate at which accuracy goes up and down.
        changes = TINY | {"optimizer": {"name": "adam", "lr": 0.2}, "trainer": {"max_epochs": 6}}
        recipe = replace(load_recipe("digits/natural", changes), data=data)
        model = train(recipe, tmp_path, progress=False)
        logged = self.accuracies(tmp_path)
        assert len(logged) == 6

        batch = data.load("validation").batch(range(60))

        def accuracy(model):
            return float((model(batch["images"]).argmax(1) == batch["labels"]).float().mean())

        assert accuracy(model) == pytest.approx(logged[-1])
        best = holdfast.load(tmp_path / "best.safetensors")
        assert accuracy(best) == pytest.approx(max(logged))
        assert torch.equal(weights(holdfast.load(tmp_path)), weights(model))

    def test_without_images_held_out_there_is_none(self, recipe, tmp_path):
        train(recipe, tmp_path, progress=False)
        assert not (tmp_path / "best.safetensors").exists()


def test_tensorboard_reads_the_terms(recipe, tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    train(recipe, tmp_path, progress=False)
    events = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    rows = list(csv.DictReader((tmp_path / "metrics.csv").open()))
    losses = [float(row["loss"]) for row in rows if row["loss"]]
    assert [event.value for event in events.Scalars("loss")] == pytest.approx(losses)


def test_training_in_a_thread_leaves_signals_alone(recipe, tmp_path):
    thread = threading.Thread(target=train, args=(recipe, tmp_path), kwargs={"progress": False})
    thread.start()
    thread.join()
    assert (tmp_path / "model.safetensors").exists()


@pytest.mark.parametrize(
    ("name", "kind"),
    [("sgd", torch.optim.SGD), ("adam", torch.optim.Adam), ("adamw", torch.optim.AdamW)],
)
def test_optimizers_and_their_schedule(name, kind):
    settings = OptimizerSettings(name, lr=0.1, weight_decay=0.01, schedule={2: 0.05, 3: 0.01})
    made = TrainingModule(nn.Linear(2, 2), lambda model, batch: {}, settings).configure_optimizers()
    optimizer, schedule = made["optimizer"], made["lr_scheduler"]["scheduler"]
    assert isinstance(optimizer, kind)
    assert optimizer.param_groups[0]["weight_decay"] == 0.01
    rates = []
    for _ in range(4):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    assert rates == pytest.approx([0.1, 0.1, 0.05, 0.01])


@dataclass(frozen=True)
class Spoiling:
    """An objective whose loss is 0, and whose gradient is no number."""

    def __call__(self, model, batch):
        return {"loss": (model(batch["images"]) * 0).abs().sum().sqrt()}


def test_a_model_that_the_last_step_has_spoiled_is_not_saved(tmp_path):
    """Its loss was still finite: it was that of the step before."""
    recipe = load_recipe("digits/natural", TINY | {"trainer": {"max_steps": 1}})
    with pytest.raises(HoldfastError, match="no finite numbers, and nothing is saved"):
        train(replace(recipe, objective=Spoiling()), tmp_path / "run", progress=False)
    assert not (tmp_path / "run" / "model.safetensors").exists()


@pytest.mark.parametrize("name", ["lr", "momentum", "weight_decay", "schedule"])
@pytest.mark.parametrize("value", [1e39, float("inf"), float("nan"), -1.0])
def test_rates_are_numbers_that_weights_can_hold(name, value):
    with pytest.raises(HoldfastError, match=f"OptimizerSettings.{name}"):
        OptimizerSettings(**{name: {5: value} if name == "schedule" else value})
