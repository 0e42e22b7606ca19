"""Models that stand in for a study's rows without being trained by it, and what they are."""

from __future__ import annotations

from pathlib import Path

from holdfast import plain_yaml
from holdfast.contracts import HoldfastError
from holdfast.studies.study import Row
from holdfast.training.recipe import Recipe, build, read_recipe, to_settings
from holdfast.training.run_folder import CONFIG, flat

__all__ = ["described"]

_BESIDE = ("audit.", "data.path", "seed", "source")
"""What no model is another for, or what is said itself."""


def described(row: Row, folder: Path) -> str:
    """Say what a run is that stands in for a row: on what it was trained, and how unlike the row.

    Parameters
    ----------
    row : Row
        The row.
    folder : Path
        The run.

    Returns
    -------
    str
        Its folder, the path of its data, and the dotted keys at which its settings and those of the
        row's recipe differ; the folder alone where it says nothing of its training.

    Raises
    ------
    HoldfastError
        If the run's settings are no YAML mapping.
    """
    if not (folder / CONFIG).is_file():
        return f"{folder}, whose training is not known"
    config = flat(plain_yaml.read_mapping(folder / CONFIG))
    said = f"{folder}, trained on {config.get('data.path', 'other data')}"
    if not row.recipe:
        return said
    try:
        made = build(Recipe, read_recipe(row.recipe, row.overrides), at="")
    except HoldfastError:  # of a teacher that the row has trained first
        return f"{said}, not compared with its recipe"
    recipe = flat(to_settings(made))
    # None is for the data to say, and what only the recipe has may be younger than the run.
    unlike = [
        key
        for key, value in config.items()
        if recipe.get(key, "missing") not in (value, None) and not key.startswith(_BESIDE)
    ]
    return f"{said}, unlike its recipe in {', '.join(unlike)}" if unlike else said
