"""Which figures are no evidence: an attack that did not move, or did less than chance."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from holdfast.adversarial.slope import MOSTLY
from holdfast.report.records import KEPT, SIMILARITIES, AuditedRun
from holdfast.report.wording import capitalized, check_title, listed, measure_sign, percent

__all__ = ["beside", "findings_of", "notes_of", "random_mean", "struck_out"]

RANDOM = "random_sign_"
SEARCHED = "random_search_"
STUCK = "no_direction"
MOVED = "moved"
# Measures that stand beside those of an attack, and have no line of their own.
BESIDE = (RANDOM, SEARCHED, "no_change_")
# At so many of the images an attack may lack a direction before it is worth a word.
FEW = 0.05
# By how much a mean may differ by chance.
TOLERANCE = 0.02


def beside(measure: str) -> bool:
    """Tell whether a measure says how another one came about.

    Examples
    --------
    >>> beside("moved"), beside("random_sign_kendall_tau"), beside("kendall_tau")
    (True, True, False)
    """
    return measure in (MOVED, STUCK) or measure.startswith(BESIDE)


def random_mean(run: AuditedRun, check: str, measure: str) -> float | None:
    """Give the mean of a similarity after random signs, over the images that also have it.

    None where an audit made no such comparison.
    """
    _, values = run.aligned((check, measure), (check, RANDOM + measure))
    return float(values.mean()) if len(values) else None


def struck_out(run: AuditedRun) -> dict[tuple[str, str], str]:
    """Find the figures of a run that must not be taken for robustness, and say why.

    Similarities of maps after an attack are struck out where most of its steps had no direction,
    where it moved hardly an image, where the audit found that gradients do not change with the
    image, which all its steps rest on, and where random signs in the same ball leave less of them.
    Accuracy under an attack is struck out where most steps had no direction at the images that the
    model gets right, before the attack or after it.

    Parameters
    ----------
    run : AuditedRun
        The run; of an audit that measured none of this, nothing is struck out.

    Returns
    -------
    dict
        From check and measure to the reason, with the figures that stand in its place.

    Examples
    --------
    >>> import pyarrow as pa
    >>> rows = [("preserved", 1.0), ("kendall_tau", 1.0), ("moved", 0.0), ("no_direction", 1.0),
    ...         ("random_sign_kendall_tau", 0.337)]
    >>> measures, values = zip(*rows)
    >>> run = AuditedRun("art", pa.table({"index": [0] * 5, "label": [3] * 5,
    ...     "check": ["top_k/gradient"] * 5, "measure": measures, "value": values}))
    >>> for reason in struck_out(run).values():
    ...     print(reason)
    100% of its steps had no direction, and 1 of 1 images did not move; random signs at the same ε \
leave τ 33.7%
    """
    struck: dict[tuple[str, str], str] = {}
    for check in run.checks:
        measures = run.measures(check)
        if KEPT in measures:
            struck |= {(check, m): why for m, why in _explanations(run, check).items()}
        elif "correct" in measures and (why := _predictions(run, check)):
            struck[check, "correct"] = why
    return struck


def findings_of(run: AuditedRun) -> tuple[str, ...]:
    """Say what speaks against figures of a run that are not struck out.

    That is what the audit found of the model before it began, and the attacks that had no direction
    at some of the images.
    """
    struck = {check for check, _ in struck_out(run)}
    found = list(run.findings)
    for check in run.checks:
        stuck = run.values(check, STUCK)
        share = float((stuck > MOSTLY).mean()) if len(stuck) else 0.0
        if share > FEW and check not in struck:
            attack = capitalized(check_title(check))
            found.append(f"{attack}: at {share:.0%} of the images most steps had no direction.")
    return tuple(found)


def _explanations(run: AuditedRun, check: str) -> dict[str, str]:
    """Say which similarities of maps are no evidence, and why."""
    reasons = []
    if len(stuck := run.values(check, STUCK)) and stuck.mean() > MOSTLY:
        reasons.append(f"{stuck.mean():.0%} of its steps had no direction")
    _, moved = run.aligned((check, SIMILARITIES[1]), (check, MOVED))
    if len(moved) and (still := int((moved == 0).sum())) > MOSTLY * len(moved):
        reasons.append(f"{still:,} of {len(moved):,} images did not move")
    # Of a map such as IG the image itself is a part, so that steps have half a direction.
    if len(stuck) and not reasons and run.fitness.get("flat"):
        reasons.append("the gradients that it follows do not change with the image")
    instead = [
        _left("random signs at the same ε leave", run, check, RANDOM),
        _left("a random search leaves", run, check, SEARCHED),
    ]
    told = "; ".join(filter(None, instead))
    if reasons:
        why = "; ".join(filter(None, [", and ".join(reasons), told]))
        return dict.fromkeys((m for m in SIMILARITIES if len(run.values(check, m))), why)
    # An attack on the highest pixels may do more than chance there and less to the order of all.
    weaker = [m for m in SIMILARITIES[:2] if _is_weaker(run, check, m)]
    if SIMILARITIES[1] in weaker and len(run.values(check, SIMILARITIES[2])):
        weaker.append(SIMILARITIES[2])
    return dict.fromkeys(weaker, f"chance does more than this attack; {told}")


def _is_weaker(run: AuditedRun, check: str, measure: str) -> bool:
    values, others = run.aligned((check, measure), (check, RANDOM + measure))
    return bool(len(values)) and bool(others.mean() < values.mean() - TOLERANCE)


def _left(what: str, run: AuditedRun, check: str, prefix: str) -> str:
    """Say what something else leaves of the similarities, at the images where it was tried."""
    means = [(m, run.values(check, prefix + m)) for m in reversed(SIMILARITIES[:2])]
    told = [f"{measure_sign(m)} {percent(values.mean())}%" for m, values in means if len(values)]
    return f"{what} {listed(told)}" if told else ""


def _predictions(run: AuditedRun, check: str) -> str:
    """Say why accuracy under an attack is no evidence; nothing where it is one."""
    before, after, stuck = run.aligned(("clean", "correct"), (check, "correct"), (check, STUCK))
    reason = ""
    if _mostly(stuck[before == 1]):
        reason = f"{stuck[before == 1].mean():.0%} of its steps had no direction"
    elif _mostly(stuck[after == 1]) and (after == 1).mean() > TOLERANCE:
        reason = (
            f"at the images that are left right, {stuck[after == 1].mean():.0%} of its steps had "
            "no direction"
        )
    before, after, moved = run.aligned(("clean", "correct"), (check, "correct"), (check, MOVED))
    if (before == 1).any() and not moved[before == 1].any() and (after >= before).all():
        reason = ", and ".join(filter(None, [reason, "it moved no image"]))
    if not reason:
        return ""
    _, found = run.aligned((check, "correct"), (check, SEARCHED + "correct"))
    if not len(found):
        return reason
    left = run.values(check, "correct").sum() - (found == 0).sum()
    accuracy = left / len(run.values(check, "correct"))
    return f"{reason}; a short search without gradients leaves {percent(accuracy)}%"


def _mostly(stuck: np.ndarray) -> bool:
    return bool(len(stuck)) and bool(stuck.mean() > MOSTLY)


def notes_of(struck: Sequence[tuple[str, str, str, str]]) -> tuple[str, ...]:
    """Write a sentence for each attack whose figures are struck out.

    Parameters
    ----------
    struck : sequence of tuple
        For each figure the model, what the attack is called, the measure, and the reason.

    Examples
    --------
    >>> notes_of([("art", "top k on gradient", "kendall_tau", "it moved no image")])
    ('Struck out, “art” under top k on gradient (τ): it moved no image.',)
    """
    measures: dict[tuple[str, str, str], list[str]] = {}
    for run, attack, measure, why in struck:
        sign = "accuracy" if measure == "correct" else measure_sign(measure)
        signs = measures.setdefault((run, attack, why), [])
        if sign not in signs:
            signs.append(sign)
    return tuple(
        f"Struck out, “{run}” under {attack} ({listed(signs)}): {why}."
        for (run, attack, why), signs in measures.items()
    )
