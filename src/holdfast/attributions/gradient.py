"""The gradient of the class score: the saliency map, and its product with the image."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass

import torch
from jaxtyping import Float, Integer
from torch import Tensor, nn

from holdfast.attributions.target import resolve_targets, select_output
from holdfast.contracts import Output, check_images, checked, chunks, default_chunk
from holdfast.models import classify, differentiate, double_backward, evaluating

__all__ = ["Gradient", "InputXGradient", "input_gradient"]


@dataclass(frozen=True)
@checked
class Gradient:
    """The gradient of the class score with respect to the image, signed.

    Parameters
    ----------
    output : {"logit", "probability", "log_probability", "loss"}
        What is differentiated.
    chunk : int, optional
        How many images to take at a time; by default chosen from their size.

    References
    ----------
    Simonyan et al., Deep Inside Convolutional Networks (2013).

    Examples
    --------
    >>> model = nn.Sequential(nn.Flatten(), nn.Linear(4, 2))
    >>> maps = Gradient()(model, torch.rand(3, 1, 2, 2), torch.tensor([0, 1, 1]))
    >>> torch.equal(maps[1].flatten(), model[1].weight[1])
    True
    """

    output: Output = "logit"
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
        size = self.chunk or default_chunk(images)
        with evaluating(model):
            targets = resolve_targets(model, images, targets, size)
            return torch.cat(
                [
                    input_gradient(
                        model,
                        images[part],
                        targets[part],
                        output=self.output,
                        create_graph=create_graph,
                    )
                    for part in chunks(len(images), size)
                ]
            )


@dataclass(frozen=True)
@checked
class InputXGradient:
    """The image times the gradient of the class score, value by value.

    What the class score would be made of if the model were linear: for a network of ReLUs without
    biases, the map sums to the logit.

    Parameters
    ----------
    output : {"logit", "probability", "log_probability", "loss"}
        What is differentiated.
    chunk : int, optional
        How many images to take at a time; by default chosen from their size.

    References
    ----------
    Shrikumar et al., Not Just a Black Box: Learning Important Features Through Propagating
    Activation Differences (2016).

    Examples
    --------
    >>> model = nn.Sequential(nn.Flatten(), nn.Linear(4, 2, bias=False))
    >>> images = torch.rand(3, 1, 2, 2)
    >>> maps = InputXGradient()(model, images, torch.tensor([0, 1, 1]))
    >>> torch.allclose(maps[0].sum(), model(images)[0, 0])
    True
    """

    output: Output = "logit"
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
        gradient = Gradient(output=self.output, chunk=self.chunk)
        maps = images * gradient(model, images, targets, create_graph=create_graph)
        return maps if create_graph else maps.detach()


def input_gradient(
    model: nn.Module,
    images: Float[Tensor, "n c h w"],
    targets: Integer[Tensor, " n"],
    *,
    output: Output = "logit",
    create_graph: bool = False,
) -> Float[Tensor, "n c h w"]:
    """Differentiate the class score with respect to the image, in the mode the model is in.

    The plain function below every gradient method. Without ``create_graph`` the result is
    detached; with it, it can be differentiated with respect to images and weights.

    Raises
    ------
    HoldfastError
        If the model does not record gradients, or does not use the images.

    Examples
    --------
    >>> model = nn.Sequential(nn.Flatten(), nn.Linear(1, 2))
    >>> input_gradient(model, torch.rand(1, 1, 1, 1), torch.tensor([0])).shape
    torch.Size([1, 1, 1, 1])
    """
    with torch.enable_grad(), double_backward() if create_graph else nullcontext():
        linked = create_graph and images.requires_grad
        x = images if linked else images.detach().requires_grad_(True)
        value = select_output(classify(model, x), targets, output).sum()
        return differentiate(value, x, create_graph=create_graph)
