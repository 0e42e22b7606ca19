import pytest

from holdfast.report import to_csv, to_latex, to_markdown
from holdfast.report.sheet import COUNT, WITH_MEDIAN, Column, Line, Sheet, number_text, small_text
from holdfast.report.wording import number


def cell(mean):
    return {"mean": mean, "low": mean - 0.1, "high": mean + 0.1, "median": mean + 0.01}


@pytest.fixture
def sheet():
    columns = (
        Column("τ ↑", "tau", "", WITH_MEDIAN),
        Column("distance ↓", "distance", "", ("mean", "low", "high"), number, "lower"),
    )
    lines = (
        Line(("ig", "one"), (cell(0.5), cell(4.0))),
        Line(("ig", "two"), (cell(0.50004), cell(3.0))),
        Line(("gradient", "one"), (cell(0.9), None)),
        Line(("gradient", "two"), (None, cell(1.0))),
    )
    return Sheet("some", "Some numbers.", ("Attribution", "Model"), columns, lines)


def test_the_best_of_those_that_stand_together(sheet):
    # Equal as printed, both are best; alone nothing is; lower distances are better.
    assert sheet.best == {(0, 0), (1, 0), (1, 1)}


def test_groups_and_width(sheet):
    groups = {about: [number for number, _ in lines] for about, lines in sheet.groups}
    assert groups == {"ig": [0, 1], "gradient": [2, 3]}
    assert sheet.width == 4
    assert not sheet.flat
    one = Sheet("x", "", sheet.labels, sheet.columns, sheet.lines[::2])
    assert one.flat
    assert one.best == frozenset()


def test_header_of_medians(sheet):
    upper, lower = sheet.header
    assert [(head.text, head.columns, head.rows) for head in upper] == [
        ("Model", 1, 2), ("τ ↑", 2, 1), ("distance ↓", 1, 2)
    ]  # fmt: skip
    assert [head.text for head in lower] == ["mean", "median"]


def test_header_of_groups():
    columns = (Column("IN", "a", "ig"), Column("τ", "b", "ig"), Column("count", "c"))
    upper, lower = Sheet("x", "", ("Model",), columns, ()).header
    assert [(head.text, head.columns) for head in upper] == [("Model", 1), ("ig", 2), ("count", 1)]
    assert [head.text for head in lower] == ["IN", "τ"]
    (single,) = Sheet("x", "", ("Model",), columns[2:], ()).header
    assert [head.text for head in single] == ["Model", "count"]


def test_texts_of_cells():
    column = Column("τ", "tau")
    assert (number_text(column, None), small_text(column, None)) == ("–", "")
    assert small_text(column, {"mean": 0.5, "low": None, "high": None}) == ""
    counted = Column("kept", "kept", parts=COUNT)
    assert number_text(counted, {"preserved": 1200, "attacked": 1300}) == "1,200 of 1,300"


def test_as_files(sheet):
    assert to_markdown(sheet).splitlines() == [
        "| Attribution | Model | τ ↑ mean / median | distance ↓ |",
        "| :--- | :--- | ---: | ---: |",
        "| ig | one | 50.0 / 51.0 | 4.00 |",
        "| ig | two | 50.0 / 51.0 | 3.00 |",
        "| gradient | one | 90.0 / 91.0 | – |",
        "| gradient | two | – | 1.00 |",
    ]
    lines = to_csv(sheet).splitlines()
    assert lines[0] == (
        "attribution,run,tau:mean,tau:low,tau:high,tau:median,"
        "distance:mean,distance:low,distance:high"
    )
    assert lines[3] == "gradient,one,0.9,0.8,1.0,0.91,,,"
    latex = to_latex(sheet)
    assert r"\begin{tabular}{llrr}" in latex
    assert r"Attribution & Model & $\tau$ $\uparrow$ & distance $\downarrow$ \\" in latex
    assert r"gradient & two & -- & 1.00 \\" in latex
