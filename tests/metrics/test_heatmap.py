import pytest
import torch

from holdfast.contracts import InputError
from holdfast.metrics import best_threshold, heatmap


def by_hand(one: torch.Tensor) -> list[list[float]]:
    channels, height, width = one.shape
    values = one.double().abs().tolist()
    grey = [
        [sum(values[c][i][j] for c in range(channels)) / channels for j in range(width)]
        for i in range(height)
    ]
    low, high = min(map(min, grey)), max(map(max, grey))
    scaled = [[(v - low) / (high - low) for v in row] for row in grey]
    smooth = []
    for i in range(height):
        smooth.append([])
        for j in range(width):
            near = [
                scaled[k][m]
                for k in range(max(0, i - 1), min(height, i + 2))
                for m in range(max(0, j - 1), min(width, j + 2))
            ]
            smooth[-1].append(sum(near) / len(near))
    top = max(map(max, smooth))
    return [[v / top for v in row] for row in smooth]


@pytest.mark.parametrize("shape", [(4, 3, 6, 5), (2, 1, 1, 7), (2, 2, 2, 2)])
@pytest.mark.parametrize("size", [1e-30, 1.0, 3e37])
def test_equals_the_naive_computation(shape: tuple[int, ...], size: float) -> None:
    maps = torch.randn(shape) * size
    heat = heatmap(maps)
    for n in range(len(maps)):
        expected = torch.tensor(by_hand(maps[n]))
        torch.testing.assert_close(heat[n], expected, rtol=0, atol=2e-6)


@pytest.mark.parametrize("value", [0.0, -3.0, 1e38])
def test_a_map_without_differences_is_cold(value: float) -> None:
    maps = torch.full((2, 3, 4, 4), value)
    maps[1, :, 2, 2] = 2
    assert heatmap(maps)[0].abs().max() == 0
    assert heatmap(maps)[1].max() == 1


@pytest.mark.usefixtures("own_errors")
def test_bad_maps_are_refused() -> None:
    with pytest.raises(InputError, match="maps: expected shape"):
        heatmap(torch.zeros(4, 4))
    with pytest.raises(InputError, match="maps: expected finite"):
        heatmap(torch.full((1, 1, 4, 4), torch.inf))


def test_the_best_threshold_is_the_first_of_the_best() -> None:
    tried = []

    def measure(threshold: float) -> torch.Tensor:
        tried.append(threshold)
        return torch.tensor([0.3 <= threshold < 0.6, threshold < 0.6])

    assert best_threshold(measure) == pytest.approx(0.3)
    assert tried == pytest.approx([0.05 * step for step in range(1, 20)])
    assert best_threshold(measure, [0.7, 0.5, 0.4]) == 0.5


def test_a_threshold_cannot_be_chosen_from_nothing() -> None:
    with pytest.raises(InputError, match="thresholds: expected at least one"):
        best_threshold(lambda _: torch.ones(3), [])
    with pytest.raises(InputError, match="measure: expected values"):
        best_threshold(lambda _: torch.ones(0))
