"""What a section of the report consists of, before it becomes HTML."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from matplotlib.figure import Figure

from holdfast.report.sheet import Sheet

__all__ = ["Album", "Finding", "Picture", "Plot", "Sample", "SampleLine", "Section"]


@dataclass(frozen=True)
class Plot:
    """A figure that is drawn when it is needed, and what it shows in words."""

    draw: Callable[[], Figure]
    alt: str


@dataclass(frozen=True, eq=False)
class Picture:
    """A picture ``(H, W, 3)`` in [0, 1], with boxes x0, y0, x1, y1 in pixels by their kind."""

    colours: np.ndarray
    boxes: dict[str, tuple[float, float, float, float]] = field(default_factory=dict)


@dataclass(frozen=True)
class SampleLine:
    """One model's pictures of an image by their titles, and what was measured on them."""

    run: str
    scores: tuple[str, ...]
    panels: dict[str, Picture]


@dataclass(frozen=True)
class Sample:
    """One image, and a line of pictures for each model."""

    title: str
    note: str
    lines: tuple[SampleLine, ...]


@dataclass(frozen=True)
class Album:
    """Samples under one title."""

    title: str
    note: str
    samples: tuple[Sample, ...]


@dataclass(frozen=True)
class Finding:
    """Sentences on one thing; ``sound`` if they raise no doubt."""

    about: str
    sentences: tuple[str, ...]
    sound: bool


@dataclass(frozen=True)
class Section:
    """One section: its tables, then figures, then pictures.

    Attributes
    ----------
    name : str
        What its address in the page is made of.
    title : str
        Its headline.
    note : str
        A paragraph under the headline.
    sheets : tuple of Sheet
        Its tables.
    heat : Sheet, optional
        A table whose cells are shaded by their values, one table for each model.
    findings : tuple of Finding
        What is said in words.
    plots : tuple of Plot
        Its figures, and ``plots_note``, what holds for all of them.
    albums : tuple of Album
        Its pictures.
    parts : tuple of Section
        Sections that are folded away beneath it.
    data : tuple of Sheet
        The numbers behind its figures, folded away too.
    reading : tuple of tuple
        Terms that it brings, and what they mean.
    """

    name: str
    title: str
    note: str = ""
    sheets: tuple[Sheet, ...] = ()
    heat: Sheet | None = None
    findings: tuple[Finding, ...] = ()
    plots: tuple[Plot, ...] = ()
    plots_note: str = ""
    albums: tuple[Album, ...] = ()
    parts: tuple[Section, ...] = ()
    data: tuple[Sheet, ...] = ()
    reading: tuple[tuple[str, str], ...] = ()
