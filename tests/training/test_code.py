import dataclasses
import functools

import numpy as np
import torch
from torch import nn

from holdfast.training.code import code_digest, is_own, tensor_digest

SCALE = 2.0


@dataclasses.dataclass
class Plain:
    steps: int


def _scaled(x):
    return SCALE * x


def _through(x):
    return _scaled(x) + 1


def _power(n):
    return lambda x: x**n


def test_code_tells_functions_apart():
    alike = [lambda x: x + 1, lambda x: x + 1]
    assert code_digest(alike[0]) == code_digest(alike[1])
    different = [
        lambda x: x + 1,
        lambda x: x - 1,
        lambda x, y=1: x + 1,
        lambda x, y=2: x + 1,
        lambda x: abs(x),
        lambda x: round(x),
        lambda x: [2 * y for y in (1, 2)],
        lambda x: [2 * y for y in (1, 3)],
        lambda x: "a" in {"a", "b"},
        _power(2),
        _power(3),
        _power(torch.zeros(2)),
        _power(torch.ones(2)),
        _power(nn.Linear(2, 1)),
        _power(Plain(1)),
        _power(Plain(2)),
    ]
    assert len({code_digest(one) for one in different}) == len(different)
    assert code_digest(_power(torch.ones(2))) == code_digest(_power(torch.ones(2)))


def test_what_code_refers_to_counts(monkeypatch):
    before = code_digest(_through)
    assert before == code_digest(_through)
    monkeypatch.setitem(globals(), "SCALE", 3.0)
    assert code_digest(_through) != before


def test_code_of_classes():
    class Doubled(nn.Module):
        def forward(self, x):
            return 2 * x

    first = code_digest(Doubled)

    class Doubled(nn.Module):
        # said otherwise, and the same
        def forward(self, x):
            return 2 * x

    assert code_digest(Doubled) == first

    class Doubled(nn.Module):
        def forward(self, x):
            return 3 * x

    assert code_digest(Doubled) != first
    assert code_digest(nn.ReLU) != code_digest(nn.GELU)  # of libraries the name alone counts


def test_what_is_the_users_own():
    assert is_own(_scaled)
    for theirs in (nn.ReLU, np.mean, functools.partial, len, code_digest):
        assert not is_own(theirs)


def test_tensors_are_told_apart_by_content_type_and_shape():
    values = torch.arange(4.0)
    others = [values, values.double(), values.view(2, 2), values + 1, values.bfloat16(), values[:0]]
    assert len({tensor_digest(one) for one in others}) == len(others)
    assert tensor_digest(values.view(2, 2).T) != tensor_digest(values.view(2, 2))
    assert tensor_digest(torch.tensor(3.0)) == tensor_digest(torch.tensor(3.0))
