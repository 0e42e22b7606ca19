"""Whether maps point at the object where they align with boundaries: a correlation over images."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from scipy import stats

from holdfast.report.checks import checks_named
from holdfast.report.records import AuditedRun
from holdfast.report.sheet import Cell, Column, Line, Sheet
from holdfast.report.summary import Table
from holdfast.report.wording import MISSING, measure_sign

__all__ = ["Pair", "correlation", "correlation_sheet", "localization_of"]

SCORES = ("loc", "energy_game", "positive_percentage", "concentration")
BOUNDARY = "alignment/boundary"


@dataclass(frozen=True)
class Pair:
    """A distance to a boundary variant, and the attribution whose distance it is.

    Attributes
    ----------
    measure : str
        The distance, as ``alignment/boundary`` measures it.
    kind : str
        The class of the attribution.
    names : tuple of str
        What checks on it are called, where settings do not tell.
    """

    measure: str
    kind: str
    names: tuple[str, ...]


PAIRS = (
    Pair("sm_bsm", "Gradient", ("gradient", "saliency", "saliency_map", "sm")),
    Pair("ig_agi", "IntegratedGradients", ("integrated_gradients", "ig")),
    Pair("ig_big", "IntegratedGradients", ("integrated_gradients", "ig")),
)


def correlation(
    distances: Float[np.ndarray, " n"], scores: Float[np.ndarray, " n"]
) -> tuple[float, float | None, float | None] | None:
    """Correlate alignment with boundaries, minus the distance, and localization over images.

    Pearson's r of −‖X − Y‖₂ and the score: it is positive where maps that are closer to their
    boundary variant point better at the object.

    Parameters
    ----------
    distances : ndarray
        ‖X − Y‖₂ of each image, ``(n,)``.
    scores : ndarray
        How well each map points at the object, ``(n,)``.

    Returns
    -------
    tuple, or None
        r with its 95 % interval (Fisher's z), which takes four images. None where r is undefined:
        for fewer than three images, or where all distances, or all scores, are the same.

    References
    ----------
    Robust Models Are More Interpretable Because Attributions Look Normal (ICLR 2022), figure 3(b).

    Examples
    --------
    >>> r, low, high = correlation(np.arange(9.0), np.array([9, 7, 8, 6, 4, 5, 3, 2, 1.0]))
    >>> round(r, 2), round(low, 2), round(high, 2)
    (0.97, 0.85, 0.99)
    >>> correlation(np.ones(3), np.array([0.9, 0.5, 0.1])) is None
    True
    """
    if len(distances) < 3 or np.ptp(distances) == 0 or np.ptp(scores) == 0:
        return None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", stats.ConstantInputWarning)
        warnings.simplefilter("ignore", stats.NearConstantInputWarning)
        found = stats.pearsonr(-distances, scores)
    if not np.isfinite(found.statistic):
        return None
    if len(distances) < 4:
        return float(found.statistic), None, None
    ends = found.confidence_interval(0.95)
    return float(found.statistic), float(ends.low), float(ends.high)


def localization_of(run: AuditedRun, pair: Pair, checks: Sequence[str]) -> str | None:
    """Find the localization check of a pair's attribution: by its class, else by its name."""
    settings = run.settings.get("checks")
    made = settings if isinstance(settings, Mapping) else {}
    mine = [check for check in checks if run.measures(check)]
    for check in mine:
        path = _class_path(made.get(check))
        if path is not None and path.rpartition(".")[2] == pair.kind:
            return check
    named = (check for check in mine if check.partition("/")[2] in pair.names)
    return next((check for check in named if _class_path(made.get(check)) is None), None)


def correlation_sheet(runs: Sequence[AuditedRun], table: Table) -> Sheet | None:
    """Lay out the correlations: a line for each pair and model; None where nothing is known."""
    checks = checks_named(table, "localization/")
    lines = []
    for pair in PAIRS:
        for run in runs:
            check = localization_of(run, pair, checks)
            if check is None or not len(run.values(BOUNDARY, pair.measure)):
                continue
            cells = tuple(_cell(run, pair, check, score) for score in SCORES)
            sizes = [int(cell["images"] or 0) for cell in cells if cell]
            count: Cell | None = {"images": max(sizes)} if sizes else None
            lines.append(Line((f"−{measure_sign(pair.measure)}", run.name), (*cells, count)))
    if not lines:
        return None
    columns = [
        Column(measure_sign(score), score, "", ("r", "low", "high"), _signed, "")
        for score in SCORES
    ]
    images = Column("Images", "images", "", ("images",), _counted, "")
    caption = (
        "Pearson’s correlation over the images between alignment with decision boundaries, minus "
        "the distance of a map from its boundary variant, and how well that map points at the "
        "object; with 95% confidence intervals."
    )
    return Sheet(
        "boundary_correlation", caption, ("Pair", "Model"), (*columns, images), tuple(lines)
    )


def _cell(run: AuditedRun, pair: Pair, check: str, score: str) -> Cell | None:
    distances, scores = run.aligned((BOUNDARY, pair.measure), (check, score))
    found = correlation(distances, scores)
    if found is None:
        return None
    r, low, high = found
    return {"r": r, "low": low, "high": high, "images": len(distances)}


def _class_path(settings: object) -> str | None:
    """Read the class of a check's attribution from its settings."""
    for key in ("init_args", "attribution", "class_path"):
        if not isinstance(settings, Mapping):
            return None
        settings = settings.get(key)
    return settings if isinstance(settings, str) else None


def _counted(value: float | None) -> str:
    return MISSING if value is None else f"{value:,.0f}"


def _signed(value: float | None) -> str:
    return MISSING if value is None else f"{value + 0.0:.2f}".replace("-", "−")
