import dataclasses
import math

import pytest
import torch
from torch import nn

from holdfast.adversarial import APGD, PGD, BoundaryPipeline, BoundarySearch, CarliniWagner
from holdfast.contracts import InputError, StuckWarning

QUICK = BoundaryPipeline(
    epsilons=(0.2, 0.5, 1.0),
    step_size=None,
    steps=8,
    cw_searches=2,
    cw_step_size=0.1,
    apgd_eps=0.8,
)


@pytest.fixture
def images():
    drawn = torch.rand(6, 2, 3, 5, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    return 0.2 + 0.6 * drawn


@pytest.fixture
def model(images):
    torch.manual_seed(3)
    layers = nn.Sequential(nn.Flatten(), nn.Linear(30, 16), nn.Tanh(), nn.Linear(16, 4)).double()
    layers[3].weight.data *= 3
    with torch.no_grad():
        layers[3].bias -= layers(images).mean(0)
    return layers


def attacks_of(names):
    """Table 2's list, written out."""
    each = {
        "pgd": [PGD(eps, 2 * eps / 8, 8, "l2", seed=0) for eps in (0.2, 0.5, 1.0)],
        "cw": [CarliniWagner(searches=2, steps=8, step_size=0.1, weight=1e-3)],
        "apgd": [APGD(0.8, "l2", loss, steps=8) for loss in ("ce", "dlr")],
    }
    return [attack for name in names for attack in each[name]]


@pytest.mark.parametrize("names", [("pgd",), ("pgd", "cw"), ("pgd", "cw", "apgd"), ("apgd", "cw")])
def test_keeps_the_nearest_of_all_attacks(names, model, images):
    labels = model(images).argmax(1)
    boundary = dataclasses.replace(QUICK, attacks=names)(model, images)
    tried = [attack(model, images, labels) for attack in attacks_of(names)]
    for n, image in enumerate(images):
        reached = [
            (float((points[n] - image).norm()), points[n])
            for points in tried
            if int(model(points[n : n + 1]).argmax()) != int(labels[n])
        ]
        assert bool(boundary.found[n]) == bool(reached)
        distance, point = min(reached, key=lambda pair: pair[0], default=(math.inf, tried[0][n]))
        assert float(boundary.distances[n]) == pytest.approx(distance)
        assert torch.allclose(boundary.points[n], point)
        assert int(boundary.labels[n]) == int(model(point[None]).argmax())
    assert boundary.found.any()


def test_more_attacks_come_no_less_near(model, images):
    rows = [("pgd",), ("pgd", "cw"), ("pgd", "cw", "apgd")]
    found = [dataclasses.replace(QUICK, attacks=row)(model, images).distances for row in rows]
    assert (found[1] <= found[0]).all()
    assert (found[2] <= found[1]).all()
    assert (found[1] < found[0]).any()


def test_where_nothing_is_found_the_point_is_the_first_pgds_last(model, images):
    timid = BoundaryPipeline(epsilons=(0.01, 0.02), steps=3, cw_searches=1, cw_step_size=1e-6)
    timid = dataclasses.replace(timid, apgd_eps=0.01, step_size=None)
    model[3].bias.data = torch.tensor([50.0, 0, 0, 0]).double()
    boundary = timid(model, images)
    first = PGD(0.01, 0.02 / 3, 3, "l2", seed=0)(model, images, model(images).argmax(1))
    assert not boundary.found.any()
    assert boundary.distances.isinf().all()
    assert torch.equal(boundary.points, first)
    assert not torch.equal(boundary.points, images)


def test_images_that_are_wrong_are_their_own_points(model, images):
    labels = model(images).argmax(1)
    labels[2] = (labels[2] + 1) % 4
    boundary = QUICK(model, images, labels)
    assert float(boundary.distances[2]) == 0
    assert boundary.found[2]
    assert torch.equal(boundary.points[2], images[2])
    others = [0, 1, 3, 4, 5]
    alone = QUICK(model, images[others], labels[others])
    assert torch.allclose(boundary.points[others], alone.points, atol=1e-10)


def test_chunks_change_nothing_and_the_seed_does(model, images):
    whole = QUICK(model, images)
    assert torch.allclose(
        dataclasses.replace(QUICK, chunk=2)(model, images).points, whole.points, atol=1e-10
    )
    pgd = dataclasses.replace(QUICK, attacks=("pgd",))
    other = dataclasses.replace(pgd, seed=1)(model, images)
    assert not torch.allclose(pgd(model, images).points, other.points)


def test_of_two_planes_it_finds_the_nearer_one():
    class Planes(nn.Module):
        def forward(self, x):
            x, y = x.flatten(1).unbind(1)
            return torch.stack([0 * x, 0.3 - x, y - 0.9], 1)

    image = torch.tensor([0.5, 0.6]).view(1, 1, 1, 2)
    search = BoundaryPipeline(epsilons=(0.25, 0.5), steps=40, cw_step_size=0.04)
    boundary = search(Planes(), image)
    assert boundary.labels.tolist() == [1]
    assert 0.2 < float(boundary.distances) < 0.21
    exact = BoundarySearch()(Planes(), image).distances
    assert float(exact) == pytest.approx(0.2, abs=1e-3)


def test_two_classes_do_without_the_ratio_that_takes_three():
    class Two(nn.Module):
        def forward(self, x):
            return x.flatten(1)[:, :2]

    image = torch.tensor([0.7, 0.3]).view(1, 1, 1, 2)
    boundary = dataclasses.replace(QUICK, attacks=("apgd",))(Two(), image)
    assert boundary.found.all()


def test_warns_where_no_step_had_a_direction(images):
    class Constant(nn.Module):
        def forward(self, x):
            return 0 * x.flatten(1)[:, :3] + torch.tensor([0.0, 1.0, 0.0])

    with pytest.warns(StuckWarning, match="BoundaryPipeline: for 6 of 6 images"):
        boundary = QUICK(Constant(), images)
    assert not boundary.found.any()


def test_leaves_everything_as_it_was(stateful_model, untouched):
    images = torch.rand(2, 2, 5, 5)
    copy, state = images.clone(), torch.get_rng_state()
    with untouched(stateful_model):
        QUICK(stateful_model, images)
    assert torch.equal(images, copy)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"attacks": ()}, "BoundaryPipeline.attacks: expected at least one of"),
        ({"attacks": ("pgd", "pgd")}, "BoundaryPipeline.attacks"),
        ({"attacks": ("fgsm",)}, "BoundaryPipeline.attacks"),
        ({"epsilons": ()}, "BoundaryPipeline.epsilons"),
        ({"epsilons": (0.1, 0.0)}, "BoundaryPipeline.epsilons"),
        ({"step_size": 0.0}, "BoundaryPipeline.step_size"),
        ({"apgd_eps": 0.0}, "BoundaryPipeline.apgd_eps"),
        ({"cw_searches": 0}, "BoundaryPipeline.cw_searches"),
    ],
)
def test_refuses_settings(settings, says, own_errors):
    with pytest.raises(InputError, match=says):
        BoundaryPipeline(**settings)
