"""How numbers, checks and measures are written, the same in every table, figure and sentence."""

from __future__ import annotations

__all__ = ["check_title", "interval", "measure_sign", "percent"]

SIGNS = {"top_k_intersection": "IN", "kendall_tau": "τ", "spearman_rho": "ρ"}
MISSING = "–"


def percent(value: float | None) -> str:
    """Write a fraction times 100 with one decimal, as in the papers; a dash where there is none.

    Examples
    --------
    >>> percent(0.7125), percent(-0.031), percent(-0.0001), percent(None)
    ('71.2', '−3.1', '0.0', '–')
    """
    if value is None:
        return MISSING
    # Adding 0.0 turns the −0.0 that rounding may leave into 0.0.
    return f"{round(100 * value, 1) + 0.0:.1f}".replace("-", "−")


def interval(low: float | None, high: float | None) -> str:
    """Write the two ends of an interval in percent; nothing where there is none.

    Examples
    --------
    >>> interval(-0.02, 0.1)
    '−2.0 to 10.0'
    """
    if low is None or high is None:
        return ""
    return f"{percent(low)} to {percent(high)}"


def check_title(check: str) -> str:
    """Write the name of a check for people.

    Examples
    --------
    >>> check_title("top_k/integrated_gradients"), check_title("pgd")
    ('top k on integrated gradients', 'pgd')
    """
    return check.replace("/", " on ", 1).replace("_", " ")


def measure_sign(measure: str) -> str:
    """Give the sign by which the papers know a measure of similarity.

    Examples
    --------
    >>> measure_sign("kendall_tau"), measure_sign("energy_ratio")
    ('τ', 'energy ratio')
    """
    return SIGNS.get(measure, measure.replace("_", " "))
