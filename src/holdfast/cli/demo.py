"""``holdfast demo``: four classifiers of digits, from training to report."""

from __future__ import annotations

from pathlib import Path

from holdfast.cli.audit import examine
from holdfast.cli.options import make_parser, split
from holdfast.cli.report import show
from holdfast.cli.train import fit
from holdfast.errors import HoldfastError

__all__ = ["demo"]

DEMO = ("natural", "pgd", "ig_sum_norm", "art")


def demo(arguments: list[str]) -> None:
    """Train four classifiers of digits, audit them, and report which explanations hold."""
    parser = make_parser("demo", demo, "--trainer.max_epochs 5")
    parser.add_argument("--out", type=str, default="runs/demo", help="The folder to write to.")
    parser.add_argument("--seed", type=int, default=0, help="Seeds everything.")
    parser.add_argument("--quiet", action="store_true", help="Show no progress.")
    asked = split(parser, arguments, groups=("data", "model", "optimizer"))
    if asked is None:
        return
    options, overrides = asked

    import torch

    from holdfast.training.recipe import load_recipe

    torch.set_num_threads(1)  # networks this small only wait for more, and numbers stay the same
    out = Path(options.out)
    recipes = {
        name: load_recipe(f"digits/{name}", overrides | {"seed": options.seed}) for name in DEMO
    }
    for name, recipe in recipes.items():
        begun = (out / name / file for file in ("model.safetensors", "checkpoints"))
        if any(path.exists() for path in begun):
            raise HoldfastError(f"{out} holds a demonstration already; remove it or choose --out")
        print(f"\n{name}: {recipe.objective!r}")
        fit(recipe, out / name, resume=False, quiet=options.quiet)
        examine(str(out / name), options.quiet)
    print()
    page = show([out / name for name in DEMO], out / "report.html")
    print(
        f"The report is in {page}.\n"
        "Next: holdfast list, to see what can be trained and attacked, or\n"
        "      holdfast train mnist/art --data.path FOLDER-OF-PARQUET --trainer.max_steps 500"
    )
