"""One training run, from a recipe to a folder with the trained model."""

from __future__ import annotations

import math
import shutil
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import lightning
import torch
from lightning.pytorch.callbacks import Callback
from torch import Tensor, nn
from torch.utils.data import DataLoader, RandomSampler

from holdfast import plain_yaml
from holdfast.contracts import Batch, HoldfastError, Objective
from holdfast.data import ImageDataset
from holdfast.data.digests import digests_of
from holdfast.files import is_first_rank, locked, whole
from holdfast.models import WithDiscriminator, classify, evaluating
from holdfast.preprocessing import Preprocessing
from holdfast.training.checkpoints import Batches, CheckpointFiles, Checkpoints
from holdfast.training.interruption import Interruption
from holdfast.training.loading import completed
from holdfast.training.logs import MetricsFile, tensorboard
from holdfast.training.progress import ProgressBar, quiet_lightning
from holdfast.training.recipe import OptimizerSettings, Recipe, to_settings
from holdfast.training.run_folder import CHECKPOINTS, CONFIG, MODEL, Earlier, check_free, earlier
from holdfast.training.saving import save
from holdfast.training.trainer import check_trainer, in_our_words, make_trainer

__all__ = ["TrainingModule", "train"]


_ACCURACY = "validation_accuracy"
_LOOKED_AT = 256
"""So many images tell whether the data is the one that training was begun on."""


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
        self.log(_ACCURACY, right.float().mean(), batch_size=len(right), sync_dist=True)

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

    Whatever ends training, even a kill, ``resume`` goes on from the last checkpoint, and the end is
    the same, bit for bit, as if nothing had happened. There is a checkpoint at the end of each
    epoch and about once a minute. Ctrl-C and SIGTERM end training after the step that is under way,
    with a checkpoint of that step; a second one ends it at once.

    Parameters
    ----------
    recipe : Recipe
        What to train; see `holdfast.training.load_recipe`.
    out : str or Path
        The run's folder: ``config.yaml``, ``model.safetensors``, ``metrics.csv`` and
        ``checkpoints/`` are written there. Where the data holds images out for validation, the
        model of the epoch that got most of them right is ``best.safetensors``. Where TensorBoard is
        installed, it finds its logs in ``tensorboard/``. Nothing is written before the first step.
    resume : bool
        Go on from the last checkpoint in ``out``, with the same recipe; ``max_epochs`` and
        ``max_time`` may have grown. Where nothing was begun, begin, and where training has ended,
        return its model; either is told in a warning.
    progress : bool
        Show a progress bar with the loss terms.

    Returns
    -------
    Module
        The trained classifier, in eval mode.

    Raises
    ------
    HoldfastError
        If ``out`` already holds a trained model or checkpoints and ``resume`` is false, if it was
        begun by another recipe or its checkpoints are broken and ``resume`` is true, if another
        process works there or it cannot be written to, if ``trainer`` has an
        argument that Lightning does not know, if the model cannot take the images or has fewer
        logits than the data has classes, or if the loss is no longer finite.
    KeyboardInterrupt
        After Ctrl-C, when all is saved.
    SystemExit
        After SIGTERM, when all is saved, with status 143.
    """
    out = Path(out)
    check_trainer(recipe.trainer)
    with locked(out):
        if not resume:
            check_free(out)
        lightning.seed_everything(recipe.seed, verbose=False)
        data = recipe.data.load("train")
        architecture = completed(recipe.model, data.classes, data.shape)
        model = architecture.build()
        _check_fit(model, data, architecture.name)
        run = _Run(replace(recipe, model=architecture), data, out)
        begun = earlier(out, run.bound) if resume else None
        if begun is not None and begun.weights is not None:
            _say(f"{out} holds this training, and it has ended; nothing is left to do")
            classifier = _classifier(model)
            classifier.load_state_dict(begun.weights)
            return classifier.eval()
        if resume and begun is None:
            _say(f"{out} holds no checkpoint to go on from; training begins anew")
        with Interruption() as interruption:
            _fit(run, model, begun or Earlier(), interruption, progress)
        return _classifier(model).eval()


def _classifier(model: nn.Module) -> nn.Module:
    """Return what is kept of a model: a discriminator is of no use after training."""
    return model.classifier if isinstance(model, WithDiscriminator) else model


def _say(what: str) -> None:
    if is_first_rank():
        warnings.warn(what, stacklevel=3)


@dataclass(frozen=True)
class _Run:
    """What is trained, on which images, and where it is kept."""

    recipe: Recipe
    data: ImageDataset
    out: Path

    @cached_property
    def settings(self) -> str:
        return plain_yaml.dump(to_settings(self.recipe))

    @cached_property
    def bound(self) -> dict[str, Any]:
        return {"recipe": self.settings, "data": digests_of(self.data, at_most=_LOOKED_AT)}

    def keep(self, model: nn.Module, name: str) -> None:
        save(
            _classifier(model),
            self.out / name,
            architecture=replace(self.recipe.model, discriminator=False),
            classes=self.data.classes,
            recipe=self.settings,
            preprocessing=_preprocessing(self.recipe, self.data),
        )


def _fit(
    run: _Run, model: nn.Module, begun: Earlier, interruption: Interruption, progress: bool
) -> None:
    """Train a model and keep it."""
    recipe, out = run.recipe, run.out
    order = torch.Generator().manual_seed(recipe.seed)
    drop_last = len(run.data) > recipe.batch_size
    batches = Batches(RandomSampler(run.data, generator=order), recipe.batch_size, drop_last)
    loader = DataLoader(run.data, batch_sampler=batches, generator=order)
    held_out = None
    metrics = MetricsFile(out / "metrics.csv")
    beginning = _Beginning(run)
    checkpoints = Checkpoints(out / CHECKPOINTS, run.bound, order, metrics, interruption)
    callbacks: list[Callback] = [beginning, interruption, checkpoints]
    if recipe.data.validation is not None:
        held_out = DataLoader(recipe.data.load("validation"), batch_size=recipe.batch_size)
        callbacks.append(_Best(run, model))
    if progress:
        callbacks.append(ProgressBar(f"Training {out.name}"))
    with quiet_lightning(), beginning.or_as_it_was():
        usual = {"log_every_n_steps": min(10, len(loader)), "num_sanity_val_steps": 0}
        trainer = make_trainer(
            usual | recipe.trainer,
            logger=[metrics, *tensorboard(out, begun.steps)],
            callbacks=callbacks,
            plugins=[CheckpointFiles()],
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
        with in_our_words(recipe.trainer):
            trainer.fit(
                TrainingModule(model, recipe.objective, recipe.optimizer),
                loader,
                held_out,
                ckpt_path=begun.file,
                weights_only=True,
            )
    _check_finite(model)
    if trainer.is_global_zero:
        run.keep(model, MODEL)


class _Beginning(Callback):
    """Write the recipe down when the first step can be taken, and leave all as it was if not."""

    def __init__(self, run: _Run) -> None:
        self.run, self.begun = run, False

    @contextmanager
    def or_as_it_was(self) -> Iterator[None]:
        there = set(self.run.out.iterdir())
        try:
            yield
        except BaseException:
            if not self.begun and is_first_rank():
                for new in set(self.run.out.iterdir()) - there:
                    shutil.rmtree(new) if new.is_dir() else new.unlink()
            raise

    def on_train_start(self, trainer: lightning.Trainer, _: lightning.LightningModule) -> None:
        self.begun = True
        if trainer.is_global_zero:
            with whole(self.run.out / CONFIG) as unfinished:
                unfinished.write_text(self.run.settings, encoding="utf-8")


class _Best(Callback):
    """Keep the model that got most of the images right that are held out."""

    def __init__(self, run: _Run, model: nn.Module) -> None:
        self.run, self.model, self.accuracy = run, model, -1.0

    def on_validation_end(self, trainer: lightning.Trainer, _: lightning.LightningModule) -> None:
        accuracy = trainer.callback_metrics[_ACCURACY].item()
        if not trainer.sanity_checking and accuracy > self.accuracy:
            self.accuracy = accuracy
            if trainer.is_global_zero:
                self.run.keep(self.model, "best.safetensors")

    def state_dict(self) -> dict[str, Any]:
        return {"accuracy": self.accuracy}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.accuracy = state["accuracy"]


def _check_finite(model: nn.Module) -> None:
    """Refuse to save what the last step may have spoiled: its loss was that of the step before."""
    for name, tensor in model.state_dict().items():
        if tensor.is_floating_point() and not tensor.isfinite().all():
            raise HoldfastError(
                f"training left {name} with values that are no finite numbers, and nothing is "
                "saved; a smaller learning rate usually helps"
            )


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
