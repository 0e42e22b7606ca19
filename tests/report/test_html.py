import dataclasses
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from safetensors.numpy import load_file, save_file

from holdfast import plain_yaml
from holdfast.contracts import InputError
from holdfast.report import AuditedRun, read_run, table, write_report

CHECK = "top_k/integrated_gradients"
VOID = {"meta", "link", "img", "br", "wbr"}


class Page(HTMLParser):
    """Reads a page: its elements with their attributes, its tables cell by cell, its nesting."""

    def __init__(self, text: str):
        super().__init__()
        self.elements, self.tables, self.open, self.words = [], [], [], []
        self.feed(text)
        self.close()
        assert self.open == [], "an element is left open"

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)
        if tag == "table":
            self.tables.append([])
        elif tag == "tr":
            self.tables[-1].append([])
        elif tag in ("td", "th"):
            self.tables[-1][-1].append("")

    def handle_startendtag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if "style" in self.open:
            return
        self.words.append(data)
        if {"td", "th"} & set(self.open):
            self.tables[-1][-1][-1] += f" {data.strip()}"

    def attributes(self, name):
        return [attributes[name] for _, attributes in self.elements if name in attributes]


def written(runs, path: Path, **options):
    text = write_report(runs, path / "report.html", **options).read_text(encoding="utf-8")
    return text, Page(text)


def test_nothing_is_loaded_from_elsewhere(four_runs, tmp_path):
    text, page = written(four_runs, tmp_path)
    assert "http://" not in text
    assert "https://" not in text
    sources = page.attributes("src") + page.attributes("href")
    assert sources
    assert all(source.startswith(("data:", "#")) for source in sources)
    assert not re.search(r"url\((?!#)|@import|srcset", text)
    assert "script" not in {tag for tag, _ in page.elements}


def test_numbers_stand_in_one_row_a_run(four_runs, tmp_path):
    _, page = written(four_runs, tmp_path)
    glance, similarity = page.tables[:2]
    compared = table(four_runs)
    assert len(glance) == 1 + 4
    assert len(similarity) == 2 + 4
    for run, line, detail in zip(four_runs, glance[1:], similarity[2:], strict=True):
        tau = run.values(CHECK, "kendall_tau")
        row = compared.row(run.name, CHECK, "kendall_tau")
        span = f"{100 * row.low:.1f} to {100 * row.high:.1f}"
        assert line[0].replace(" ", "") == run.name
        assert line[1].split()[0] == f"{100 * run.values('clean', 'correct').mean():.1f}"
        assert line[3].split(maxsplit=1) == [f"{100 * tau.mean():.1f}", f"{span}"]
        assert detail[4].split() == [f"{100 * sorted_median(tau):.1f}"]
        kept = run.values(CHECK, "preserved")
        assert detail[7].strip() == f"{int(kept.sum())} of {len(kept)}"


def sorted_median(values):
    ordered = sorted(values)
    half = len(ordered) // 2
    return ordered[half] if len(ordered) % 2 else (ordered[half - 1] + ordered[half]) / 2


def test_names_are_escaped_everywhere(make_run, tmp_path):
    name = "<script>alert('&\"')</script>"
    run = dataclasses.replace(
        make_run(), name=name, config={name: name}, settings={"x": name}, classes=(name,) * 10
    )
    text, page = written([run, make_run("b")], tmp_path, title=name)
    assert "<script" not in text
    assert "script" not in {tag for tag, _ in page.elements}
    assert name in "".join(page.words)


def test_accessible(four_runs, tmp_path):
    _, page = written(four_runs, tmp_path)
    tags = [tag for tag, _ in page.elements]
    assert ("html", {"lang": "en"}) in page.elements
    assert all(attributes.get("alt") for tag, attributes in page.elements if tag == "img")
    assert all("scope" in attributes for tag, attributes in page.elements if tag == "th")
    assert tags.count("table") == tags.count("caption")
    assert tags.count("h1") == 1
    plots = [a["aria-label"] for _, a in page.elements if a.get("role") == "img"]
    assert len(plots) == 3
    assert plots[0].startswith("Box plot of IN in percent. natural: median")
    ids = page.attributes("id")
    assert len(ids) == len(set(ids))
    used = {href[1:] for href in page.attributes("href") if href.startswith("#")}
    assert used <= set(ids)
    assert set(re.findall(r"url\(#([^)]*)\)", str(page.elements))) <= set(ids)


def test_the_gallery_shows_each_image_for_each_model(four_runs, tmp_path):
    _, page = written(four_runs, tmp_path)
    images = [attributes for tag, attributes in page.elements if tag == "img"]
    assert len(images) == 6 * 4 * 4
    assert images[1]["alt"] == "natural: map"


def test_a_run_without_gallery_and_settings(make_run, tmp_path):
    run = dataclasses.replace(make_run(), gallery=None, config={}, settings={})
    _, page = written([run], tmp_path)
    assert "img" not in {tag for tag, _ in page.elements}
    assert "Not recorded." in page.words


def test_runs_with_different_checks(make_run, tmp_path):
    runs = [make_run("one"), make_run("two", checks=("mass_center/gradient",))]
    _, page = written(runs, tmp_path)
    glance = page.tables[0]
    assert [cell.strip() for cell in glance[0][3:]] == [
        "τ under top k on integrated gradients",
        "τ under mass center on gradient",
    ]
    assert glance[1][4].strip() == glance[2][3].strip() == "–"


def test_nan_and_none_are_never_printed(make_run, tmp_path):
    runs = [make_run("one", images=1, gallery=(0,)), make_run("two", checks=("a/b",))]
    _, page = written(runs, tmp_path)
    words = re.findall(r"\w+", " ".join(page.words + page.attributes("aria-label")).lower())
    assert "nan" not in words
    assert "none" not in words


def test_where_no_label_was_kept(tmp_path):
    records = {"index": [0, 0], "label": [1, 1], "check": ["clean", "a/b"]}
    run = AuditedRun("x", pa.table(records | {"measure": ["correct", "preserved"]}).append_column(
        "value", pa.array([1.0, 0.0])
    ))  # fmt: skip
    _, page = written([run], tmp_path)
    assert page.tables[1][2][-1].strip() == "0 of 1"


def test_measures_of_other_rooms_have_a_place(tmp_path):
    records = {"index": [0, 1], "label": [1, 1], "check": ["localization"] * 2}
    run = AuditedRun("x", pa.table(records | {"measure": ["energy"] * 2, "value": [12.5, 13.5]}))
    _, page = written([run], tmp_path)
    assert [cell.strip() for row in page.tables[0] for cell in row] == [
        "Model",
        "localization: energy",
        "x",
        "13",
    ]


def test_settings_that_differ_are_set_side_by_side(four_runs, tmp_path):
    _, page = written(four_runs, tmp_path)
    lines = {
        line[0].replace(" ", ""): [cell.strip() for cell in line[1:]] for line in page.tables[-1]
    }
    assert lines["optimizer.lr"] == ["0.05", "0.01", "0.01", "0.01"]
    assert "seed" not in lines


def test_settings_of_any_kind_are_shown(make_run, tmp_path):
    config = {"path": Path("some/where"), "size": (1, 8, 8), "deep": [{"a": [1]}]}
    _, page = written([dataclasses.replace(make_run(), config=config)], tmp_path)
    shown = next(words for words in page.words if "some/where" in words)
    assert "size: [1, 8, 8]" in shown


def test_the_same_runs_give_the_same_page(four_runs, tmp_path):
    assert written(four_runs, tmp_path)[0] == written(four_runs, tmp_path)[0]


def test_writing_replaces_whole_files_only(make_run, tmp_path, monkeypatch):
    target = tmp_path / "deep" / "report.html"
    run = make_run()
    assert write_report([run], target) == target
    assert target.stat().st_mode & 0o044 == (tmp_path / "art" / "config.yaml").stat().st_mode & 0o44
    before = target.read_text()

    def fail(*_):
        raise OSError("disk full")

    monkeypatch.setattr("os.replace", fail)
    with pytest.raises(OSError, match="disk full"):
        write_report([run], target, title="another")
    assert target.read_text() == before
    assert [path.name for path in target.parent.iterdir()] == ["report.html"]


def test_errors(make_run, tmp_path):
    with pytest.raises(InputError, match="at least one run"):
        write_report([], tmp_path / "report.html")
    with pytest.raises(InputError, match="a file to write"):
        write_report([make_run()], tmp_path)


def test_classes_may_be_unknown(make_run, tmp_path):
    run = dataclasses.replace(make_run(), classes=tuple(json.loads("[]")))
    _, page = written([run], tmp_path)
    assert "4 " in page.words


SCRIPT = "<script>alert('&\"')</script>"


@pytest.fixture(scope="module")
def whole_page(whole_runs, tmp_path_factory):
    """A page of three runs, one of which, and all its classes, are called as a script is."""
    first, *others = whole_runs
    named = dataclasses.replace(first, name=SCRIPT, classes=(SCRIPT,) * 10)
    return written([named, *others], tmp_path_factory.mktemp("page"))


def test_a_whole_audit(whole_page):
    text, page = whole_page
    headings = [
        "At a glance", "Attacks on predictions", "Attacks on explanations",
        "Can these figures be trusted?", "Localization", "Weakly supervised localization",
        "Alignment of maps", "Faithfulness", "Likeness to the reference model",
        "Common corruptions", "How to read this", "Settings",
    ]  # fmt: skip
    places = [text.index(f">{heading}</h2>") for heading in headings]
    assert places == sorted(places)
    ids = page.attributes("id")
    assert len(ids) == len(set(ids))
    targets = [href[1:] for href in page.attributes("href") if href.startswith("#")]
    assert set(targets) <= set(ids)
    assert sum(target.startswith("part-") for target in targets if "plot" not in target) == 9
    assert {label for a in page.attributes("aria-labelledby") for label in a.split()} <= set(ids)
    assert "script" not in {tag for tag, _ in page.elements}
    assert "http" not in re.sub(r"http-equiv", "", text)
    words = re.findall(r"\w+", " ".join(page.words + page.attributes("aria-label")).lower())
    assert not {"nan", "none", "undefined"} & set(words)
    assert all("scope" in attributes for tag, attributes in page.elements if tag == "th")
    # Every row of a table has as many cells.
    for body in re.findall(r"<table.*?</table>", text, flags=re.DOTALL):
        widths = set()
        for row in re.findall(r"<tr.*?</tr>", body.split("</thead>")[1], flags=re.DOTALL):
            spans = re.findall(r'colspan="(\d+)"', row)
            widths.add(len(re.findall(r"<t[hd]\b", row)) + sum(int(n) - 1 for n in spans))
        assert len(widths) == 1


def test_boxes_stand_on_pictures(make_whole_run, tmp_path):
    run = make_whole_run()
    text, page = written([run], tmp_path)
    drawn = [a for tag, a in page.elements if tag == "rect" and a.get("class") == "true"]
    assert len(drawn) == 2 * 5 * 2  # attributions, images, panels
    x0, y0, x1, y1 = (float(corner) for corner in run.gallery["boxes"][0])
    first = [float(drawn[0][name]) for name in ("x", "y", "width", "height")]
    assert first == pytest.approx([x0, y0, x1 - x0, y1 - y0])
    assert ".boxed .estimated { stroke: #fff; stroke-width: 2px; stroke-dasharray" in text


def test_names_of_a_whole_audit_are_escaped(whole_page):
    text, page = whole_page
    assert "<script" not in text
    assert "script" not in {tag for tag, _ in page.elements}
    assert SCRIPT in "".join(page.words)


def test_an_audit_like_the_first_is_not_told_twice(four_runs, tmp_path):
    one, two, three, _ = four_runs
    shared = {"eps": 0.1}
    settings = {**one.settings, "shared": [shared, shared]}
    one, two = (dataclasses.replace(run, settings=settings) for run in (one, two))
    other = dataclasses.replace(three, settings={**settings, "images": 7})
    _, page = written([one, two, other], tmp_path)
    shown = " ".join(page.words)
    assert "As for “natural”." in shown
    assert "As for “natural”, but for:" in shown
    assert "images: 7" in shown
    assert shown.count("shared:") == 1
    assert shown.count("eps: 0.1") > 2
    assert "&id" not in shown


EVIL = """"><img src=x onerror="document.title='x'"><script>document.title='x'</script>"""


def test_names_of_others_are_text(make_run, tmp_path):
    """Of classes, checks, models, settings and findings; without the policy of the page, too."""
    path = make_run().path
    gallery = path / "audit" / "gallery.safetensors"
    names = [f"{EVIL}{n}" for n in range(9)] + ["javascript:alert(1)"]
    save_file(load_file(gallery), gallery, {"classes": json.dumps(names)})
    for part in (path / "audit").glob("part-*.parquet"):
        table = pq.ParquetFile(part).read()
        columns = table.to_pydict()
        columns["check"] = [EVIL if check == "pgd" else check for check in columns["check"]]
        pq.write_table(pa.table(columns, table.schema), part)
    (path / "audit" / "fitness.yaml").write_text(plain_yaml.dump({"findings": [EVIL]}))
    (path / "config.yaml").write_text(plain_yaml.dump({"model": {EVIL: EVIL}}))
    run = read_run(path, name=EVIL)
    text = write_report([run], tmp_path / "page.html", title=EVIL).read_text()
    assert "&lt;script&gt;" in text
    elements = Page(text).elements
    assert not any(tag == "script" for tag, _ in elements)
    attributes = [pair for _, attributes in elements for pair in attributes.items()]
    assert not any(name.startswith("on") for name, _ in attributes)
    assert not any((value or "").startswith("javascript:") for _, value in attributes)
