"""The border between Holdfast and a classifier: images in, logits ``(N, K)`` out, nothing else."""

from __future__ import annotations

import itertools
import sys
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from holdfast.contracts import HoldfastError, InputError
from holdfast.models.checkpointing import no_checkpointing
from holdfast.models.modes import active_modes
from holdfast.models.twice import double_backward, no_second_derivative

__all__ = ["as_logits", "classify", "differentiate", "logits_in", "no_gradient"]


def classify(model: nn.Module, images: Float[Tensor, "n c h w"]) -> Float[Tensor, "n k"]:
    """Run a classifier, whatever the form of its output, and return its logits.

    Every method of Holdfast evaluates models through this function. The model is given a copy of
    the images, in its own precision, so that one that normalizes in place changes nobody's images.
    Compiled models run eagerly, as compiled graphs cannot be differentiated twice.

    Parameters
    ----------
    model : nn.Module
        The classifier. It may return logits ``(N, K)``, an object with an attribute ``logits``, a
        mapping with the key ``"logits"``, or a tuple or list that begins with the logits. It runs
        in the mode it is in.
    images : Tensor
        The images, ``(N, C, H, W)``.

    Returns
    -------
    Tensor
        The logits ``(N, K)``, K at least 2, in the precision of the images.

    Warns
    -----
    UserWarning
        Of TorchScript, which the surrogate and other rules for activation functions do not reach,
        where such a rule is in force.

    Raises
    ------
    InputError
        If the output is none of these.
    HoldfastError
        If the images ask for a gradient and the output has none, or the call stands inside
        `torch.inference_mode`, or the model was made there.

    Examples
    --------
    >>> class Named(nn.Linear):
    ...     def forward(self, images):
    ...         return {"logits": super().forward(images.flatten(1).sub_(0.5))}
    >>> images = torch.ones(1, 1, 2, 2)
    >>> classify(Named(4, 3), images).shape, images.min()
    (torch.Size([1, 3]), tensor(1.))
    """
    linked = images.requires_grad and torch.is_grad_enabled()
    if linked and torch.is_inference_mode_enabled():
        raise no_gradient()
    if linked and _is_closed_to_autograd(model):
        raise HoldfastError(
            "model: some of its weights were made inside torch.inference_mode(), where autograd "
            "cannot use them; make or load the model outside"
        )
    precision = _precision(model, images)
    seen = images.clone() if precision == images.dtype else images.to(precision)
    _check_reach(model)
    with _eager(), no_checkpointing() if linked else nullcontext():
        logits = as_logits(model(seen), images)
    if linked and not logits.requires_grad:
        raise no_gradient()
    return logits


def as_logits(output: Any, images: Float[Tensor, "n c h w"]) -> Float[Tensor, "n k"]:
    """Take the logits out of what a model returned for images, and refuse what is none.

    Parameters
    ----------
    output : object
        What `classify` accepts.
    images : Tensor
        The images that were classified, for their number and precision.

    Raises
    ------
    InputError
        If there are no logits ``(N, K)`` of at least two classes.

    Examples
    --------
    >>> as_logits((torch.zeros(1, 2), "features"), torch.rand(1, 1, 2, 2))
    tensor([[0., 0.]])
    >>> as_logits(torch.zeros(1, 1), torch.rand(1, 1, 2, 2))
    Traceback (most recent call last):
        ...
    holdfast.contracts.InputError: model: expected logits (N, K) of at least 2 classes; for a \
binary model [0, z] instead of z, got one logit per image, shape (1, 1)
    """
    logits = logits_in(output)
    expected = "logits (N, K) of at least 2 classes"
    if not isinstance(logits, Tensor):
        raise InputError("model", f"an output of type {type(output).__name__}", expected)
    shape = tuple(logits.shape)
    if shape in ((len(images),), (len(images), 1)):
        came = f"one logit per image, shape {shape}"
        raise InputError("model", came, f"{expected}; for a binary model [0, z] instead of z")
    if logits.ndim != 2 or len(logits) != len(images) or not logits.is_floating_point():
        raise InputError("model", f"an output of shape {shape} and type {logits.dtype}", expected)
    return logits.to(images.dtype)


def logits_in(output: Any) -> Any:
    """Find what stands for the logits in an output, unchecked; None where nothing does.

    Examples
    --------
    >>> logits_in({"logits": 1}), logits_in((2, "features")), logits_in(3)
    (1, 2, 3)
    """
    if isinstance(output, Mapping):
        return output.get("logits")
    if hasattr(output, "logits"):
        return output.logits
    if isinstance(output, tuple | list):
        return output[0] if output else None
    return output


def differentiate(
    value: Float[Tensor, ""],
    x: Tensor,
    *,
    create_graph: bool = False,
    retain_graph: bool | None = None,
) -> Tensor:
    """Differentiate what was made of a model's output with respect to its images.

    Raises
    ------
    HoldfastError
        If autograd cannot trace the value back to the images. The logits may carry a graph all the
        same, to the weights of a head behind features without one. Also if the value is made of
        gradients, and PyTorch cannot differentiate a function of the model twice.

    Examples
    --------
    >>> x = torch.ones(2, requires_grad=True)
    >>> differentiate((x**2).sum(), x)
    tensor([2., 2.])
    """
    gradient = None
    if value.requires_grad and x.requires_grad:
        try:
            (gradient,) = torch.autograd.grad(
                value, x, retain_graph=retain_graph, create_graph=create_graph, allow_unused=True
            )
        except RuntimeError as error:
            raise no_second_derivative(error) or error from error
    if gradient is None:
        raise no_gradient()
    return gradient


def no_gradient() -> HoldfastError:
    """Make the error for logits that autograd cannot trace back to the images.

    Examples
    --------
    >>> raise no_gradient()  # doctest: +ELLIPSIS
    Traceback (most recent call last):
        ...
    holdfast.contracts.HoldfastError: model: its output has no gradient with respect to the ...
    """
    where = (
        "the call stands inside torch.inference_mode(); leave it, or use torch.no_grad()"
        if torch.is_inference_mode_enabled()
        else "part of its forward runs under torch.no_grad() or inference_mode(), detaches, leaves "
        "PyTorch, or does not use them. Let gradients through, or use methods that need none: "
        "RandomSearch and RandomSign for explanations, Square and SPSA for predictions"
    )
    return HoldfastError(f"model: its output has no gradient with respect to the images: {where}")


def _check_reach(model: nn.Module) -> None:
    """Warn of TorchScript where functions should be answered otherwise than by PyTorch."""
    rules = [mode for mode in active_modes() if not isinstance(mode, double_backward)]
    if rules and any(isinstance(part, torch.jit.ScriptModule) for part in model.modules()):
        warnings.warn(
            "model: it is TorchScript, or holds some, where neither the softplus surrogate nor the "
            "rules of guided backpropagation and DeepLIFT reach activation functions; what rests "
            "on them is wrong or weak. Give the nn.Module that it was made of",
            stacklevel=3,
        )


def _precision(model: nn.Module, images: Tensor) -> torch.dtype:
    """Return the floating-point type of the model's weights; that of the images if it has none."""
    for tensor in itertools.chain(model.parameters(), model.buffers()):
        if tensor.is_floating_point():
            return tensor.dtype
    return images.dtype


def _is_closed_to_autograd(model: nn.Module) -> bool:
    """Tell whether weights were made inside `torch.inference_mode`, and the call stands outside."""
    made_inside = any(parameter.is_inference() for parameter in model.parameters())
    return made_inside and not torch.is_inference_mode_enabled()


@contextmanager
def _eager() -> Iterator[None]:
    """Within the block, compiled models run as they were written."""
    if "torch._dynamo" not in sys.modules:  # nothing is compiled, and its import takes seconds
        yield
        return
    with torch.compiler.set_stance("force_eager"):
        yield
