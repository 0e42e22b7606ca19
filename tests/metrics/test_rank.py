import os
import subprocess
import sys
import threading
from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from scipy import stats
from torch import Tensor

from holdfast.contracts import InputError
from holdfast.metrics import kendall_tau, rank, spearman_rho

Correlation = Callable[[Tensor, Tensor], Tensor]

# The second is what devices other than the CPU use; it runs on any.
KENDALLS = [kendall_tau, rank._kendall_by_merging]


def by_scipy(measure: Callable[..., object], first: Tensor, second: Tensor) -> Tensor:
    pairs = zip(first.double().numpy(), second.double().numpy(), strict=True)
    return torch.tensor([measure(*pair).statistic for pair in pairs], dtype=torch.float64)  # type: ignore[attr-defined]


def by_definition(first: Tensor, second: Tensor) -> float:
    """τ-b over all pairs, in whole numbers."""
    a, b = first.tolist(), second.tolist()
    balance = untied_a = untied_b = 0
    for i in range(len(a)):
        for j in range(i):
            one, other = (a[i] > a[j]) - (a[i] < a[j]), (b[i] > b[j]) - (b[i] < b[j])
            balance += one * other
            untied_a += one != 0
            untied_b += other != 0
    if untied_a and untied_b:
        return balance / (untied_a * untied_b) ** 0.5
    return float(untied_a == untied_b)


def maps(kind: str, pixels: int) -> tuple[Tensor, Tensor]:
    first, noise = torch.randn(2, 7, pixels)
    match kind:
        case "no ties":
            first = torch.stack([torch.randperm(pixels) for _ in range(7)]).float()
            return first, torch.stack([torch.randperm(pixels) for _ in range(7)]).float()
        case "heavy ties":
            return first.round(), (first + noise).round()
        case "two values":
            return (first > 0).float(), (noise > 0).float()
        case "alike":
            return first, first + 0.01 * noise
        case "opposed":
            return first, noise - 3 * first
        case "float64":
            # Differences that float32 cannot hold.
            return 1 + first.double() * 1e-12, 1 + (first + noise).double() * 1e-12
        case "float16":
            return first.half(), noise.half()
    raise AssertionError(kind)


KINDS = ["no ties", "heavy ties", "two values", "alike", "opposed", "float64", "float16"]


@pytest.mark.parametrize("kendall", KENDALLS)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("pixels", [7, 8, 9, 64, 100, 784])
def test_kendall_equals_scipy(kendall: Correlation, kind: str, pixels: int) -> None:
    first, second = maps(kind, pixels)
    expected = by_scipy(stats.kendalltau, first, second)
    torch.testing.assert_close(kendall(first, second), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("pixels", [7, 100, 784])
def test_spearman_equals_scipy(kind: str, pixels: int) -> None:
    first, second = maps(kind, pixels)
    expected = by_scipy(stats.spearmanr, first, second)
    torch.testing.assert_close(spearman_rho(first, second), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("kendall", KENDALLS)
def test_kendall_counts_the_pairs_of_a_large_map(kendall: Correlation) -> None:
    # 224² pixels have more pairs than 32 bits hold.
    pixels = 224 * 224
    ascending = torch.arange(pixels).float()[None]
    first, second = torch.cat([ascending] * 3), torch.cat([ascending, -ascending, ascending])
    second[2, [0, -1]] = second[2, [-1, 0]]  # swaps 2 P − 3 pairs

    share = (2 * pixels - 3) / (pixels * (pixels - 1) / 2)

    expected = torch.tensor([1.0, -1.0, 1 - 2 * share], dtype=torch.float64)
    torch.testing.assert_close(kendall(first, second), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("correlation", [*KENDALLS, spearman_rho])
def test_identical_and_reversed_maps_give_exactly_one(correlation: Correlation) -> None:
    first = torch.randn(50, 37).round(decimals=1)
    assert (correlation(first, first) == 1).all()
    assert (correlation(first, -first) == -1).all()


@pytest.mark.parametrize("correlation", [*KENDALLS, spearman_rho])
@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        ([3.0], [5.0], 1.0),  # one pixel: both constant
        ([1.0, 2.0], [5.0, 7.0], 1.0),
        ([1.0, 2.0], [7.0, 5.0], -1.0),
        ([1.0, 1.0], [7.0, 5.0], 0.0),
        ([1.0, 2.0, 3.0], [4.0, 4.0, 4.0], 0.0),
        ([1.0, 1.0, 1.0], [4.0, 4.0, 4.0], 1.0),
        ([0.0, -0.0, 1.0], [2.0, 2.0, 3.0], 1.0),  # −0 ties with 0
        ([-1e-45, 0.0, 1e-45], [-3e38, 0.0, 3e38], 1.0),
    ],
)
def test_small_and_constant_maps(
    correlation: Correlation, first: list[float], second: list[float], expected: float
) -> None:
    for dtype in (torch.float32, torch.float64):
        one, other = torch.tensor([first], dtype=dtype), torch.tensor([second], dtype=dtype)
        assert correlation(one, other).tolist() == [expected]
        assert correlation(other, one).tolist() == [expected]


@pytest.mark.parametrize("correlation", [kendall_tau, spearman_rho])
def test_no_images_give_no_values(correlation: Correlation) -> None:
    value = correlation(torch.zeros(0, 4), torch.zeros(0, 4))
    assert value.shape == (0,)
    assert value.dtype == torch.float64


@pytest.mark.parametrize("correlation", [kendall_tau, spearman_rho])
def test_views_and_tracked_tensors_are_read_and_left_alone(correlation: Correlation) -> None:
    wide = torch.randn(6, 40, requires_grad=True)
    before = wide.detach().clone()
    first, second = wide.t()[::2], wide.t()[1::2]

    value = correlation(first, second)

    expected = correlation(first.detach().contiguous(), second.detach().contiguous())
    assert torch.equal(value, expected)
    assert not value.requires_grad
    assert torch.equal(wide.detach(), before)


few_values = array_shapes(min_dims=2, max_dims=2, max_side=24).flatmap(
    lambda shape: arrays(np.float32, (2, *shape), elements=st.integers(-3, 3).map(float))
)


@settings(max_examples=60, deadline=None)
@given(few_values)
def test_kendall_equals_its_definition(pair: np.ndarray) -> None:
    first, second = torch.from_numpy(pair)
    expected = [by_definition(*row) for row in zip(first, second, strict=True)]
    for kendall in KENDALLS:
        assert kendall(first, second).tolist() == pytest.approx(expected, rel=0, abs=1e-12)


@settings(max_examples=60, deadline=None)
@given(few_values)
def test_correlations_are_symmetric_bounded_and_see_only_the_order(pair: np.ndarray) -> None:
    first, second = torch.from_numpy(pair)
    for correlation in (kendall_tau, spearman_rho):
        value = correlation(first, second)
        assert torch.equal(value, correlation(second, first))
        assert torch.equal(value, correlation(first.exp(), second * 5 + 1))
        constant = (first.amin(1) == first.amax(1)) | (second.amin(1) == second.amax(1))
        assert torch.equal(torch.where(constant, value, -value), correlation(first, -second))
        assert (value.abs() <= 1).all()


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_any_number_of_threads_gives_the_same(threads: int) -> None:
    first, second = torch.randn(2, 101, 784)
    expected = rank._kendall_by_merging(first, second)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        torch.testing.assert_close(kendall_tau(first, second), expected, rtol=0, atol=1e-15)
    finally:
        torch.set_num_threads(before)


def test_kendall_may_be_called_from_several_threads() -> None:
    first, second = torch.randn(2, 101, 784)
    expected = kendall_tau(first, second)
    same: list[bool] = []
    callers = [
        threading.Thread(
            target=lambda: same.append(torch.equal(kendall_tau(first, second), expected))
        )
        for _ in range(4)
    ]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    assert same == [True] * 4


@pytest.mark.parametrize("correlation", [kendall_tau, spearman_rho])
@pytest.mark.usefixtures("own_errors")
def test_bad_scores_are_refused(correlation: Correlation) -> None:
    good = torch.zeros(2, 4)
    with pytest.raises(InputError, match="second: expected shape"):
        correlation(good, torch.zeros(2, 5))
    with pytest.raises(InputError, match="first: expected finite"):
        correlation(torch.tensor([[0.0, torch.nan]]), torch.zeros(1, 2))
    with pytest.raises(InputError, match="second: expected finite"):
        correlation(torch.zeros(1, 2), torch.tensor([[0.0, -torch.inf]]))


def test_numba_is_imported_only_by_kendall(imported: frozenset[str]) -> None:
    assert "holdfast.metrics" in imported
    assert "numba" not in imported
    kendall_tau(torch.rand(1, 9), torch.rand(1, 9))
    assert "numba" in sys.modules


@pytest.mark.harness
def test_kendall_works_where_no_compiled_code_can_be_kept() -> None:
    program = (
        "import numba.core.caching as caching\n"
        "caching.CacheImpl._locator_classes = []\n"
        "import torch, holdfast.metrics as metrics\n"
        "maps = torch.tensor([[1.0, 2.0, 3.0]])\n"
        "assert metrics.kendall_tau(maps, -maps).item() == -1\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True, env={**os.environ})
