import math

import pytest
import torch
from scipy import ndimage

from holdfast.contracts import InputError
from holdfast.metrics import input_alignment, input_cosine, map_distance, mass_centre


def test_alignment_equals_the_formula() -> None:
    images, gradients = torch.rand(4, 3, 5, 6), torch.randn(4, 3, 5, 6)

    value = input_alignment(images, gradients)

    for n in range(4):
        x, g = images[n].flatten().tolist(), gradients[n].flatten().tolist()
        product = math.fsum(a * b for a, b in zip(x, g, strict=True))
        expected = abs(product) / math.sqrt(math.fsum(b * b for b in g))
        assert value[n].item() == pytest.approx(expected, rel=1e-5)


def test_alignment_of_a_linear_model_is_the_distance_to_its_boundary() -> None:
    weight = torch.randn(1, 1, 3, 3)
    image = torch.rand(1, 1, 3, 3)
    distance = input_alignment(image, weight)

    step = weight / weight.norm() * distance * (image * weight).sum().sign()

    assert ((image - step) * weight).sum().abs() < 1e-5


@pytest.mark.parametrize("size", [1e-30, 1.0, 1e30])
def test_alignment_does_not_depend_on_the_size_of_the_gradient(size: float) -> None:
    images, gradients = torch.rand(2, 1, 4, 4), torch.randn(2, 1, 4, 4)
    expected = input_alignment(images, gradients)
    torch.testing.assert_close(input_alignment(images, gradients * size), expected)


def test_zero_gradient_has_alignment_zero() -> None:
    gradients = torch.zeros(2, 1, 4, 4)
    gradients[1] = 1
    images = torch.full((2, 1, 4, 4), 0.5)
    assert input_alignment(images, gradients).tolist() == pytest.approx([0.0, 2.0])


@pytest.mark.parametrize("size", [1e-30, 1.0, 1e30])
def test_cosine_equals_the_formula(size: float) -> None:
    images, gradients = torch.randn(4, 3, 5, 6), torch.randn(4, 3, 5, 6)

    value = input_cosine(images, gradients * size)

    for n in range(4):
        x, g = images[n].flatten().tolist(), gradients[n].flatten().tolist()
        lengths = [math.sqrt(math.fsum(a * a for a in v)) for v in (x, g)]
        expected = math.fsum(a * b for a, b in zip(x, g, strict=True)) / math.prod(lengths)
        assert value[n].item() == pytest.approx(expected, abs=1e-6)
    assert value.min() < 0


def test_cosine_with_nothing_is_zero() -> None:
    one, none = torch.ones(1, 1, 2, 3), torch.zeros(1, 1, 2, 3)
    pairs = [(one, none), (none, one), (none, none), (one, -one)]
    assert [input_cosine(*pair).item() for pair in pairs] == pytest.approx([0, 0, 0, -1])


@pytest.mark.usefixtures("own_errors")
def test_bad_gradients_are_refused() -> None:
    images = torch.rand(2, 1, 4, 4)
    with pytest.raises(InputError, match="gradients: expected shape"):
        input_alignment(images, torch.zeros(2, 1, 4, 5))
    with pytest.raises(InputError, match="images: expected shape"):
        input_alignment(images[0], images[0])
    with pytest.raises(InputError, match="gradients: expected finite"):
        input_alignment(images, torch.full_like(images, torch.nan))


def test_map_distance_equals_the_formula() -> None:
    first, second = torch.randn(2, 4, 3, 5, 6)

    value = map_distance(first, second)

    for n in range(4):
        pairs = zip(first[n].flatten().tolist(), second[n].flatten().tolist(), strict=True)
        expected = math.sqrt(math.fsum((a - b) ** 2 for a, b in pairs))
        assert value[n].item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("size", [1e-30, 1.0, 1e30])
def test_map_distance_scales_with_the_maps(size: float) -> None:
    first = torch.zeros(2, 1, 2, 2)
    second = torch.tensor([3.0, 0.0, 4.0, 0.0]).view(1, 1, 2, 2).repeat(2, 1, 1, 1) * size
    second[1] = 0
    assert map_distance(first, second).tolist() == pytest.approx([5 * size, 0.0], rel=1e-6)


def test_map_distance_can_be_differentiated() -> None:
    first = torch.randn(2, 2, 3, 3, dtype=torch.float64, requires_grad=True)
    second = torch.randn(2, 2, 3, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(map_distance, (first, second))
    map_distance(first, first.detach()).sum().backward()
    assert first.grad is not None
    assert (first.grad == 0).all()


@pytest.mark.usefixtures("own_errors")
def test_maps_that_cannot_be_compared_are_refused() -> None:
    with pytest.raises(InputError, match="first: expected shape"):
        map_distance(torch.zeros(3, 4), torch.zeros(3, 4))
    with pytest.raises(InputError, match="second: expected shape"):
        map_distance(torch.zeros(1, 3, 4, 4), torch.zeros(1, 1, 4, 4))
    with pytest.raises(InputError, match="second: expected finite"):
        map_distance(torch.zeros(1, 1, 4, 4), torch.full((1, 1, 4, 4), torch.nan))


def test_mass_centre_equals_scipy() -> None:
    scores = torch.rand(5, 42, dtype=torch.float64)
    expected = [ndimage.center_of_mass(row.view(6, 7).numpy()) for row in scores]
    torch.testing.assert_close(
        mass_centre(scores, (6, 7)), torch.tensor(expected, dtype=torch.float64)
    )


def test_mass_centre_of_one_pixel_is_that_pixel() -> None:
    scores = torch.zeros(2, 12)
    scores[0, 4 * 2 + 3] = 1e-44
    scores[1, 0] = 3e38
    scores[1, 3] = 3e38
    assert mass_centre(scores, (3, 4)).tolist() == [[2.0, 3.0], [0.0, 1.5]]


def test_map_without_mass_has_its_centre_in_the_middle() -> None:
    assert mass_centre(torch.zeros(1, 12), (3, 4)).tolist() == [[1.0, 1.5]]


def test_mass_centre_can_be_differentiated() -> None:
    scores = torch.rand(3, 12, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda s: mass_centre(s, (3, 4)), scores)
    flat = torch.zeros(1, 12, requires_grad=True)
    mass_centre(flat, (3, 4)).sum().backward()
    assert flat.grad is not None
    assert flat.grad.isfinite().all()


@pytest.mark.usefixtures("own_errors")
def test_bad_scores_are_refused() -> None:
    with pytest.raises(InputError, match=r"scores: expected shape \(N, 12\)"):
        mass_centre(torch.zeros(1, 13), (3, 4))
    with pytest.raises(InputError, match="scores: expected values of at least 0, got -1"):
        mass_centre(-torch.ones(1, 12), (3, 4))
    with pytest.raises(InputError, match="scores: expected finite"):
        mass_centre(torch.full((1, 12), torch.nan), (3, 4))
