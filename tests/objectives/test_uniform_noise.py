import pytest
import torch
from scipy.stats import kstest
from torch import nn

from holdfast.contracts import InputError
from holdfast.objectives import UniformNoise
from holdfast.objectives.uniform_noise import random_signs


class Spy(nn.Module):
    """Keeps the images that it classifies."""

    def forward(self, x):
        self.seen = x
        return x.flatten(1)[:, :2]


def test_every_component_moves_by_eps_and_is_clipped():
    images = torch.rand(20, 3, 16, 16)
    model, labels = Spy(), torch.zeros(20).long()
    loss = UniformNoise(eps=0.1)(model, {"images": images, "labels": labels})["loss"]
    up, down = (images + 0.1).clamp(max=1), (images - 0.1).clamp(min=0)
    went_up, went_down = (model.seen == up), (model.seen == down)
    assert (went_up | went_down).all()
    # Each as likely: 15,360 coins fall within five standard deviations, 310.
    assert abs(int(went_up.sum()) - 7680) < 310
    expected = -model.seen.flatten(1)[:, :2].log_softmax(1)[:, 0].mean()
    assert loss.item() == pytest.approx(expected.item())


def test_uniform_noise_fills_the_ball():
    images = torch.full((20, 3, 16, 12), 0.5)
    model, labels = Spy(), torch.zeros(20).long()
    UniformNoise(eps=0.1, draw="uniform")(model, {"images": images, "labels": labels})
    z = ((model.seen - images) / 0.1).flatten()
    assert z.abs().max() <= 1 + 1e-5
    assert kstest(z.double().numpy(), "uniform", (-1, 2)).pvalue > 1e-4


def test_signs_are_independent_between_images_channels_and_calls():
    images = torch.zeros(2, 2, 32, 32)
    first, second = random_signs(images), random_signs(images)
    rows = torch.cat([first.flatten(0, 1), second.flatten(0, 1)]).flatten(1)
    correlation = (rows @ rows.T / 1024).fill_diagonal_(0)
    assert correlation.abs().max() < 5 / 32


def test_no_noise_is_natural_training(smooth_model, images, labels):
    loss = UniformNoise(eps=0.0)(smooth_model, {"images": images, "labels": labels})["loss"]
    expected = -smooth_model(images).log_softmax(1)[torch.arange(3), labels].mean()
    assert loss.item() == pytest.approx(expected.item())


def test_refuses_a_negative_radius(own_errors):
    with pytest.raises(InputError, match=r"UniformNoise.eps"):
        UniformNoise(eps=-0.1)


def test_refuses_another_draw(own_errors):
    with pytest.raises(InputError, match="UniformNoise.draw: expected 'corners' or 'uniform'"):
        UniformNoise(draw="normal")
