"""``holdfast audit``: attack a model and its explanations, check them, record it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from holdfast.cli.engine_options import add_engine_options, take_engine
from holdfast.cli.model_options import (
    MODEL_HELP,
    add_model_options,
    import_from_here,
    names_code,
)
from holdfast.cli.options import make_parser, split
from holdfast.cli.report import show
from holdfast.errors import HoldfastError

__all__ = ["audit", "examine"]


def audit(arguments: list[str]) -> None:
    """Attack a model's predictions and explanations, check them, and record what happened."""
    parser = make_parser("audit", audit, "--audit.explained 100 --data.limit 500")
    parser.add_argument("model", type=str, help=MODEL_HELP)
    add_model_options(parser)
    parser.add_argument(
        "--battery",
        type=str,
        help="quick, standard, full, or a paper's table or figure, as eccv2020/table3. (default: "
        "what the run's recipe says, else standard)",
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
    add_engine_options(parser)
    parser.add_argument("--quiet", action="store_true", help="Show no progress.")
    asked = split(parser, arguments, groups=("data", "audit", "model"))
    if asked is None:
        return
    options, overrides = asked
    if names_code(options):
        import_from_here()
    words = dict(vars(options))
    folder = examine(overrides=overrides, ray=take_engine(words), **words)
    if os.environ.get("RANK", "0") != "0":
        return  # of the processes that torchrun has started, the first one speaks
    show([folder])
    print(f"Next: holdfast report {folder}")


def examine(
    model: str,
    quiet: bool,
    devices: int = 1,
    ray: dict[str, Any] | None = None,
    **words: Any,
) -> Path:
    """Audit what `assign` makes of the words; return the folder for `report`."""
    import datasets

    from holdfast.audit.assignment import assign
    from holdfast.audit.devices import audit_on
    from holdfast.audit.ray_audit import audit_on_ray

    if ray is not None and devices != 1:
        raise HoldfastError(
            "--devices is not for --engine ray, which uses all that its cluster has"
        )
    datasets.disable_progress_bars()
    job = assign(model, **words)
    given = job.audit, job.load_model, job.load_data, job.folder / "audit"
    if ray is None:
        audit_on(devices, *given, progress=not quiet)
    else:
        audit_on_ray(*given, **ray, progress=not quiet)
    return job.folder
