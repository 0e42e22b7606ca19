import torch

from holdfast.attributions import Gradient
from holdfast.manipulation import RandomSearch, RandomSign
from holdfast.manipulation.random_search import _square


def test_more_queries_never_do_worse(relu_model):
    images = torch.rand(6, 2, 5, 5, dtype=torch.float64)
    labels = relu_model(images).argmax(1)
    few, many = (RandomSearch(Gradient(), 0.1, n)(relu_model, images, labels) for n in (1, 60))
    # The squares of a longer search are others, so this holds on average only.
    assert many.similarity.mean() < few.similarity.mean()


def test_perturbs_by_eps_or_not_at_all(relu_model):
    images = 0.3 + 0.4 * torch.rand(3, 2, 5, 5, dtype=torch.float64)
    labels = relu_model(images).argmax(1)
    for attack in (RandomSearch(Gradient(), 0.01, 20), RandomSign(Gradient(), 0.01, 5)):
        outcome = attack(relu_model, images, labels)
        moved = (outcome.images - images).abs()
        assert torch.allclose(moved[outcome.preserved], torch.tensor(0.01, dtype=torch.float64))


def test_squares_lie_in_the_image_and_shrink():
    shape = torch.Size((4, 3, 9, 7))
    die = torch.Generator().manual_seed(0)
    sides = []
    for query in range(100):
        signs, rows, columns = _square(shape, query / 100, die)
        assert signs.shape == (3, 9, 7)
        assert 0 <= rows.start < rows.stop <= 9
        assert 0 <= columns.start < columns.stop <= 7
        sides.append(rows.stop - rows.start)
        if query:
            assert (signs == signs[:, :1, :1]).all()
    assert sides == sorted(sides, reverse=True)
    assert sides[0] == round((0.5 * 63) ** 0.5)
    assert sides[-1] == 1
