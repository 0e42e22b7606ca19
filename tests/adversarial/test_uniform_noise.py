import pytest
import torch
from scipy import stats
from torch import nn

from holdfast.adversarial import UniformNoise
from holdfast.contracts import InputError

GREY = torch.full((40, 1, 5, 5), 0.5, dtype=torch.float64)
LABELS = torch.zeros(40, dtype=torch.long)


def noise_of(attack):
    return attack(nn.Flatten(), GREY, LABELS) - GREY


def test_every_pixel_is_uniform_in_the_linf_ball():
    noise = noise_of(UniformNoise(0.2)).flatten()
    assert stats.kstest(noise.numpy(), stats.uniform(-0.2, 0.4).cdf).pvalue > 0.01


def test_uniform_in_the_l2_ball():
    """The share of the ball within r is (r/ε)ᵈ, and every direction is as likely."""
    noise = noise_of(UniformNoise(0.2, norm="l2")).flatten(1)
    share = (noise.norm(dim=1) / 0.2) ** 25
    assert stats.kstest(share.numpy(), "uniform").pvalue > 0.01
    # (1 + cosine with an axis) / 2 of a random direction in d dimensions is Beta((d−1)/2, (d−1)/2).
    cosines = (noise / noise.norm(dim=1, keepdim=True))[:, 0]
    assert stats.kstest(((1 + cosines) / 2).numpy(), stats.beta(12, 12).cdf).pvalue > 0.01


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_seeded_noise_is_the_image_s_own(norm):
    images, labels = torch.rand(5, 2, 4, 4), torch.arange(5)
    attack = UniformNoise(0.1, norm, seed=3)
    before = torch.get_rng_state()
    together = attack(nn.Flatten(), images, labels)
    assert torch.equal(torch.get_rng_state(), before)
    order = torch.tensor([3, 0, 4, 1, 2])
    assert torch.equal(attack(nn.Flatten(), images[order], labels), together[order])
    assert torch.equal(attack(nn.Flatten(), images[2:3], labels[2:3]), together[2:3])
    assert not torch.equal(UniformNoise(0.1, norm, seed=4)(nn.Flatten(), images, labels), together)


def test_unseeded_noise_differs():
    assert not torch.equal(noise_of(UniformNoise(0.1)), noise_of(UniformNoise(0.1)))


def test_refuses_settings(own_errors):
    with pytest.raises(InputError, match="eps"):
        UniformNoise(-0.1)
    with pytest.raises(InputError, match="norm"):
        UniformNoise(0.1, norm="l1")
