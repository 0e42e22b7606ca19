import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import optimize

from holdfast.adversarial import L2Ball, LinfBall, ball
from holdfast.contracts import InputError, generators


@settings(deadline=None, max_examples=40)
@given(
    norm=st.sampled_from(["linf", "l2"]),
    eps=st.floats(0, 2),
    seed=st.integers(0, 1000),
    shape=st.sampled_from([(1, 1, 1, 1), (3, 1, 4, 4), (2, 3, 5, 2)]),
)
def test_start_and_projection_stay_inside(norm, eps, seed, shape):
    torch.manual_seed(seed)
    images, far = torch.rand(shape), torch.randn(shape) * 3
    around = ball(norm, eps)
    for x in (around.start(images), around.project(far, images)):
        delta = (x - images).flatten(1)
        length = delta.abs().amax(1) if norm == "linf" else delta.norm(dim=1)
        assert (length <= eps + 1e-5).all()
        assert ((x >= 0) & (x <= 1)).all()


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_projection_leaves_the_inside_alone(norm):
    images = torch.full((2, 1, 3, 3), 0.5)
    inside = images + 0.01
    assert torch.allclose(ball(norm, 0.2).project(inside, images), inside)


def test_linf_projection_is_the_nearest_point():
    images, far = torch.rand(1, 1, 2, 2).double(), torch.randn(1, 1, 2, 2).double()
    bounds = [(max(0, v - 0.1), min(1, v + 0.1)) for v in images.flatten().tolist()]
    nearest = optimize.minimize(
        lambda z: ((z - far.flatten().numpy()) ** 2).sum(),
        images.flatten().numpy(),
        bounds=bounds,
    ).x
    assert torch.allclose(
        LinfBall(0.1).project(far, images).flatten(), torch.from_numpy(nearest), atol=1e-6
    )


def test_steps():
    gradient = torch.tensor([3.0, -4.0, 0.0, float("nan"), float("inf")]).view(1, 1, 1, 5)
    assert LinfBall(1.0).step(gradient, 0.5).flatten().tolist() == [0.5, -0.5, 0.0, 0.0, 0.0]
    along = L2Ball(1.0).step(gradient, 0.5).flatten()
    assert torch.allclose(along, torch.tensor([0.3, -0.4, 0.0, 0.0, 0.0]))
    assert L2Ball(1.0).step(torch.zeros(1, 1, 2, 2), 0.5).abs().sum() == 0


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_start_of_an_image_depends_on_its_own_generator(norm):
    images = torch.rand(4, 1, 6, 6)
    around = ball(norm, 0.3)
    together = around.start(images, generators(images, 0))
    alone = around.start(images[2:3], generators(images[2:3], 0))
    assert torch.equal(together[2:3], alone)


def test_linf_start_fills_the_ball():
    images = torch.full((1, 1, 100, 100), 0.5)
    noise = LinfBall(0.2).start(images) - images
    assert noise.mean().abs() < 0.01
    assert noise.abs().mean().item() == pytest.approx(0.1, abs=0.005)


def test_l2_start_fills_the_ball():
    images = torch.full((4000, 1, 1, 2), 0.5)
    radius = (L2Ball(0.2).start(images) - images).flatten(1).norm(dim=1) / 0.2
    # In two dimensions, half of a uniform disc lies within a radius of sqrt(1/2).
    assert (radius < 0.5**0.5).float().mean().item() == pytest.approx(0.5, abs=0.03)


@pytest.mark.parametrize(("norm", "eps"), [("l1", 0.1), ("linf", -0.1), ("l2", float("nan"))])
def test_refuses(norm, eps, own_errors):
    with pytest.raises(InputError):
        ball(norm, eps)
