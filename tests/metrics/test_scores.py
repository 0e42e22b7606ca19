import pytest
import torch

from holdfast.contracts import InputError
from holdfast.metrics import pixel_scores
from holdfast.metrics.scores import check_scores


def test_pixel_scores_sum_absolute_values_over_channels() -> None:
    maps = torch.randn(3, 2, 4, 5)

    scores = pixel_scores(maps)

    assert scores.shape == (3, 20)
    for n in range(3):
        for y in range(4):
            for x in range(5):
                expected = abs(maps[n, 0, y, x]) + abs(maps[n, 1, y, x])
                assert scores[n, 5 * y + x] == expected


def test_pixel_scores_can_be_differentiated() -> None:
    maps = torch.randn(1, 2, 3, 3, requires_grad=True)
    pixel_scores(maps).sum().backward()
    assert torch.equal(maps.grad, maps.detach().sign())


@pytest.mark.usefixtures("own_errors")
def test_pixel_scores_refuse_other_shapes() -> None:
    with pytest.raises(InputError, match=r"maps: expected shape \(N, C, H, W\), got .*\(3, 4\)"):
        pixel_scores(torch.zeros(3, 4))


@pytest.mark.parametrize(
    ("first", "second", "message"),
    [
        (torch.zeros(4), torch.zeros(4), "first: expected shape"),
        (torch.zeros(2, 0), torch.zeros(2, 0), "first: expected shape"),
        (torch.zeros(2, 4), torch.zeros(2, 5), "second: expected shape"),
        (torch.zeros(2, 4), torch.full((2, 4), torch.nan), "second: expected finite values, got 8"),
        (torch.full((2, 4), torch.inf), torch.zeros(2, 4), "first: expected finite values"),
        (torch.zeros(2, 4).long(), torch.zeros(2, 4), "first: expected floating-point"),
    ],
)
@pytest.mark.usefixtures("own_errors")
def test_check_scores_names_what_is_wrong(
    first: torch.Tensor, second: torch.Tensor, message: str
) -> None:
    with pytest.raises(InputError, match=message):
        check_scores(first, second)
