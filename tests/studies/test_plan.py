import pickle
from pathlib import Path

import pytest

from holdfast import plain_yaml
from holdfast.contracts import HoldfastError
from holdfast.studies import Auditing, Reproduction, Training, cells, read_study, selected, stages


@pytest.fixture
def job(settings, written):
    def make(change=None, **options):
        study = read_study(written({**settings, **(change or {})}))
        return Reproduction(study, Path("out"), **options)

    return make


def names(job, kind):
    return [cell.folder for cell in cells(job) if isinstance(cell, kind)]


def test_each_row_and_seed_is_trained_and_audited_once(job):
    made = cells(job(seeds=2))
    trainings = [cell for cell in made if isinstance(cell, Training)]
    audits = [cell for cell in made if isinstance(cell, Auditing)]
    assert [cell.settings["seed"] for cell in trainings] == [0, 1, 0, 1]
    assert len({cell.folder for cell in made}) == 8
    assert [cell.after for cell in audits] == [(training.name,) for training in trainings]
    assert all(audit.subject in map(str, names(job(seeds=2), Training)) for audit in audits)
    assert [len(stage) for stage in stages(made)] == [4, 4]
    assert pickle.loads(pickle.dumps(made)) == made


def test_rows_of_one_model_train_it_once(job, settings):
    rows = settings["rows"] | {"again": {"model": "natural"}}
    made = job({"rows": rows})
    assert names(made, Training) == names(job(), Training)
    assert len(names(made, Auditing)) == 2


def test_the_folder_of_a_run_is_that_of_its_settings(job):
    def folder(**options):
        return names(job(**options), Training)[0]

    assert folder() == folder(images=10) == folder(explained=3)
    overrides = plain_yaml.Unread("0")  # as the recipe has it
    assert folder() == folder(overrides={"seed": overrides})
    others = [
        folder(scale=0.5),
        folder(overrides={"batch_size": plain_yaml.Unread("32")}),
        folder(data={"digits": "elsewhere"}),
    ]
    assert len({folder(), *others}) == 4
    assert folder().name == "seed-0"
    assert folder(overrides={"seed": plain_yaml.Unread("5")}).name == "seed-5"


def test_audits_of_other_settings_are_other_folders(job):
    def folder(**options):
        return names(job(**options), Auditing)[0]

    asked = [{}, {"images": 10}, {"explained": 3}, {"overrides": {"audit.k": 3}}]
    assert len({folder(**options) for options in asked}) == 4


def test_a_teacher_is_the_run_of_its_row_with_the_same_seed(job, settings):
    student = {
        "recipe": "digits/natural",
        "overrides": {
            "objective": {
                "class_path": "DefensiveDistillation",
                "init_args": {"teacher": "row:natural"},
            }
        },
    }
    rows = settings["rows"] | {"student": student}
    made = {(c.name, c.folder): c for c in cells(job({"rows": rows}, seeds=2))}
    students = [
        cell
        for cell in made.values()
        if isinstance(cell, Training) and "teacher" in str(cell.settings)
    ]
    for cell in students:
        teacher = cell.settings["objective"]["init_args"]["teacher"]
        assert teacher.endswith(f"seed-{cell.settings['seed']}")
        assert teacher in {str(folder) for _, folder in made}
        assert len(cell.after) == 1
    # Wherever the folder is, and though the teacher's path has it, the student's digest is one.
    far = Reproduction(job({"rows": rows}).study, Path("/far/away"))
    assert {f.parent.name for f in names(far, Training)} == {
        f.parent.name for f in names(job({"rows": rows}), Training)
    }


def test_a_row_that_is_not_shown_is_trained_where_it_is_needed_alone(job, settings):
    hidden = settings["rows"]["natural"] | {"shown": False}
    rows = {"natural": hidden, "pgd": settings["rows"]["pgd"]}
    assert len(names(job({"rows": rows}), Training)) == 1
    audit = {"checks": {"likeness": {"reference": "row:natural"}}}
    made = job({"rows": rows, "audit": audit})
    assert len(names(made, Training)) == 2
    assert len(names(made, Auditing)) == 1


def test_rows_that_need_each_other_are_refused(job):
    objective = {"class_path": "X", "init_args": {"teacher": "row:b"}}
    other = {"class_path": "X", "init_args": {"teacher": "row:a"}}
    rows = {
        "a": {"recipe": "digits/natural", "overrides": {"objective": objective}},
        "b": {"recipe": "digits/natural", "overrides": {"objective": other}},
    }
    with pytest.raises(HoldfastError, match="rows need each other's models: a → b → a"):
        cells(job({"rows": rows}))


def test_a_run_that_is_there_is_taken(job):
    made = job(runs={"natural": (Path("mine/1"), Path("mine/2"))})
    audits = [cell for cell in cells(made) if isinstance(cell, Auditing)]
    assert [cell.subject for cell in audits[:2]] == ["mine/1", "mine/2"]
    assert all(cell.folder.is_relative_to("out/given") for cell in audits[:2])
    assert len(names(made, Training)) == 1


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"runs": {"art": (Path("x"),)}}, "run: expected a row: natural, pgd, got 'art'"),
        ({"data": {"mnist": "x"}}, "data: expected one of digits, got 'mnist'"),
        ({"seeds": 0}, "seeds: expected a number above 0"),
        ({"images": 0}, "images: expected a number above 0"),
        ({"scale": 2.0}, "scale: expected"),
    ],
)
def test_what_is_out_of_range_is_named(options, said, job):
    with pytest.raises(HoldfastError, match=said):
        job(**options)


def test_what_was_changed_is_said(job):
    assert job().terms.startswith("Scale 1: trained as long")
    changed = job(overrides={"seed": plain_yaml.Unread("5"), "audit.k": 3}, images=10).terms
    assert changed == "Scale 1: at most 10 test images. Changed in all rows: seed 5, audit.k 3."


def test_only_some_rows(job):
    study = selected(job().study, ["pgd"])
    assert len(cells(Reproduction(study, Path("out")))) == 2
    with pytest.raises(HoldfastError, match="rows: expected some of natural, pgd, got 'art'"):
        selected(study, ["art"])
