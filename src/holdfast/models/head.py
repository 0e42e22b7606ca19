"""The last layer of a classifier: found, and made anew for other classes."""

from __future__ import annotations

from torch import nn

from holdfast.contracts import InputError

__all__ = ["replace_head"]


def replace_head(model: nn.Module, before: int, classes: int, name: str) -> None:
    """Put a fresh last layer into a classifier, in place.

    Parameters
    ----------
    model : nn.Module
        The classifier; its last layer is linear or, as SqueezeNet's, a convolution.
    before, classes : int
        How many classes it has, and how many it gets.
    name : str
        What it is called, for the error.

    Raises
    ------
    InputError
        If there is no such layer.

    Examples
    --------
    >>> model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Flatten(), nn.Linear(8, 1000))
    >>> replace_head(model, 1000, 7, "mine")
    >>> model[2]
    Linear(in_features=8, out_features=7, bias=True)
    """
    fresh: tuple[str, nn.Module] | None = None
    for path, module in model.named_modules():
        if isinstance(module, nn.Linear) and module.out_features == before:
            bias = module.bias is not None
            fresh = path, nn.Linear(module.in_features, classes, bias=bias)
        elif isinstance(module, nn.Conv2d) and module.out_channels == before:
            fresh = path, _convolution_like(module, classes)
    if fresh is None:
        expected = f"{before}, or None: {name} has no last layer of {before} outputs to replace"
        raise InputError("Architecture.classes", classes, expected)
    model.set_submodule(*fresh)


def _convolution_like(layer: nn.Conv2d, classes: int) -> nn.Conv2d:
    return nn.Conv2d(
        layer.in_channels,
        classes,
        layer.kernel_size,  # type: ignore[arg-type]
        layer.stride,  # type: ignore[arg-type]
        layer.padding,  # type: ignore[arg-type]
        layer.dilation,  # type: ignore[arg-type]
        bias=layer.bias is not None,
    )
