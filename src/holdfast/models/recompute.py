"""Parts of a model that are computed again for the backward pass, as they were the first time."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import torch

__all__ = ["compute_again_within"]


def compute_again_within(
    owner: object, prepare: Callable[[], Callable[[], AbstractContextManager[Any]]]
) -> None:
    """If the call under way is checkpointed, have it computed again within a context.

    A mode that answers calls differently must answer them so, too, when `torch.utils.checkpoint`
    (in its form without reentrance) runs part of a model once more: in the backward pass, where the
    mode is not active. To be called by the mode at each answer.

    Parameters
    ----------
    owner : object
        Whose context it is; each part is prepared for it once.
    prepare : callable
        Is called now, to note how things stand, and returns what makes the context then.

    Examples
    --------
    >>> from contextlib import nullcontext
    >>> compute_again_within("nobody", lambda: nullcontext)  # nothing is checkpointed here
    """
    part = _checkpointed_part()
    if part is None or any(owner is known for known in vars(part).setdefault("_owners", [])):
        return
    part._owners.append(owner)
    compute, context = part.recompute_fn, prepare()

    def compute_within(*args: Any) -> None:
        with context():
            compute(*args)

    part.recompute_fn = compute_within


def _checkpointed_part() -> Any:
    """Return PyTorch's record of the checkpointed part that is running, if any."""
    hooks = torch._C._autograd._top_saved_tensors_default_hooks(False)
    for hook in hooks or ():
        for cell in getattr(hook, "__closure__", None) or ():
            if hasattr(cell.cell_contents, "recompute_fn"):
                return cell.cell_contents
    return None
