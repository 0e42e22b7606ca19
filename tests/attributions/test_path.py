import captum.attr
import pytest
import torch
from torch import nn

from holdfast.attributions import IntegratedGradients, path_points
from holdfast.contracts import InputError

CAPTUM = {
    "right": "riemann_right",
    "left": "riemann_left",
    "midpoint": "riemann_middle",
    "trapezoid": "riemann_trapezoid",
}


@pytest.fixture
def images():
    return torch.rand(4, 2, 5, 5, dtype=torch.float64)


@pytest.fixture
def targets():
    return torch.tensor([0, 1, 2, 3])


def naive(model, images, targets, positions, weights, baseline=0.0):
    maps = torch.zeros_like(images)
    for n in range(len(images)):
        for t, w in zip(positions, weights, strict=True):
            x = (baseline + t * (images[n] - baseline)).requires_grad_(True)
            model(x[None])[0, targets[n]].backward()
            maps[n] += w * x.grad * (images[n] - baseline)
    return maps


@pytest.mark.parametrize("rule", CAPTUM)
def test_equals_captum(rule, relu_model, images, targets):
    ours = IntegratedGradients(steps=20, rule=rule)(relu_model, images, targets)
    theirs = captum.attr.IntegratedGradients(relu_model).attribute(
        images, target=targets, n_steps=20, method=CAPTUM[rule]
    )
    if rule == "trapezoid":
        # Captum's 20 trapezoid weights sum to 19/20; the rule's own sum to 1.
        theirs = theirs * 20 / 19
    assert torch.allclose(ours, theirs, atol=1e-6, rtol=0)


@pytest.mark.parametrize(
    ("rule", "positions", "weights"),
    [
        ("right", [0.25, 0.5, 0.75, 1.0], [0.25] * 4),
        ("left", [0.0, 0.25, 0.5, 0.75], [0.25] * 4),
        ("midpoint", [0.125, 0.375, 0.625, 0.875], [0.25] * 4),
        ("trapezoid", [0.0, 1 / 3, 2 / 3, 1.0], [1 / 6, 1 / 3, 1 / 3, 1 / 6]),
    ],
)
def test_equals_the_naive_loop(rule, positions, weights, smooth_model, images, targets):
    ours = IntegratedGradients(steps=4, rule=rule, baseline=0.5)(smooth_model, images, targets)
    expected = naive(smooth_model, images, targets, positions, weights, baseline=0.5)
    assert torch.allclose(ours, expected, atol=1e-12)


@pytest.mark.parametrize("rule", ["right", "left", "midpoint", "trapezoid", "stratified"])
@pytest.mark.parametrize("output", ["logit", "probability"])
def test_completeness(rule, output, smooth_model, images):
    targets = (smooth_model(images) - smooth_model(images * 0)).abs().argmax(1)

    def value(x):
        z = smooth_model(x)
        return (z.softmax(1) if output == "probability" else z).gather(1, targets[:, None])[:, 0]

    method = IntegratedGradients(steps=200, rule=rule, output=output)
    gathered = method(smooth_model, images, targets).flatten(1).sum(1)
    change = value(images) - value(torch.zeros_like(images))
    assert ((gathered - change).abs() < 0.01 * change.abs()).all()


def test_stratified_is_unbiased_and_stays_in_its_pieces(smooth_model, images, targets):
    positions, weights = path_points("stratified", 8, images)
    pieces = torch.arange(8) / 8
    assert ((positions >= pieces) & (positions <= pieces + 1 / 8)).all()
    assert not torch.equal(positions[0], positions[1])
    assert weights.sum() == 1

    method = IntegratedGradients(steps=3, rule="stratified")
    mean = torch.stack([method(smooth_model, images, targets) for _ in range(300)]).mean(0)
    exact = IntegratedGradients(steps=400, rule="midpoint")(smooth_model, images, targets)
    assert (mean - exact).norm() < 0.01 * exact.norm()


def test_a_linear_model_is_explained_exactly_by_one_step():
    model = nn.Sequential(nn.Flatten(), nn.Linear(8, 3)).double()
    images = torch.rand(2, 2, 2, 2).double()
    maps = IntegratedGradients(steps=1, baseline=1.0)(model, images, torch.tensor([0, 2]))
    expected = (images.flatten(1) - 1) * model[1].weight[[0, 2]]
    assert torch.allclose(maps.flatten(1), expected)


@pytest.mark.parametrize("shape", [(2, 5, 5), (1, 2, 5, 5), (4, 2, 5, 5)])
def test_the_baseline_may_be_an_image(shape, relu_model, images, targets):
    baseline = torch.rand(shape, dtype=torch.float64)
    ours = IntegratedGradients(steps=20, baseline=baseline)(relu_model, images, targets)
    theirs = captum.attr.IntegratedGradients(relu_model).attribute(
        images, baseline.expand_as(images), targets, n_steps=20, method="riemann_right"
    )
    assert torch.allclose(ours, theirs, atol=1e-12)


def test_white_is_one_as_number_or_image(relu_model, images, targets):
    number, image = (
        IntegratedGradients(steps=3, baseline=baseline)(relu_model, images, targets)
        for baseline in (1.0, torch.ones(2, 5, 5))
    )
    assert torch.equal(number, image)


def test_the_baseline_itself_gets_a_map_of_zeros(relu_model):
    black = torch.zeros(1, 2, 5, 5).double()
    assert IntegratedGradients()(relu_model, black, torch.tensor([1])).abs().sum() == 0


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"steps": 0}, "IntegratedGradients.steps: expected a number above 0, got 0"),
        ({"baseline": 2.0}, "IntegratedGradients.baseline"),
        ({"baseline": torch.full((1, 2, 2), 2.0)}, "IntegratedGradients.baseline: expected values"),
        ({"baseline": torch.ones(2, 2)}, "IntegratedGradients.baseline: expected shape"),
    ],
)
def test_refuses_settings(settings, says, own_errors):
    with pytest.raises(InputError, match=says):
        IntegratedGradients(**settings)


def test_refuses_an_unknown_rule_and_too_short_a_trapezoid(own_errors):
    with pytest.raises(InputError, match="rule: expected one of right, left"):
        path_points("simpson", 3, torch.rand(1, 1, 2, 2))
    with pytest.raises(InputError, match="steps: expected at least 2"):
        path_points("trapezoid", 1, torch.rand(1, 1, 2, 2))
