"""Training: recipes, the run itself, and saved models.

`train` is loaded on first use, since Lightning takes seconds to import and reading a saved model
does not need it.
"""

from typing import TYPE_CHECKING, Any

from holdfast.training.loading import load
from holdfast.training.saving import load_saved, save

if TYPE_CHECKING:
    from holdfast.training.fit import train
    from holdfast.training.recipe import OptimizerSettings, Recipe, load_recipe, recipe_names
    from holdfast.training.releasing import Released, release

__all__ = [
    "OptimizerSettings",
    "Recipe",
    "Released",
    "load",
    "load_recipe",
    "load_saved",
    "recipe_names",
    "release",
    "save",
    "train",
]


def __getattr__(name: str) -> Any:
    if name == "train":
        from holdfast.training.fit import train

        return train
    if name in ("OptimizerSettings", "Recipe", "load_recipe", "recipe_names"):
        from holdfast.training import recipe

        return getattr(recipe, name)
    if name in ("Released", "release"):
        from holdfast.training import releasing

        return getattr(releasing, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
