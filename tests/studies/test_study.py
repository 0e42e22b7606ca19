import pytest

from holdfast.contracts import HoldfastError
from holdfast.studies import entries, read_study, study_names


def test_every_study_is_read_and_names_its_source():
    for name in study_names():
        study = read_study(name)
        assert study.source
        assert study.shown


def test_every_study_has_a_line_in_the_list():
    listed = entries()
    assert set(study_names()) <= set(listed)
    for line in listed.values():
        assert line.endswith(")")
    assert listed["digits/methods"].endswith("(runnable as it is)")
    assert "needs data ylecun/mnist" in listed["aaai2021/table1c"]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"colums": {}}, "Study has no setting colums"),
        ({"rows": {}}, "rows in .*: expected at least one row and one column, got none"),
        ({"columns": {"a": {"check": "clean"}}}, "columns.a: Column needs measure"),
        (
            {"columns": {"a": {"check": "clean", "measure": "correct", "statistic": "mode"}}},
            "columns.a.statistic in .*: expected 'mean' or 'median' or 'corr",
        ),
        (
            {"rows": {"r": {"recipe": "digits/natural", "published": [1.0]}}},
            "rows.r.published in .*: expected 2, one for each column, got 1 values",
        ),
        ({"rows": {"r": {"published": [1.0, 2.0]}}}, "either a recipe or a model"),
        (
            {"rows": {"r": {"recipe": "digits/natural", "model": "m"}}},
            "either a recipe or a model",
        ),
        ({"rows": {"r": {"recipe": "digits/natural", "published": ["x", 1.0]}}}, "published"),
        ({"eps": 0.1}, "eps in .*: expected None without a battery"),
        ({"images": 0}, "images in .*: expected a number above 0"),
        ({"figure": {"kind": "pie"}}, "figure.kind in .*: expected 'curves' or 'boxes'"),
        (
            {"columns": {n: {"check": "c", "measure": "m", "like": "b"} for n in "ac"}},
            "columns.a.like",
        ),
    ],
)
def test_a_setting_that_is_wrong_is_named(change, said, settings, written):
    with pytest.raises(HoldfastError, match=said):
        read_study(written({**settings, **change}))


def test_a_study_that_is_not_there_is_told_apart_from_what_no_machine_makes():
    with pytest.raises(HoldfastError, match="no study 'aaai2021/table99'; give a YAML file or"):
        read_study("aaai2021/table99")
    with pytest.raises(HoldfastError, match="is no study: a drawing"):
        read_study("eccv2020/figure2")
    with pytest.raises(HoldfastError, match="no study '\\.\\./x'"):
        read_study("../x")
