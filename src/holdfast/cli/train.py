"""``holdfast train``: a model by a recipe."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from holdfast.cli.model_options import import_from_here
from holdfast.cli.options import make_parser, split

__all__ = ["fit", "train"]

_IMPORT_PATH = re.compile(r"[^\W\d]\w*[.:][^\W\d]")


def train(arguments: list[str]) -> None:
    """Train a model by a recipe."""
    parser = make_parser("train", train, "--objective.weight 1 --trainer.max_steps 100")
    parser.add_argument("recipe", type=str, help="A name (see holdfast list) or a YAML file.")
    parser.add_argument("--out", type=str, help="The run's folder. (default: runs/RECIPE)")
    parser.add_argument("--resume", action="store_true", help="Go on from the last checkpoint.")
    parser.add_argument("--quiet", action="store_true", help="Show no progress.")
    asked = split(parser, arguments, groups=("data", "model", "optimizer"))
    if asked is None:
        return
    options, overrides = asked

    from holdfast.training.recipe import load_recipe

    if _names_code(options.recipe, overrides):
        import_from_here()
    recipe = load_recipe(options.recipe, overrides)
    out = Path(options.out or Path("runs") / Path(options.recipe).with_suffix(""))
    fit(recipe, out, options.resume, options.quiet)
    trust = " --trust-code" if recipe.model.source == "code" else ""
    print(f"The model is in {out / 'model.safetensors'}. Next: holdfast audit {out}{trust}")


def _names_code(recipe: str, overrides: dict[str, Any]) -> bool:
    """Tell whether the user names code of his own: in his recipe, or in a setting of a part."""
    parts = [str(value) for key, value in overrides.items() if not key.startswith("data.")]
    return recipe.endswith((".yaml", ".yml")) or any(_IMPORT_PATH.search(part) for part in parts)


def fit(recipe: Any, out: Path, resume: bool, quiet: bool) -> None:
    """Train by a recipe, in the way of the command: with one bar at a time."""
    import datasets

    from holdfast.training.fit import train

    datasets.disable_progress_bars()
    train(recipe, out, resume=resume, progress=not quiet)
