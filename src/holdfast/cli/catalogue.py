"""What there is, by name, for ``holdfast list``."""

from __future__ import annotations

import inspect
from typing import Any

__all__ = ["entries"]


def entries() -> dict[str, dict[str, str]]:
    """Return a line about each recipe, method and model, by kind and name."""
    from holdfast import adversarial, attributions, audit, manipulation, models, objectives
    from holdfast.training.recipe import read_recipe, recipe_names

    def methods(room: Any) -> dict[str, str]:
        found = {name: getattr(room, name) for name in room.__all__}
        return {
            name: (item.__doc__ or "").partition("\n")[0]
            for name, item in found.items()
            if isinstance(item, type) and "__call__" in vars(item)
        }

    short = {type(method).__name__: name for name, method in attributions.METHODS.items()}
    return {
        "recipes": {name: read_recipe(name).get("source", "") for name in recipe_names()},
        "objectives": methods(objectives),
        "attributions": {
            f"{name} ({short[name]})" if name in short else name: about
            for name, about in methods(attributions).items()
        },
        "attacks": methods(adversarial),
        "manipulations": methods(manipulation),
        "checks": {
            name: about
            for name, about in methods(audit).items()
            if list(inspect.signature(getattr(audit, name).__call__).parameters)[2:] == ["batch"]
        },
        "models": dict.fromkeys(models.names(), ""),
    }
