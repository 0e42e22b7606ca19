import pytest

from holdfast.report.wording import attack_of, attribution_of, check_title, interval, percent


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.0, "0.0"), (1.0, "100.0"), (0.12345, "12.3"), (-0.5, "−50.0"), (-0.00049, "0.0")],
)
def test_percent(value, text):
    assert percent(value) == text


def test_interval_that_is_missing():
    assert interval(None, None) == ""


def test_check_title_splits_once():
    assert check_title("top_k/smooth/gradient_x") == "top k on smooth/gradient x"


@pytest.mark.parametrize(
    ("check", "title", "attack", "attribution"),
    [
        ("pgd-100@1.5/255", "pgd-100, ε 1.5/255", "pgd-100, ε 1.5/255", ""),
        ("top_k/ig@0.3", "top k on ig, ε 0.3", "top k, ε 0.3", "ig"),
        ("pgd@home", "pgd@home", "pgd@home", ""),
        ("@2/255", "@2 on 255", "@2", "255"),
    ],
)
def test_epsilon_in_a_name(check, title, attack, attribution):
    assert check_title(check) == title
    assert (attack_of(check), attribution_of(check)) == (attack, attribution)
