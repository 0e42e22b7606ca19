"""Who does the work: this process and its own, or Ray."""

from __future__ import annotations

from typing import Any

from holdfast.errors import HoldfastError, InputError

__all__ = ["add_engine_options", "take_engine"]


def add_engine_options(parser: Any) -> None:
    """Add the options that say who does the work."""
    parser.add_argument(
        "--engine", type=str, help="ray: whoever is free in a Ray cluster takes the next piece."
    )
    parser.add_argument(
        "--address",
        type=str,
        help="Of the Ray cluster, as first:6379. (default: RAY_ADDRESS, else this machine alone)",
    )
    parser.add_argument(
        "--gpus",
        type=float,
        help="GPUs a piece of work takes with Ray, as 0.5. (default: 1 where there are any)",
    )


def take_engine(options: Any) -> dict[str, Any] | None:
    """Take these options from the others; None if nobody asked for Ray.

    Raises
    ------
    HoldfastError
        If there is no such engine, or they do not go together.
    """
    engine, address, gpus = (options.pop(name) for name in ("engine", "address", "gpus"))
    if engine is None and (address, gpus) != (None, None):
        raise HoldfastError("--address and --gpus go with --engine ray")
    if engine not in (None, "ray"):
        raise InputError("--engine", repr(engine), "ray")
    return None if engine is None else {"address": address, "gpus": gpus}
