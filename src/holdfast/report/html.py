"""The report: one self-contained HTML file that anyone can read, print and archive."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import jinja2
import yaml
from markupsafe import Markup, escape

from holdfast.contracts import InputError
from holdfast.files import whole
from holdfast.report.contents import contents
from holdfast.report.drawing import data_address, page_templates
from holdfast.report.glance import glance
from holdfast.report.headline import headline
from holdfast.report.records import AuditedRun
from holdfast.report.section import Section
from holdfast.report.sheet import is_struck, number_text, random_text, small_text
from holdfast.report.summary import CORRUPTIONS, Table, table
from holdfast.report.wording import capitalized, many

__all__ = ["write_report"]

ATTACKED = (
    (
        "The question",
        "A map says which pixels a model’s prediction rests on. An attack on the explanation "
        "changes the image within a bound that people do not see, keeps the predicted class, and "
        "tries to make the map as different as it can. The more alike the two maps, the better "
        "the explanation holds. Similarities are in percent: 100 is the same map.",
    ),
    (
        "IN",
        "Intersection of the top pixels: of the most important pixels of the first map, the part "
        "that is still among the most important ones afterwards.",
    ),
    (
        "τ",
        "Kendall’s rank correlation of all pixels. Take two pixels at random: τ is how much more "
        "often the two maps agree than disagree about which of them matters more. 100 is the same "
        "order, 0 no relation, −100 the reverse.",
    ),
    (
        "ρ",
        "Spearman’s rank correlation of all pixels, on the same scale: the ordinary correlation of "
        "the pixels’ ranks, in which large shifts weigh more.",
    ),
    (
        "Labels preserved",
        "Only images that a model classifies correctly are attacked, and IN, τ and ρ count only "
        "those for which the attack found a perturbation that keeps the label: p of n. Models may "
        "thus be judged on somewhat different images; where p is small, read the similarities "
        "with care.",
    ),
)
INTERVALS = (
    "Intervals",
    "95% confidence intervals of the mean over images: bootstrap percentiles, and Wilson’s "
    "interval for proportions. They speak of these models as trained, not of how another training "
    "would come out. A high value means that this attack found little; a stronger one may find "
    "more.",
)


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
    if os.path.isdir(target):  # unlike Path's, no error where the name is too long
        raise InputError("path", f"the folder {target}", "a file to write")
    compared = table(runs)
    sections = contents(runs, compared)
    text = _template().render(
        title=title,
        headline=headline(runs, compared),
        overview=_overview(runs, compared),
        glance=glance(runs, compared),
        runs=list(zip(runs, _audits(runs), strict=True)),
        sections=sections,
        reading=_reading(compared, sections),
        differences=_differences(runs),
        yaml=_yaml,
        holdfast=_version(),
    )
    with whole(target) as unfinished:
        unfinished.write_text(text, encoding="utf-8", errors="replace")
    return target


def _template() -> jinja2.Template:
    templates = page_templates("report")
    templates.filters |= {
        "address": data_address,
        "breakable": _breakable,
        "capitalized": capitalized,
        "many": many,
    }
    templates.globals |= {
        "is_struck": is_struck,
        "number_text": number_text,
        "random_text": random_text,
        "small_text": small_text,
    }
    return templates.get_template("report.html.j2")


def _overview(runs: Sequence[AuditedRun], compared: Table) -> list[str]:
    """Say in a few words what the report is about."""
    counts = sorted({run.images for run in runs})
    images = f"{counts[0]:,}" + (f" to {counts[-1]:,}" if len(counts) > 1 else "")
    predictions = [check for check in compared.predictions if check != CORRUPTIONS]
    known = {*predictions, *compared.corruptions, *compared.explanations, CORRUPTIONS}
    others = {check for _, check, _ in compared.rows} - known
    return [
        many(len(runs), "model"),
        f"{images} image{'' if counts[-1] == 1 else 's'}" + (" each" if len(runs) > 1 else ""),
        *_counted(len(compared.explanations), "check", " on explanations"),
        *_counted(len(predictions), "check", " on predictions"),
        *_counted(len(compared.corruptions), "corruption"),
        *_counted(len(others), "further check"),
    ]


def _counted(count: int, noun: str, what: str = "") -> list[str]:
    return [many(count, noun) + what] if count else []


def _reading(compared: Table, sections: Sequence[Section]) -> list[tuple[str, str]]:
    """Explain the terms that this report has need of."""
    attacked = ATTACKED if compared.explanations else ()
    brought = [term for section in sections for term in section.reading]
    return [*attacked, *brought, INTERVALS]


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


def _audits(runs: Sequence[AuditedRun]) -> list[tuple[str, Mapping[str, Any]]]:
    """Say of each audit how it was made; of one made like the first only where it differs."""
    first, *others = runs
    told: list[tuple[str, Mapping[str, Any]]] = [("", first.settings)]
    for run in others:
        differing = {k: v for k, v in run.settings.items() if first.settings.get(k) != v}
        if len(differing) < len(run.settings) and first.settings.keys() <= run.settings.keys():
            but = ", but for" if differing else ""
            told.append((f"As for “{first.name}”{but}", differing))
        else:
            told.append(("", run.settings))
    return told


class _Settings(yaml.SafeDumper):
    """YAML as people write it: plain lists on one line, unknown values by their text."""

    def ignore_aliases(self, data: object) -> bool:
        """Write out what occurs twice, each time."""
        return True


def _write_list(dumper: _Settings, items: Sequence[Any]) -> yaml.Node:
    plain = not any(isinstance(item, (list, tuple, dict)) for item in items)
    return dumper.represent_sequence("tag:yaml.org,2002:seq", items, flow_style=plain)


_Settings.add_representer(list, _write_list)
_Settings.add_representer(tuple, _write_list)
_Settings.add_multi_representer(object, lambda dumper, value: dumper.represent_str(str(value)))


def _breakable(name: str) -> Markup:
    """Let a long name break where its words end, and leave numbers whole."""
    return Markup(re.sub(r"([_/-]|\.(?=[^\d\s]))", r"\1<wbr>", str(escape(name))))


def _version() -> str:
    try:
        return version("holdfast")
    except PackageNotFoundError:
        return "(version unknown)"
