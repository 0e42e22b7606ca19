"""One training run, from a recipe to a folder with the trained model."""

from __future__ import annotations

import inspect
import logging
import math
import shutil
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import lightning
import torch
import yaml
from lightning.pytorch.callbacks import Callback, ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor, nn
from torch.utils.data import DataLoader

from holdfast.contracts import Batch, HoldfastError, Objective
from holdfast.data import ImageDataset
from holdfast.models import Architecture
from holdfast.training.recipe import OptimizerSettings, Recipe, to_settings
from holdfast.training.saving import save

__all__ = ["TrainingModule", "train"]


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

    Parameters
    ----------
    recipe : Recipe
        What to train; see `holdfast.training.load_recipe`.
    out : str or Path
        The run's folder: ``config.yaml``, ``model.safetensors``, ``metrics.csv`` and
        ``checkpoints/`` are written there.
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
        argument that Lightning does not know, or if the loss is no longer finite.
    """
    out = Path(out)
    last = out / "checkpoints" / "last.ckpt"
    if not resume and (out / "model.safetensors").exists():
        raise HoldfastError(f"{out} already holds a trained model; choose another folder")
    _check_trainer(recipe.trainer)

    lightning.seed_everything(recipe.seed, verbose=False)
    data = recipe.data.load("train")
    architecture = _complete(recipe.model, data)
    model = architecture.build()
    recipe = replace(recipe, model=architecture)
    out.mkdir(parents=True, exist_ok=True)
    if not resume:
        shutil.rmtree(out / "checkpoints", ignore_errors=True)
    (out / "config.yaml").write_text(_dump(recipe), encoding="utf-8")

    loader = DataLoader(
        data,
        batch_size=recipe.batch_size,
        shuffle=True,
        drop_last=len(data) > recipe.batch_size,
        generator=torch.Generator().manual_seed(recipe.seed),
    )
    with _quiet_lightning():
        trainer = lightning.Trainer(
            logger=CSVLogger(out, name="", version=""),
            callbacks=[
                ModelCheckpoint(out / "checkpoints", save_last=True),
                *([_Progress(f"Training {out.name}")] if progress else []),
            ],
            enable_progress_bar=False,
            enable_model_summary=False,
            log_every_n_steps=min(10, len(loader)),
            **recipe.trainer,
        )
        trainer.fit(
            TrainingModule(model, recipe.objective, recipe.optimizer),
            loader,
            ckpt_path=last if resume and last.exists() else None,
            weights_only=True,
        )
    model.eval()
    if trainer.is_global_zero:
        save(
            model,
            out / "model.safetensors",
            architecture=architecture,
            classes=data.classes,
            recipe=_dump(recipe),
        )
    return model


def _complete(architecture: Architecture, data: ImageDataset) -> Architecture:
    """Fill in what the recipe leaves to the data."""
    channels, height, _ = data.shape
    return replace(
        architecture,
        classes=architecture.classes or len(data.classes),
        in_channels=architecture.in_channels or channels,
        size=architecture.size or height,
    )


def _dump(recipe: Recipe) -> str:
    return yaml.safe_dump(to_settings(recipe), sort_keys=False, allow_unicode=True)


def _check_trainer(settings: dict[str, Any]) -> None:
    ours = {"logger", "callbacks", "enable_progress_bar", "enable_model_summary"}
    known = set(inspect.signature(lightning.Trainer).parameters) - ours
    unknown = sorted(set(settings) - known - {"log_every_n_steps"})
    if unknown:
        raise HoldfastError(f"trainer: Lightning's Trainer has no setting {', '.join(unknown)}")
    if not settings.keys() & {"max_epochs", "max_steps", "max_time"}:
        raise HoldfastError("trainer: give max_epochs, max_steps or max_time")


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
