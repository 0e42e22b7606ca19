"""Checks of one family: the same attack, with one number turned up."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from holdfast.report.records import AuditedRun

__all__ = ["Family", "families", "folded"]

Kind = Literal["attacks", "manipulations"]
# What may change along with the number that is turned up.
ALONG = {"eps": ("step_size",), "steps": ()}
# With what the attack of strength 0 is known, an ε needs fewer points to make a curve.
POINTS = {"eps": 2, "steps": 3}


@dataclass(frozen=True)
class Family:
    """Attacks that differ in one number only.

    Attributes
    ----------
    kind : str
        ``"attacks"`` on predictions, or ``"manipulations"`` of explanations.
    setting : str
        The number that differs, ``"eps"`` or ``"steps"``.
    members : Mapping
        For each run its checks by that number, ascending.
    main : str
        The check that stands for the family where there is room for one: for steps the one with the
        most, which is the strongest; for ε the first that was made.
    """

    kind: Kind
    setting: str
    members: Mapping[str, Mapping[float, str]]
    main: str


def families(runs: Sequence[AuditedRun], kind: Kind) -> tuple[Family, ...]:
    """Find the attacks that differ in ε or in steps only, by the settings of the audits.

    With ε the step size may differ too. A family has at least two different ε, or three different
    numbers of steps, in one of the runs.

    Parameters
    ----------
    runs : sequence of AuditedRun
        The runs; those without settings have no families.
    kind : str
        ``"attacks"`` on predictions, or ``"manipulations"`` of explanations.

    Examples
    --------
    >>> import pyarrow as pa
    >>> records = pa.table({"index": [0, 0], "label": [3, 3], "check": ["weak", "strong"],
    ...                     "measure": ["correct"] * 2, "value": [1.0, 0.0]})
    >>> attacks = {name: {"class_path": "PGD", "init_args": {"eps": eps, "steps": 40}}
    ...            for name, eps in {"weak": 0.01, "strong": 0.1}.items()}
    >>> run = AuditedRun("art", records, settings={"attacks": attacks})
    >>> families([run], "attacks")[0].members
    {'art': {0.01: 'weak', 0.1: 'strong'}}
    """
    found: dict[tuple[str, str], dict[str, dict[float, str]]] = {}
    for run in runs:
        for check, setting, value, rest in _described(run, kind):
            members = found.setdefault((setting, rest), {}).setdefault(run.name, {})
            members.setdefault(value, check)
    return tuple(
        Family(
            kind,
            setting,
            {run: dict(sorted(points.items())) for run, points in members.items()},
            _main(setting, members),
        )
        for (setting, _), members in found.items()
        if max(map(len, members.values())) >= POINTS[setting]
    )


def folded(runs: Sequence[AuditedRun]) -> frozenset[str]:
    """Name the checks that another of their family stands for in a table with little room."""
    known = [*families(runs, "attacks"), *families(runs, "manipulations")]
    checks = {check for f in known for points in f.members.values() for check in points.values()}
    return frozenset(checks - {family.main for family in known})


def _described(run: AuditedRun, kind: Kind) -> Iterator[tuple[str, str, float, str]]:
    """Yield for each check and each number that may differ: the number, and all the rest."""
    made = run.settings.get(kind)
    checks = set(run.checks)
    for check, settings in made.items() if isinstance(made, Mapping) else ():
        if check not in checks or not isinstance(settings, Mapping):
            continue
        arguments: Any = settings.get("init_args")
        if not isinstance(arguments, Mapping):
            continue
        for setting, along in ALONG.items():
            value = arguments.get(setting)
            if isinstance(value, int | float) and not isinstance(value, bool):
                rest = {k: v for k, v in arguments.items() if k not in (setting, *along)}
                if math.isfinite(value):
                    yield check, setting, float(value), _told([settings.get("class_path"), rest])


def _told(settings: object) -> str:
    """Write settings down, whatever the order of their names, which may be numbers, too."""
    if isinstance(settings, Mapping):
        return f"{{{sorted(f'{key!r}: {_told(value)}' for key, value in settings.items())}}}"
    if isinstance(settings, list | tuple):
        return f"[{', '.join(map(_told, settings))}]"
    return repr(settings)


def _main(setting: str, members: Mapping[str, Mapping[float, str]]) -> str:
    first = next(iter(members.values()))
    return first[max(first)] if setting == "steps" else next(iter(first.values()))
