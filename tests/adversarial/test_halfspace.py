import numpy as np
import pytest
import torch
from scipy import optimize

from holdfast.adversarial import nearest_in_halfspace


def solve(x, a, descent):
    """The same problem, by a general solver."""
    return optimize.minimize(
        lambda z: ((z - x) ** 2).sum(),
        np.clip(x - 0.1 * a, 0, 1),
        jac=lambda z: 2 * (z - x),
        bounds=[(0, 1)] * len(x),
        constraints={"type": "ineq", "fun": lambda z: a @ (x - z) - descent, "jac": lambda _: -a},
        method="SLSQP",
        options={"ftol": 1e-14, "maxiter": 500},
    ).x


@pytest.mark.parametrize("share", [0.05, 0.4, 0.8, 0.97])
def test_equals_a_general_solver(share):
    images, normals = torch.rand(6, 1, 3, 4).double(), torch.randn(6, 1, 3, 4).double()
    normals[0, 0, 0, :2] = 0
    furthest = torch.where(normals > 0, images, images - 1)
    most = (normals * furthest).flatten(1).sum(1)
    nearest = nearest_in_halfspace(images, normals, share * most)
    for n in range(6):
        x, a = images[n].flatten().numpy(), normals[n].flatten().numpy()
        expected = solve(x, a, share * float(most[n]))
        assert nearest[n].flatten().numpy() == pytest.approx(expected, abs=1e-6)


def test_falls_as_far_as_it_can_where_that_is_not_enough():
    images, normals = torch.rand(3, 2, 2, 2).double(), torch.randn(3, 2, 2, 2).double()
    nearest = nearest_in_halfspace(images, normals, torch.full((3,), 100.0).double())
    assert torch.allclose(nearest, (normals < 0).double())


def test_stays_where_it_has_fallen_already():
    images, normals = torch.rand(2, 1, 2, 2), torch.randn(2, 1, 2, 2)
    assert torch.equal(nearest_in_halfspace(images, normals, torch.tensor([0.0, -3.0])), images)


def test_a_flat_function_moves_nothing():
    images = torch.rand(2, 1, 2, 2)
    nearest = nearest_in_halfspace(images, torch.zeros_like(images), torch.tensor([0.0, 1.0]))
    assert torch.equal(nearest, images)


def test_pixels_at_their_limit_stay_there():
    images, normals = torch.tensor([0.0, 1.0, 0.5]), torch.tensor([5.0, -5.0, 1.0])
    nearest = nearest_in_halfspace(
        images.view(1, 1, 1, 3), normals.view(1, 1, 1, 3), torch.tensor([0.2])
    )
    assert torch.allclose(nearest.flatten(), torch.tensor([0.0, 1.0, 0.3]))
