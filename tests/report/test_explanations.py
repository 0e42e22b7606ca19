import dataclasses

import pytest

from holdfast.report import table
from holdfast.report.explanations import explanation_sections

CHECK = "top_k/integrated_gradients"


def test_few_checks_have_a_section_each(four_runs):
    (section,) = explanation_sections(four_runs, table(four_runs))
    assert section.title == "Top k on integrated gradients"
    assert len(section.plots) == 3
    assert section.parts == ()


def test_of_many_a_table_comes_first(three_whole_runs):
    (section,) = explanation_sections(three_whole_runs, table(three_whole_runs))
    (sheet,) = section.sheets
    assert [column.key for column in sheet.columns] == [
        "gradient:top_k_intersection",
        "gradient:kendall_tau",
        "integrated gradients:top_k_intersection",
        "integrated gradients:kendall_tau",
    ]
    runs = {run.name: run for run in three_whole_runs}
    attacks = dict.fromkeys(line.labels[0] for line in sheet.lines)
    assert list(attacks) == ["top k", "top k 4", "top k 16", "mass centre"]
    for line in sheet.lines:
        run, attack = runs[line.labels[1]], line.labels[0].replace(" ", "_")
        for column, cell in zip(sheet.columns, line.cells, strict=True):
            name, measure = column.key.split(":")
            values = run.values(f"{attack}/{name.replace(' ', '_')}", measure)
            assert (cell is None) == (len(values) == 0)
            if cell:
                assert cell["mean"] == pytest.approx(values.mean())
    assert len(section.parts) == 6
    assert len(section.plots) == len(section.data) == 1


def test_a_check_without_a_slash_is_known_by_what_it_measured(make_run):
    run = make_run(checks=("random", "a/b", "c/d", "e/f"))
    compared = table([run])
    assert compared.explanations == ("random", "a/b", "c/d", "e/f")
    (section,) = explanation_sections([run], compared)
    assert section.sheets[0].columns[0].group == "map"
    assert section.parts[0].title == "Random"


def test_first_images_and_worst_cases(make_whole_run):
    runs = [make_whole_run("one"), make_whole_run("two", seed=0)]
    (section,) = explanation_sections(runs, table(runs))
    first, worst = section.parts[0].albums
    assert section.parts[2].title == "Top k 4 on integrated gradients"
    assert section.parts[2].albums == ()  # a point of a curve
    index = runs[0].gallery["index"]
    shown = [int(sample.note.removeprefix("image ")) for sample in first.samples]
    assert shown == index[:3].tolist()
    (sample,) = worst.samples
    assert sample.note == f"image {index[-1]}, the worst of one and two"
    assert [line.run for line in sample.lines] == ["one", "two"]


def test_without_marks_there_are_no_worst_cases(make_run):
    run = make_run()
    (section,) = explanation_sections([run], table([run]))
    assert [album.title for album in section.albums] == ["Maps before and after"]
    bare = dataclasses.replace(run, gallery=None)
    assert explanation_sections([bare], table([bare]))[0].albums == ()
