"""The pictures that an audit keeps: choosing which to show, and what is said of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

from holdfast.adversarial.slope import MOSTLY
from holdfast.plot import heat_map, picture
from holdfast.report.gallery_file import PANELS, SCORES
from holdfast.report.records import AuditedRun
from holdfast.report.wording import measure_sign, percent

__all__ = [
    "PANELS",
    "class_name",
    "common_images",
    "held_value",
    "panel_colours",
    "score_text",
    "worst_images",
]


def common_images(
    runs: Sequence[AuditedRun], check: str, count: int, *, panel: str = "maps"
) -> list[tuple[int, list[AuditedRun]]]:
    """Choose the images to show: those that the most galleries hold, and which runs hold them.

    Images that a gallery has only for being its worst are left out.

    Parameters
    ----------
    runs : sequence of AuditedRun
        The runs.
    check : str
        The check that is shown.
    count : int
        How many images at most.
    panel : str
        What a gallery must hold of the check.

    Examples
    --------
    >>> import pyarrow as pa
    >>> common_images([AuditedRun("art", pa.table({}))], "top_k/gradient", 6)
    []
    """
    having = _having(runs, check, panel)
    first = [_indices(run, worst=False) for run in having]
    times = Counter(index for indices in first for index in indices)
    order = dict.fromkeys(index for indices in first for index in indices)
    chosen = sorted(order, key=lambda index: -times[index])[:count]
    return [(index, [run for run in having if _holds(run, index)]) for index in chosen]


def worst_images(
    runs: Sequence[AuditedRun], check: str, count: int = 1
) -> list[tuple[int, list[AuditedRun], list[AuditedRun]]]:
    """Choose each run's worst cases: image, whose worst it is, and all runs that hold the image.

    Of the images that a gallery marks as worst (each is the worst of some check) these are the ones
    with the lowest Kendall's τ under this check.

    Examples
    --------
    >>> import pyarrow as pa
    >>> worst_images([AuditedRun("art", pa.table({}))], "top_k/gradient")
    []
    """
    having = _having(runs, check, "maps")
    chosen: dict[int, list[AuditedRun]] = {}
    for run in having:
        marked = [
            (held_value(run, f"{check}|kendall_tau", index), index)
            for index in _indices(run, worst=True)
            if held_value(run, f"{check}|preserved", index)
        ]
        for _, index in sorted(marked)[:count]:
            chosen.setdefault(index, []).append(run)
    return [(i, of, [run for run in having if _holds(run, i)]) for i, of in chosen.items()]


def class_name(run: AuditedRun, index: int) -> str:
    """Name the class of a gallery image: by its name if known, else by its number."""
    label = int(held_value(run, "label", index))
    return run.classes[label] if 0 <= label < len(run.classes) else str(label)


def score_text(run: AuditedRun, check: str, index: int) -> str:
    """Write what was measured on a gallery image, or that its label could not be kept."""
    scores = {measure: float(held_value(run, f"{check}|{measure}", index)) for measure in SCORES}
    if not scores.pop("preserved"):
        return "label not kept"
    text = ", ".join(f"{measure_sign(key)} {percent(value)}%" for key, value in scores.items())
    stuck, moved = (run.value(check, measure, index) for measure in ("no_direction", "moved"))
    if (stuck or 0) > MOSTLY or moved == 0:
        text += ", the attack had no direction" if moved else ", the image did not move"
    return text


def panel_colours(run: AuditedRun, check: str, panel: str, index: int) -> np.ndarray:
    """Colour one panel of an attack on an explanation, ``(H, W, 3)`` in [0, 1]."""
    content = held_value(run, f"{check}|{panel}", index)
    return heat_map(content) if panel.endswith("maps") else picture(content)


def held_value(run: AuditedRun, key: str, index: int) -> Any:
    """Look up what the gallery holds by a key for one image: a number or an array."""
    assert run.gallery is not None
    return run.gallery[key][np.flatnonzero(run.gallery["index"] == index)[0]]


def _having(runs: Sequence[AuditedRun], check: str, panel: str) -> list[AuditedRun]:
    return [run for run in runs if run.gallery is not None and f"{check}|{panel}" in run.gallery]


def _holds(run: AuditedRun, index: int) -> bool:
    return run.gallery is not None and bool((run.gallery["index"] == index).any())


def _indices(run: AuditedRun, *, worst: bool) -> list[int]:
    """List a gallery's images: those picked for low similarity, or the others."""
    assert run.gallery is not None
    index = run.gallery["index"]
    marked = run.gallery.get("worst", np.zeros(len(index))).astype(bool)
    return list(dict.fromkeys(int(i) for i in index[marked == worst]))
