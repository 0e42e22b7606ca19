"""The model that a verb is given: its options, whose code it may be, and loading it."""

from __future__ import annotations

import os
import sys
from typing import Any

from holdfast.errors import HoldfastError

__all__ = ["MODEL_HELP", "add_model_options", "import_from_here", "load", "names_code"]

MODEL_HELP = (
    "The folder of a trained run; zoo:NAME, a released one; torchvision:NAME, timm:NAME or "
    "hf:NAME, with trained weights; a file of weights, with --architecture; or "
    "package.module:function, which returns a module from images in [0, 1] to logits (one that "
    "wants them normalized has to do so inside)."
)


def add_model_options(parser: Any) -> None:
    """Add the options that say which model a verb works on."""
    parser.add_argument(
        "--architecture",
        type=str,
        help="Of a file of weights: torchvision:resnet18, timm:…, hf:…, mnist_cnn, …",
    )
    parser.add_argument(
        "--trust-code",
        action="store_true",
        help="Run the code that a run names, of whose origin you are sure.",
    )


def names_code(options: Any) -> bool:
    """Tell whether the user names code of his own, or trusts a run that does."""
    roles = ("model", "architecture", "source", "reference")
    named = [getattr(options, role, None) or "" for role in roles]
    return options.trust_code or any(_is_code(name) for name in named)


def _is_code(name: str) -> bool:
    return ":" in name and not name.startswith(("timm:", "hf:", "torchvision:", "zoo:"))


def import_from_here() -> None:
    """Let Python import from the current folder, where a user's own code may lie.

    Only where the user has named code: whoever left a file there shall not be imported for another
    module that is missing. What is installed comes first.
    """
    here = os.getcwd()
    if here not in sys.path:
        sys.path.append(here)


def load(options: Any, overrides: dict[str, Any]) -> Any:
    """Load the model that a verb is asked for."""
    from holdfast.models import Architecture
    from holdfast.training import load
    from holdfast.training.loading import find
    from holdfast.training.recipe import build, overlay, part_of
    from holdfast.training.saving import is_saved

    if names_code(options):
        import_from_here()
    settings = part_of(overlay({}, overrides), "model")
    if is_saved(options.model):
        if settings:
            raise HoldfastError(f"--model.… is not for {options.model}, which says what it is")
        words = {"architecture": options.architecture, "trust_code": options.trust_code}
        return load(options.model, **words)
    made = build(Architecture, {"name": options.architecture or options.model, **settings}, "model")
    settings = {key: getattr(made, key) for key in settings}
    return find(options.model, architecture=options.architecture, settings=settings).build()
