import pytest

from holdfast.contracts import InputError
from holdfast.studies.scale import check_scale, rule, scaled
from holdfast.training import load_recipe


@pytest.mark.parametrize("scale", [0.0, -0.1, 1.5, float("nan")])
def test_a_scale_out_of_range_is_refused(scale):
    with pytest.raises(InputError, match="scale: expected a number above 0 and at most 1"):
        check_scale(scale)


def test_steps_and_schedules_in_steps_are_shortened_alike():
    recipe = load_recipe("flower17/natural")
    short = scaled(recipe, 0.01, images=17_000)
    assert short.trainer == {"max_steps": 900, "limit_train_batches": 11}
    assert short.optimizer.schedule == {15: 0.001, 700: 0.0001}
    # The same number of epochs: 90,000 steps of 1,062 a epoch, 900 of 11.
    assert abs(90_000 / 1_062 - 900 / 11) < 3


def test_epochs_and_what_counts_them_stay():
    recipe = load_recipe("cifar10/natural")
    short = scaled(recipe, 0.02, images=50_000)
    assert short.trainer == {"max_epochs": 100, "limit_train_batches": 4}
    assert short.optimizer == recipe.optimizer


def test_the_rule_says_what_holds():
    assert "at least 200" in rule(0.01)
    assert rule(1.0, images=300) == "Scale 1: at most 300 test images."
    assert "explanations of at most 7" in rule(0.5, explained=7)
