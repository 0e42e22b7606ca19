import math

import pytest
import torch
from torch.nn import functional as F

from holdfast.adversarial import PGD
from holdfast.attributions import IntegratedGradients
from holdfast.contracts import InputError
from holdfast.models import evaluating
from holdfast.objectives import EnhancedRegularization, attribution_change, attribution_contrast
from holdfast.objectives.attribution_regularization import attribution_size


def naive_map(model, start, end, of, steps):
    """Equation 1, point by point."""
    mean = torch.zeros_like(end)
    for k in range(1, steps + 1):
        point = start + k / steps * (end - start)
        point = point if point.requires_grad else point.requires_grad_(True)
        logits = model(point[None])[0]
        mean = mean + torch.autograd.grad(of(logits), point, create_graph=True)[0] / steps
    return (end - start) * mean


def probability(k):
    return lambda logits: logits[k].exp() / logits.exp().sum()


def naive_contrast(own, other, rival=1.0):
    """Equation 11, pixel by pixel."""

    def distribution(map):
        values = map.flatten()
        total = sum(v.exp() for v in values)
        return [v.exp() / total for v in values]

    p_tca, p_nca = distribution(own), distribution(other)
    p_me = 1 / len(p_tca)
    return sum(
        p_me * (rival * (math.log(p_me) - n.log()) - (math.log(p_me) - t.log()))
        for n, t in zip(p_nca, p_tca, strict=True)
    )


def naive_change(before, after, base=True):
    """Equation 9, pixel by pixel."""
    return naive_cost(before, after - before, base)


def naive_cost(map, change, base=True, opposed="signs"):
    total = 0.0
    for a, d in zip(map.flatten(), change.flatten(), strict=True):
        same = torch.sign(a) == torch.sign(d)
        p1 = not same if opposed == "signs" else a * d < 0
        if p1:
            total = total + d.abs()
        elif same:
            total = total + ((a * d).abs() if base else d.abs())
    return total


@pytest.mark.parametrize("rival", [1.0, 0.0, 0.3])
def test_contrast_equals_the_naive_computation(rival):
    own, other = torch.randn(2, 3, 2, 4, 4, dtype=torch.float64, requires_grad=True).unbind()
    ours = attribution_contrast(own, other, rival=rival)
    naive = torch.stack([naive_contrast(a, b, rival) for a, b in zip(own, other, strict=True)])
    assert torch.allclose(ours, naive, atol=1e-12)
    weights = torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64)
    for maps in (own, other):
        a = torch.autograd.grad((ours * weights).sum(), maps, retain_graph=True)[0]
        b = torch.autograd.grad((naive * weights).sum(), maps, retain_graph=True)[0]
        assert torch.allclose(a, b, atol=1e-12)


def test_contrast_falls_with_sharp_own_and_even_other_maps():
    own, other = torch.randn(2, 5, 1, 6, 6).double().unbind()
    base = attribution_contrast(own, other)
    assert (attribution_contrast(2 * own, other) < base).all()
    assert (attribution_contrast(own, other / 2) < base).all()
    assert (attribution_contrast(own / 2, other) > base).all()
    assert (attribution_contrast(own, 2 * other) > base).all()
    # The term of the rival class is gone, that of the true class is not.
    assert torch.equal(
        attribution_contrast(own, other, rival=0.0), attribution_contrast(own, own, rival=0.0)
    )


def test_contrast_of_small_maps_keeps_its_digits():
    """As maps of probabilities are; to second order it is the difference of half variances."""
    own, other = 1e-3 * torch.randn(2, 3, 1, 28, 28)
    variances = [m.double().flatten(1).var(1, correction=0) for m in (other, own)]
    expected = (variances[0] - variances[1]) / 2
    assert (attribution_contrast(own, other) - expected).abs().max() < 1e-9


def test_contrast_of_alike_and_of_large_maps():
    maps = torch.randn(2, 1, 4, 4)
    assert attribution_contrast(maps, maps).abs().max() == 0
    assert attribution_contrast(maps + 5.0, maps).abs().max() < 1e-5
    large = (1e4 * maps).double().requires_grad_(True)
    ours, naive = (
        attribution_contrast(large, maps.double()),
        large.flatten(1).log_softmax(1).mean(1) - maps.double().flatten(1).log_softmax(1).mean(1),
    )
    assert torch.allclose(ours, naive)
    slopes = [torch.autograd.grad(value.sum(), large)[0] for value in (ours, naive)]
    assert torch.allclose(*slopes, atol=1e-12)


@pytest.mark.parametrize("base", [True, False])
def test_change_equals_the_naive_computation(base):
    before, after = torch.randn(2, 3, 2, 4, 4, dtype=torch.float64, requires_grad=True).unbind()
    ours = attribution_change(before, after, base=base)
    naive = torch.stack([naive_change(a, b, base) for a, b in zip(before, after, strict=True)])
    assert torch.allclose(ours, naive, atol=1e-12)
    for maps in (before, after):
        a = torch.autograd.grad(ours.sum(), maps, retain_graph=True)[0]
        b = torch.autograd.grad(naive.sum(), maps, retain_graph=True)[0]
        assert torch.allclose(a, b, atol=1e-12)


@pytest.mark.parametrize(
    ("before", "after", "cost"),
    [
        (0.5, 0.7, 0.5 * 0.2),  # grows: weighted
        (0.5, 0.3, 0.2),  # shrinks: in full
        (-0.5, -0.7, 0.5 * 0.2),
        (-0.5, -0.3, 0.2),
        (0.5, -0.5, 1.0),  # turns
        (0.1, 0.3, 0.1 * 0.2),  # the same growth of a smaller value costs less
        (0.0, 0.2, 0.2),  # no sign is another sign
        (0.5, 0.5, 0.0),
    ],
)
def test_change_of_one_pixel(before, after, cost):
    maps = torch.zeros(2, 1, 1, 1, 2, dtype=torch.float64)
    maps[0, ..., 1], maps[1, ..., 1] = before, after
    assert attribution_change(*maps).item() == pytest.approx(cost)
    assert attribution_change(*maps, base=False).item() == pytest.approx(abs(after - before))


@pytest.mark.parametrize(("opposed", "cost"), [("signs", 0.2), ("product", 0.0)])
@pytest.mark.parametrize("base", [True, False])
def test_change_where_the_map_was_zero(opposed, cost, base):
    """sign 0 ≠ sign 0.2, but 0 · 0.2 is not negative: P₁ by the one reading, not by the other."""
    before, after = torch.zeros(1, 1, 1, 3), torch.tensor([0.2, 0.0, 0.0]).view(1, 1, 1, 3)
    assert attribution_change(before, after, base=base, opposed=opposed).item() == (
        pytest.approx(cost)
    )


def test_the_three_readings_of_the_change_where_nothing_is_perturbed(smooth_model, images, labels):
    still, batch = PGD(eps=0.0, step_size=0.0, steps=0), {"images": images, "labels": labels}
    terms = {
        change: EnhancedRegularization(change=change, cacr=0.0, base=False, attack=still)(
            smooth_model, batch
        )["wacr"]
        for change in ("difference", "path", "path_less_base")
    }
    assert terms["difference"] == terms["path"] == 0
    sizes = IntegratedGradients(steps=50, output="probability")(smooth_model, images, labels)
    expected = sizes.abs().flatten(1).sum(1).mean()
    assert terms["path_less_base"].item() == pytest.approx(expected.item(), rel=1e-6)


def test_refuses_readings_that_are_none(own_errors):
    with pytest.raises(InputError, match=r"EnhancedRegularization.change: expected 'difference'"):
        EnhancedRegularization(change="line 16")
    with pytest.raises(InputError, match=r"EnhancedRegularization.opposed: expected 'signs'"):
        EnhancedRegularization(opposed="P1")
    with pytest.raises(InputError, match=r"opposed: expected 'signs' or 'product'"):
        attribution_change(torch.zeros(1, 1, 2, 3), torch.zeros(1, 1, 2, 3), opposed="P1")


SETTINGS = {
    "default": {},
    "table 4": {"wacr": 0.0},
    "table 5": {"cacr": 0.0},
    "table 6": {"wacr": 0.7},
    "table 7": {"cacr": 0.7},
    "table 10": {"base": False},
    "figure 6": {"rival": 0.0},
    "lambda": {"weight": 0.3},
    "equation 8, left": {"change": "path"},
    "equation 8, left, alone": {"change": "path", "cacr": 0.0, "opposed": "product"},
    "algorithm 1": {"change": "path_less_base"},
    "algorithm 1, no base": {"change": "path_less_base", "base": False, "opposed": "product"},
    "product": {"opposed": "product"},
}


@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS.keys())
def test_loss_equals_the_naive_computation(
    smooth_model, images, labels, attack, ascend, same_gradients, settings
):
    images[0, :, :2] = 0  # where the image is black, so is the map before
    objective = EnhancedRegularization(steps=4, attack_steps=2, attack=attack, **settings)
    ours = objective(smooth_model, {"images": images, "labels": labels})

    def cross_entropies(x):
        return -smooth_model(x).log_softmax(1)[torch.arange(3), labels]

    def ascended(x):
        total = cross_entropies(x).sum()
        for n, y in enumerate(labels):
            map = naive_map(smooth_model, images[n], x[n], lambda z, y=y: -z.log_softmax(0)[y], 2)
            total = total + map.abs().sum()
        return total

    x = ascend(ascended, images, attack.start(images), attack)
    contrast = change = 0.0
    for n, y in enumerate(labels):
        logits = smooth_model(x[n][None])[0].tolist()
        rival = max((k for k in range(4) if k != y), key=logits.__getitem__)
        black = torch.zeros_like(images[n])
        own, other, before = (
            naive_map(smooth_model, black, end, probability(k), 4)
            for end, k in ((x[n], y), (x[n], rival), (images[n], y))
        )
        contrast = contrast + naive_contrast(own, other, settings.get("rival", 1.0)) / 3
        path = naive_map(smooth_model, images[n], x[n], probability(y), 4)
        moved = {"difference": own - before, "path": path, "path_less_base": path - before}
        readings = settings.get("base", True), settings.get("opposed", "signs")
        cost = naive_cost(before, moved[settings.get("change", "difference")], *readings)
        change = change + cost / 3
    both = settings.get("cacr", 1.0) * contrast + settings.get("wacr", 1.0) * change
    loss = cross_entropies(x).mean() + settings.get("weight", 1.0) * both
    for name, value in (("cacr", contrast), ("wacr", change)):
        if settings.get(name) == 0.0:
            assert name not in ours
        else:
            assert ours[name].item() == pytest.approx(value.item(), rel=1e-6, abs=1e-12)
    assert ours["loss"].item() == pytest.approx(loss.item(), rel=1e-9)
    same_gradients(smooth_model, ours["loss"], loss)


def test_inner_attack_does_not_lower_its_own_objective(smooth_model, images, labels):
    attack = PGD(eps=0.1, step_size=0.02, steps=5, seed=0)

    def value(x):
        size = attribution_size(smooth_model, images, x, labels, steps=5)
        return F.cross_entropy(smooth_model(x), labels, reduction="none") + size

    seen = []
    handle = smooth_model.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    objective = EnhancedRegularization(cacr=0.0, wacr=0.0, attack_steps=5, attack=attack)
    terms = objective(smooth_model, {"images": images, "labels": labels})
    handle.remove()
    assert sorted(terms) == ["cross_entropy", "loss"]
    with evaluating(smooth_model):
        assert (value(seen[-1].detach()) > value(attack.start(images))).all()


def test_training_by_the_regularizers_lowers_them(smooth_model, images, labels):
    attack = PGD(eps=0.05, step_size=0.02, steps=2, seed=0)
    objective = EnhancedRegularization(steps=5, attack_steps=2, attack=attack)
    batch = {"images": images, "labels": labels}
    optimizer = torch.optim.SGD(smooth_model.parameters(), lr=0.5)
    first = objective(smooth_model, batch)
    for _ in range(5):
        terms = objective(smooth_model, batch)
        optimizer.zero_grad()
        (1000 * terms["cacr"] + terms["wacr"]).backward()
        optimizer.step()
    last = objective(smooth_model, batch)
    assert 1000 * last["cacr"] + last["wacr"] < 1000 * first["cacr"] + first["wacr"]


def test_stratified_points_are_shared_and_unbiased(smooth_model, images, labels):
    """Without a perturbation both maps have the same points, so that nothing changes."""
    still = PGD(eps=0.0, step_size=0.0, steps=0)
    batch = {"images": images, "labels": labels}
    few = EnhancedRegularization(steps=2, attack_steps=2, rule="stratified", attack=still)
    terms = few(smooth_model, batch)
    assert terms["wacr"] == 0
    exact = EnhancedRegularization(steps=200, rule="midpoint", attack=still)
    mean = sum(few(smooth_model, batch)["cacr"].item() for _ in range(200)) / 200
    assert mean == pytest.approx(exact(smooth_model, batch)["cacr"].item(), rel=0.05)


@pytest.mark.parametrize("field", ["weight", "cacr", "wacr", "rival"])
def test_refuses_negative_coefficients(field, own_errors):
    with pytest.raises(InputError, match=f"EnhancedRegularization.{field}"):
        EnhancedRegularization(**{field: -0.5})


@pytest.mark.parametrize("field", ["steps", "attack_steps"])
def test_refuses_a_path_without_points(field, own_errors):
    with pytest.raises(InputError, match=f"EnhancedRegularization.{field}"):
        EnhancedRegularization(**{field: 0})


@pytest.mark.parametrize("function", [attribution_contrast, attribution_change])
def test_refuses_maps_of_two_shapes(function, own_errors):
    with pytest.raises(InputError, match=r"expected shape \(1, 1, 2, 2\)"):
        function(torch.zeros(1, 1, 2, 2), torch.zeros(1, 1, 2, 3))
