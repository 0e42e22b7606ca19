"""``holdfast list``: what there is, by name."""

from __future__ import annotations

import inspect
import sys
from dataclasses import Field, fields
from typing import Any

from holdfast.cli.options import make_parser, split
from holdfast.errors import HoldfastError

__all__ = ["catalogue", "entries"]


def catalogue(arguments: list[str]) -> None:
    """List what there is: recipes, studies, batteries, objectives, attacks, models and so on."""
    parser = make_parser("list", catalogue)
    parser.add_argument("kind", type=str, nargs="?", help="Only one of these.")
    asked = split(parser, arguments)
    if asked is None:
        return

    from rich.console import Console
    from rich.table import Table

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


def entries() -> dict[str, dict[str, str]]:
    """Return a line about each recipe, method and model, by kind and name."""
    from holdfast import adversarial, attributions, audit, manipulation, models, objectives, zoo
    from holdfast.studies.study import entries as studies
    from holdfast.training.recipe import read_recipe, recipe_names

    def methods(room: Any) -> dict[str, str]:
        found = {name: getattr(room, name) for name in room.__all__}
        return {
            name: (item.__doc__ or "").partition("\n")[0]
            for name, item in found.items()
            if isinstance(item, type) and "__call__" in vars(item)
        }

    explained = methods(attributions)
    short_names: dict[str, Any] = dict(attributions.METHODS)
    for short, method in short_names.items():
        kind = type(method).__name__
        about = explained.pop(kind, None)  # the first short name is the method as it is by default
        own = [
            f"{f.name}={getattr(method, f.name)!r}" for f in fields(method) if _is_set(method, f)
        ]
        explained[f"{kind} ({short})"] = f"the same, {', '.join(own)}" if about is None else about
    return {
        "recipes": {name: read_recipe(name).get("source", "") for name in recipe_names()},
        "studies": studies(),
        "batteries": {
            name: (make.__doc__ or "").partition("\n")[0].removeprefix("Return ")
            for name, make in audit.BATTERIES.items()
        },
        "objectives": methods(objectives),
        "attributions": dict(sorted(explained.items())),
        "attacks": methods(adversarial),
        "manipulations": methods(manipulation),
        "checks": {
            name: about
            for name, about in methods(audit).items()
            if list(inspect.signature(getattr(audit, name).__call__).parameters)[2:] == ["batch"]
        },
        "models": dict.fromkeys(models.names(), ""),
        "zoo": {f"{zoo.PREFIX}{name}": found.about for name, found in zoo.releases().items()},
    }


def _is_set(method: Any, field: Field[Any]) -> bool:
    """Tell whether a setting of a method is not its default."""
    return bool(getattr(method, field.name) != field.default)
