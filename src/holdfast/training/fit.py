"""One training run, from a recipe to a folder with the trained model."""

from __future__ import annotations

import copy
import importlib.util
import inspect
import itertools
import logging
import math
import shutil
import signal
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import lightning
import torch
from lightning.pytorch.callbacks import Callback, ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger, Logger, TensorBoardLogger
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor, nn
from torch.utils.data import DataLoader

from holdfast import plain_yaml
from holdfast.contracts import Batch, HoldfastError, Objective
from holdfast.data import ImageDataset
from holdfast.models import classify, evaluating
from holdfast.preprocessing import Preprocessing
from holdfast.training.loading import completed
from holdfast.training.recipe import OptimizerSettings, Recipe, to_settings
from holdfast.training.saving import save

__all__ = ["TrainingModule", "train"]


_ACCURACY = "validation_accuracy"


class TrainingModule(lightning.LightningModule):
    """An objective, a model and an optimizer, as Lightning's `Trainer` wants them.

    Parameters
    ----------
    model : Module
        The classifier.
    objective : Objective
        The loss; its other terms are logged.
    optimizer : OptimizerSettings
        Optimizer and schedule.
    """

    def __init__(
        self, model: nn.Module, objective: Objective, optimizer: OptimizerSettings
    ) -> None:
        super().__init__()
        self.model = model
        self.objective = objective
        self.settings = optimizer

    def training_step(self, batch: Batch, _: int) -> Tensor:
        """Compute the objective's terms, log them all, and return the loss."""
        batch = {**batch, "epoch": self.current_epoch}
        # With a time limit alone, nobody knows how far training is.
        if math.isfinite(steps := self.trainer.estimated_stepping_batches):
            batch["progress"] = min(1.0, self.global_step / steps)
        terms = self.objective(self.model, batch)
        if not torch.isfinite(terms["loss"]):
            raise HoldfastError(
                f"the loss became {terms['loss'].item()} at step {self.global_step}; "
                "a smaller learning rate usually helps"
            )
        self.log_dict({name: term.detach() for name, term in terms.items()}, prog_bar=True)
        return terms["loss"]

    def validation_step(self, batch: Batch, _: int) -> None:
        """Log the accuracy on images that were held out, as they are."""
        right = classify(self.model, batch["images"]).argmax(1) == batch["labels"]
        self.log(_ACCURACY, right.float().mean(), batch_size=len(right))

    def configure_optimizers(self) -> Any:
        """Build the optimizer and its piecewise constant schedule."""
        s = self.settings
        weights = [p for p in self.model.parameters() if p.requires_grad]
        optimizer: torch.optim.Optimizer
        if s.name == "sgd":
            optimizer = torch.optim.SGD(
                weights, s.lr, s.momentum, weight_decay=s.weight_decay, nesterov=s.nesterov
            )
        elif s.name == "adam":
            optimizer = torch.optim.Adam(weights, s.lr, weight_decay=s.weight_decay)
        else:
            optimizer = torch.optim.AdamW(weights, s.lr, weight_decay=s.weight_decay)
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda t: s.rate_at(t) / s.lr)
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": schedule, "interval": s.interval},
        }


def train(
    recipe: Recipe, out: str | Path, *, resume: bool = False, progress: bool = True
) -> nn.Module:
    """Train a model by a recipe and save it.

    Ctrl-C ends training after the step that is under way: the last checkpoint is then of that step,
    and ``resume`` goes on from it. A second Ctrl-C ends it at once.

    Parameters
    ----------
    recipe : Recipe
        What to train; see `holdfast.training.load_recipe`.
    out : str or Path
        The run's folder: ``config.yaml``, ``model.safetensors``, ``metrics.csv`` and
        ``checkpoints/`` are written there. Where the data holds images out for validation, the
        model of the epoch that got most of them right is ``best.safetensors``. Where TensorBoard is
        installed, it finds its logs in ``tensorboard/``. A run that goes on leaves the metrics that
        were written before as ``metrics-1.csv`` and so on.
    resume : bool
        Go on from the last checkpoint in ``out``, if there is one.
    progress : bool
        Show a progress bar with the loss terms.

    Returns
    -------
    Module
        The trained classifier, in eval mode.

    Raises
    ------
    HoldfastError
        If ``out`` already holds a trained model and ``resume`` is false, if ``trainer`` has an
        argument that Lightning does not know, if the model cannot take the images or has fewer
        logits than the data has classes, or if the loss is no longer finite.
    KeyboardInterrupt
        After Ctrl-C, when all is saved.
    """
    out = Path(out)
    last = out / "checkpoints" / "last.ckpt"
    if not resume and (out / "model.safetensors").exists():
        raise HoldfastError(f"{out} already holds a trained model; choose another folder")
    _check_trainer(recipe.trainer)

    lightning.seed_everything(recipe.seed, verbose=False)
    data = recipe.data.load("train")
    architecture = completed(recipe.model, data.classes, data.shape)
    model = architecture.build()
    _check_fit(model, data, architecture.name)
    recipe = replace(recipe, model=architecture)
    out.mkdir(parents=True, exist_ok=True)
    if not resume:
        shutil.rmtree(out / "checkpoints", ignore_errors=True)
    (out / "config.yaml").write_text(_dump(recipe), encoding="utf-8")
    _set_aside(out / "metrics.csv")

    loader = DataLoader(
        data,
        batch_size=recipe.batch_size,
        shuffle=True,
        drop_last=len(data) > recipe.batch_size,
        generator=torch.Generator().manual_seed(recipe.seed),
    )
    held_out = best = None
    callbacks: list[Callback] = [ModelCheckpoint(last.parent, save_last=True)]
    if recipe.data.validation is not None:
        held_out = DataLoader(recipe.data.load("validation"), batch_size=recipe.batch_size)
        best = ModelCheckpoint(last.parent, "best", _ACCURACY, mode="max")
        callbacks.append(best)
    if progress:
        callbacks.append(_Progress(f"Training {out.name}"))
    with _quiet_lightning(), _Interruption(last) as interruption:
        trainer = lightning.Trainer(
            logger=_loggers(out),
            callbacks=[*callbacks, interruption],
            enable_progress_bar=False,
            enable_model_summary=False,
            **{
                "log_every_n_steps": min(10, len(loader)),
                "num_sanity_val_steps": 0,
                **recipe.trainer,
            },
        )
        trainer.fit(
            TrainingModule(model, recipe.objective, recipe.optimizer),
            loader,
            held_out,
            ckpt_path=last if resume and last.exists() else None,
            weights_only=True,
        )
    model.eval()
    if trainer.is_global_zero:
        about: dict[str, Any] = {
            "architecture": architecture,
            "classes": data.classes,
            "recipe": _dump(recipe),
            "preprocessing": _preprocessing(recipe, data),
        }
        if best is not None and best.best_model_path:
            save(_restored(model, best.best_model_path), out / "best.safetensors", **about)
        save(model, out / "model.safetensors", **about)
    if interruption.asked:  # in the last step: whatever the caller does next is not wanted
        raise KeyboardInterrupt
    return model


def _preprocessing(recipe: Recipe, data: ImageDataset) -> Preprocessing:
    """Say how photographs become images like those that were trained on."""
    wanted, (channels, height, width) = recipe.data, data.shape
    # Where the data was of one size as it is, what it was made from is lost: squash.
    crop = wanted.size is not None and wanted.fit != "squash"
    return Preprocessing(
        (height, width),
        wanted.resize if isinstance(wanted.resize, int) else None,
        "crop" if crop else "squash",
        wanted.interpolation or "bilinear",
        channels=channels,
        mean=recipe.model.mean,
        std=recipe.model.std,
    )


def _loggers(out: Path) -> list[Logger]:
    loggers: list[Logger] = [CSVLogger(out, name="", version="")]
    if any(importlib.util.find_spec(name) for name in ("tensorboard", "tensorboardX")):
        loggers.append(TensorBoardLogger(out, name="", version="tensorboard"))
    return loggers


def _set_aside(file: Path) -> None:
    """Rename a file of an earlier start, which Lightning's logger would remove."""
    if file.exists():
        free = next(
            n for n in itertools.count(1) if not file.with_stem(f"{file.stem}-{n}").exists()
        )
        file.rename(file.with_stem(f"{file.stem}-{free}"))


def _restored(model: nn.Module, checkpoint: str) -> nn.Module:
    """Copy a model with the weights that it had at a checkpoint."""
    state = torch.load(checkpoint, map_location="cpu", weights_only=True)["state_dict"]
    restored = copy.deepcopy(model)
    restored.load_state_dict({name.removeprefix("model."): t for name, t in state.items()})
    return restored


def _dump(recipe: Recipe) -> str:
    return plain_yaml.dump(to_settings(recipe))


def _check_trainer(settings: dict[str, Any]) -> None:
    ours = {"logger", "callbacks", "enable_progress_bar", "enable_model_summary"}
    known = set(inspect.signature(lightning.Trainer).parameters) - ours
    unknown = sorted(set(settings) - known - {"log_every_n_steps"})
    if unknown:
        raise HoldfastError(f"trainer: Lightning's Trainer has no setting {', '.join(unknown)}")
    if not settings.keys() & {"max_epochs", "max_steps", "max_time"}:
        raise HoldfastError("trainer: give max_epochs, max_steps or max_time")


class _Interruption(Callback):
    """Turn Ctrl-C into an end between two steps, with a checkpoint, while the block runs.

    In the middle of a step, weights and optimizer could be those of different steps.
    """

    class Stop(BaseException):
        """Ends training; Lightning would turn a KeyboardInterrupt into an exit."""

    def __init__(self, checkpoint: Path) -> None:
        self.checkpoint = checkpoint
        self.asked = False

    def __enter__(self) -> _Interruption:
        # Elsewhere Python lets nobody handle signals.
        self.handles = threading.current_thread() is threading.main_thread()
        if self.handles:
            self.before = signal.signal(signal.SIGINT, self._ask)
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if self.handles:
            signal.signal(signal.SIGINT, self.before)
        if kind is self.Stop:
            raise KeyboardInterrupt from None

    def _ask(self, *_: object) -> None:
        self.asked = True
        signal.signal(signal.SIGINT, signal.default_int_handler)

    def on_train_batch_start(self, trainer: lightning.Trainer, *_: Any) -> None:
        # The step before is whole here, and counted.
        if self.asked:
            trainer.save_checkpoint(self.checkpoint)
            raise self.Stop


class _Progress(Callback):
    """One bar for the whole training, with the terms of the loss."""

    def __init__(self, title: str) -> None:
        terms = TextColumn("{task.fields[terms]}")
        columns = (BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(), terms)
        self.bar = Progress(TextColumn("{task.description}"), *columns)
        self.title = title

    def on_train_start(self, trainer: lightning.Trainer, _: lightning.LightningModule) -> None:
        steps = trainer.estimated_stepping_batches
        total = None if steps == float("inf") else int(steps)
        self.task = self.bar.add_task(self.title, total=total, terms="")
        if trainer.is_global_zero:
            self.bar.start()

    def on_train_batch_end(self, trainer: lightning.Trainer, *_: Any) -> None:
        terms = trainer.progress_bar_metrics.items()
        text = "  ".join(f"{name} {value:.3f}" for name, value in terms)
        self.bar.update(self.task, completed=trainer.global_step, terms=text)

    def on_train_end(self, *_: Any) -> None:
        self.bar.stop()

    def on_exception(self, *_: Any) -> None:
        self.bar.stop()


@contextmanager
def _quiet_lightning() -> Iterator[None]:
    """Keep Lightning's notes on hardware, workers and logging folders off the screen."""
    loggers = [logging.getLogger(f"lightning.{name}") for name in ("pytorch", "fabric")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module="lightning")
            warnings.filterwarnings("ignore", message=".*isinstance\\(treespec, LeafSpec\\).*")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def _check_fit(model: nn.Module, data: ImageDataset, name: str) -> None:
    """See that the model takes the images and has a logit for each class."""
    # What the model draws here shall not change what it draws later.
    with evaluating(model), torch.no_grad(), torch.random.fork_rng(devices=[]):
        try:
            count = classify(model, data.batch([0])["images"]).shape[1]
        except HoldfastError:
            raise
        except Exception as error:  # a user's model can fail in any way
            shape = "×".join(map(str, data.shape))
            raise HoldfastError(
                f"{name} cannot take the images of {data.name}, {shape} ({error}); see data.size "
                "and data.channels"
            ) from error
    if count < (needed := int(data.labels.max()) + 1):
        raise HoldfastError(f"{name} has {count} logits, but {data.name} has {needed} classes")
