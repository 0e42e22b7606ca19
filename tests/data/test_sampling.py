import pytest
import torch

from holdfast.contracts import InputError
from holdfast.data.sampling import balanced, held_out


@pytest.mark.parametrize(
    ("count", "expected"), [(1, 1), (37, 37), (0.25, 25), (0.333, 33), (99, 99)]
)
def test_as_many_are_held_out_as_asked_for(count: int | float, expected: int) -> None:
    labels = torch.randint(3, (100,))
    assert held_out(labels, count, seed=0).sum() == expected


@pytest.mark.parametrize("count", [17, 100, 0.5])
def test_each_class_is_held_out_by_its_share(count: int | float) -> None:
    labels = torch.cat([torch.full((n,), label) for label, n in enumerate((150, 40, 9, 1))])
    labels = labels[torch.randperm(200)]
    held = held_out(labels, count, seed=3)
    share = count if isinstance(count, float) else count / 200
    for label in range(4):
        own = labels == label
        assert abs(held[own].sum() - share * own.sum()) < 1


def test_the_same_are_held_out_again_and_others_with_another_seed() -> None:
    labels = torch.randint(10, (500,))
    before = torch.get_rng_state()
    first, again, other = (held_out(labels, 0.2, seed) for seed in (0, 0, 1))
    assert torch.equal(first, again)
    # By chance a fifth of the fifth.
    assert 5 < (first & other).sum() < 50
    assert torch.equal(torch.get_rng_state(), before)


def test_all_images_of_a_class_may_be_drawn() -> None:
    labels = torch.zeros(20, dtype=torch.long)
    drawn = sum(held_out(labels, 1, seed).long() for seed in range(400))
    assert (drawn > 0).all()


@pytest.mark.parametrize(("count", "images"), [(100, 100), (500, 500), (0.001, 0), (0.999, 100)])
def test_none_held_out_or_none_left_is_refused(count: int | float, images: int) -> None:
    with pytest.raises(InputError, match=f"ImageData.validation: .* the 100 .*is {images} images"):
        held_out(torch.zeros(100, dtype=torch.long), count, seed=0)


@pytest.mark.parametrize("count", [1, 3, 7, 20])
def test_every_class_has_so_many_and_each_image_comes_nearly_as_often(count: int) -> None:
    labels = torch.tensor([0] * 5 + [2] * 3 + [1])[torch.randperm(9)]
    order = balanced(labels, count, seed=0)
    for label, own in ((0, 5), (2, 3), (1, 1)):
        times = order.bincount(minlength=9)[labels == label]
        assert times.sum() == max(own, count)
        assert times.min() >= 1
        assert times.max() - times.min() <= 1


def test_the_same_are_repeated_again() -> None:
    labels = torch.tensor([0] * 50 + [1])
    before = torch.get_rng_state()
    assert torch.equal(balanced(labels, 70, seed=0), balanced(labels, 70, seed=0))
    assert not torch.equal(balanced(labels, 70, seed=0), balanced(labels, 70, seed=1))
    assert torch.equal(torch.get_rng_state(), before)
