import pytest
import torch

from holdfast.contracts import InputError
from holdfast.metrics import top_k_intersection


def by_sorting(first: torch.Tensor, second: torch.Tensor, k: int) -> list[float]:
    shares = []
    for one, other in zip(first.tolist(), second.tolist(), strict=True):
        tops = [sorted(range(len(row)), key=lambda i: (-row[i], i))[:k] for row in (one, other)]
        shares.append(len(set(tops[0]) & set(tops[1])) / k)
    return shares


@pytest.mark.parametrize("k", [1, 2, 7, 99, 100])
@pytest.mark.parametrize("levels", [1, 2, 5, 10_000])
def test_top_k_equals_sorting_with_the_first_of_ties_taken(k: int, levels: int) -> None:
    first = torch.randint(levels, (20, 100)).float()
    second = torch.randint(levels, (20, 100)).float()
    assert top_k_intersection(first, second, k).tolist() == by_sorting(first, second, k)


def test_constant_maps_share_their_first_pixels() -> None:
    assert top_k_intersection(torch.zeros(1, 9), torch.ones(1, 9), k=3).tolist() == [1.0]


def test_disjoint_tops_share_nothing() -> None:
    ascending = torch.arange(10.0)[None]
    assert top_k_intersection(ascending, -ascending, k=5).tolist() == [0.0]
    assert top_k_intersection(ascending, -ascending, k=6).tolist() == [2 / 6]


@pytest.mark.parametrize("k", [-1, 0, 5])
def test_k_outside_the_map_is_refused(k: int) -> None:
    with pytest.raises(InputError, match=f"k: expected 1 to 4, the pixels of a map, got {k}"):
        top_k_intersection(torch.zeros(2, 4), torch.zeros(2, 4), k)


@pytest.mark.usefixtures("own_errors")
def test_bad_scores_are_refused() -> None:
    with pytest.raises(InputError, match="second: expected shape"):
        top_k_intersection(torch.zeros(2, 4), torch.zeros(3, 4), 1)
    with pytest.raises(InputError, match="first: expected finite"):
        top_k_intersection(torch.full((2, 4), torch.nan), torch.zeros(2, 4), 1)
