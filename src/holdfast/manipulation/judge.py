"""The judge of every manipulation: whole maps, labels kept, the best of each image remembered."""

from __future__ import annotations

import copy
import warnings

import torch
from jaxtyping import Bool, Float, Integer
from torch import Tensor, nn

from holdfast.adversarial.accuracy import right
from holdfast.adversarial.margin import margin
from holdfast.contracts import Attribution, InputError, same_draws
from holdfast.metrics import kendall_tau, pixel_scores
from holdfast.models import classify

__all__ = ["Judge"]


class Judge:
    """Remembers the perturbation of each image that keeps the label and changes the map most.

    Random attributions draw for a perturbed image what they drew for its original.

    Parameters
    ----------
    attribution : Attribution
        Makes the maps that are compared, of the unmodified model and in full.
    model : Module
        The classifier.
    images : Tensor
        The original images, ``(N, C, H, W)``.
    labels : Tensor
        The classes to keep and to explain, ``(N,)``.

    Attributes
    ----------
    maps, scores : Tensor
        The original maps, and their pixel scores.
    best, similarity, preserved : Tensor
        For each image the best perturbation so far, Kendall's τ between its map and the original
        one, and whether there is any; until there is, the original image and 1.
    found_by : list of str
        The ``source`` that was given with each best perturbation; empty until there is one.
    steps, directionless : Tensor
        How many gradient steps were taken for each image, and how many had no direction, ``(N,)``.

    Raises
    ------
    InputError
        If a map of an original image holds NaN or an infinity.

    Examples
    --------
    >>> from holdfast.attributions import Gradient
    >>> model = nn.Sequential(nn.Flatten(), nn.Linear(4, 2))
    >>> images = torch.rand(3, 1, 2, 2)
    >>> judge = Judge(Gradient(), model, images, model(images).argmax(1))
    >>> judge(images, "nothing").tolist()  # a linear model's gradient never changes
    [1.0, 1.0, 1.0]
    """

    def __init__(
        self,
        attribution: Attribution,
        model: nn.Module,
        images: Float[Tensor, "n c h w"],
        labels: Integer[Tensor, " n"],
    ) -> None:
        self.attribution, self.model, self.images, self.labels = attribution, model, images, labels
        self.maps = attribution(model, images, labels).detach()
        self.scores = pixel_scores(self.maps)
        bad = int((~torch.isfinite(self.scores)).any(1).sum())
        if bad:
            name = type(attribution).__name__
            came = f"{name} with NaN or infinite maps of {bad} images"
            raise InputError("attribution", came, "finite maps")
        self._warn_if_drawn_anew()
        self.best = images.clone()
        # At least single precision: two digits would not tell one τ from another.
        precision = torch.promote_types(self.scores.dtype, torch.float32)
        self.similarity = torch.ones(len(images), dtype=precision, device=images.device)
        self.preserved = torch.zeros(len(images), dtype=torch.bool, device=images.device)
        self.found_by = [""] * len(images)
        self.steps, self.directionless = (torch.zeros_like(self.similarity) for _ in range(2))

    def __call__(
        self, perturbed: Float[Tensor, "n c h w"], source: str = ""
    ) -> Float[Tensor, " n"]:
        """Compare the maps of one perturbation of each image, and remember what is better.

        Returns
        -------
        Tensor
            Kendall's τ with the original map, ``(N,)``; infinite where the label changed or the map
            is not finite, so that nobody takes it for a success.
        """
        kept = self.kept(perturbed)
        with same_draws(self.images, perturbed):
            maps = self.attribution(self.model, perturbed, self.labels).detach()
        scores = pixel_scores(maps)
        kept = kept & torch.isfinite(scores).all(1)
        scores = torch.where(kept[:, None], scores, self.scores)
        tau = kendall_tau(self.scores, scores).to(self.similarity)
        better = kept & (~self.preserved | (tau < self.similarity))
        self.best = torch.where(better[:, None, None, None], perturbed, self.best)
        self.similarity = torch.where(better, tau, self.similarity)
        self.preserved = self.preserved | kept
        for i in better.nonzero().flatten().tolist():
            self.found_by[i] = source
        return torch.where(kept, tau, torch.inf)

    def _warn_if_drawn_anew(self) -> None:
        """Explain one image again: what differs now would differ without any perturbation."""
        again = self.attribution(self.model, self.images[:1], self.labels[:1]).detach()
        change = (pixel_scores(again) - self.scores[:1]).abs().sum()
        if change > _DRAWN_ANEW * self.scores[:1].sum():
            warnings.warn(
                f"{type(self.attribution).__name__}: the same image has another map in another "
                "call; the attribution or the model draws at random, or mixes the images of a "
                "batch, and differences of maps are no evidence of an attack. Random attributions "
                "should draw from holdfast.contracts.generators",
                stacklevel=5,
            )

    def among(self, some: Integer[Tensor, " m"]) -> Judge:
        """Return a judge of some of the images, who knows what this one knows of them."""
        judge = copy.copy(self)
        for name in ("images", "labels", "maps", "scores", *_KNOWN):
            setattr(judge, name, getattr(self, name)[some])
        judge.found_by = [self.found_by[i] for i in some.tolist()]
        return judge

    def learn(self, some: Integer[Tensor, " m"], judge: Judge) -> None:
        """Take over what a judge of some of the images has seen since."""
        for name in _KNOWN:
            setattr(self, name, getattr(self, name).index_copy(0, some, getattr(judge, name)))
        for i, source in zip(some.tolist(), judge.found_by, strict=True):
            self.found_by[i] = source

    @property
    def moved(self) -> Float[Tensor, " n"]:
        """The largest change of a value between each image and its best perturbation."""
        return (self.best - self.images).abs().flatten(1).amax(1).to(self.similarity)

    @property
    def stuck(self) -> Float[Tensor, " n"]:
        """The share of gradient steps that had no direction; NaN where none were taken."""
        return self.directionless / self.steps

    def kept(self, perturbed: Float[Tensor, "n c h w"]) -> Bool[Tensor, " n"]:
        """Tell where the model still answers with the label."""
        with torch.no_grad():
            return right(classify(self.model, perturbed), self.labels)

    def lead(
        self, perturbed: Float[Tensor, "n c h w"], some: Bool[Tensor, " m"] | None = None
    ) -> Float[Tensor, " n"]:
        """By how much the label's logit is above all others; of ``some`` of the images only.

        Differentiable where the perturbed images ask for it.
        """
        labels = self.labels if some is None else self.labels[some]
        with torch.set_grad_enabled(perturbed.requires_grad):
            return margin(classify(self.model, perturbed), labels)


_DRAWN_ANEW = 0.05
"""The change of a map, as a share of it, that rounding in another batch does not explain."""
_KNOWN = ("best", "similarity", "preserved", "steps", "directionless")
"""What a judge learns, image by image, beside ``found_by``."""
