import torch
from torch import nn

from holdfast.audit.repeatable import device_of, fingerprint, seeded


def test_draws_hang_on_seed_and_shard_alone_and_leave_the_generator():
    before = torch.get_rng_state()
    drawn = {}
    for key in ((0, 0), (0, 1), (1, 0), (0, 0)):
        with seeded(*key):
            values = tuple(torch.rand(3).tolist())
        assert drawn.setdefault(key, values) == values
    assert len(set(drawn.values())) == 3
    assert torch.equal(torch.get_rng_state(), before)


def test_a_model_is_known_by_weights_and_buffers():
    model = nn.BatchNorm1d(2)
    first = fingerprint(model)
    assert fingerprint(model.eval()) == first
    model.running_mean += 1e-6
    second = fingerprint(model)
    model.weight.data[0] += 1e-6
    assert len({first, second, fingerprint(model)}) == 3


def test_a_model_without_weights_is_on_the_cpu():
    assert device_of(nn.Flatten()) == torch.device("cpu")
