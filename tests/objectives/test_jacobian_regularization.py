import pytest
import torch
from torch import nn

from holdfast.contracts import InputError
from holdfast.objectives import JacobianRegularization


def test_equals_the_naive_computation(smooth_model, images, labels, same_gradients):
    ours = JacobianRegularization(weight=0.7)(smooth_model, {"images": images, "labels": labels})
    losses, squares = [], []
    for image, label in zip(images, labels, strict=True):
        x = image.clone().requires_grad_(True)
        loss = -smooth_model(x[None]).log_softmax(1)[0, label]
        (gradient,) = torch.autograd.grad(loss, x, create_graph=True)
        losses.append(loss)
        squares.append(sum(g * g for g in gradient.flatten()))
    cross_entropy, jacobian = sum(losses) / 3, sum(squares) / 3
    assert ours["cross_entropy"].item() == pytest.approx(cross_entropy.item(), rel=1e-10)
    assert ours["jacobian"].item() == pytest.approx(jacobian.item(), rel=1e-10)
    assert ours["loss"].item() == pytest.approx((cross_entropy + 0.7 * jacobian).item(), rel=1e-10)
    same_gradients(smooth_model, ours["loss"], cross_entropy + 0.7 * jacobian)


def test_closed_form_of_a_linear_model(labels):
    """∇ℓ = Wᵀ(p − e_y)."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(6, 4)).double()
    images = torch.rand(3, 1, 2, 3).double()
    residual = model(images).softmax(1) - nn.functional.one_hot(labels, 4)
    expected = (residual @ model[1].weight).square().sum(1).mean()
    terms = JacobianRegularization()(model, {"images": images, "labels": labels})
    assert terms["jacobian"].item() == pytest.approx(expected.item())


def test_descending_it_flattens_the_loss(smooth_model, images, labels):
    batch = {"images": images, "labels": labels}
    before = JacobianRegularization()(smooth_model, batch)["jacobian"]
    weights = list(smooth_model.parameters())
    for weight, g in zip(weights, torch.autograd.grad(before, weights), strict=True):
        weight.data -= 0.1 * g
    assert JacobianRegularization()(smooth_model, batch)["jacobian"] < before


def test_works_under_no_grad(smooth_model, images, labels):
    batch = {"images": images, "labels": labels}
    expected = JacobianRegularization()(smooth_model, batch)["loss"]
    with torch.no_grad():
        assert JacobianRegularization()(smooth_model, batch)["loss"].item() == expected.item()


def test_refuses_a_negative_weight(own_errors):
    with pytest.raises(InputError, match=r"JacobianRegularization.weight"):
        JacobianRegularization(weight=-1.0)
