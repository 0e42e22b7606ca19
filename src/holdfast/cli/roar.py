"""``holdfast roar``: remove, retrain, and see what accuracy is left."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path
from typing import Any

from holdfast.cli.methods import METHODS_HELP, methods
from holdfast.cli.model_options import MODEL_HELP, add_model_options, load
from holdfast.cli.options import make_parser, split
from holdfast.errors import HoldfastError

__all__ = ["roar"]


def roar(arguments: list[str]) -> None:
    """Remove the pixels that explanations name, retrain, and see what accuracy is left."""
    parser = make_parser("roar", roar, "--roar.repeats 3 --trainer.max_epochs 10")
    parser.add_argument("models", type=str, nargs="+", help=f"One or several: {MODEL_HELP}")
    add_model_options(parser)
    parser.add_argument(
        "--retrain",
        type=str,
        help="The recipe to retrain by, a name or a YAML file. (default: the run's data, network "
        "and optimizer, with fresh weights and natural training)",
    )
    parser.add_argument("--methods", type=str, default="gradient,ig", help=METHODS_HELP)
    parser.add_argument(
        "--out",
        type=str,
        help="The folder to write to; of several models what compares them. (default: RUN/roar; of "
        "several, each of which has its own results there, roar)",
    )
    parser.add_argument("--quiet", action="store_true", help="Show no progress.")
    asked = split(parser, arguments, groups=("data", "optimizer", "roar"))
    if asked is None:
        return
    options, overrides = asked

    from rich.console import Console

    from holdfast.report import roar_table, write_roar

    several = len(options.models) > 1
    jobs = [_job(model, options, overrides) for model in options.models]
    folders = _folders(options.models, None if several else options.out)
    done: list[Path] = []
    for (method, model, recipe), (name, folder) in zip(jobs, folders.items(), strict=True):
        if several and not options.quiet:
            Console().print(name, markup=False)
        method(model, recipe, folder, retrain=recipe, like=done, progress=not options.quiet)
        done.append(folder)
    out = Path(options.out or "roar") if several else done[0]
    results: Any = folders if several else out
    Console().print(roar_table(results))
    print(f"The curves are in {write_roar(results, out)}.")


def _job(name: str, options: Any, overrides: dict[str, Any]) -> tuple[Any, Any, Any]:
    """Build ROAR, and load the model and what to retrain by."""
    from holdfast.audit import ROAR
    from holdfast.audit.retraining import natural_settings
    from holdfast.training.recipe import Recipe, build, named_by, overlay, part_of, read_recipe
    from holdfast.training.settings import from_a_run

    run, natural = Path(name), options.retrain is None
    config = run / "config.yaml" if natural else options.retrain
    if natural and not config.is_file():
        what = "is no folder of a trained run: it has no config.yaml"
        raise HoldfastError(f"{run} {what}; --retrain says what to retrain by")
    model = load(Namespace(**{**vars(options), "model": name}), {})
    settings = read_recipe(config)
    settings = overlay(natural_settings(settings) if natural else settings, overrides)
    chosen = {"attributions": methods(options.methods)}
    with from_a_run(options.trust_code if natural else None):
        method = build(ROAR, chosen | part_of(settings, "roar"), "roar")
        settings.pop("roar", None)
        with named_by(config, overrides):
            recipe = build(Recipe, settings, at="")
    if natural and recipe.model.source == "code" and not options.trust_code:
        raise HoldfastError(
            f"{run} is trained by calling {recipe.model.name!r}: give --trust-code, and then only "
            "if you trust where the run comes from"
        )
    return method, model, recipe


def _folders(models: list[str], out: str | None) -> dict[str, Path]:
    """Say where the results of each model go, by names that are short where they differ."""
    from holdfast.audit.assignment import folder_of

    folders = [folder_of(model) for model in models]
    names = [folder.resolve().name for folder in folders]
    if len(set(names)) < len(names):
        names = models
    places = {folder.resolve() for folder in folders}
    if len(set(names)) < len(names) or len(places) < len(folders):
        raise HoldfastError("holdfast roar is given the same model twice")
    return {name: Path(out or folder / "roar") for name, folder in zip(names, folders, strict=True)}
