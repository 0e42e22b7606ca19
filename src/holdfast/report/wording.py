"""How numbers, checks and measures are written, the same in every table, figure and sentence."""

from __future__ import annotations

import re
from collections.abc import Sequence

__all__ = [
    "attack_of",
    "attribution_of",
    "capitalized",
    "check_title",
    "interval",
    "listed",
    "many",
    "measure_sign",
    "number",
    "percent",
]

SIGNS = {
    "top_k_intersection": "IN",
    "kendall_tau": "τ",
    "spearman_rho": "ρ",
    "loc": "Loc",
    "energy_game": "EG",
    "positive_percentage": "PP",
    "concentration": "Con",
    "absolute_cosine": "|cosine|",
    "sm_bsm": "‖SM − BSM‖",
    "ig_big": "‖IG − BIG‖",
    "ig_agi": "‖IG − AGI‖",
    "sg_bsg": "‖SG − BSG‖",
    "map_cosine": "cosine",
    "tau_elsewhere": "τ elsewhere",
}
ACRONYMS = ("agi", "big", "bsg", "bsm")
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


def number(value: float | None) -> str:
    """Write a number in its own unit to three digits; a dash where there is none.

    Examples
    --------
    >>> number(4.346), number(-0.25), number(1234.5), number(1e-5), number(None)
    ('4.35', '−0.25', '1,230', '1.0e−5', '–')
    """
    if value is None:
        return MISSING
    if value and not 1e-3 <= abs(value) < 1e6:
        short, _, power = f"{value:.1e}".partition("e")
        return f"{short}e{int(power)}".replace("-", "−")
    digits = 2 if abs(value) < 10 else 1 if abs(value) < 100 else 0
    digits = 3 if 0 < abs(value) < 0.1 else digits
    rounded = round(value, -1) if abs(value) >= 1000 else value
    return f"{rounded:,.{digits}f}".replace("-", "−")


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
    >>> check_title("top_k/integrated_gradients"), check_title("pgd-40@2/255")
    ('top k on integrated gradients', 'pgd-40, ε 2/255')
    """
    attack, attribution = attack_of(check), attribution_of(check)
    named, comma, strength = attack.partition(", ε ")
    return (f"{named} on {attribution}" if attribution else named) + comma + strength


def attack_of(check: str) -> str:
    """Write for people what comes before the first ``/`` in a check's name, and its strength.

    Examples
    --------
    >>> attack_of("top_k/integrated_gradients@2/255"), attack_of("random_search")
    ('top k, ε 2/255', 'random search')
    """
    name, strength = _with_strength(check)
    return name.partition("/")[0].replace("_", " ") + (f", ε {strength}" if strength else "")


def attribution_of(check: str) -> str:
    """Write for people what follows the first ``/`` in a check's name, an attribution mostly.

    Examples
    --------
    >>> attribution_of("localization/integrated_gradients"), attribution_of("random_search")
    ('integrated gradients', '')
    >>> attribution_of("localization/big")
    'BIG'
    """
    name = _with_strength(check)[0].partition("/")[2]
    return name.upper() if name in ACRONYMS else name.replace("_", " ")


def _with_strength(check: str) -> tuple[str, str]:
    """Part a name from the ε after it, as in ``pgd-40@2/255``."""
    found = re.fullmatch(r"(.+)@(\d+(?:\.\d+)?(?:/\d+)?)", check)
    return (found[1], found[2]) if found else (check, "")


def capitalized(text: str) -> str:
    """Begin with a capital, and leave the rest as it is.

    Examples
    --------
    >>> capitalized("top k on IG")
    'Top k on IG'
    """
    return text[:1].upper() + text[1:]


def many(count: int, noun: str) -> str:
    """Count things.

    Examples
    --------
    >>> many(1, "model"), many(1200, "image")
    ('1 model', '1,200 images')
    """
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def listed(items: Sequence[str]) -> str:
    """Write a list in words.

    Examples
    --------
    >>> listed(["a"]), listed(["a", "b", "c"])
    ('a', 'a, b and c')
    """
    return " and ".join(filter(None, [", ".join(items[:-1]), *items[-1:]]))


def measure_sign(measure: str) -> str:
    """Give the sign by which the papers know a measure of similarity.

    Examples
    --------
    >>> measure_sign("kendall_tau"), measure_sign("energy_ratio")
    ('τ', 'energy ratio')
    """
    return SIGNS.get(measure, measure.replace("_", " "))
