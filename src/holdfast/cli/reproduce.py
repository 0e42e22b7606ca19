"""``holdfast reproduce``: a table or figure of a paper, published and measured side by side."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from holdfast.cli.engine_options import add_engine_options, take_engine
from holdfast.cli.options import make_parser, split
from holdfast.errors import HoldfastError, InputError

__all__ = ["reproduce"]


def reproduce(arguments: list[str]) -> None:
    """Make a table or figure of a paper: train its rows, audit, print published and measured."""
    parser = make_parser("reproduce", reproduce, "--trainer.max_steps 100 --audit.k 50")
    parser.add_argument(
        "study", type=str, help="A name (see holdfast list studies) or a YAML file."
    )
    parser.add_argument(
        "--scale", type=str, default="1", help="The share of training and audit, as 0.01 or 1/100."
    )
    parser.add_argument("--seeds", type=int, default=1, help="How many models a row.")
    parser.add_argument(
        "--data",
        type=str,
        action="append",
        help="Where data is: PATH, or mnist=PATH for the recipes of one name. May come again.",
    )
    parser.add_argument(
        "--run",
        type=str,
        action="append",
        help="A run that is there already: ROW=FOLDER, or one a seed: ROW=FOLDER,FOLDER.",
    )
    parser.add_argument("--rows", type=str, nargs="+", help="Only these rows.")
    parser.add_argument("--images", type=int, help="How many test images at most.")
    parser.add_argument("--explained", type=int, help="How many explanations are attacked at most.")
    parser.add_argument(
        "--out", type=str, default="runs/studies", help="The folder that all studies share."
    )
    add_engine_options(parser)
    parser.add_argument("--quiet", action="store_true", help="Show no progress.")
    asked = split(parser, arguments, groups=("data", "model", "optimizer", "audit"))
    if asked is None:
        return
    options, overrides = asked
    ray = take_engine(vars(options))

    from holdfast import studies

    study = studies.read_study(options.study)
    if options.rows is not None:
        study = studies.selected(study, options.rows)
    job = studies.Reproduction(
        study,
        Path(options.out),
        _scale(options.scale),
        options.seeds,
        _places(options.data or []),
        _runs(options.run or []),
        overrides,
        options.images,
        options.explained,
    )
    command = shlex.join(["holdfast", "reproduce", *arguments])
    _show(job, options.study, command, quiet=options.quiet, ray=ray)


def _show(job: Any, name: str, command: str, *, quiet: bool, ray: dict[str, Any] | None) -> None:
    import datasets

    from holdfast import studies
    from holdfast.studies.orderings import counted
    from holdfast.studies.tables import to_latex, to_markdown

    datasets.disable_progress_bars()
    made = studies.reproduce(name, job, ray=ray, command=command, progress=not quiet)
    print(f"{job.study.title} ({job.study.source})")
    print(*filter(None, [job.terms, job.study.note]), sep="\n")
    print(f"\n{to_markdown(made.table)}\n\n{to_latex(made.table)}\n")
    told = counted(made.orderings)
    print(f"{told[0].upper()}{told[1:]}.")
    for one in made.orderings:
        if one.reversed:
            print(f"- {one.column}: {one.above} > {one.below} is {one.verdict}, and reversed here")
    print(f"The page is {made.folder / 'index.html'}.")


def _scale(text: str) -> float:
    from fractions import Fraction

    try:
        return float(Fraction(text.replace(" ", "")))
    except (ValueError, ZeroDivisionError, OverflowError) as error:
        raise InputError("--scale", repr(text), "a number above 0 and at most 1") from error


def _places(given: Sequence[str]) -> dict[str, str]:
    """Tell ``NAME=PATH`` from ``PATH``."""
    places: dict[str, str] = {}
    for word in given:
        name, equals, path = word.partition("=")
        named = bool(equals) and name.isidentifier()
        key, place = (name, path) if named else ("", word)
        if key in places:
            raise HoldfastError(f"--data says twice where {key or 'all data'} is")
        if not place:
            raise InputError("--data", repr(word), "PATH or NAME=PATH")
        places[key] = place
    return places


def _runs(given: Sequence[str]) -> dict[str, tuple[Path, ...]]:
    runs: dict[str, tuple[Path, ...]] = {}
    for word in given:
        row, equals, folders = word.rpartition("=")
        found = tuple(Path(folder) for folder in folders.split(",") if folder)
        if not equals or not row or not found:
            raise InputError("--run", repr(word), "ROW=FOLDER")
        if row in runs:
            raise HoldfastError(f"--run says twice which run {row} is; ROW=FOLDER,FOLDER has both")
        for folder in found:
            if not (folder / "model.safetensors").is_file():
                raise InputError("--run", str(folder), "the folder of a trained run")
        runs[row] = found
    return runs
