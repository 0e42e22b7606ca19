import pytest
import torch

from holdfast.adversarial import PGD, slope
from holdfast.adversarial.slope import directionless, linked, warn_if_stuck
from holdfast.contracts import HoldfastError, StuckWarning


def test_equals_the_derivative_of_each_value_by_its_own_image():
    x = torch.rand(3, 2, 2, 2, dtype=torch.float64, requires_grad=True)
    assert torch.allclose(slope((x.flatten(1) ** 3).sum(1), x), 3 * x**2)
    assert torch.allclose(slope(linked((x.flatten(1) ** 3).sum(1), x), x), 3 * x**2)


def test_values_that_do_not_depend_on_the_images_are_an_error_unless_that_is_said():
    x = torch.rand(2, 1, 2, 2, requires_grad=True)
    other = torch.rand(2, requires_grad=True)
    for values in (torch.ones(2), other * 2):
        with pytest.raises(HoldfastError, match="no gradient with respect to the images"):
            slope(values, x)
        assert slope(linked(values, x), x).abs().sum() == 0


def test_a_single_finite_value_is_a_direction():
    gradient = torch.zeros(4, 1, 2, 2)
    gradient[0, 0, 0, 0] = -1e-30
    gradient[1] = torch.nan
    gradient[2] = torch.inf
    assert directionless(gradient).tolist() == [False, True, True, True]


def test_warns_of_most_steps_only():
    attack = PGD(0.1, 0.05, 4)
    with pytest.warns(StuckWarning, match=r"^PGD: for 2 of 4 images most steps"):
        warn_if_stuck(attack, torch.tensor([0.0, 0.75, 1.0, torch.nan]))
    warn_if_stuck(attack, torch.tensor([0.0, 0.5, torch.nan]))  # warnings are errors here


pytestmark = pytest.mark.filterwarnings("error::holdfast.contracts.StuckWarning")
