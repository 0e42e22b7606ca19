import pytest
import torch

from holdfast.objectives import signed_saliency, unit_saliency


@pytest.mark.parametrize("quantile", [0.0, 0.3, 0.5, 0.99, 1.0])
def test_signed_saliency_equals_the_naive_computation(quantile):
    maps = torch.randn(3, 2, 4, 5)
    ours = signed_saliency(maps, quantile)
    for one, scaled in zip(maps, ours, strict=True):
        sizes = sorted(one.abs().flatten().tolist())
        # The smallest size that at least this share of components does not exceed.
        scale = next(s for n, s in enumerate(sizes, 1) if n >= quantile * len(sizes))
        expected = [max(-1.0, min(1.0, v / scale)) for v in one.flatten().tolist()]
        assert scaled.flatten().tolist() == pytest.approx(expected)


def test_signed_saliency_of_sparse_and_of_zero_maps():
    maps = torch.zeros(2, 1, 10, 10)
    maps[0, 0, 3, 4], maps[0, 0, 3, 5] = 2.0, -1e-3
    scaled = signed_saliency(maps, quantile=0.9)
    assert scaled[0, 0, 3, 4] == 1
    assert scaled[0, 0, 3, 5] == -1
    assert scaled.abs().sum() == 2


def test_signed_saliency_of_tiny_maps():
    maps = torch.randn(1, 1, 4, 4)
    assert torch.allclose(signed_saliency(maps * 1e-30), signed_saliency(maps), atol=1e-6)


def test_unit_saliency_equals_the_naive_computation():
    maps = torch.randn(3, 2, 4, 5)
    for one, scaled in zip(maps, unit_saliency(maps), strict=True):
        sizes = [(abs(a) + abs(b)) / 2 for a, b in one.flatten(1).T.tolist()]
        low, high = min(sizes), max(sizes)
        expected = [(s - low) / (high - low) for s in sizes]
        assert scaled.flatten().tolist() == pytest.approx(expected, abs=1e-6)


def test_unit_saliency_of_constant_maps():
    assert unit_saliency(torch.full((1, 3, 2, 2), -0.7)).abs().sum() == 0
