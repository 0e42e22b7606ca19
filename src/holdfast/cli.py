"""The ``holdfast`` command: train, explain, audit, report, a demonstration. Thin: the rooms do it.

Imports stand inside the verbs: torch and Lightning take seconds, and ``--help`` should not.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import yaml
from jsonargparse import ArgumentError, ArgumentParser, Namespace

import holdfast
from holdfast.contracts import HoldfastError

__all__ = ["main"]

DEMO = ("natural", "pgd", "ig_sum_norm", "art")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line.

    Returns
    -------
    int
        The exit status: 0, or 2 if something that was given is wrong, after one line that says
        what.

    Examples
    --------
    >>> main(["--version"])
    holdfast 0.1.0
    0
    """
    given = list(sys.argv[1:] if arguments is None else arguments) or ["--help"]
    # A user's own class, named in a recipe, may lie in the folder where the command is run.
    if "" not in sys.path:
        sys.path.append("")
    try:
        if given[0] in ("-h", "--help"):
            print(_overview())
        elif given[0] == "--version":
            print(f"holdfast {holdfast.__version__}")
        elif given[0] in _VERBS:
            _VERBS[given[0]](given[1:])
        else:
            raise HoldfastError(f"no command {given[0]!r}; there are {', '.join(_VERBS)}")
    except (HoldfastError, ArgumentError) as error:
        print(f"holdfast: error: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("holdfast: stopped", file=sys.stderr)
        return 130
    return 0


def _train(arguments: list[str]) -> None:
    """Train a model by a recipe."""
    parser = _parser("train", _train, "--objective.weight 1 --trainer.max_steps 100")
    parser.add_argument("recipe", type=str, help="A name (see holdfast list) or a YAML file.")
    parser.add_argument("--out", type=str, help="The run's folder. (default: runs/RECIPE)")
    parser.add_argument("--resume", action="store_true", help="Go on from the last checkpoint.")
    parser.add_argument("--quiet", action="store_true", help="Show no progress.")
    asked = _split(parser, arguments, groups=("data", "model", "optimizer"))
    if asked is None:
        return
    options, overrides = asked

    from holdfast.training.recipe import Recipe, build, read_recipe

    recipe = build(Recipe, read_recipe(options.recipe, overrides))
    out = Path(options.out or Path("runs") / Path(options.recipe).with_suffix(""))
    _fit(recipe, out, options.resume, options.quiet)
    print(f"The model is in {out / 'model.safetensors'}. Next: holdfast audit {out}")


def _explain(arguments: list[str]) -> None:
    """Draw which pixels of images mattered for their predictions: a row an image."""
    parser = _parser("explain", _explain)
    parser.add_argument("run", type=str, help="The folder of a trained run.")
    parser.add_argument("images", type=str, nargs="+", help="Image files: PNG, JPEG, …")
    parser.add_argument(
        "--methods",
        type=str,
        default="gradient,ig,smooth_grad,big",
        help="Short names with commas between them: gradient, ig, grad_cam, bsm, agi, …",
    )
    parser.add_argument("--out", type=str, default="explanation.png", help="The file to write.")
    asked = _split(parser, arguments)
    if asked is None:
        return
    options, _ = asked

    from holdfast import plot
    from holdfast.attributions import METHODS
    from holdfast.training import load

    wanted = [name.strip() for name in options.methods.split(",") if name.strip()]
    unknown = [name for name in wanted if name not in METHODS]
    if unknown or not wanted:
        asked_for = ", ".join(unknown) or "nothing"
        raise HoldfastError(f"--methods has {asked_for}; there are {', '.join(METHODS)}")
    out = Path(options.out)
    if out.suffix.lower() not in (".png", ".pdf", ".svg"):
        raise HoldfastError(f"--out is {out}; its name has to end in .png, .pdf or .svg")
    model = load(options.run)
    images = _read_images(model, options.images)
    figure = plot.explain(model, images, {name: METHODS[name] for name in wanted})
    out.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(out, dpi=150)
    print(f"The explanations are in {out}.")


def _audit(arguments: list[str]) -> None:
    """Attack a trained model's predictions and explanations, and record what happened."""
    parser = _parser("audit", _audit, "--audit.explained 100 --data.limit 500")
    parser.add_argument("run", type=str, help="The folder of a trained run.")
    parser.add_argument("--quiet", action="store_true", help="Show no progress.")
    asked = _split(parser, arguments, groups=("data", "audit"))
    if asked is None:
        return
    options, overrides = asked
    _examine(Path(options.run), overrides, options.quiet)
    _show([Path(options.run)])
    print(f"Next: holdfast report {options.run}")


def _report(arguments: list[str]) -> None:
    """Compare audited runs: a table here, and one HTML file with figures and galleries."""
    parser = _parser("report", _report)
    parser.add_argument("runs", type=str, nargs="+", help="Folders of audited runs.")
    parser.add_argument("--out", type=str, default="report.html", help="The HTML file to write.")
    parser.add_argument("--title", type=str, help="The report's title.")
    asked = _split(parser, arguments)
    if asked is None:
        return
    options, _ = asked
    page = _show([Path(run) for run in options.runs], Path(options.out), options.title)
    print(f"The report is in {page}.")


def _list(arguments: list[str]) -> None:
    """List what there is: recipes, models, objectives, attributions, attacks, manipulations."""
    parser = _parser("list", _list)
    parser.add_argument("kind", type=str, nargs="?", help="Only one of these.")
    asked = _split(parser, arguments)
    if asked is None:
        return

    from rich.console import Console
    from rich.table import Table

    known = _catalogue()
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


def _data(arguments: list[str]) -> None:
    """Bring a published data set into Holdfast's format: data import LAYOUT SOURCE DESTINATION."""
    parser = _parser("data", _data)
    parser.add_argument("action", type=str, help="What to do: import.")
    parser.add_argument("layout", type=str, help="cub-200, tiny-imagenet, gtsrb, flower-17, …")
    parser.add_argument("source", type=str, help="The folder of the unpacked archives.")
    parser.add_argument("destination", type=str, help="The folder for the Parquet files.")
    parser.add_argument("--skip-broken", action="store_true", help="Skip and count bad entries.")
    asked = _split(parser, arguments)
    if asked is None:
        return
    options, _ = asked
    if options.action != "import":
        raise HoldfastError(f"data has no action {options.action!r}; there is import")

    from holdfast.data import LAYOUTS, import_layout

    if options.layout not in LAYOUTS:
        raise HoldfastError(f"no layout {options.layout!r}; there are {', '.join(LAYOUTS)}")
    print(import_layout(options.layout, options.source, options.destination, options.skip_broken))


def _demo(arguments: list[str]) -> None:
    """Train four classifiers of digits, audit them, and report which explanations hold."""
    parser = _parser("demo", _demo, "--trainer.max_epochs 5")
    parser.add_argument("--out", type=str, default="runs/demo", help="The folder to write to.")
    parser.add_argument("--seed", type=int, default=0, help="Seeds everything.")
    parser.add_argument("--quiet", action="store_true", help="Show no progress.")
    asked = _split(parser, arguments, groups=("data", "model", "optimizer"))
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
        _examine(out / name, {}, options.quiet)
    print()
    page = _show([out / name for name in DEMO], out / "report.html")
    print(
        f"The report is in {page}.\n"
        "Next: holdfast list, to see what can be trained and attacked, or\n"
        "      holdfast train mnist/art --data.path FOLDER-OF-PARQUET --trainer.max_steps 500"
    )


_VERBS: dict[str, Callable[[list[str]], None]] = {
    "demo": _demo,
    "train": _train,
    "explain": _explain,
    "audit": _audit,
    "report": _report,
    "data": _data,
    "list": _list,
}


# --- what the verbs share ------------------------------------------------------------------------


def _fit(recipe: Any, out: Path, resume: bool, quiet: bool) -> None:
    import datasets

    from holdfast.training.fit import train

    datasets.disable_progress_bars()  # one bar at a time is enough
    train(recipe, out, resume=resume, progress=not quiet)


def _examine(run: Path, overrides: dict[str, Any], quiet: bool) -> None:
    import datasets

    from holdfast.audit import Audit
    from holdfast.data import ImageData
    from holdfast.training import load
    from holdfast.training.recipe import build, read_recipe

    datasets.disable_progress_bars()
    if not (run / "config.yaml").is_file():
        raise HoldfastError(f"{run} is no folder of a trained run: it has no config.yaml")
    settings = read_recipe(run / "config.yaml", overrides)
    audit = build(Audit, settings.get("audit") or {})
    data = build(ImageData, settings["data"]).load("test")
    audit(load(run), data, run / "audit", progress=not quiet)


def _read_images(model: Any, files: list[str]) -> Any:
    """Read image files in the channels and the size that the model was trained on."""
    import datasets

    from holdfast.data.images import EncodedImages

    table = datasets.Dataset.from_dict({"image": [{"bytes": None, "path": f} for f in files]})
    rows, size = list(range(len(files))), model.architecture.size
    # What was saved without its data's shape takes what its first convolution takes.
    first = (int(weight.shape[1]) for weight in model.parameters() if weight.ndim == 4)
    channels = model.architecture.in_channels or next(first, 3)
    shape = EncodedImages.of(table, "image", rows, size, channels).shape
    images = EncodedImages(table, "image", rows, shape, resize=True, to_grey=True)
    return images.read(rows)[0].float() / 255


def _show(runs: list[Path], page: Path | None = None, title: str | None = None) -> Path | None:
    """Print the comparison of runs and, given a page, write the report."""
    from rich.console import Console

    from holdfast import report

    read = [report.read_run(run) for run in runs]
    # Piped into a file, the table keeps the width that it needs.
    console = Console() if sys.stdout.isatty() else Console(width=120)
    console.print(report.to_rich(report.table(read)))
    if page is None:
        return None
    return report.write_report(read, page, **({"title": title} if title else {}))


def _catalogue() -> dict[str, dict[str, str]]:
    from holdfast import adversarial, attributions, manipulation, models, objectives
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
        "models": dict.fromkeys(models.names(), ""),
    }


def _overview() -> str:
    lines = ["usage: holdfast COMMAND …", "", (holdfast.__doc__ or "").strip(), ""]
    for name, verb in _VERBS.items():
        lines.append(f"  {name:8} {(verb.__doc__ or '').partition(chr(10))[0]}")
    return "\n".join([*lines, "", "holdfast COMMAND --help tells more."])


def _parser(verb: str, function: Callable[..., None], example: str = "") -> ArgumentParser:
    about = function.__doc__ or ""
    if example:
        about += (
            " Any setting can be changed at its dotted key, numbers may be fractions such as 8/255:"
            f" {example}"
        )
    parser = ArgumentParser(prog=f"holdfast {verb}", description=about, exit_on_error=False)
    # Unlike the default, its own message says which option was meant.
    parser.allow_abbrev = False
    return parser


def _split(
    parser: ArgumentParser, arguments: list[str], groups: tuple[str, ...] = ()
) -> tuple[Namespace, dict[str, Any]] | None:
    """Tell a verb's own options from settings at dotted keys; None after printing the help."""
    if {"-h", "--help"} & set(arguments):
        for group in groups:
            parser.add_class_arguments(_group(group), group)
        parser.print_help()
        return None
    known = {option for action in parser._actions for option in action.option_strings}
    own: list[str] = []
    settings: dict[str, Any] = {}
    rest = iter(arguments)
    for token in rest:
        name, equals, value = token.partition("=")
        if not name.startswith("--") or name in known:
            own.append(token)
            continue
        if name == "--set":
            name, equals, value = (value if equals else next(rest, "")).partition("=")
        key = name.removeprefix("--")
        if not groups or not key:
            raise HoldfastError(f"{parser.prog} has no option {name or '--set'}")
        if not equals:
            value = next(rest, "")
            if not value or value.startswith("--"):
                raise HoldfastError(f"{name} needs a value")
        settings[key] = yaml.safe_load(value)
    return parser.parse_args(own), settings


def _group(name: str) -> type[Any]:
    from holdfast.audit import Audit
    from holdfast.data import ImageData
    from holdfast.models import Architecture
    from holdfast.training.recipe import OptimizerSettings

    kinds: dict[str, type[Any]] = {
        "data": ImageData,
        "model": Architecture,
        "optimizer": OptimizerSettings,
        "audit": Audit,
    }
    return kinds[name]
