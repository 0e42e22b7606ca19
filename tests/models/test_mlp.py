import pytest
import torch

from holdfast.contracts import InputError
from holdfast.models import Architecture, mlp


@pytest.mark.parametrize("hidden", [(), (5,), (5, 3)])
def test_equals_the_matrices_written_out(hidden):
    model = mlp(classes=4, in_channels=2, size=3, hidden=hidden)
    images = torch.rand(2, 2, 3, 3)
    parameters = list(model.parameters())
    x = images.flatten(1)
    for weight, bias in zip(parameters[::2], parameters[1::2], strict=True):
        x = x.clamp_min(0) if weight is not parameters[0] else x
        x = x @ weight.T + bias
    assert torch.allclose(model(images), x, atol=1e-6)
    assert [len(bias) for bias in parameters[1::2]] == [*hidden, 4]


def test_is_built_by_name():
    architecture = Architecture("mlp", classes=3, in_channels=1, size=4, options={"hidden": [6]})
    assert sum(p.numel() for p in architecture.build().parameters()) == 16 * 6 + 6 + 6 * 3 + 3


def test_refuses_a_layer_without_units(own_errors):
    with pytest.raises(InputError, match="hidden"):
        mlp(hidden=(4, 0))
