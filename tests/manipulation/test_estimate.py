import pytest
import torch

from holdfast.adversarial import BoundarySearch
from holdfast.attributions import (
    BoundaryIntegratedGradients,
    Gradient,
    GradientSHAP,
    IntegratedGradients,
    SmoothGrad,
)
from holdfast.contracts import same_draws
from holdfast.manipulation.estimate import differentiable, path_length


@pytest.fixture
def images():
    return torch.rand(3, 2, 5, 5, dtype=torch.float64)


@pytest.fixture
def labels(smooth_model, images):
    return smooth_model(images).argmax(1)


@pytest.mark.parametrize(
    "attribution",
    [IntegratedGradients(steps=7, rule="midpoint", baseline=0.3), Gradient()],
    ids=lambda a: type(a).__name__,
)
def test_without_samples_it_is_the_map_itself(attribution, smooth_model, images, labels):
    estimate = differentiable(attribution, smooth_model, images, labels)
    found = estimate(images.clone().requires_grad_(True), 0)
    assert torch.allclose(found, attribution(smooth_model, images, labels))
    assert found.requires_grad


@pytest.mark.parametrize("baseline", [0.0, 0.7])
def test_samples_of_a_path_average_to_the_map(baseline, smooth_model, images, labels):
    """Stratified points are unbiased: the mean over many steps nears the integral."""
    whole = IntegratedGradients(
        steps=2000, rule="midpoint", baseline=baseline, output="probability"
    )
    exact = whole(smooth_model, images, labels)
    estimate = differentiable(whole, smooth_model, images, labels, samples=2, steps=400)
    drawn = torch.stack([estimate(images, step) for step in range(400)])
    error = drawn.std(0) / 400**0.5
    assert ((drawn.mean(0) - exact).abs() <= 5 * error + 1e-9).all()
    assert (drawn.std(0) > 0).any()


def test_each_sample_lies_in_its_own_piece(images, labels):
    """With a model whose gradient is the input, the estimate tells where the points were."""

    class Square(torch.nn.Module):
        def forward(self, x):
            total = x.flatten(1).square().sum(1, keepdim=True) / 2
            return torch.cat([total, total - 1], 1)

    one = torch.ones(1, 1, 1, 1, dtype=torch.float64)
    method = IntegratedGradients(steps=100)
    estimate = differentiable(method, Square(), one, torch.tensor([0]), samples=4, steps=50)
    means = torch.stack([estimate(one, step) for step in range(50)]).flatten()
    # The mean of one point in each quarter is within an eighth of a half.
    assert ((means - 0.5).abs() <= 0.125).all()
    assert means.std() > 0.01


def test_draws_depend_on_the_image_alone(smooth_model, images, labels):
    method = IntegratedGradients(steps=50)
    together = differentiable(method, smooth_model, images, labels, samples=3, steps=2)
    alone = differentiable(method, smooth_model, images[1:2], labels[1:2], samples=3, steps=2)
    for step in range(2):
        assert torch.allclose(alone(images[1:2], step), together(images, step)[1:2])
    assert not torch.allclose(together(images, 0), together(images, 1))
    other = differentiable(method, smooth_model, images, labels, samples=3, steps=2, seed=1)
    assert not torch.allclose(together(images, 0), other(images, 0))


def test_boundary_point_is_that_of_the_original_image(smooth_model, images, labels):
    big = BoundaryIntegratedGradients(steps=5)
    estimate = differentiable(big, smooth_model, images, labels)
    assert torch.allclose(estimate(images, 0), big(smooth_model, images, labels))

    moved = (images + 0.05).clamp(0, 1)
    boundary = BoundarySearch()(smooth_model, images)
    baselines = torch.where(boundary.found[:, None, None, None], boundary.points, 0)
    fixed = IntegratedGradients(steps=5, rule="trapezoid", baseline=baselines)
    assert torch.allclose(estimate(moved, 0), fixed(smooth_model, moved, labels))


@pytest.mark.parametrize("method", [SmoothGrad, GradientSHAP])
def test_fewer_draws_of_sampled_methods(method, smooth_model, images, labels):
    estimate = differentiable(method(samples=40), smooth_model, images, labels, samples=3)
    for step in (0, 1):  # drawn anew in each
        few = method(samples=3, seed=1 + step)
        assert torch.allclose(estimate(images, step), few(smooth_model, images, labels))
    # Anew around the image that is attacked, too: with the draws of the original.
    moved = (images + 0.01).clamp(0, 1)
    with same_draws(images, moved):
        expected = method(samples=3, seed=1)(smooth_model, moved, labels)
    assert torch.allclose(estimate(moved, 0), expected)


def test_path_length():
    assert path_length(Gradient()) == 1
    assert path_length(IntegratedGradients(steps=30)) == 30
    assert path_length(SmoothGrad(samples=12)) == 12
