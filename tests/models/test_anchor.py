import pytest
import torch
from torch import nn

from holdfast.contracts import InputError
from holdfast.models import Attributing, Normalized, Standardized, at_anchor, classify


def network():
    return nn.Sequential(nn.Conv2d(2, 3, 3), nn.ReLU(), nn.Flatten(), nn.Linear(18, 4))


@pytest.mark.parametrize("wrap", [lambda net: Normalized(net, 0.5, 0.25), Standardized])
def test_what_is_inside_classifies_its_input_as_the_model_does(wrap):
    images = torch.rand(3, 2, 4, 5)
    model = wrap(network())
    for whole in (model, Attributing(model, (2, 4, 5))):
        seen, inside = at_anchor(whole, images)
        assert inside is model.module
        assert torch.equal(seen, model.normalize(images))
        assert torch.equal(classify(inside, seen), classify(whole, images))


def test_pixels_are_left_where_they_are_asked_for_or_all_there_is():
    images, net = torch.rand(1, 2, 4, 5), network()
    assert at_anchor(net, images) == (images, net)
    model = Normalized(net, 0.5, 0.25)
    assert at_anchor(model, images, "pixels") == (images, model)


def test_refuses_another_anchor(own_errors):
    with pytest.raises(InputError, match="anchor: expected 'normalized' or 'pixels', got 'mean'"):
        at_anchor(network(), torch.rand(1, 2, 4, 5), "mean")
