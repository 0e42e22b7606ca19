import torch

from holdfast.adversarial import slope


def test_equals_the_derivative_of_each_value_by_its_own_image():
    x = torch.rand(3, 2, 2, 2, dtype=torch.float64, requires_grad=True)
    values = (x.flatten(1) ** 3).sum(1)
    assert torch.allclose(slope(values, x), 3 * x**2)


def test_values_that_do_not_depend_on_the_images_have_no_slope():
    x = torch.rand(2, 1, 2, 2, requires_grad=True)
    other = torch.rand(2, requires_grad=True)
    assert slope(torch.ones(2), x).abs().sum() == 0
    assert slope(other * 2, x).abs().sum() == 0
