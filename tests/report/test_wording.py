import pytest

from holdfast.report.wording import check_title, interval, percent


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
