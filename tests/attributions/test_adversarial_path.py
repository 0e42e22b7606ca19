import dataclasses

import pytest
import torch
from torch import nn

from holdfast.attributions import METHODS, AdversarialGradientIntegration
from holdfast.contracts import Attribution, InputError
from holdfast.models import softplus

QUICK = AdversarialGradientIntegration(classes=3, steps=6, step_size=0.1)


@pytest.fixture
def images():
    return torch.rand(4, 2, 5, 5, dtype=torch.float64)


def naive(model, image, steps, step_size, classes):
    """One image, one path, one step at a time, as the definition says it."""
    own = int(model(image[None]).argmax())
    order = [int(c) for c in model(image[None])[0].argsort(descending=True) if c != own]
    total, ends = torch.zeros_like(image), []
    for other in order[:classes]:
        x = image.clone()
        for _ in range(steps):
            if int(model(x[None]).argmax()) == other:
                break
            x.requires_grad_(True)
            p = model(x[None]).softmax(1)[0]
            (climb,) = torch.autograd.grad(p[other], x, retain_graph=True)
            (loss,) = torch.autograd.grad(p[own], x)
            moved = (x.detach() + step_size * climb.sign()).clamp(0, 1)
            total -= loss * (moved - x.detach())
            x = moved
        ends.append(x)
    return total, ends


def authors(model, image, steps, step_size, goals, norm="linf"):
    """One image, as the authors' public code walks: every step starts at the image again."""
    own = int(model(image[None]).argmax())
    total, count = torch.zeros_like(image), 0
    for goal in goals:
        if goal == own:
            continue
        x = image.clone()
        for _ in range(steps):
            if int(model(x[None]).argmax()) == goal:
                count += 1
                break
            x.requires_grad_(True)
            p = model(x[None]).softmax(1)[0]
            (climb,) = torch.autograd.grad(p[goal], x, retain_graph=True)
            (loss,) = torch.autograd.grad(p[own], x)
            way = climb.sign() if norm == "linf" else climb / climb.norm()
            x = (image + step_size * way).clamp(0, 1)
            total -= loss * (x - image)
    return total, count


@pytest.mark.parametrize(
    ("classes", "goals"), [(2, (0, 2)), (3, (0, 1, 2, 3)), (4, (0, 1, 2, 3)), (9, (0, 1, 2, 3))]
)
def test_as_the_authors_have_it(classes, goals, model, images):
    """Their classes are every (number of classes // k)-th one, without the predicted one."""
    method = AdversarialGradientIntegration(
        classes, steps=5, step_size=0.2, others="spaced", step_from="image"
    )
    maps, found = method.with_found(model, images)
    counts = []
    for image, map, reached in zip(images, maps, found.tolist(), strict=True):
        expected, count = authors(model, image, 5, 0.2, goals)
        assert torch.allclose(map, expected, atol=1e-10)
        assert reached == (count > 0) or count == 0  # the last step's point is looked at, too
        counts.append(count)
    assert sum(counts) > 0
    assert not torch.allclose(maps, dataclasses.replace(method, step_from="point")(model, images))


def test_of_a_thousand_classes_the_authors_take_every_66th():
    model = nn.Sequential(nn.Flatten(), nn.Linear(6, 1000))
    chosen = METHODS["agi_authors"]._others(model, torch.rand(2, 1, 2, 3), 4)
    assert chosen.tolist() == 2 * [list(range(0, 999, int(1000 / 15)))]


def test_the_path_to_the_predicted_class_finds_nothing(model, images):
    """It has no steps, and its end is no other class."""
    for image in images:
        model.last.bias.data[0] += 100.0
        alone = AdversarialGradientIntegration(classes=1, steps=2, others="spaced")
        maps, found = alone.with_found(model, image[None])
        assert not found.any()
        assert maps.abs().sum() == 0


def test_steps_in_l2_go_along_the_gradient(model, images):
    method = AdversarialGradientIntegration(
        4, steps=3, step_size=0.5, others="spaced", step_from="image", norm="l2"
    )
    maps = method.with_found(model, images)[0]
    for image, map in zip(images, maps, strict=True):
        expected, _ = authors(model, image, 3, 0.5, range(4), "l2")
        assert torch.allclose(map, expected, atol=1e-10)


@pytest.mark.parametrize("classes", [1, 3, 10])
def test_equals_the_naive_loop(classes, model, images):
    method = AdversarialGradientIntegration(classes=classes, steps=6, step_size=0.05)
    expected = torch.stack([naive(model, image, 6, 0.05, classes)[0] for image in images])
    assert torch.allclose(method.with_found(model, images)[0], expected, atol=1e-10)


def test_sums_to_what_the_probability_loses(smooth_model, images):
    smooth_model[-1].weight.data *= 4
    method = AdversarialGradientIntegration(classes=2, steps=60, step_size=2e-3)
    maps, _ = method.with_found(smooth_model, images)
    for image, map in zip(images, maps, strict=True):
        _, ends = naive(smooth_model, image, 60, 2e-3, 2)
        p = smooth_model(torch.stack([image, *ends])).softmax(1)
        lost = (p[0] - p[1:])[:, p[0].argmax()].sum()
        assert map.sum().item() == pytest.approx(lost.item(), rel=0.02)


def test_found_says_whether_a_path_reached_its_class(model, images):
    maps, found = AdversarialGradientIntegration(steps=30).with_found(model, images)
    assert found.all()
    timid = AdversarialGradientIntegration(steps=1, step_size=1e-6)
    with pytest.warns(UserWarning, match="no path reached its class for 4 of 4 images"):
        maps = timid(model, images)
    assert maps.shape == images.shape


def test_climbs_where_probabilities_vanish_in_rounding():
    model = nn.Sequential(nn.Flatten(), nn.Linear(2, 2, bias=False))
    model[1].weight.data = torch.tensor([[900.0, 0.0], [0.0, 900.0]])
    image = torch.tensor([0.9, 0.1]).view(1, 1, 1, 2)
    _, found = AdversarialGradientIntegration(steps=50).with_found(model, image)
    assert found.all()


def test_a_constant_model_gets_a_map_of_zeros():
    class Constant(nn.Module):
        def forward(self, x):
            return x.flatten(1)[:, :3] * 0 + torch.tensor([0.0, 2.0, 1.0])

    maps, found = QUICK.with_found(Constant(), torch.rand(2, 1, 3, 3))
    assert maps.abs().sum() == 0
    assert not found.any()


def test_neither_chunks_nor_batch_change_the_result(model, images):
    whole = QUICK(model, images)
    for chunk in (1, 2, 7):
        assert torch.allclose(dataclasses.replace(QUICK, chunk=chunk)(model, images), whole)
    assert torch.allclose(QUICK(model, images[2:3]), whole[2:3])


def test_targets_choose_the_probability(model, images):
    predicted = model(images).argmax(1)
    assert isinstance(QUICK, Attribution)
    assert torch.equal(QUICK(model, images), QUICK(model, images, predicted))
    assert not torch.allclose(QUICK(model, images), QUICK(model, images, (predicted + 1) % 4))


def test_leaves_everything_as_it_was(stateful_model, untouched):
    images = torch.rand(3, 2, 5, 5)
    copy, before = images.clone(), torch.get_rng_state()
    with untouched(stateful_model):
        maps, _ = QUICK.with_found(stateful_model, images)
        QUICK.with_found(stateful_model, images, create_graph=True)
    assert not maps.requires_grad
    assert not images.requires_grad
    assert torch.equal(images, copy)
    assert torch.equal(torch.get_rng_state(), before)


def test_works_inside_no_grad_and_derives(model, images):
    expected = QUICK(model, images)
    with torch.no_grad():
        assert torch.equal(QUICK(model, images), expected)
    with softplus(beta=3.0):
        x = images.requires_grad_(True)
        maps = QUICK(model, x, create_graph=True)
        by_image, by_weight = torch.autograd.grad(maps.square().sum(), [x, model.conv.weight])
    assert by_image.abs().sum() > 0
    assert by_weight.abs().sum() > 0


@pytest.mark.parametrize("field", ["classes", "steps", "step_size"])
def test_refuses_settings(field, own_errors):
    with pytest.raises(InputError, match=f"AdversarialGradientIntegration.{field}"):
        AdversarialGradientIntegration(**{field: 0})


def test_refuses_a_model_of_one_class(own_errors):
    model = nn.Sequential(nn.Flatten(), nn.Linear(4, 1))
    with pytest.raises(InputError, match="of at least 2 classes"):
        QUICK(model, torch.rand(1, 1, 2, 2))
