"""The report: one self-contained HTML file that anyone can read, print and archive."""

from __future__ import annotations

import base64
import io
import re
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
import yaml
from markupsafe import Markup, escape
from matplotlib import rc_context
from matplotlib.figure import Figure
from matplotlib.image import imsave

from holdfast import plot
from holdfast.contracts import InputError
from holdfast.files import whole
from holdfast.report import figures
from holdfast.report.headline import headline
from holdfast.report.records import AuditedRun
from holdfast.report.summary import SIMILARITIES, Row, Table, table
from holdfast.report.wording import check_title, interval, measure_sign, percent

__all__ = ["write_report"]

# The colours of the figures, which inline SVG may take from the page, and so follow its dark mode.
SVG_COLOURS = {
    plot.INK: "var(--ink)",
    plot.QUIET: "var(--quiet)",
    figures.ACCENT: "var(--accent)",
}


def write_report(
    runs: Sequence[AuditedRun], path: str | Path, *, title: str = "Do the explanations hold?"
) -> Path:
    """Write the report of one or several runs: a single HTML file that loads nothing.

    Parameters
    ----------
    runs : sequence of AuditedRun
        The runs, of different names; the first is the one the others are compared with.
    path : str or Path
        The file to write, whole or not at all; folders above it are made.
    title : str
        The title of the page.

    Returns
    -------
    Path
        The file.

    Raises
    ------
    InputError
        If there is no run, two have one name, or ``path`` is a folder.

    Examples
    --------
    >>> import tempfile
    >>> import pyarrow as pa
    >>> run = AuditedRun("art", pa.table({"index": [0, 1], "label": [3, 5], "check": ["clean"] * 2,
    ...                                   "measure": ["correct"] * 2, "value": [1.0, 0.0]}))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write_report([run], f"{folder}/report.html").read_text()[:15]
    '<!doctype html>'
    """
    target = Path(path)
    if target.is_dir():
        raise InputError("path", f"the folder {target}", "a file to write")
    compared = table(runs)
    text = _template().render(
        title=title,
        headline=headline(runs, compared),
        overview=_overview(runs, compared),
        table=compared,
        runs=runs,
        similarities=SIMILARITIES,
        best=_best(compared),
        interval=_row_interval,
        sections=[_section(runs, compared, check) for check in compared.explanations],
        others=_other_measures(compared),
        differences=_differences(runs),
        yaml=_yaml,
        holdfast=_version(),
    )
    with whole(target) as unfinished:
        unfinished.write_text(text, encoding="utf-8")
    return target


def _template() -> jinja2.Template:
    templates = jinja2.Environment(
        loader=jinja2.PackageLoader("holdfast.report"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    templates.filters |= {
        "percent": percent,
        "check_title": check_title,
        "measure_sign": measure_sign,
        "breakable": _breakable,
    }
    return templates.get_template("report.html.j2")


def _overview(runs: Sequence[AuditedRun], compared: Table) -> list[str]:
    """Say in a few words what the report is about."""
    counts = sorted({run.images for run in runs})
    images = f"{counts[0]:,}" + (f" to {counts[-1]:,}" if len(counts) > 1 else "")
    made = [("explanations", compared.explanations), ("predictions", compared.predictions)]
    return [
        _many(len(runs), "model"),
        f"{images} image{'' if counts[-1] == 1 else 's'}" + (" each" if len(runs) > 1 else ""),
        *(f"{_many(len(checks), 'check')} on {what}" for what, checks in made if checks),
    ]


def _many(count: int, noun: str) -> str:
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def _best(compared: Table) -> set[tuple[str, str, str]]:
    """Which means are the highest of their column, as the table would print them."""
    columns = {(check, measure) for _, check, measure in compared.rows if measure != "preserved"}
    best = set()
    for check, measure in columns:
        rows = [
            row for row in compared.rows.values() if (row.check, row.measure) == (check, measure)
        ]
        highest = max(round(row.mean, 3) for row in rows)
        if len(rows) > 1:
            best |= {(r.run, check, measure) for r in rows if round(r.mean, 3) == highest}
    return best


def _row_interval(row: Row) -> str:
    return interval(row.low, row.high)


def _section(runs: Sequence[AuditedRun], compared: Table, check: str) -> dict[str, Any]:
    plots = []
    for measure in ("top_k_intersection", "kendall_tau"):
        rows = [compared.row(run.name, check, measure) for run in runs]
        if any(rows):
            figure = figures.box_plot(runs, check, measure)
            told = [_spread(row) for row in rows if row]
            alt = f"Box plot of {measure_sign(measure)} in percent. {'; '.join(told)}."
            plots.append({"svg": _svg(figure, f"{check}-{measure}"), "alt": alt})
    samples = [_sample(check, index, held) for index, held in figures.common_images(runs, check, 6)]
    return {"check": check, "plots": plots, "samples": samples}


def _spread(row: Row) -> str:
    quartiles = interval(row.lower_quartile, row.upper_quartile)
    return f"{row.run}: median {percent(row.median)}, quartiles {quartiles}"


def _sample(check: str, index: int, runs: Sequence[AuditedRun]) -> dict[str, Any]:
    return {
        "index": index,
        "label": figures.class_name(runs[0], index),
        "lines": [
            {
                "run": run.name,
                "scores": figures.score_text(run, check, index).split(", "),
                "panels": {
                    name: _png(figures.panel_colours(run, check, panel, index))
                    for panel, name in figures.PANELS.items()
                },
            }
            for run in runs
        ],
    }


def _other_measures(compared: Table) -> list[tuple[str, str]]:
    """List the checks and measures that have no place of their own in the report."""
    shown = {*SIMILARITIES, "preserved", "correct"}
    return list(dict.fromkeys((c, m) for _, c, m in compared.rows if m not in shown))


def _differences(runs: Sequence[AuditedRun]) -> list[tuple[str, list[str]]]:
    """List the settings in which the recipes differ, and what each run has for them."""
    flat = [dict(_flatten(run.config)) for run in runs]
    keys = dict.fromkeys(key for settings in flat for key in settings)
    lines = [(key, [settings.get(key, "–") for settings in flat]) for key in keys]
    return [(key, values) for key, values in lines if len(set(values)) > 1]


def _flatten(settings: Mapping[Any, Any], above: str = "") -> list[tuple[str, str]]:
    flat = []
    for key, value in settings.items():
        name = f"{above}{key}"
        if isinstance(value, Mapping) and value:
            flat += _flatten(value, f"{name}.")
        else:
            flat.append((name, "none" if value is None else str(value)))
    return flat


def _yaml(settings: Mapping[str, Any]) -> str:
    return yaml.dump(
        dict(settings), Dumper=_Settings, sort_keys=False, allow_unicode=True, width=88
    )


class _Settings(yaml.SafeDumper):
    """YAML as people write it: plain lists on one line, unknown values by their text."""


def _write_list(dumper: _Settings, items: Sequence[Any]) -> yaml.Node:
    plain = not any(isinstance(item, (list, tuple, dict)) for item in items)
    return dumper.represent_sequence("tag:yaml.org,2002:seq", items, flow_style=plain)


_Settings.add_representer(list, _write_list)
_Settings.add_representer(tuple, _write_list)
_Settings.add_multi_representer(object, lambda dumper, value: dumper.represent_str(str(value)))


def _breakable(name: str) -> Markup:
    """Let a long name break where its words end."""
    return Markup(re.sub(r"([_./-])", r"\1<wbr>", str(escape(name))))


def _version() -> str:
    try:
        return version("holdfast")
    except PackageNotFoundError:
        return "(version unknown)"


def _svg(figure: Figure, name: str) -> str:
    """Write a figure as SVG to stand in the page, in its colours and its font."""
    text = io.StringIO()
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": name, "svg.id": None}):
        figure.savefig(text, format="svg", transparent=True, metadata={"Date": None})
    drawing = text.getvalue()
    drawing = drawing[drawing.index("<svg") :]
    drawing = re.sub(r"<metadata>.*?</metadata>", "", drawing, flags=re.DOTALL)
    drawing = re.sub(r' xmlns(:\w+)?="[^"]*"', "", drawing).replace("xlink:href=", "href=")
    drawing = re.sub(r"font: ([\d.]+)px [^;\"]*", r"font-size: \1px", drawing)
    for colour, variable in SVG_COLOURS.items():
        drawing = drawing.replace(colour, variable)
    # Ids are per figure, and a page holds several.
    salt = re.sub(r"\W", "-", name)
    drawing = re.sub(r'\bid="', f'id="{salt}-', drawing)
    drawing = re.sub(r"url\(#", f"url(#{salt}-", drawing)
    return re.sub(r'href="#', f'href="#{salt}-', drawing)


def _png(colours: np.ndarray) -> str:
    """Write a picture, pixel by pixel, as a data address."""
    data = io.BytesIO()
    imsave(data, np.ascontiguousarray(np.round(255 * colours).astype(np.uint8)), format="png")
    return f"data:image/png;base64,{base64.b64encode(data.getvalue()).decode()}"
