"""What all studies that come with Holdfast promise."""

import fnmatch
from functools import cache

import pytest

from holdfast.studies import read_study, study_names
from holdfast.training.recipe import read_recipe, recipe_names


@cache
def recipe(name):
    return read_recipe(name)


def checks_of(study, row):
    """Name what a row's audit makes, as far as settings say it; None of a ready battery."""
    if study.battery or not row.recipe:
        return None
    if study.roar:
        return [f"roar/{name}" for name in (*study.roar["attributions"], "none", "random")]
    audit = {**recipe(row.recipe)["audit"], **study.audit, **row.audit}
    parts = (audit.get(part) or {} for part in ("attacks", "manipulations", "checks"))
    return ["clean", *(name for part in parts for name in part)]


@pytest.mark.parametrize("name", study_names())
def test_recipes_and_checks_are_there(name):
    study = read_study(name)
    known = recipe_names()
    for title, row in study.rows.items():
        assert not row.recipe or row.recipe in known, title
        checks = checks_of(study, row)
        for column in study.columns.values() if checks is not None and row.shown else ():
            check = column.check.replace("{of}", row.of)
            assert fnmatch.filter(checks, check), (title, check, checks)


@pytest.mark.parametrize("name", study_names())
def test_a_table_of_a_paper_has_what_was_published(name):
    study = read_study(name)
    table = "/table" in name or "/section" in name or "/appendix" in name
    assert not table or any(row.published for row in study.shown.values())
    for title, column in study.columns.items():
        values = [study.published(row, title) for row in study.shown]
        highest = 100.0 if column.unit == "percent" else 1e4
        assert all(value is None or -100 <= value <= highest for value in values)


@pytest.mark.parametrize("name", study_names())
def test_a_curve_has_places(name):
    study = read_study(name)
    if study.figure is None or study.figure.kind != "curves":
        return
    parts = study.shown if study.figure.over == "rows" else study.columns
    assert all(part.x is not None for part in parts.values())
    assert study.figure.x
