"""Attributions by their short names, as ``--methods`` takes them."""

from __future__ import annotations

from typing import Any

from holdfast.errors import HoldfastError

__all__ = ["METHODS_HELP", "methods"]

METHODS_HELP = "Short names with commas between them: gradient, ig, grad_cam, bsm, agi, …"


def methods(names: str) -> dict[str, Any]:
    """Look attributions up by their short names."""
    from holdfast.attributions import METHODS

    wanted = [name.strip() for name in names.split(",") if name.strip()]
    unknown = [name for name in wanted if name not in METHODS]
    if unknown or not wanted:
        asked_for = ", ".join(unknown) or "nothing"
        raise HoldfastError(f"--methods has {asked_for}; there are {', '.join(METHODS)}")
    return {name: METHODS[name] for name in wanted}
