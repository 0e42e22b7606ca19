"""What each verb of the command does."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

from holdfast.cli.options import make_parser, split
from holdfast.contracts import HoldfastError

__all__ = ["audit", "catalogue", "data", "demo", "explain", "report", "roar", "train"]

DEMO = ("natural", "pgd", "ig_sum_norm", "art")
_MODEL_HELP = (
    "The folder of a trained run; torchvision:NAME, timm:NAME or hf:NAME, with trained weights; a "
    "file of weights, with --architecture; or package.module:function, which returns a module from "
    "images in [0, 1] to logits (one that wants them normalized has to do so inside)."
)
_METHODS_HELP = "Short names with commas between them: gradient, ig, grad_cam, bsm, agi, …"


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

    from holdfast.training.recipe import Recipe, build, read_recipe

    _import_from_here()
    recipe = build(Recipe, read_recipe(options.recipe, overrides))
    out = Path(options.out or Path("runs") / Path(options.recipe).with_suffix(""))
    _fit(recipe, out, options.resume, options.quiet)
    trust = " --trust-code" if recipe.model.source == "code" else ""
    print(f"The model is in {out / 'model.safetensors'}. Next: holdfast audit {out}{trust}")


def explain(arguments: list[str]) -> None:
    """Draw which pixels of images mattered for their predictions: a row an image."""
    example = "--data.size 256 --model.weights IMAGENET1K_V1"
    parser = make_parser("explain", explain, example)
    parser.add_argument("model", type=str, help=_MODEL_HELP)
    parser.add_argument("images", type=str, nargs="+", help="Image files: PNG, JPEG, …")
    _add_model_options(parser)
    parser.add_argument(
        "--methods",
        type=str,
        default="gradient,ig,smooth_grad,big",
        help=_METHODS_HELP,
    )
    parser.add_argument("--out", type=str, default="explanation.png", help="The file to write.")
    asked = split(parser, arguments, groups=("data", "model"))
    if asked is None:
        return
    options, overrides = asked

    from holdfast import plot

    methods = _methods(options.methods)
    out = Path(options.out)
    if out.suffix.lower() not in (".png", ".pdf", ".svg"):
        raise HoldfastError(f"--out is {out}; its name has to end in .png, .pdf or .svg")
    model = _load(options, overrides)
    images = _read_images(model, options.images, overrides)
    figure = plot.explain(model, images, methods)
    out.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(out, dpi=150)
    print(f"The explanations are in {out}.")


def audit(arguments: list[str]) -> None:
    """Attack a model's predictions and explanations, check them, and record what happened."""
    parser = make_parser("audit", audit, "--audit.explained 100 --data.limit 500")
    parser.add_argument("model", type=str, help=_MODEL_HELP)
    _add_model_options(parser)
    parser.add_argument(
        "--battery",
        type=str,
        help="quick, standard or full. (default: what the run's recipe says, else standard)",
    )
    parser.add_argument("--eps", type=str, help="The battery's radius, as 8/255.")
    parser.add_argument("--data", type=str, help="What to audit on. (default: the run's own data)")
    parser.add_argument("--source", type=str, help="A model to craft attacks on, which are tried.")
    parser.add_argument("--reference", type=str, help="A naturally trained model, to compare maps.")
    parser.add_argument(
        "--out",
        type=str,
        help="The folder that gets a folder audit. (default: the run's, runs/MODEL)",
    )
    parser.add_argument("--devices", type=int, default=1, help="How many GPUs, or processes.")
    parser.add_argument("--quiet", action="store_true", help="Show no progress.")
    asked = split(parser, arguments, groups=("data", "audit", "model"))
    if asked is None:
        return
    options, overrides = asked
    if _names_code(options):
        _import_from_here()
    folder = _examine(overrides=overrides, **vars(options))
    if os.environ.get("RANK", "0") != "0":
        return  # of the processes that torchrun has started, the first one speaks
    _show([folder])
    print(f"Next: holdfast report {folder}")


def report(arguments: list[str]) -> None:
    """Compare audited runs: a table here, and one HTML file with figures and galleries."""
    parser = make_parser("report", report)
    parser.add_argument("runs", type=str, nargs="+", help="Folders of audited runs.")
    parser.add_argument("--out", type=str, default="report.html", help="The HTML file to write.")
    parser.add_argument("--title", type=str, help="The report's title.")
    parser.add_argument("--tables", type=str, help="A folder for all tables: CSV, Markdown, LaTeX.")
    asked = split(parser, arguments)
    if asked is None:
        return
    options, _ = asked
    runs = [Path(run) for run in options.runs]
    page = _show(runs, Path(options.out), options.title, options.tables)
    print(f"The report is in {page}.")
    if options.tables:
        print(f"Its tables are in {options.tables}.")


def roar(arguments: list[str]) -> None:
    """Remove the pixels that explanations name, retrain, and see what accuracy is left."""
    parser = make_parser("roar", roar, "--roar.repeats 3 --trainer.max_epochs 10")
    parser.add_argument("model", type=str, help=_MODEL_HELP)
    _add_model_options(parser)
    parser.add_argument(
        "--recipe", type=str, help="What to retrain by: a name or a YAML file. (default: the run's)"
    )
    parser.add_argument("--methods", type=str, default="gradient,ig", help=_METHODS_HELP)
    parser.add_argument("--out", type=str, help="The folder to write to. (default: RUN/roar)")
    parser.add_argument("--quiet", action="store_true", help="Show no progress.")
    asked = split(parser, arguments, groups=("data", "optimizer", "roar"))
    if asked is None:
        return
    options, overrides = asked

    from rich.console import Console

    from holdfast.audit import ROAR
    from holdfast.audit.assignment import folder_of
    from holdfast.report import roar_curves, roar_table
    from holdfast.training.recipe import Recipe, build, read_recipe
    from holdfast.training.settings import from_a_run

    run = Path(options.model)
    config = options.recipe or run / "config.yaml"
    if options.recipe is None and not config.is_file():
        what = "is no folder of a trained run: it has no config.yaml"
        raise HoldfastError(f"{run} {what}; --recipe says what to retrain by")
    model = _load(options, {})
    settings = read_recipe(config, overrides)
    methods = {"attributions": _methods(options.methods)}
    with from_a_run(options.trust_code if options.recipe is None else None):
        method = build(ROAR, methods | settings.pop("roar", {}))
        recipe = build(Recipe, settings)
    if options.recipe is None and recipe.model.source == "code" and not options.trust_code:
        raise HoldfastError(
            f"{run} is trained by calling {recipe.model.name!r}: give --trust-code, and then only "
            "if you trust where the run comes from"
        )
    out = Path(options.out or folder_of(options.model) / "roar")
    method(model, recipe, out, progress=not options.quiet)
    Console().print(roar_table(out))
    roar_curves(out).savefig(out / "roar.png", dpi=150)
    print(f"The curves are in {out / 'roar.png'}.")


def catalogue(arguments: list[str]) -> None:
    """List what there is: recipes, objectives, attributions, attacks, checks, models and so on."""
    parser = make_parser("list", catalogue)
    parser.add_argument("kind", type=str, nargs="?", help="Only one of these.")
    asked = split(parser, arguments)
    if asked is None:
        return

    from rich.console import Console
    from rich.table import Table

    from holdfast.cli.catalogue import entries

    known = entries()
    kind = asked[0].kind
    if kind is not None and kind not in known:
        raise HoldfastError(f"nothing to list by the name {kind!r}; there are {', '.join(known)}")
    # Piped into another command, an entry keeps to its line.
    console = Console() if sys.stdout.isatty() else Console(width=240)
    for name in [kind] if kind else list(known):
        table = Table(title=name, title_justify="left", box=None, show_header=False, padding=(0, 2))
        for entry, about in known[name].items():
            table.add_row(entry, about)
        console.print(table, "")


def data(arguments: list[str]) -> None:
    """Bring a published data set into Holdfast's format: data import LAYOUT SOURCE DESTINATION."""
    parser = make_parser("data", data)
    parser.add_argument("action", type=str, help="What to do: import.")
    parser.add_argument("layout", type=str, help="cub-200, tiny-imagenet, gtsrb, flower-17, …")
    parser.add_argument("source", type=str, help="The folder of the unpacked archives.")
    parser.add_argument("destination", type=str, help="The folder for the Parquet files.")
    parser.add_argument("--skip-broken", action="store_true", help="Skip and count bad entries.")
    asked = split(parser, arguments)
    if asked is None:
        return
    options, _ = asked
    if options.action != "import":
        raise HoldfastError(f"data has no action {options.action!r}; there is import")

    from holdfast.data import LAYOUTS, import_layout

    if options.layout not in LAYOUTS:
        raise HoldfastError(f"no layout {options.layout!r}; there are {', '.join(LAYOUTS)}")
    print(import_layout(options.layout, options.source, options.destination, options.skip_broken))


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

    from holdfast.training.recipe import Recipe, build, read_recipe

    torch.set_num_threads(1)  # networks this small only wait for more, and numbers stay the same
    out = Path(options.out)
    recipes = {
        name: build(Recipe, read_recipe(f"digits/{name}", overrides | {"seed": options.seed}))
        for name in DEMO
    }
    for name, recipe in recipes.items():
        if (out / name / "model.safetensors").exists():
            raise HoldfastError(f"{out} holds a demonstration already; remove it or choose --out")
        print(f"\n{name}: {recipe.objective!r}")
        _fit(recipe, out / name, resume=False, quiet=options.quiet)
        _examine(str(out / name), options.quiet)
    print()
    page = _show([out / name for name in DEMO], out / "report.html")
    print(
        f"The report is in {page}.\n"
        "Next: holdfast list, to see what can be trained and attacked, or\n"
        "      holdfast train mnist/art --data.path FOLDER-OF-PARQUET --trainer.max_steps 500"
    )


# --- what the verbs share ------------------------------------------------------------------------


def _methods(names: str) -> dict[str, Any]:
    """Look attributions up by their short names."""
    from holdfast.attributions import METHODS

    wanted = [name.strip() for name in names.split(",") if name.strip()]
    unknown = [name for name in wanted if name not in METHODS]
    if unknown or not wanted:
        asked_for = ", ".join(unknown) or "nothing"
        raise HoldfastError(f"--methods has {asked_for}; there are {', '.join(METHODS)}")
    return {name: METHODS[name] for name in wanted}


def _fit(recipe: Any, out: Path, resume: bool, quiet: bool) -> None:
    import datasets

    from holdfast.training.fit import train

    datasets.disable_progress_bars()  # one bar at a time is enough
    train(recipe, out, resume=resume, progress=not quiet)


def _examine(model: str, quiet: bool, devices: int = 1, **words: Any) -> Path:
    """Audit what `assign` makes of the words; return the folder for `report`."""
    import datasets

    from holdfast.audit.assignment import assign
    from holdfast.audit.devices import audit_on

    datasets.disable_progress_bars()
    job = assign(model, **words)
    out = job.folder / "audit"
    audit_on(devices, job.audit, job.load_model, job.load_data, out, progress=not quiet)
    return job.folder


def _add_model_options(parser: Any) -> None:
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


def _names_code(options: Any) -> bool:
    """Tell whether the user names code of his own, or trusts a run that does."""
    roles = ("model", "architecture", "source", "reference")
    named = [getattr(options, role, None) or "" for role in roles]
    theirs = ("timm:", "hf:", "torchvision:")
    return options.trust_code or any(":" in n and not n.startswith(theirs) for n in named)


def _import_from_here() -> None:
    """Let Python import from the current folder, where a user's own code may lie.

    Only where the user has named code: whoever left a file there shall not be imported for another
    module that is missing.
    """
    if "" not in sys.path:
        sys.path.append("")


def _load(options: Any, overrides: dict[str, Any]) -> Any:
    """Load the model that a verb is asked for."""
    from holdfast.models import Architecture
    from holdfast.training import load
    from holdfast.training.loading import find
    from holdfast.training.recipe import build, overlay
    from holdfast.training.saving import is_saved

    if _names_code(options):
        _import_from_here()
    settings = overlay({}, overrides).get("model", {})
    if is_saved(options.model):
        if settings:
            raise HoldfastError(f"--model.… is not for {options.model}, which says what it is")
        words = {"architecture": options.architecture, "trust_code": options.trust_code}
        return load(options.model, **words)
    build(Architecture, {"name": options.architecture or options.model, **settings})
    return find(options.model, architecture=options.architecture, settings=settings).build()


def _read_images(model: Any, files: list[str], overrides: dict[str, Any]) -> Any:
    """Read image files in the form that the model expects, or the user asks for."""
    from dataclasses import replace

    from holdfast.data import ImageData, as_expected
    from holdfast.training.recipe import build, overlay

    wanted = build(ImageData, overlay({}, overrides).get("data", {}))
    expected = getattr(model, "preprocessing", None)
    if expected is None:
        # What says nothing of its images takes as many channels as its first convolution, and
        # all images in the size of the first.
        first = (int(weight.shape[1]) for weight in model.parameters() if weight.ndim == 4)
        wanted = replace(wanted, channels=wanted.channels or next(first, 3))
        if wanted.size is None:
            size = tuple(wanted.read(files[:1]).shape[2:])
            wanted = replace(wanted, size=size, fit=wanted.fit or "squash")
    else:
        wanted = as_expected(wanted, expected)
    return wanted.read(files)


def _show(
    runs: list[Path],
    page: Path | None = None,
    title: str | None = None,
    tables: str | None = None,
) -> Path | None:
    """Print the comparison of runs and, given where, write the report and its tables."""
    from rich.console import Console

    from holdfast import report

    read = [report.read_run(run) for run in runs]
    # Piped into a file, the table keeps the width that it needs.
    console = Console() if sys.stdout.isatty() else Console(width=120)
    console.print(report.to_rich(report.table(read)))
    if tables is not None:
        report.write_tables(read, tables)
    if page is None:
        return None
    return report.write_report(read, page, **({"title": title} if title else {}))
