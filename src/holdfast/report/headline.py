"""What the audit found, in plain words and with its sizes, whichever way it came out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from holdfast.report.records import AuditedRun
from holdfast.report.summary import Row, Table, mean_difference
from holdfast.report.trust import doubt_count
from holdfast.report.wording import check_title, interval, listed, many, percent

__all__ = ["Headline", "headline"]

# So many of the figures that are struck out are named.
MOST = 3


@dataclass(frozen=True)
class Headline:
    """One sentence that says what was found, and a few more with the evidence."""

    sentence: str
    detail: str


def headline(runs: Sequence[AuditedRun], table: Table) -> Headline:
    """Say how well the explanations hold: the best model against the first, by mean Kendall's τ.

    The check compared is the one on explanations that most models were put to, the first made
    among equals. A model is called better only where the 95 % interval of the difference leaves
    zero out.

    Parameters
    ----------
    runs : sequence of AuditedRun
        The runs; the first is the one the others are compared with.
    table : Table
        Their comparison, from :func:`~holdfast.report.table`.

    Examples
    --------
    >>> import pyarrow as pa
    >>> from holdfast.report.summary import table
    >>> runs = [AuditedRun("art", pa.table({"index": [0, 1], "label": [3, 5],
    ...     "check": ["clean"] * 2, "measure": ["correct"] * 2, "value": [1.0, 0.0]}))]
    >>> headline(runs, table(runs)).sentence
    '“art” classifies 50.0% of the images correctly.'
    """
    if not table.explanations:
        return _on_predictions(table)
    check = max(table.explanations, key=lambda c: len(_compared(table, c)))
    rows = _compared(table, check)
    if not rows and any(row.struck for row in table.rows.values()):
        return _nothing_earned(table)
    if not rows:
        return Headline(
            f"Under {check_title(check)} no perturbation was found that keeps the label.",
            "Nothing can be said about how well the explanations hold.",
        )
    values = {run.name: run.values(check, "kendall_tau") for run in runs}
    first, best = rows[0], max(rows, key=lambda row: row.mean)
    if len(rows) == 1:
        told = _one(first, check)
    elif best is first:
        told = _first_is_best(rows, check)
    else:
        gap = mean_difference(values[best.run], values[first.run])
        told = _best_against_first(best, first, gap, check)
    about = [first] if best is first else [best, first]
    detail = [
        told.detail,
        _accuracies(table, about),
        _elsewhere(table, best, check),
        _struck(table),
        _doubted(table, [row.run for row in about]),
    ]
    return Headline(told.sentence, " ".join(filter(None, detail)))


def _compared(table: Table, check: str) -> list[Row]:
    rows = (table.row(run, check, "kendall_tau") for run in table.runs)
    return [row for row in rows if row and not row.struck]


def _nothing_earned(table: Table) -> Headline:
    """Say that no attack on an explanation tells anything, and why."""
    notes = table.notes(*((check, "kendall_tau") for check in table.explanations))
    if len(notes) > MOST:
        notes = (*notes[:MOST], f"The others are struck out, too: {len(notes) - MOST}.")
    return Headline(
        "How well the explanations hold is not known: no attack on them had a direction to go, or "
        "did more than chance.",
        " ".join([*notes, _doubted(table, table.runs)]).strip(),
    )


def _struck(table: Table) -> str:
    """Say which figures are no evidence, so that nobody looks for them among the others."""
    checks = {
        (row.run, check_title(row.check)): None
        for row in table.rows.values()
        if row.struck and row.measure in ("kendall_tau", "correct")
    }
    told = [f"{check} for “{run}”" for run, check in checks]
    if not told:
        return ""
    if len(told) > MOST:
        told = [*told[:MOST], f"{len(told) - MOST} more"]
    return f"Struck out, as the attack had no direction or did less than chance: {listed(told)}."


def _one(row: Row, check: str) -> Headline:
    span = interval(row.low, row.high)
    return Headline(
        f"Under {check_title(check)}, the maps of “{row.run}” keep a rank correlation "
        f"of {percent(row.mean)}% on average (Kendall’s τ).",
        (f"95% interval {span}. " if span else "") + _counted([row]),
    )


def _first_is_best(rows: Sequence[Row], check: str) -> Headline:
    first, second = sorted(rows, key=lambda row: -row.mean)[:2]
    return Headline(
        f"No other model’s explanations hold faster than those of “{first.run}”.",
        f"Under {check_title(check)}, Kendall’s τ is {percent(first.mean)}% on average for "
        f"“{first.run}” and {percent(second.mean)}% for the next, “{second.run}”. "
        + _counted([first, second]),
    )


def _best_against_first(
    best: Row, first: Row, gap: tuple[float, float] | None, check: str
) -> Headline:
    if gap is None:
        return Headline(
            f"Too few images were measured to tell “{best.run}” from “{first.run}”.",
            f"Under {check_title(check)}, Kendall’s τ is {percent(best.mean)}% and "
            f"{percent(first.mean)}% on average. " + _counted([best, first]),
        )
    points = percent(best.mean - first.mean)
    if gap[0] <= 0:
        return Headline(
            f"No model’s explanations hold measurably faster than those of “{first.run}”.",
            f"Under {check_title(check)}, “{best.run}” has the highest Kendall’s τ, "
            f"{percent(best.mean)}% on average against {percent(first.mean)}%; but the difference "
            f"of {points} points (95% interval {interval(*gap)}) may be chance. "
            + _counted([best, first]),
        )
    return Headline(
        f"The explanations of “{best.run}” hold fastest: under attack they keep "
        f"{percent(best.mean)}% rank correlation, against {percent(first.mean)}% "
        f"for “{first.run}”.",
        f"Mean Kendall’s τ of the maps before and after {check_title(check)}; the difference is "
        f"{points} points (95% interval {interval(*gap)}). " + _counted([best, first]),
    )


def _counted(rows: Sequence[Row]) -> str:
    """Say over how many images: a mean over few survivors should not pass for one over all."""
    counts = [f"{row.preserved:,} of {row.attacked:,} for “{row.run}”" for row in rows]
    return f"Counted are the attacked images whose label could be kept: {', '.join(counts)}."


def _accuracies(table: Table, rows: Sequence[Row]) -> str:
    found = [(row.run, table.row(row.run, "clean", "correct")) for row in rows]
    told = [f"{percent(clean.mean)}% for “{run}”" for run, clean in found if clean]
    return f"Accuracy: {', '.join(told)}." if told else ""


def _elsewhere(table: Table, best: Row, check: str) -> str:
    """Say whether the other checks agree: one check is not the whole audit."""
    others = [_compared(table, other) for other in table.explanations if other != check]
    others = [rows for rows in others if len(rows) > 1 and best.run in {row.run for row in rows}]
    if not others:
        return ""
    leads = sum(max(rows, key=lambda row: row.mean).run == best.run for rows in others)
    if len(others) == 1:
        return f"Under the other attack “{best.run}” {'leads too' if leads else 'does not lead'}."
    return f"“{best.run}” leads under {leads} of the {len(others)} other attacks."


def _doubted(table: Table, runs: Sequence[str]) -> str:
    """Say if the figures are in doubt: who reads no further should know."""
    counts = [(run, doubt_count(table, run) or 0) for run in runs]
    told = [f"{many(count, 'doubt')} about “{run}”" for run, count in counts if count]
    return f"The check of these attacks raises {listed(told)}; see below." if told else ""


def _on_predictions(table: Table) -> Headline:
    found = [(run, table.row(run, "clean", "correct")) for run in table.runs]
    told = [(run, row.mean) for run, row in found if row]
    others = {check for _, check, _ in table.rows} - {*table.predictions, *table.corruptions}
    detail = f"This audit holds no {'attack' if others else 'check'} on explanations."
    detail = " ".join(filter(None, [detail, _struck(table), _doubted(table, table.runs)]))
    if not told:
        return Headline(detail, "")
    run, mean = max(told, key=lambda pair: pair[1])
    if len(told) == 1:
        return Headline(f"“{run}” classifies {percent(mean)}% of the images correctly.", detail)
    sentence = f"“{run}” is the most accurate: it classifies {percent(mean)}% correctly."
    return Headline(sentence, detail)
