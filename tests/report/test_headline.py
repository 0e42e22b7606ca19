import numpy as np
import pyarrow as pa
import pytest

from holdfast.report import AuditedRun, table
from holdfast.report.headline import headline


def made(name, *, accuracy=0.9, attacked=200, preserved=None, **taus):
    """Build a run whose mean τ under each check is as told, with a spread of 0.2 about it."""
    rows = [(n, "clean", "correct", float(n < accuracy * 100)) for n in range(100)]
    for check, tau in taus.items():
        kept = attacked if preserved is None else preserved
        check = check.replace("__", "/")
        rows += [(n, check, "preserved", float(n < kept)) for n in range(attacked)]
        offsets = np.linspace(-0.2, 0.2, kept)
        rows += [(n, check, "kendall_tau", tau + offsets[n]) for n in range(kept)]
    index, checks, measures, values = zip(*rows, strict=True)
    columns = {"index": index, "label": [0] * len(index), "check": checks}
    return AuditedRun(name, pa.table(columns | {"measure": measures, "value": values}))


def told(*runs):
    return headline(runs, table(runs))


def test_an_improvement_is_told_with_its_size():
    found = told(made("natural", top__ig=0.3), made("pgd", top__ig=0.5), made("art", top__ig=0.7))
    assert "“art” hold fastest" in found.sentence
    assert "70.0%" in found.sentence
    assert "30.0% for “natural”" in found.sentence
    assert "40.0 points (95% interval 3" in found.detail
    assert "200 of 200 for “art”" in found.detail


def test_no_model_improves():
    found = told(made("natural", top__ig=0.6), made("art", top__ig=0.4), made("pgd", top__ig=0.5))
    assert found.sentence.startswith("No other model’s explanations hold faster than those of “nat")
    assert "50.0% for the next, “pgd”" in found.detail


def test_a_difference_within_chance_is_no_improvement():
    found = told(made("natural", top__ig=0.600), made("art", top__ig=0.605))
    assert found.sentence.startswith("No model’s explanations hold measurably faster")
    assert "may be chance" in found.detail


def test_too_few_images():
    found = told(made("natural", top__ig=0.3, attacked=1), made("art", top__ig=0.9, attacked=1))
    assert found.sentence.startswith("Too few images")


def test_one_run():
    found = told(made("art", top__ig=0.7, preserved=120))
    assert "“art” keep a rank correlation of 70.0% on average" in found.sentence
    assert "120 of 200" in found.detail
    assert "Accuracy: 90.0% for “art”." in found.detail


def test_only_runs_put_to_the_check_are_compared():
    found = told(made("natural"), made("art", top__ig=0.7))
    assert "Under top on ig, the maps of “art”" in found.sentence


@pytest.mark.parametrize(
    ("second", "sentence"),
    [
        (0.2, "Under the other attack “art” does not lead."),
        (0.9, "Under the other attack “art” leads too."),
    ],
)
def test_the_other_check_has_its_say(second, sentence):
    natural = made("natural", top__ig=0.3, mass__ig=0.5)
    assert sentence in told(natural, made("art", top__ig=0.7, mass__ig=second)).detail


def test_no_label_could_be_kept():
    found = told(made("art", top__ig=0.7, preserved=0))
    assert "no perturbation was found that keeps the label" in found.sentence


def test_no_check_on_explanations():
    assert told(made("art")).sentence == "“art” classifies 90.0% of the images correctly."
    found = told(made("art"), made("natural", accuracy=0.95))
    assert "“natural” is the most accurate: it classifies 95.0%" in found.sentence
    assert found.detail == "This audit holds no check on explanations."
