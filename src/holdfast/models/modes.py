"""Which of our modes, that answer a model's calls in its stead, are active."""

from __future__ import annotations

from torch.overrides import TorchFunctionMode, _get_current_function_mode_stack

__all__ = ["active_modes"]


def active_modes() -> list[TorchFunctionMode]:
    """List our modes around the call, outermost first, as the surrogate or guided backpropagation.

    Within a mode's own answer, these are the modes around it.

    Examples
    --------
    >>> from holdfast.models import softplus
    >>> with softplus(beta=50.0):
    ...     [type(mode).__name__ for mode in active_modes()]
    ['softplus']
    """
    stack = _get_current_function_mode_stack()
    return [mode for mode in stack if type(mode).__module__.startswith("holdfast.")]
