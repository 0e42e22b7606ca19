import csv
import io

import pytest

from holdfast.contracts import InputError
from holdfast.report import table, write_tables
from holdfast.report.contents import contents

ALL = [
    "attacks", "explanations", "trust", "localization", "wsol",
    "alignment", "faithfulness", "reference", "corruptions",
]  # fmt: skip


def names(runs):
    return [section.name for section in contents(runs, table(runs))]


def test_sections_only_where_there_are_records(make_run, make_whole_run):
    assert names([make_whole_run("whole")]) == ALL
    assert names([make_run("old")]) == ["check-top_k/integrated_gradients"]
    assert names([make_run("bare", checks=())]) == []
    assert names([make_run("one"), make_whole_run("two")]) == ALL


def test_the_tables_of_all_sections_as_files(three_whole_runs, tmp_path):
    files = write_tables(three_whole_runs, tmp_path / "deep" / "tables")
    found = {file.name for file in (tmp_path / "deep" / "tables").iterdir()}
    assert found == {file.name for file in files}
    stems = {file.stem for file in files}
    assert len(files) == 3 * len(stems)
    assert {
        "comparison", "glance", "attacks", "attacks_curve_1", "explanations", "top_k_gradient",
        "trust", "localization", "wsol", "wsol_gradient_box_iou", "alignment_image",
        "alignment_boundary", "boundary_correlation", "faithfulness", "reference", "corruptions",
        "corruptions_by_severity", "corruption_severity",
    } <= stems  # fmt: skip
    for file in files:
        text = file.read_text(encoding="utf-8")
        assert text.endswith("\n")
        words = text.lower().replace(",", " ").replace("&", " ").split()
        assert "nan" not in words
        assert "none" not in words
    rows = list(csv.DictReader(io.StringIO((files[0].parent / "localization.csv").read_text())))
    first = three_whole_runs[0]
    assert (rows[0]["attribution"], rows[0]["run"]) == ("gradient", "natural")
    mean = first.values("localization/gradient", "loc").mean()
    assert float(rows[0]["loc:mean"]) == pytest.approx(mean, abs=1e-15)


def test_every_row_of_latex_has_as_many_cells(three_whole_runs, tmp_path):
    for file in write_tables(three_whole_runs, tmp_path):
        if file.suffix != ".tex" or "curve" in file.stem:
            continue
        lines = file.read_text(encoding="utf-8").splitlines()
        columns = len(lines[0].removeprefix(r"\begin{tabular}{").rstrip("}"))
        body = lines[lines.index(r"\midrule") - 1 : -2]
        counts = {line.count("&") - line.count(r"\&") for line in body if line != r"\midrule"}
        assert counts == {columns - 1}, file


def test_errors(make_run, tmp_path):
    (tmp_path / "taken").write_text("")
    with pytest.raises(InputError, match="a folder to write to"):
        write_tables([make_run()], tmp_path / "taken")
    with pytest.raises(InputError, match="at least one run"):
        write_tables([], tmp_path)
