import numpy as np
import pytest
import torch
from scipy.optimize import minimize
from torch import nn

from holdfast.adversarial import BoundarySearch, CarliniWagner, accuracy
from holdfast.contracts import InputError


def test_as_near_as_the_closed_form_on_a_linear_model(linear, greys, thresholds):
    labels = linear(greys).argmax(1)
    attacked = CarliniWagner()(linear, greys, labels)
    assert (linear(attacked).argmax(1) != labels).all()
    distances = (attacked - greys).flatten(1).norm(dim=1)
    best = thresholds(linear, greys, labels, "l2")
    assert (distances >= best).all()
    assert (distances <= 1.02 * best + 1e-4).all()


def test_moves_pixels_that_begin_at_their_limits():
    """Black and white pixels alone, against scipy's solution of the quadratic program."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(12, 2)).double()
    images = torch.randint(0, 2, (5, 1, 3, 4)).double()
    labels = model(images).argmax(1)
    attack = CarliniWagner(searches=4, steps=100, step_size=0.1, weight=10.0)
    attacked = attack(model, images, labels)
    for image, label, found in zip(images, labels.tolist(), attacked, strict=True):
        x = image.flatten().numpy()
        slope = (model[1].weight[label] - model[1].weight[1 - label]).detach().numpy()
        rest = float((model[1].bias[label] - model[1].bias[1 - label]).detach())
        solved = minimize(
            lambda z, x=x: np.square(z - x).sum(),
            np.full(12, 0.5),
            jac=lambda z, x=x: 2 * (z - x),
            bounds=[(0, 1)] * 12,
            constraints={"type": "ineq", "fun": lambda z, a=slope, b=rest: -(a @ z + b)},
        )
        assert solved.success
        assert float((found - image).norm()) == pytest.approx(np.sqrt(solved.fun), rel=0.02)


@pytest.mark.harness
def test_near_the_best_that_is_known_on_digits(digits):
    model, images, labels = digits
    attacked = CarliniWagner()(model, images, labels)
    assert accuracy(model, attacked, labels) == 0
    distances = (attacked - images).flatten(1).norm(dim=1)
    best = BoundarySearch()(model, images, labels).distances
    assert distances.mean() < 1.1 * best.mean()


def test_confidence_is_the_margin_of_the_other_class(linear, greys):
    labels = linear(greys).argmax(1)
    logits = linear(CarliniWagner(confidence=0.2)(linear, greys, labels)).detach()
    own = logits.gather(1, labels[:, None])[:, 0]
    assert (logits.amax(1) - own > 0.2).all()
    assert (logits.amax(1) - own < 0.25).all()


def test_does_not_depend_on_the_batch(smooth_model):
    images = torch.rand(5, 2, 5, 5).double()
    labels = smooth_model(images).argmax(1)
    labels[1] = (labels[1] + 1) % 4  # already wrong
    attack = CarliniWagner(searches=3, steps=50)
    together = attack(smooth_model, images, labels)
    assert torch.equal(together[1], images[1])
    order = torch.tensor([4, 2, 0, 1, 3])
    assert torch.allclose(attack(smooth_model, images[order], labels[order]), together[order])
    small = CarliniWagner(searches=3, steps=50, chunk=2)
    assert torch.allclose(small(smooth_model, images, labels), together)


def test_a_model_that_cannot_be_moved_leaves_the_image():
    class Constant(nn.Module):
        def forward(self, x):
            return x.flatten(1)[:, :2] * 0 + torch.tensor([1.0, 0.0])

    images = torch.rand(2, 1, 3, 3)
    assert torch.equal(CarliniWagner()(Constant(), images, torch.tensor([0, 0])), images)


@pytest.mark.parametrize(
    "settings",
    [{"confidence": -1.0}, {"searches": 0}, {"steps": 0}, {"step_size": 0.0}, {"weight": 0.0}],
)
def test_refuses_settings(settings, own_errors):
    with pytest.raises(InputError, match=rf"CarliniWagner\.{next(iter(settings))}"):
        CarliniWagner(**settings)
