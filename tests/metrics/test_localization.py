import math
from collections.abc import Callable

import pytest
import torch
from scipy import ndimage
from torch import Tensor

from holdfast.contracts import InputError
from holdfast.metrics import (
    box_masks,
    concentration,
    energy_game,
    loc,
    pointing_game,
    positive_percentage,
)

Measure = Callable[[Tensor, Tensor], Tensor]
Pixels = dict[tuple[int, int], float]

ALL = [loc, energy_game, positive_percentage, concentration, pointing_game]


# Each formula as the paper writes it: over sets of pixels, in Python's own numbers.


def pixels_of(one: Tensor) -> Pixels:
    _, height, width = one.shape
    values = one.double().tolist()
    return {
        (i, j): math.fsum(channel[i][j] for channel in values)
        for i in range(height)
        for j in range(width)
    }


def loc_by_hand(z: Pixels, b: set[tuple[int, int]], _: tuple[int, int]) -> float:
    positive = {i for i in z if z[i] > 0}
    return len(positive & b) / (len(b) + len(positive - b))


def energy_by_hand(z: Pixels, b: set[tuple[int, int]], _: tuple[int, int]) -> float:
    positive = {i for i in z if z[i] > 0}
    return math.fsum(z[i] for i in positive & b) / math.fsum(z[i] for i in positive)


def percentage_by_hand(z: Pixels, b: set[tuple[int, int]], _: tuple[int, int]) -> float:
    return math.fsum(z[i] for i in b if z[i] > 0) / math.fsum(abs(z[i]) for i in b)


def concentration_by_hand(z: Pixels, b: set[tuple[int, int]], shape: tuple[int, int]) -> float:
    height, width = shape
    total = math.fsum(abs(z[i]) for i in b)
    place = {i: ((i[0] + 0.5) / height, (i[1] + 0.5) / width) for i in b}
    centre = [math.fsum(abs(z[i]) / total * place[i][side] for i in b) for side in (0, 1)]
    return math.fsum(
        abs(z[i]) / total / max(math.dist(place[i], centre), 0.5 / max(height, width)) for i in b
    )


def pointing_by_hand(z: Pixels, b: set[tuple[int, int]], _: tuple[int, int]) -> float:
    highest = [i for i in z if z[i] == max(z.values())]
    return sum(i in b for i in highest) / len(highest)


BY_HAND = [
    (loc, loc_by_hand),
    (energy_game, energy_by_hand),
    (positive_percentage, percentage_by_hand),
    (concentration, concentration_by_hand),
    (pointing_game, pointing_by_hand),
]


@pytest.mark.parametrize(("measure", "by_hand"), BY_HAND)
@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
@pytest.mark.parametrize("levels", [0, 3])  # whole numbers tie and cancel
def test_equals_the_formula(
    measure: Measure, by_hand: Callable[..., float], dtype: torch.dtype, levels: int
) -> None:
    maps = torch.randn(12, 3, 7, 5)
    maps = (maps * levels).round().to(dtype) if levels else maps.to(dtype)
    corners = torch.rand(12, 2) * torch.tensor([3.0, 5.0])
    boxes = torch.cat([corners, corners + 1 + torch.rand(12, 2) * 3], dim=1)
    masks = box_masks(boxes, (7, 5))

    value = measure(maps, boxes)

    assert value.dtype == torch.float64
    assert torch.equal(measure(maps, masks), value)
    for n in range(12):
        inside = {(i, j) for i, j in masks[n].nonzero().tolist()}
        expected = by_hand(pixels_of(maps[n]), inside, (7, 5))
        assert value[n].item() == pytest.approx(expected, abs=1e-12)


def test_a_case_reckoned_on_paper() -> None:
    # The two channels sum to
    #    4  -1   0        The mask holds the left two columns of the upper two rows: 4, −1, 2 and 3.
    #    2   3   1
    #    0  -2   0
    first = torch.tensor([[3.0, -1.0, 2.0], [2.0, 1.0, 0.0], [1.0, -3.0, 0.0]])
    second = torch.tensor([[1.0, 0.0, -2.0], [0.0, 2.0, 1.0], [-1.0, 1.0, 0.0]])
    maps = torch.stack([first, second])[None]
    box = torch.tensor([[0.0, 0.0, 2.0, 2.0]])

    assert loc(maps, box).tolist() == [3 / 5]
    assert energy_game(maps, box).tolist() == [9 / 10]
    assert positive_percentage(maps, box).tolist() == [9 / 10]
    assert pointing_game(maps, box).tolist() == [1.0]


def test_concentration_reckoned_on_paper() -> None:
    # |z| is 1 at both ends of a row of 5 and 2 in its middle: the centre is in the middle, which
    # counts as a tenth away; the ends are 2 of 5 pixels away.
    maps = torch.tensor([1.0, 0.0, -2.0, 0.0, 1.0]).view(1, 1, 1, 5)
    value = concentration(maps, torch.tensor([[0.0, 0.0, 5.0, 1.0]]))
    assert value.tolist() == pytest.approx([0.5 / 0.1 + 0.5 / 0.4])


def test_the_closer_the_more_concentrated() -> None:
    maps = torch.zeros(3, 1, 16, 16)
    maps[0, 0, 8, 8] = 1
    maps[1, 0, 6:10, 6:10] = 1
    maps[2, 0, 2:14, 2:14] = 1
    value = concentration(maps, torch.tensor([[0.0, 0.0, 16.0, 16.0]]).expand(3, 4))
    assert value[0] == 32.0
    assert value[0] > value[1] > value[2]


def test_concentration_knows_only_the_object() -> None:
    maps = torch.rand(1, 1, 8, 8)
    box = torch.tensor([[2.0, 2.0, 5.0, 6.0]])
    noisy = torch.where(box_masks(box, (8, 8)), maps, 100 * torch.randn(1, 1, 8, 8))
    torch.testing.assert_close(concentration(noisy, box), concentration(maps, box))


def test_concentration_of_even_maps_nears_the_integral() -> None:
    # The mean of 1/r over a unit square, from its centre, is 4 ln(1 + √2).
    value = concentration(torch.ones(1, 1, 300, 300), torch.tensor([[0.0, 0.0, 300.0, 300.0]]))
    assert value.item() == pytest.approx(4 * math.log(1 + math.sqrt(2)), rel=0.005)


@pytest.mark.parametrize("measure", ALL)
def test_a_zero_map_has_nothing_on_the_object(measure: Measure) -> None:
    box = torch.tensor([[1.0, 1.0, 3.0, 3.0]])
    assert measure(torch.zeros(1, 3, 4, 4), box).tolist() == [0.0]


@pytest.mark.parametrize("measure", [loc, energy_game, positive_percentage, pointing_game])
def test_a_map_without_positive_attribution_has_nothing_on_the_object(measure: Measure) -> None:
    assert measure(-torch.rand(1, 3, 4, 4), torch.tensor([[1.0, 1.0, 3.0, 3.0]])).tolist() == [0.0]


@pytest.mark.parametrize("measure", ALL)
@pytest.mark.parametrize(
    "box",
    [[2.0, 2.0, 2.0, 2.0], [3.0, 3.0, 1.0, 1.0], [50.0, 0.0, 60.0, 4.0], [1.6, 1.0, 2.4, 3.0]],
)
def test_an_object_without_pixels_has_nothing(measure: Measure, box: list[float]) -> None:
    assert measure(torch.rand(1, 3, 4, 4), torch.tensor([box])).tolist() == [0.0]


def test_an_object_that_fills_the_image() -> None:
    maps = torch.tensor([[[[3.0, -1.0], [0.0, 1.0]]]])
    whole = torch.tensor([[0.0, 0.0, 2.0, 2.0]])
    assert loc(maps, whole).tolist() == [0.5]
    assert energy_game(maps, whole).tolist() == [1.0]
    assert positive_percentage(maps, whole).tolist() == [0.8]
    assert pointing_game(maps, whole).tolist() == [1.0]


@pytest.mark.parametrize("measure", ALL)
@pytest.mark.parametrize("size", [2.0**-1060, 2.0**-140, 2.0**140, 2.0**1015])
def test_the_size_of_the_maps_does_not_count(measure: Measure, size: float) -> None:
    maps = torch.randint(-9, 10, (4, 3, 5, 5)).double()
    boxes = torch.tensor([[1.0, 0.0, 4.0, 4.0]]).expand(4, 4)
    torch.testing.assert_close(measure(maps * size, boxes), measure(maps, boxes))


def test_channels_that_cancel_are_not_positive() -> None:
    maps = torch.tensor([0.1, 0.3, -0.1, -0.3]).view(1, 2, 1, 2)
    assert maps.sum(1).abs().max() == 0
    assert loc(maps, torch.tensor([[0.0, 0.0, 2.0, 1.0]])).tolist() == [0.0]


def test_of_tied_highest_pixels_each_points() -> None:
    maps = torch.tensor([[[[5.0, 1.0, 5.0, 5.0]]]])
    assert pointing_game(maps, torch.tensor([[2.0, 0.0, 4.0, 1.0]])).tolist() == [2 / 3]


@pytest.mark.parametrize("tolerance", [0, 1, 2, 5])
def test_pointing_may_miss_by_the_tolerance(tolerance: int) -> None:
    mask = torch.rand(9, 9) > 0.9
    mask[4, 4] = True
    maps = torch.eye(81).view(81, 1, 9, 9)  # each points at another pixel

    hits = pointing_game(maps, mask.expand(81, 9, 9), tolerance)

    expected = ndimage.distance_transform_edt(~mask.numpy()) <= tolerance
    assert hits.view(9, 9).bool().tolist() == expected.tolist()


def test_no_tolerance_makes_an_empty_object_a_hit() -> None:
    assert pointing_game(torch.rand(1, 1, 4, 4), torch.zeros(1, 4), tolerance=15).tolist() == [0.0]


@pytest.mark.parametrize("measure", ALL)
def test_no_images_give_no_values(measure: Measure) -> None:
    assert measure(torch.zeros(0, 3, 4, 4), torch.zeros(0, 4)).shape == (0,)


@pytest.mark.parametrize("measure", ALL)
def test_gradients_do_not_flow(measure: Measure) -> None:
    maps = torch.rand(2, 3, 4, 4, requires_grad=True)
    assert not measure(maps, torch.tensor([[0.0, 0.0, 2.0, 2.0]]).expand(2, 4)).requires_grad


@pytest.mark.usefixtures("own_errors")
@pytest.mark.parametrize("measure", ALL)
def test_bad_input_is_refused(measure: Measure) -> None:
    boxes = torch.tensor([[0.0, 0.0, 2.0, 2.0]])
    with pytest.raises(InputError, match=r"maps: expected shape \(N, C, H, W\)"):
        measure(torch.zeros(1, 4, 4), boxes)
    with pytest.raises(InputError, match=r"maps: expected shape \(N, C, H, W\)"):
        measure(torch.zeros(1, 0, 4, 4), boxes)
    with pytest.raises(InputError, match="maps: expected finite"):
        measure(torch.full((1, 1, 4, 4), torch.nan), boxes)
    with pytest.raises(InputError, match="regions: expected boxes"):
        measure(torch.zeros(2, 1, 4, 4), boxes)


def test_a_negative_tolerance_is_refused() -> None:
    with pytest.raises(InputError, match="tolerance: expected pixels, at least 0, got -1"):
        pointing_game(torch.zeros(1, 1, 4, 4), torch.zeros(1, 4), tolerance=-1)
