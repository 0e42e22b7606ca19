import pytest
import torch
import torchvision
from torch import nn

from holdfast.contracts import InputError
from holdfast.models.head import replace_head


@pytest.mark.parametrize("name", ["squeezenet1_1", "mobilenet_v3_small", "shufflenet_v2_x0_5"])
def test_the_rest_of_the_network_stays(name):
    model = torchvision.models.get_model(name, weights=None)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    replace_head(model, 1000, 7, name)
    assert model.eval()(torch.rand(1, 3, 64, 64)).shape == (1, 7)
    changed = {k for k, v in model.state_dict().items() if not torch.equal(v, before[k])}
    assert len(changed) == 2  # weight and bias of the last layer
    assert all(model.state_dict()[key].shape[0] == 7 for key in changed)


def test_a_layer_without_bias():
    model = nn.Sequential(nn.Linear(4, 9, bias=False))
    replace_head(model, 9, 2, "mine")
    assert model[0].bias is None


def test_none_of_so_many_outputs():
    with pytest.raises(InputError, match="mine has no last layer of 9 outputs"):
        replace_head(nn.Sequential(nn.Linear(4, 8)), 9, 2, "mine")
