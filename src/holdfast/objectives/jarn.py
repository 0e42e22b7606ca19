"""Jacobian adversarial regularization (JARN): input gradients that pass for images."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from holdfast.attributions import select_output
from holdfast.contracts import Batch, InputError, Output, check_positive, checked
from holdfast.models import WithDiscriminator, classify, differentiate, double_backward
from holdfast.objectives.checks import classification_loss, images_and_labels

__all__ = ["JARN"]


@dataclass(frozen=True)
@checked
class JARN:
    """The cross-entropy, and how well a discriminator tells input gradients from images.

    Classifier and adaptor minimize ``ℓ(x, y) − λ D``, the discriminator minimizes D, all in one
    step. D is the discriminator's mean cross-entropy over the adapted input gradients of a batch
    and its images.

    Parameters
    ----------
    weight : float
        λ.
    every : int
        The discriminator learns in the first of every so many calls in train mode.
    noise : float
        Every value of x is moved uniformly by at most so much, in pixel units, and x is cut to
        [0, 1].
    output : {"probability", "loss", "logit", "log_probability"}
        What of the true class is differentiated at the image. The authors' public code takes the
        softmax probability; the gradient of the loss points exactly the other way, which the
        adaptor can turn.

    Raises
    ------
    InputError
        When called: if the model is no `holdfast.models.WithDiscriminator`.

    Notes
    -----
    The adaptor and the discriminator are parts of the model, and one optimizer of all its
    parameters trains them: ``model: {discriminator: true}`` in a recipe. In calls in which it does
    not learn the discriminator's parameters get no gradient at all, so that torch's optimizers
    leave them as they are. ``loss`` is what is differentiated, no measure of progress: its value
    falls and rises with the discriminator's turn.

    As published the term comes in the last eighth of training only::

        Successive(UniformNoise(...), JARN(), share=0.875)

    What differs from the public code: there the discriminator's step follows that of classifier
    and adaptor, and sees their new weights; here all are taken at once, from the same weights.
    Biases and batch-norm are decayed like all else, as in all of Holdfast's training. On several
    devices, Lightning's strategy has to be one that finds unused parameters.

    References
    ----------
    Chan et al., Jacobian Adversarially Regularized Networks for Robustness (ICLR 2020); compared
    with Attributional Robustness Training (ECCV 2020), appendix C.

    Examples
    --------
    >>> from holdfast.models import mnist_cnn
    >>> model = WithDiscriminator(mnist_cnn(size=8), channels=1)
    >>> batch = {"images": torch.rand(2, 1, 8, 8), "labels": torch.tensor([3, 7])}
    >>> sorted(JARN()(model, batch))
    ['cross_entropy', 'discrimination', 'loss']
    """

    weight: float = 1.0
    every: int = 20
    noise: float = 8 / 255
    output: Output = "probability"

    def __post_init__(self) -> None:
        check_positive(self, "weight", "noise", zero=True)
        check_positive(self, "every")

    def __call__(self, model: nn.Module, batch: Batch) -> dict[str, Tensor]:
        """Return ``{"loss", "cross_entropy", "discrimination"}``."""
        images, labels = images_and_labels(batch)
        if not isinstance(model, WithDiscriminator):
            expected = "a holdfast.models.WithDiscriminator around a classifier"
            raise InputError("model", type(model).__name__, expected)
        moved = (images + self.noise * (2 * torch.rand_like(images) - 1)).clamp(0, 1)
        with torch.enable_grad(), double_backward():
            x = moved.detach().requires_grad_(True)
            logits = classify(model, x)
            cross_entropy = classification_loss(logits, labels)
            score = select_output(logits, labels, self.output)
            gradient = differentiate(score.sum(), x, create_graph=True)
        adapted = model.adapt(gradient)
        discrimination = _discrimination(model, adapted, moved, fixed=True)
        loss = cross_entropy - self.weight * discrimination
        if self._learns(model):
            loss = loss + _discrimination(model, adapted.detach(), moved, fixed=False)
        return {"loss": loss, "cross_entropy": cross_entropy, "discrimination": discrimination}

    def _learns(self, model: WithDiscriminator) -> bool:
        """Whether it is the discriminator's turn; counts the calls, in train mode."""
        turn = bool(model.calls % self.every == 0)
        if model.training:
            model.calls += 1
        return turn


def _discrimination(
    model: WithDiscriminator, adapted: Tensor, images: Tensor, *, fixed: bool
) -> Float[Tensor, ""]:
    """Take the discriminator's mean cross-entropy over adapted gradients and images."""
    logits = model.discriminate(adapted, images, fixed=fixed)
    right = torch.arange(2, device=images.device).repeat_interleave(len(images))
    return F.cross_entropy(logits, right)
