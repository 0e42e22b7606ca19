import dataclasses

import pytest
import torch
from torch import nn

from holdfast.adversarial import BoundarySearch, SmoothedPGD
from holdfast.attributions import BoundarySmoothGrad
from holdfast.audit import SmoothedAlignment
from holdfast.contracts import Batch, InputError

METHOD = BoundarySmoothGrad(SmoothedPGD(eps=2.0, steps=8), samples=5, seed=4)


@pytest.fixture
def model():
    torch.manual_seed(2)
    layers = nn.Sequential(nn.Flatten(), nn.Linear(30, 16), nn.Tanh(), nn.Linear(16, 3)).double()
    layers[3].weight.data *= 4
    return layers


@pytest.fixture
def batch():
    rng = torch.Generator().manual_seed(1)
    images = torch.rand(6, 2, 3, 5, generator=rng, dtype=torch.float64)
    return Batch(images=images, labels=torch.zeros(6, dtype=torch.long))


def test_is_the_distance_of_mean_gradients_over_the_same_copies(model, batch):
    measures = SmoothedAlignment((0.05, 0.3), METHOD)(model, batch)
    images = batch["images"]
    own = model(images).argmax(1)
    rng = torch.Generator().manual_seed(4)
    drawn = torch.randn(5, 2, 3, 5, generator=rng).double()

    def mean_gradient(image, label, noise):
        total = torch.zeros_like(image)
        for e in noise:
            x = (image + e)[None].requires_grad_(True)
            total += torch.autograd.grad(model(x)[0, label], x)[0][0] / 5
        return total

    assert list(measures) == ["sg_bsg/0.05", "found/0.05", "sg_bsg/0.3", "found/0.3"]
    for sigma in (0.05, 0.3):
        noise = sigma * drawn
        boundary = METHOD.search(model, images, noise)
        assert measures[f"found/{sigma}"].tolist() == boundary.found.double().tolist()
        assert boundary.found.any()
        for n, image in enumerate(images):
            value = measures[f"sg_bsg/{sigma}"][n]
            if not boundary.found[n]:
                assert value.isnan()
                continue
            here = mean_gradient(image, own[n], noise)
            there = mean_gradient(boundary.points[n], own[n], noise)
            assert float(value) == pytest.approx(float((here - there).norm()))


def test_of_a_linear_model_it_is_nothing_at_any_noise(batch):
    linear = nn.Sequential(nn.Flatten(), nn.Linear(30, 3)).double()
    measures = SmoothedAlignment((0.05, 0.5), METHOD)(linear, batch)
    assert measures["found/0.05"].any()
    for name, values in measures.items():
        if name.startswith("sg_bsg"):
            assert (values[~values.isnan()] < 1e-12).all()


def test_takes_the_other_search(model, batch):
    search = BoundarySearch(steps=3, scout_steps=3, restarts=1, restart_steps=2)
    method = dataclasses.replace(METHOD, search=search)
    measures = SmoothedAlignment((0.1,), method)(model, batch)
    assert measures["found/0.1"].all()
    assert (measures["sg_bsg/0.1"] > 0).all()


def test_leaves_the_model_as_it_was(stateful_model, untouched):
    batch = Batch(images=torch.rand(2, 2, 5, 5), labels=torch.tensor([0, 1]))
    method = BoundarySmoothGrad(SmoothedPGD(steps=2), samples=2)
    with untouched(stateful_model):
        SmoothedAlignment((0.1,), method)(stateful_model, batch)


@pytest.mark.parametrize("noises", [(), (0.1, 0.0), (0.1, 0.1), (0.1, 0.1000000001), (-1.0,)])
def test_refuses(noises, own_errors):
    with pytest.raises(InputError, match=r"SmoothedAlignment.noises: expected different numbers"):
        SmoothedAlignment(noises)
