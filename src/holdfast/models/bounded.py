"""Building a network that a file describes, no larger than the file's own tensors warrant."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from holdfast.contracts import HoldfastError, InputError
from holdfast.errors import reason
from holdfast.hub import asking_the_hub
from holdfast.models.build import Architecture
from holdfast.models.checkpoint import check_fit

__all__ = ["build_within"]

_SLACK = 2**25
"""Numbers that a network may make while it is built and not keep, beside those that it keeps."""


def build_within(
    architecture: Architecture, state: Mapping[str, Tensor], argument: str = "architecture"
) -> nn.Module:
    """Build a network without its weights, if it is one whose tensors ``state`` holds.

    It is built without memory for its tensors first, so that settings from a file can neither take
    all memory nor build without end. Nobody is asked for anything. The user's own code is called as
    it is.

    Parameters
    ----------
    architecture : Architecture
        What to build.
    state : mapping of str to Tensor
        The tensors that it will be given.
    argument : str
        What errors are about.

    Raises
    ------
    InputError
        If the tensors are not those of the network, or it cannot be built.

    Examples
    --------
    >>> small = Architecture("mlp", classes=2, in_channels=1, size=4).build()
    >>> build_within(Architecture("mlp", 2, 1, size=10**6), small.state_dict())
    Traceback (most recent call last):
        ...
    holdfast.contracts.InputError: architecture: expected the tensors of its architecture, got \
of another shape: 1.weight (256, 16) instead of (256, 1000000000000)
    """
    if architecture.source == "code":
        return architecture.build(pretrained=False)
    try:
        with asking_the_hub(local=True):
            _check_size(architecture, state, argument)
            with _Bounded(state):
                return architecture.build(pretrained=False)
    except HoldfastError:
        raise
    except Exception as error:  # settings of anybody's can be wrong in any way
        came = f"{architecture.name}, which cannot be built ({reason(error)})"
        raise InputError(argument, came, "a network with settings that it takes") from error


def _check_size(architecture: Architecture, state: Mapping[str, Tensor], argument: str) -> None:
    try:
        with torch.device("meta"), _Bounded(state), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            shapes = architecture.build(pretrained=False).state_dict()
    except Exception as error:
        if isinstance(error, InputError) and error.argument != "Architecture.options":
            raise
        return  # some networks look at their numbers; they are built within bounds alone
    check_fit(argument, state, shapes)


class _Bounded(TorchDispatchMode):
    """Ends what makes more numbers or more tensors than fit the given ones."""

    def __init__(self, state: Mapping[str, Tensor]) -> None:
        super().__init__()
        self.numbers = 4 * sum(tensor.numel() for tensor in state.values()) + _SLACK
        self.calls = 50 * len(state) + 5_000

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Let a call through that is within bounds."""
        self.calls -= 1
        size = args[0] if args and isinstance(args[0], list | tuple | torch.Size) else ()
        sized = size and all(isinstance(side, int) for side in size)
        on_meta = str((kwargs or {}).get("device")) == "meta"
        if self.calls < 0 or (sized and not on_meta and math.prod(size) > self.numbers):
            raise InputError("architecture", "a network without end", "one that fits its tensors")
        return func(*args, **(kwargs or {}))
