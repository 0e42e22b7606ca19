"""The attribution map that a classifier has learned to give by itself."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Integer
from torch import Tensor, nn

from holdfast.contracts import (
    InputError,
    check_images,
    check_labels,
    checked,
    chunks,
    default_chunk,
)
from holdfast.models import Attributing, evaluating

__all__ = ["LearnedAttribution"]


@dataclass(frozen=True)
@checked
class LearnedAttribution:
    """Read the map that an `Attributing` classifier gives beside its logits.

    The map is one for all classes: targets are checked and make no difference. Its one channel is
    divided equally among those of the image, so that their sum is the map in [0, 1].

    Parameters
    ----------
    chunk : int, optional
        How many images to take at a time; by default chosen from their size.

    Raises
    ------
    InputError
        When called: if the model is no `holdfast.models.Attributing`.

    References
    ----------
    Generating Deep Networks Explanations with Robust Attribution Alignment (ACML 2021).

    Examples
    --------
    >>> from holdfast.models import mnist_cnn
    >>> model = Attributing(mnist_cnn(size=16), shape=(1, 16, 16))
    >>> LearnedAttribution()(model, torch.rand(2, 1, 16, 16)).shape
    torch.Size([2, 1, 16, 16])
    """

    chunk: int | None = None

    def __call__(
        self,
        model: nn.Module,
        images: Float[Tensor, "n c h w"],
        targets: Integer[Tensor, " n"] | None = None,
        *,
        create_graph: bool = False,
    ) -> Float[Tensor, "n c h w"]:
        """Return the map of each image, ``(N, C, H, W)``; the model runs in eval mode."""
        check_images(images)
        if not isinstance(model, Attributing):
            expected = "a holdfast.models.Attributing around a classifier, trained to explain"
            raise InputError("model", type(model).__name__, expected)
        maps, channels = [], images.shape[1]
        with evaluating(model), torch.set_grad_enabled(create_graph):
            for part in chunks(len(images), self.chunk or default_chunk(images)):
                logits, map = model.attribute(images[part])
                if targets is not None:
                    check_labels(targets, len(images), logits.shape[1], "targets")
                maps.append((map / channels).repeat(1, channels, 1, 1))
        return torch.cat(maps)
