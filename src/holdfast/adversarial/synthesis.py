"""Pictures made by a classifier: a robust one draws what it takes a class to look like."""

from __future__ import annotations

import torch
from jaxtyping import Float, Integer
from torch import Tensor, nn

from holdfast.adversarial.pgd import PGD
from holdfast.contracts import InputError, check_images, check_labels, chunks, default_chunk
from holdfast.models import classify, evaluating

__all__ = ["class_seeds", "synthesize"]


def synthesize(
    model: nn.Module,
    seeds: Float[Tensor, "n c h w"],
    classes: Integer[Tensor, " n"],
    *,
    eps: float = 40.0,
    step_size: float = 1.0,
    steps: int = 60,
    chunk: int | None = None,
) -> Float[Tensor, "n c h w"]:
    """Raise the logit of a class from a seed, and see what picture comes out.

    Ascends in an ℓ2 ball around each seed. A natural classifier makes noise of it; one with robust
    gradients makes something like the class.

    Parameters
    ----------
    model : nn.Module
        The classifier; it runs in eval mode.
    seeds : Tensor
        Where to begin, ``(N, C, H, W)`` in [0, 1]; see `class_seeds`.
    classes : Tensor
        What to make of each, ``(N,)``.
    eps : float
        Radius of the ball, in pixel units on [0, 1], over all pixels and channels together.
    step_size : float
        Length of a step, in the same units.
    steps : int
        Number of steps.
    chunk : int, optional
        How many pictures to make at a time; by default chosen from their size.

    Returns
    -------
    Tensor
        The pictures, ``(N, C, H, W)`` in [0, 1].

    Raises
    ------
    InputError
        If seeds, classes or settings are not what they must be.

    References
    ----------
    Santurkar et al., Image Synthesis with a Single (Robust) Classifier (NeurIPS 2019), whose
    settings for CIFAR-10 are the defaults; Attributional Robustness Training (ECCV 2020), figure 4.

    Examples
    --------
    >>> model = nn.Sequential(nn.Flatten(), nn.Linear(4, 2))
    >>> images, labels = torch.rand(6, 1, 2, 2), torch.tensor([0, 0, 0, 1, 1, 1])
    >>> classes = torch.tensor([0, 1])
    >>> seeds = class_seeds(images, labels, classes)
    >>> synthesize(model, seeds, classes, eps=1.0, step_size=0.1, steps=5).shape
    torch.Size([2, 1, 2, 2])
    """
    check_images(seeds, "seeds")
    check_labels(classes, len(seeds), name="classes")
    ascent = PGD(eps, step_size, steps, norm="l2", random_start=False)
    made = []
    with evaluating(model):
        for part in chunks(len(seeds), chunk or default_chunk(seeds)):

            def score(x: Tensor, y: Tensor = classes[part]) -> Tensor:
                logits = classify(model, x)
                check_labels(y, len(x), logits.shape[1], name="classes")
                return logits.gather(1, y[:, None])[:, 0]

            made.append(ascent.maximize(score, seeds[part]))
    return torch.cat(made)


def class_seeds(
    images: Float[Tensor, "n c h w"],
    labels: Integer[Tensor, " n"],
    classes: Integer[Tensor, " m"],
    *,
    seed: int = 0,
) -> Float[Tensor, "m c h w"]:
    """Draw seeds from a normal distribution with the mean and covariance of each class's images.

    Parameters
    ----------
    images, labels : Tensor
        Images to take mean and covariance of, ``(N, C, H, W)`` in [0, 1], and their classes
        ``(N,)``; of each class that is drawn at least one.
    classes : Tensor
        The class of each seed, ``(M,)``.
    seed : int
        Seeds the draw.

    Returns
    -------
    Tensor
        ``(M, C, H, W)``, cut to [0, 1].

    Raises
    ------
    InputError
        If a class has no image.

    Examples
    --------
    >>> images, labels = torch.rand(6, 1, 2, 2), torch.tensor([0, 0, 0, 1, 1, 1])
    >>> class_seeds(images, labels, torch.tensor([0, 1, 1, 1])).shape
    torch.Size([4, 1, 2, 2])
    """
    check_images(images)
    check_labels(labels, len(images))
    generator = torch.Generator().manual_seed(seed)
    drawn = []
    for kind in classes.tolist():
        own = images[labels == kind]
        if len(own) == 0:
            raise InputError("classes", kind, "classes that occur in labels")
        mean = own.mean(0)
        # A random combination of centred images has their covariance; no matrix of it is needed.
        weights = (
            torch.randn(len(own), generator=generator, dtype=torch.float32).to(own)
            / max(1, len(own) - 1) ** 0.5
        )
        drawn.append(mean + torch.einsum("n,nchw->chw", weights, own - mean))
    return torch.stack(drawn).clamp(0, 1)
