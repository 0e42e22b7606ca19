"""Attacks on explanations: how alike maps are before and after."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from itertools import product

from holdfast.report.attacks import CURVES_NOTE
from holdfast.report.curves import curve_sheet, family_curves, plot_of
from holdfast.report.figures import box_plot
from holdfast.report.pictures import (
    PANELS,
    class_name,
    common_images,
    panel_colours,
    score_text,
    worst_images,
)
from holdfast.report.records import KEPT, SIMILARITIES, AuditedRun
from holdfast.report.section import Album, Picture, Plot, Sample, SampleLine, Section
from holdfast.report.sheet import (
    COUNT,
    MEAN,
    RANDOM,
    WITH_MEDIAN,
    Column,
    Line,
    Sheet,
    cell_of,
    with_random,
)
from holdfast.report.summary import Row, Table
from holdfast.report.wording import (
    attack_of,
    attribution_of,
    capitalized,
    check_title,
    interval,
    listed,
    measure_sign,
    percent,
)

__all__ = ["explanation_sections"]

# So many checks have a section each; of more a table comes first, and they are folded away.
APART = 3
SPREAD_NOTE = (
    "Spread over the images. Box: the middle half of them; line: median; diamond: mean; whiskers: "
    "90% of them."
)
MAPS_NOTE = (
    "Red pixels speak for the class, blue ones against it; white is zero. Each map is scaled by "
    "the 99th percentile of its own absolute values."
)
WORST_NOTE = "Each model’s image whose map changed the most."


def explanation_sections(runs: Sequence[AuditedRun], table: Table) -> list[Section]:
    """Lay out every attack on explanations: a section each, or folded away beneath one table."""
    checks = table.explanations
    curves = family_curves(runs, table, "manipulations")
    if len(checks) <= APART and not curves:
        return [_section(runs, table, check, images=6) for check in checks]
    return [
        Section(
            "explanations",
            "Attacks on explanations",
            sheets=(_matrix(table),),
            plots=tuple(plot_of(curve) for curve in curves),
            plots_note=CURVES_NOTE,
            parts=tuple(
                _section(runs, table, check, images=0 if check in table.folded else 3)
                for check in checks
            ),
            data=tuple(curve_sheet(curve) for curve in curves),
        )
    ]


def _matrix(table: Table) -> Sheet:
    """Lay out IN and τ of all attacks on all attributions."""
    named = {check: (attack_of(check), attribution_of(check)) for check in table.explanations}
    attacks = list(dict.fromkeys(attack for attack, _ in named.values()))
    attributions = list(dict.fromkeys(attribution for _, attribution in named.values()))
    check_of = {pair: check for check, pair in named.items()}
    shown = ("top_k_intersection", "kendall_tau")
    columns = [
        Column(measure_sign(measure), f"{attribution}:{measure}", attribution or "map", MEAN)
        for attribution, measure in product(attributions, shown)
    ]
    lines = []
    for attack, run in product(attacks, table.runs):
        cells = tuple(
            cell_of(table.row(run, check_of.get((attack, attribution), ""), measure))
            for attribution, measure in product(attributions, shown)
        )
        if any(cells):
            lines.append(Line((attack, run), cells))
    caption = (
        "How alike the maps are before and after each attack, in percent: mean with its 95% "
        "confidence interval."
    )
    wanted = product(table.explanations, shown)
    written = with_random(columns, lines)
    return Sheet(
        "explanations",
        _with_random_told(caption, written),
        ("Attack", "Model"),
        written,
        tuple(lines),
        table.notes(*wanted),
    )


def _section(runs: Sequence[AuditedRun], table: Table, check: str, *, images: int) -> Section:
    """Lay out one attack, with so many pictures, and with none not even of the worst cases."""
    plots = []
    for measure in SIMILARITIES:
        rows = [table.row(run.name, check, measure) for run in runs]
        if any(rows):
            told = "; ".join(_spread(row) for row in rows if row)
            alt = f"Box plot of {measure_sign(measure)} in percent. {told}."
            plots.append(Plot(partial(box_plot, runs, check, measure, width=3.5), alt))
    return Section(
        f"check-{check}",
        capitalized(check_title(check)),
        sheets=(_sheet(table, check),),
        plots=tuple(plots),
        plots_note=SPREAD_NOTE,
        albums=_albums(runs, check, images) if images else (),
    )


def _sheet(table: Table, check: str) -> Sheet:
    columns = [Column(measure_sign(m), f"{check}:{m}", "", WITH_MEDIAN) for m in SIMILARITIES]
    columns.append(Column("Labels preserved", f"{check}:{KEPT}", "", COUNT, better=""))
    keys = (*SIMILARITIES, KEPT)
    lines = [
        Line((run,), tuple(cell_of(table.row(run, check, key)) for key in keys))
        for run in table.runs
    ]
    caption = (
        f"How alike the maps are before and after {check}, in percent: mean with its 95% "
        "confidence interval, and median."
    )
    shown = with_random(columns, lines)
    return Sheet(
        check.replace("/", "_"),
        _with_random_told(caption, shown),
        ("Model",),
        shown,
        tuple(lines),
        table.notes(*((check, key) for key in keys)),
    )


def _with_random_told(caption: str, columns: Sequence[Column]) -> str:
    """Say in the caption what else stands in the cells."""
    if not any(RANDOM in column.parts for column in columns):
        return caption
    return f"{caption} Beneath: what random signs at the same ε leave."


def _spread(row: Row) -> str:
    quartiles = interval(row.lower_quartile, row.upper_quartile)
    struck = ", struck out" if row.struck else ""
    return f"{row.run}: median {percent(row.median)}, quartiles {quartiles}{struck}"


def _albums(runs: Sequence[AuditedRun], check: str, images: int) -> tuple[Album, ...]:
    first = [
        _sample(check, index, held, f"image {index}")
        for index, held in common_images(runs, check, images)
    ]
    worst = [
        _sample(check, index, held, f"image {index}, the worst of {listed([r.name for r in of])}")
        for index, of, held in worst_images(runs, check)
    ]
    albums = [
        Album("Maps before and after", MAPS_NOTE, tuple(first)),
        Album("The worst cases", WORST_NOTE, tuple(worst)),
    ]
    return tuple(album for album in albums if album.samples)


def _sample(check: str, index: int, runs: Sequence[AuditedRun], note: str) -> Sample:
    lines = [
        SampleLine(
            run.name,
            tuple(score_text(run, check, index).split(", ")),
            {
                name: Picture(panel_colours(run, check, panel, index))
                for panel, name in PANELS.items()
            },
        )
        for run in runs
    ]
    return Sample(class_name(runs[0], index), note, tuple(lines))
