"""``holdfast roar``: remove, retrain, and see what accuracy is left."""

from __future__ import annotations

from pathlib import Path

from holdfast.cli.methods import METHODS_HELP, methods
from holdfast.cli.model_options import MODEL_HELP, add_model_options, load
from holdfast.cli.options import make_parser, split
from holdfast.errors import HoldfastError
from holdfast.files import whole

__all__ = ["roar"]


def roar(arguments: list[str]) -> None:
    """Remove the pixels that explanations name, retrain, and see what accuracy is left."""
    parser = make_parser("roar", roar, "--roar.repeats 3 --trainer.max_epochs 10")
    parser.add_argument("model", type=str, help=MODEL_HELP)
    add_model_options(parser)
    parser.add_argument(
        "--retrain",
        type=str,
        help="The recipe to retrain by, a name or a YAML file. (default: the run's data, network "
        "and optimizer, with fresh weights and natural training)",
    )
    parser.add_argument("--methods", type=str, default="gradient,ig", help=METHODS_HELP)
    parser.add_argument("--out", type=str, help="The folder to write to. (default: RUN/roar)")
    parser.add_argument("--quiet", action="store_true", help="Show no progress.")
    asked = split(parser, arguments, groups=("data", "optimizer", "roar"))
    if asked is None:
        return
    options, overrides = asked

    from rich.console import Console

    from holdfast.audit import ROAR
    from holdfast.audit.assignment import folder_of
    from holdfast.audit.retraining import natural_settings
    from holdfast.report import roar_curves, roar_table
    from holdfast.training.recipe import Recipe, build, named_by, overlay, part_of, read_recipe
    from holdfast.training.settings import from_a_run

    run = Path(options.model)
    config = options.retrain or run / "config.yaml"
    if options.retrain is None and not config.is_file():
        what = "is no folder of a trained run: it has no config.yaml"
        raise HoldfastError(f"{run} {what}; --retrain says what to retrain by")
    model = load(options, {})
    settings = read_recipe(config)
    settings = overlay(settings if options.retrain else natural_settings(settings), overrides)
    chosen = {"attributions": methods(options.methods)}
    with from_a_run(options.trust_code if options.retrain is None else None):
        method = build(ROAR, chosen | part_of(settings, "roar"), "roar")
        settings.pop("roar", None)
        with named_by(config, overrides):
            recipe = build(Recipe, settings, at="")
    if options.retrain is None and recipe.model.source == "code" and not options.trust_code:
        raise HoldfastError(
            f"{run} is trained by calling {recipe.model.name!r}: give --trust-code, and then only "
            "if you trust where the run comes from"
        )
    out = Path(options.out or folder_of(options.model) / "roar")
    method(model, recipe, out, retrain=recipe, progress=not options.quiet)
    Console().print(roar_table(out))
    with whole(out / "roar.png") as unfinished:
        roar_curves(out).savefig(unfinished, dpi=150, format="png")
    print(f"The curves are in {out / 'roar.png'}.")
