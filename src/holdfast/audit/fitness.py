"""Whether a model and a data set fit each other: looked at before an audit spends hours on them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Integer
from scipy import stats
from torch import Tensor, nn

from holdfast.audit.repeatable import device_of, seeded
from holdfast.contracts import Attribution, HoldfastError
from holdfast.data import ImageDataset
from holdfast.models import (
    classify,
    double_backward,
    evaluating,
    no_gradient,
    softplus,
    surrogate_fit,
)

__all__ = ["Fitness", "check_fitness"]

IMAGES = 32
"""So many images are looked at, spread over the data."""
DIFFERENTIATED = 8
"""For so many of them the gradient is computed."""
AGREED = 0.9
"""The surrogate should answer as the model does for at least this share."""
RARE = 0.01
"""Accuracy is above chance if chance alone reaches it less often than that."""


@dataclass(frozen=True)
class Fitness:
    """What `check_fitness` saw.

    Attributes
    ----------
    images, classes : int
        How many images were looked at, and how many logits the model has.
    right : int
        How many of the images the model gets right.
    findings : tuple of str
        A sentence for whatever may be wrong; empty if nothing seems to be.
    """

    images: int
    classes: int
    right: int
    findings: tuple[str, ...] = ()

    def __str__(self) -> str:
        known = f"{self.right} of {self.images} images right, {self.classes} classes."
        return "\n".join([known, *self.findings])


def check_fitness(
    model: nn.Module, data: ImageDataset, attributions: Sequence[Attribution] = ()
) -> Fitness:
    """Look at a model and a data set on a few images before they are audited.

    Parameters
    ----------
    model : Module
        The classifier; it runs in eval mode, where its weights are.
    data : ImageDataset
        The images.
    attributions : sequence of Attribution
        What will explain the model; each should explain the same image in the same way twice.

    Returns
    -------
    Fitness
        With findings where outputs or maps are drawn anew in each call; gradients are zero, not
        finite or not to be had, so that attacks which follow them go nowhere; they do not change
        with the image, so that attacks on maps made of them go nowhere; the softplus
        surrogate answers otherwise than the model; or accuracy is not above chance, which asks
        whether preprocessing or the order of classes is right.

    Raises
    ------
    HoldfastError
        If the model cannot take the images, does not answer with finite logits ``(N, K)`` of at
        least two classes, has too few for the labels, or answers the same to all images.

    Examples
    --------
    >>> from holdfast.data import ImageData
    >>> data = ImageData("digits").load("test")
    >>> model = nn.Sequential(nn.Flatten(), nn.Linear(256, 10))
    >>> fitness = check_fitness(model, data)
    >>> fitness.images, fitness.classes
    (32, 10)
    """
    count = min(IMAGES, len(data))
    if count == 0:
        return Fitness(0, 0, 0)
    chosen = torch.linspace(0, len(data) - 1, count).round().long()
    batch, device = data.batch(chosen), device_of(model)
    images, labels = batch["images"].to(device), batch["labels"].to(device)
    with evaluating(model), seeded(0, -2):
        with torch.no_grad():
            logits = _logits(model, data, images)
            repeated = classify(model, images)
        classes = logits.shape[1]
        if (highest := int(data.labels.max())) >= classes:
            raise HoldfastError(
                f"the model has {classes} classes, 0 to {classes - 1}, but {data.name} has images "
                f"of class {highest}"
            )
        right = int((logits.argmax(1) == labels).sum())
        findings = [
            *_on_accuracy(model, images, labels, logits),
            *_on_randomness(logits, repeated),
            *(no_gradients := [*_on_gradients(model, images[:DIFFERENTIATED])]),
            *_on_surrogate(model, images),
            *(
                _on_curvature(model, images[:DIFFERENTIATED])
                if attributions and not no_gradients
                else ()
            ),
            *(said for one in attributions for said in _on_maps(one, model, images[:1], logits)),
        ]
    return Fitness(count, classes, right, tuple(findings))


def _logits(model: nn.Module, data: ImageDataset, images: Tensor) -> Float[Tensor, "n k"]:
    """Run the model, and refuse an answer from which nothing could be learnt."""
    try:
        logits = classify(model, images)
    except HoldfastError:
        raise
    except Exception as error:  # a user's model can fail in any way
        shape = "×".join(map(str, data.shape))
        raise HoldfastError(
            f"the model cannot take the images of {data.name}, {shape}: "
            f"{type(error).__name__}: {error}"
        ) from error
    bad = int((~torch.isfinite(logits)).any(1).sum())
    if bad:
        raise HoldfastError(
            f"the model answers {bad} of {len(images)} images of {data.name} with NaN or infinite "
            "logits; are its weights, its precision and its normalization right?"
        )
    different = bool((images != images[:1]).any())
    if different and bool((logits - logits[:1]).abs().max() <= 1e-6 * logits.abs().max()):
        raise HoldfastError(
            f"the model gives {len(images)} different images of {data.name} the same logits: it "
            "does not look at them; are its weights loaded?"
        )
    return logits


def _on_accuracy(
    model: nn.Module, images: Tensor, labels: Integer[Tensor, " n"], logits: Tensor
) -> Iterator[str]:
    """Ask whether classes and preprocessing are right, where the model is as good as chance."""
    count, classes = logits.shape
    right = int((logits.argmax(1) == labels).sum())
    # So few images, or such an accuracy, tell nothing.
    if not _is_chance(right, count, classes) or _is_chance(count, count, classes):
        return
    told = f"The model gets {right} of {count} images right, which chance may do."
    others = {name: change(images) for name, change in _PREPROCESSING.items()}
    others = {name: x for name, x in others.items() if not torch.equal(x, images)}
    with torch.no_grad():
        better = {n: int((classify(model, x).argmax(1) == labels).sum()) for n, x in others.items()}
    best = max(better, key=better.__getitem__, default="")
    if best and better[best] > right and not _is_chance(better[best], count, classes):
        yield f"{told} {best} it gets {better[best]} right: is that the preprocessing it needs?"
    elif _permuted(logits.argmax(1), labels):
        yield f"{told} But it tells classes from each other: is their order another?"
    else:
        yield f"{told} Is the order of classes right, and the preprocessing?"


def _is_chance(right: int, count: int, classes: int) -> bool:
    return bool(stats.binom.sf(right - 1, count, 1 / classes) > RARE)


def _permuted(predicted: Integer[Tensor, " n"], labels: Integer[Tensor, " n"]) -> bool:
    """Tell whether images of one class mostly get one answer, and each class its own."""
    answers, alike, seen = [], 0, 0
    for label in labels.unique():
        own = predicted[labels == label]
        if len(own) > 1:
            common = int(own.mode().values)
            answers.append(common)
            alike, seen = alike + int((own == common).sum()), seen + len(own)
    # An untrained model, too, answers alike to what is alike, but has few answers.
    distinct = len(set(answers))
    return seen >= 10 and alike >= 0.8 * seen and distinct >= max(3, 0.9 * len(answers))


_MEAN = (0.485, 0.456, 0.406)
_STD = (0.229, 0.224, 0.225)
_PREPROCESSING: dict[str, Callable[[Tensor], Tensor]] = {
    "With pixels from 0 to 255": lambda x: 255 * x,
    "With pixels from −1 to 1": lambda x: 2 * x - 1,
    "Normalized as for ImageNet": lambda x: (x - _like(x, _MEAN)) / _like(x, _STD),
    "With red and blue exchanged": lambda x: x.flip(1),
    "With black and white exchanged": lambda x: 1 - x,
}


def _like(images: Tensor, values: tuple[float, ...]) -> Tensor:
    """Give each channel its value; the mean of them where there are not three."""
    if images.shape[1] != len(values):
        values = (sum(values) / len(values),) * images.shape[1]
    return images.new_tensor(values)[:, None, None]


def _on_randomness(logits: Tensor, repeated: Tensor) -> Iterator[str]:
    """See whether the model answers twice the same."""
    gap = float((logits - repeated).abs().max())
    if gap > 1e-3 * float(logits.abs().max()):
        yield (
            f"The model answers the same images differently in a second call, by up to {gap:.2g}: "
            "it draws at random, and no figure can be had again."
        )


def _on_gradients(model: nn.Module, images: Tensor) -> Iterator[str]:
    """See whether there are gradients for attacks to follow."""
    hopeless = "attacks that follow gradients go nowhere, only those without gradients count."
    try:
        with torch.enable_grad():
            x = images.clone().requires_grad_(True)
            logits = classify(model, x)
            chosen = logits.gather(1, logits.argmax(1, keepdim=True)).sum()
            (gradients,) = torch.autograd.grad(chosen, x, allow_unused=True)
            if gradients is None:
                raise no_gradient()
    except (HoldfastError, RuntimeError) as error:
        reason = " ".join(str(error).split()).rstrip(".")
        yield f"The model cannot be differentiated ({reason}): {hopeless}"
        return
    bad = int((~torch.isfinite(gradients)).flatten(1).any(1).sum())
    zero = int((gradients == 0).flatten(1).all(1).sum())
    if bad:
        yield f"The gradient is NaN or infinite at {bad} of {len(images)} images: {hopeless}"
    if zero:
        yield f"The gradient is zero at {zero} of {len(images)} images: there {hopeless}"


def _on_surrogate(model: nn.Module, images: Tensor) -> Iterator[str]:
    """See whether the model in which attacks on explanations look for a direction is this one."""
    try:
        fit = surrogate_fit(model, images)
    except HoldfastError:  # of models without gradients, of which all is said
        return
    agreed = int(fit.agree.sum())
    if agreed < AGREED * len(images):
        yield (
            f"The softplus surrogate, which attacks on explanations follow, answers only {agreed} "
            f"of {len(images)} images as the model does: they may be led astray."
        )


def _on_curvature(model: nn.Module, images: Tensor) -> Iterator[str]:
    """See whether gradients change with the image, as attacks on maps made of them need."""
    try:
        with torch.enable_grad(), double_backward(), softplus():
            x = images.clone().requires_grad_(True)
            logits = classify(model, x)
            chosen = logits.gather(1, logits.argmax(1, keepdim=True)).sum()
            (gradients,) = torch.autograd.grad(chosen, x, create_graph=True)
            if gradients.requires_grad:
                ahead = (gradients * torch.randn_like(gradients)).sum()
                (bends,) = torch.autograd.grad(ahead, x, allow_unused=True)
                if bends is not None and bool((bends != 0).any()):
                    return
    except (HoldfastError, RuntimeError) as error:
        reason = " ".join(str(error).split()).rstrip(".")
        yield f"The model cannot be differentiated twice ({reason}): {_NO_MAPS}"
        return
    yield f"The gradient does not change with the image, even with the surrogate: {_NO_MAPS}"


_NO_MAPS = (
    "attacks on maps made of gradients have no direction, only those without gradients count."
)


def _on_maps(
    attribution: Attribution, model: nn.Module, images: Tensor, logits: Tensor
) -> Iterator[str]:
    """See whether an image has one map."""
    name = getattr(attribution, "__name__", type(attribution).__name__)
    targets = logits[: len(images)].argmax(1)
    try:
        first: Any = attribution(model, images, targets)
        second: Any = attribution(model, images, targets)
    except HoldfastError as error:
        yield f"{name} explains nothing here: {error}"
        return
    if bool((first == first.flatten(1)[:, 0].view(-1, 1, 1, 1)).all()):
        yield f"{name} gives an image a map without any difference: it explains nothing."
    elif float((first - second).abs().max()) > 1e-3 * float(first.abs().max()):
        yield (
            f"{name} explains the same image differently in a second call: it draws at random "
            "without a seed, and similarities of its maps mix that with the attack."
        )
