import copy
import math
import pickle

import pytest
import torch

from holdfast.contracts import (
    HoldfastError,
    InputError,
    check_images,
    check_labels,
    check_positive,
    check_same_shape,
    chunks,
    default_chunk,
    generators,
)


class TestCheckImages:
    @pytest.mark.parametrize(
        ("images", "says"),
        [
            ([[1.0]], "list"),
            (torch.rand(3, 8, 8), r"shape \(3, 8, 8\)"),
            (torch.rand(0, 3, 8, 8), r"shape \(0, 3, 8, 8\)"),
            (torch.zeros(1, 3, 8, 8, dtype=torch.uint8), "uint8"),
            (torch.full((1, 1, 2, 2), float("nan")), "NaN"),
            (torch.full((1, 1, 2, 2), float("inf")), r"\[inf, inf\]"),
            (torch.full((1, 1, 2, 2), -0.5), r"\[-0.5, -0.5\]"),
            (torch.full((1, 1, 2, 2), 255.0), r"\[255, 255\]"),
        ],
    )
    def test_refuses(self, images, says):
        with pytest.raises(InputError, match=says) as caught:
            check_images(images)
        assert str(caught.value).startswith("images: expected ")

    def test_one_nan_among_many_is_seen(self):
        images = torch.rand(4, 3, 8, 8)
        images[2, 1, 3, 4] = float("nan")
        with pytest.raises(InputError, match="NaN"):
            check_images(images)

    @pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
    def test_accepts_both_ends(self, dtype):
        check_images(torch.tensor([0.0, 1.0], dtype=dtype).view(1, 1, 1, 2))


class TestCheckLabels:
    @pytest.mark.parametrize(
        ("labels", "says"),
        [
            ([0, 1], "list"),
            (torch.tensor([0.0, 1.0]), "float32"),
            (torch.tensor([True, False]), "bool"),
            (torch.tensor([0]), r"shape \(1,\)"),
            (torch.tensor([[0, 1]]), r"shape \(1, 2\)"),
            (torch.tensor([0, -1]), "classes from 0 to 3, got -1"),
            (torch.tensor([4, 0]), "classes from 0 to 3, got 4"),
        ],
    )
    def test_refuses(self, labels, says):
        with pytest.raises(InputError, match=says):
            check_labels(labels, count=2, classes=4)


def test_check_same_shape_names_both():
    with pytest.raises(InputError, match=r"second: .*that of first, got \(3,\)"):
        check_same_shape(torch.zeros(2), torch.zeros(3), ("first", "second"))


@pytest.mark.parametrize(
    ("value", "zero", "fine"),
    [(0, True, True), (0, False, False), (-1, True, False), (float("nan"), True, False)],
)
def test_check_positive(value, zero, fine):
    class Method:
        eps = value

    if fine:
        check_positive(Method(), "eps", zero=zero)
    else:
        with pytest.raises(InputError, match=r"Method\.eps: expected a number"):
            check_positive(Method(), "eps", zero=zero)


def test_errors_are_value_errors_and_survive_pickling():
    error = InputError("eps", -1, "a number above 0")
    assert isinstance(error, ValueError)
    assert isinstance(error, HoldfastError)
    assert str(pickle.loads(pickle.dumps(error))) == str(error)


@pytest.mark.parametrize(("count", "size"), [(0, 3), (1, 3), (7, 3), (9, 3), (10, 7), (17, 5)])
def test_chunks_cover_everything_once_in_equal_runs(count, size):
    runs = [range(count)[part] for part in chunks(count, size)]
    assert [i for run in runs for i in run] == list(range(count))
    assert len(runs) == math.ceil(count / size)
    lengths = [len(run) for run in runs]
    assert max(lengths, default=0) == (math.ceil(count / len(runs)) if runs else 0)


def test_default_chunk_shrinks_with_the_work():
    small, large = torch.zeros(1, 1, 28, 28), torch.zeros(1, 3, 448, 448)
    assert default_chunk(small) > default_chunk(large) >= 1
    assert default_chunk(small, copies=10) == default_chunk(small) // 10
    assert default_chunk(large, copies=10_000) == 1


@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 32, 32), (3, 64, 64), (3, 224, 224)])
def test_the_cpu_takes_no_more_images_than_an_accelerator(shape):
    here, there = torch.zeros(1, *shape), torch.zeros(1, *shape, device="meta")
    assert default_chunk(here) <= default_chunk(there)


class TestGenerators:
    def test_depend_on_seed_and_content_only(self):
        images = torch.rand(5, 1, 4, 4)

        def draw(batch, seed):
            return torch.stack([torch.rand(3, generator=g) for g in generators(batch, seed)])

        drawn = draw(images, 0)
        order = torch.tensor([3, 1, 4, 0, 2])
        assert torch.equal(draw(images[order], 0), drawn[order])
        assert torch.equal(draw(images[2:3], 0), drawn[2:3])
        assert len(drawn.unique(dim=0)) == 5
        assert not torch.equal(draw(images, 1), drawn)
        assert torch.equal(draw(copy.deepcopy(images).double(), 0), drawn)

    def test_leave_the_global_generator_alone(self):
        before = torch.get_rng_state()
        generators(torch.rand(2, 1, 2, 2, generator=torch.Generator()), seed=-3)
        assert torch.equal(torch.get_rng_state(), before)
