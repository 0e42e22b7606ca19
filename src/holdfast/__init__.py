"""Holdfast trains, attacks and audits image classifiers whose explanations hold fast."""

from importlib import import_module

# Not from `typing`: with python -m holdfast, which has the current folder on its path, what comes
# before __main__ imports nothing that another file could be taken for.
TYPE_CHECKING = False

if TYPE_CHECKING:
    from typing import Any

    from holdfast import (
        adversarial,
        attributions,
        audit,
        data,
        manipulation,
        metrics,
        models,
        objectives,
        plot,
        report,
        training,
    )
    from holdfast.adversarial import synthesize
    from holdfast.training import load

__version__ = "0.1.0"

__all__ = [
    "__version__",
    "adversarial",
    "attributions",
    "audit",
    "data",
    "load",
    "manipulation",
    "metrics",
    "models",
    "objectives",
    "plot",
    "report",
    "synthesize",
    "training",
]


def __getattr__(name: str) -> "Any":
    """Import a room when it is first used, since some take seconds."""
    if name == "load":
        return import_module("holdfast.training").load
    if name == "synthesize":
        return import_module("holdfast.adversarial").synthesize
    if name in __all__:
        return import_module(f"holdfast.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
