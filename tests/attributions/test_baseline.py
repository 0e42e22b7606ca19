import pytest
import torch

from holdfast.attributions import DeepLIFT, GradientSHAP, IntegratedGradients, expand_baseline
from holdfast.contracts import InputError

IMAGES = torch.rand(3, 2, 4, 4)


@pytest.mark.parametrize("shape", [(2, 4, 4), (1, 2, 4, 4), (3, 2, 4, 4)])
def test_an_image_is_given_to_each(shape):
    baseline = torch.rand(shape, dtype=torch.float64)
    expanded = expand_baseline(baseline, IMAGES)
    assert expanded.shape == IMAGES.shape
    assert expanded.dtype == IMAGES.dtype
    for n in range(3):
        one = baseline if baseline.ndim == 3 else baseline[n % len(baseline)]
        assert torch.equal(expanded[n], one.float())


@pytest.mark.parametrize("shape", [(1, 4, 4), (2, 2, 4, 4), (2, 5, 4)])
def test_refuses_an_image_that_does_not_fit(shape, own_errors):
    with pytest.raises(InputError, match="baseline: expected one image of shape"):
        expand_baseline(torch.zeros(shape), IMAGES)


@pytest.mark.parametrize(
    "make",
    [
        lambda value: IntegratedGradients(baseline=value),
        lambda value: DeepLIFT(baseline=value),
        lambda value: GradientSHAP(baselines=value[None]),
    ],
)
def test_methods_with_images_compare_and_hash(make):
    black, same, white = make(torch.zeros(1, 2, 2)), make(torch.zeros(1, 2, 2)), make(IMAGES[0])
    assert black == same
    assert hash(black) == hash(same)
    assert black != white
    assert black != type(black)()
    assert black != "black"
