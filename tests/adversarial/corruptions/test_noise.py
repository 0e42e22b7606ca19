import numpy as np
import pytest
import torch
from scipy import stats

from holdfast.adversarial.corruptions.draws import Draws
from holdfast.adversarial.corruptions.noise import (
    gaussian_noise,
    impulse_noise,
    shot_noise,
    speckle_noise,
)


@pytest.mark.parametrize(
    ("side", "severity", "deviation"),
    [(32, 1, 0.04), (32, 5, 0.10), (64, 3, 0.12), (224, 2, 0.12), (224, 5, 0.38)],
)
@pytest.mark.parametrize("seed", [None, 0])
def test_gaussian_noise_is_normal(side, severity, deviation, seed):
    torch.manual_seed(0)
    images = torch.rand(2, 3, side, side, dtype=torch.float64)
    noise = (gaussian_noise(images, severity, Draws(images, seed)) - images).flatten()
    assert stats.kstest(noise.numpy(), stats.norm(0, deviation).cdf).pvalue > 0.001


@pytest.mark.parametrize(
    ("side", "severity", "photons"), [(32, 1, 500), (32, 5, 50), (64, 4, 30), (224, 5, 3)]
)
@pytest.mark.parametrize("seed", [None, 0])
def test_shot_noise_counts_photons(side, severity, photons, seed):
    torch.manual_seed(0)
    images = torch.full((1, 3, side, side), 0.7, dtype=torch.float64)
    counts = photons * shot_noise(images, severity, Draws(images, seed)).flatten().numpy()
    assert np.allclose(counts, counts.round())
    expected = stats.poisson(0.7 * photons)
    edges = np.unique(expected.ppf(np.linspace(0.05, 0.95, 8)))
    seen = np.histogram(counts.round(), [-np.inf, *(edges + 0.5), np.inf])[0]
    share = np.diff([0, *expected.cdf(edges), 1])
    assert stats.chisquare(seen, share * len(counts)).pvalue > 0.001


@pytest.mark.parametrize(
    ("side", "severity", "share"), [(32, 1, 0.01), (32, 5, 0.07), (64, 4, 0.08), (224, 5, 0.27)]
)
def test_impulse_noise_is_salt_and_pepper(side, severity, share):
    images = torch.full((1, 3, side, side), 0.5)
    noisy = impulse_noise(images, severity, Draws(images, 0)).flatten()
    for value in (0, 1):
        count = int((noisy == value).sum())
        assert stats.binomtest(count, len(noisy), share / 2).pvalue > 0.001
    assert ((noisy == 0) | (noisy == 1) | (noisy == 0.5)).all()
    channels = impulse_noise(images, severity, Draws(images, 1))
    assert not torch.equal(channels[:, 0], channels[:, 1])  # a channel is hit alone


def test_what_an_impulse_has_hit_stays_hit():
    images = 0.1 + 0.8 * torch.rand(1, 3, 64, 64)
    less, more = (impulse_noise(images, severity, Draws(images, 0)) for severity in (2, 4))
    hit = less != images
    assert torch.equal(less[hit], more[hit])


@pytest.mark.parametrize(
    ("shape", "deviations"),
    [
        ((32, 40), (0.06, 0.1, 0.12, 0.16, 0.2)),
        ((70, 64), (0.15, 0.2, 0.25, 0.3, 0.35)),
        ((120, 200), (0.15, 0.2, 0.35, 0.45, 0.6)),
    ],
)
def test_speckle_noise_is_in_proportion_to_the_value(shape, deviations):
    torch.manual_seed(0)
    images = 0.1 + 0.9 * torch.rand(1, 3, *shape, dtype=torch.float64)
    for severity, deviation in enumerate(deviations, start=1):
        noise = (speckle_noise(images, severity, Draws(images, 0)) - images) / images
        normal = stats.norm(0, deviation)
        assert stats.kstest(noise.flatten().numpy(), normal.cdf).pvalue > 0.001
        assert noise.std().item() == pytest.approx(deviation, rel=0.03)
