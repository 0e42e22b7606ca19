import math

import numpy as np
import pytest
import torch
from scipy import stats
from torch import nn

from holdfast.adversarial import Square, accuracy, correct
from holdfast.adversarial.square import _painted, _patches, _shifted, _side, _stripes, _tiles
from holdfast.contracts import InputError

ATTACKS = [
    pytest.param(Square(0.1, queries=25), id="linf"),
    pytest.param(Square(0.1, queries=25, restarts=2), id="linf-restarts"),
    pytest.param(Square(0.5, norm="l2", queries=25), id="l2"),
]


def never_fooled(images, classes=3):
    """A model that gives every image of this shape the class 0, with margins that vary."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(images[0].numel(), classes)).to(images.dtype)
    with torch.no_grad():
        model[1].weight *= 0.01
        model[1].bias.copy_(torch.tensor([5.0, 0.0, 0.0][:classes]))
    return model


def recorded(model):
    seen = []
    model.register_forward_hook(
        lambda module, inputs, output: seen.append((inputs[0].clone(), output.clone()))
    )
    return seen


# --- proposals ------------------------------------------------------------------------------------


def test_squares_shrink_as_in_the_authors_code():
    """Of 28×28 pixels; the shares are 0.8, halved where their code halves them."""
    marks = {0: 0, 10: 0, 11: 1, 50: 1, 51: 2, 200: 2, 201: 3, 500: 3, 501: 4, 1000: 4, 1001: 5}
    marks |= {2000: 5, 2001: 6, 4000: 6, 4001: 7, 6000: 7, 6001: 8, 8000: 8, 8001: 9, 9999: 9}
    for query, halvings in marks.items():
        side = round(math.sqrt(0.8 / 2**halvings * 28 * 28))
        assert _side((1, 1, 28, 28), query / 10_000, odd=False) == max(side, 1)
        odd = max(side, 3) + (max(side, 3) % 2 == 0)
        assert _side((1, 1, 28, 28), query / 10_000, odd=True) == odd
    assert _side((1, 3, 5, 40), 0.0, odd=False) == 5  # never beyond the image
    assert _side((1, 3, 6, 6), 0.0, odd=True) == 5
    assert _side((1, 3, 1, 1), 0.0, odd=False) == 1


def naive_bump(height, width):
    """The sum of the paper: rectangles around the middle, less high the wider they are."""
    bump = np.zeros((height, width))
    row, column = height // 2, width // 2
    for m in range(max(row, column) + 1):
        for r in range(row - m, row + m + 1):
            for c in range(column - m, column + m + 1):
                if 0 <= r < height and 0 <= c < width:
                    bump[r, c] += 1 / (m + 1) ** 2
    return bump / max(np.linalg.norm(bump), 1e-30)


@pytest.mark.parametrize("side", [1, 2, 3, 4, 5, 9, 12])
def test_a_patch_is_a_bump_over_a_hollow(side):
    top, bottom = naive_bump(side // 2, side), naive_bump(side - side // 2, side)
    patch = np.concatenate([top, -bottom])
    patch /= np.linalg.norm(patch)
    found = _patches(side, torch.device("cpu")).view(2, side, side)
    assert np.allclose(found[0], patch, atol=1e-6)
    assert np.allclose(found[1], patch.T, atol=1e-6)


def test_stripes_are_vertical_and_all_signs_alike():
    images = torch.rand(50, 3, 6, 8, dtype=torch.float64) * 0.6 + 0.2
    delta = _stripes(images, 0.1, lambda count: torch.rand(50, count)) - images
    assert torch.allclose(delta.abs(), torch.tensor(0.1, dtype=torch.float64))
    assert torch.allclose(delta, delta[:, :, :1].expand_as(delta))
    ups = int((delta[:, :, 0] > 0).sum())
    assert stats.binomtest(ups, 50 * 3 * 8).pvalue > 0.001


@pytest.mark.parametrize(("height", "width", "side"), [(6, 8, 3), (5, 5, 5), (4, 7, 1)])
def test_paints_one_square_at_any_place(height, width, side):
    images = torch.rand(300, 2, height, width)
    best = (images + 0.1 * torch.randn_like(images).sign()).clamp(0, 1)
    found = _painted(images, best, 0.1, side, torch.rand(300, 7))
    places = []
    for image, before, after in zip(images, best, found, strict=True):
        options = []
        for top in range(height - side + 1):
            for left in range(width - side + 1):
                window = np.s_[:, top : top + side, left : left + side]
                expected = before.clone()
                signs = (after - image)[window].sum((1, 2), keepdim=True).sign()
                expected[window] = (image[window] + 0.1 * signs).clamp(0, 1)
                if torch.allclose(expected, after):
                    options.append((top, left))
        assert options
        if len(options) == 1:
            places.append(options[0])
    wanted = {(t, c) for t in range(height - side + 1) for c in range(width - side + 1)}
    if side > 1:  # of one pixel it cannot always be told
        assert set(places) == wanted  # the last row and column included


@pytest.mark.parametrize("shape", [(3, 11, 14), (1, 5, 5), (2, 6, 9)])
def test_tiles_fill_the_ball(shape):
    images = torch.full((4, *shape), 0.5)
    delta = _tiles(images, 0.3, lambda count: torch.rand(4, count)) - images
    assert torch.allclose(delta.flatten(1).norm(dim=1), torch.tensor(0.3), atol=1e-5)
    assert (delta != 0).float().mean() > 0.6


def naive_shift(image, best, eps, side, places, sign, patch):
    """Algorithm 3 of the paper for one image, before the cut to [0, 1]."""
    delta = best - image
    channels, height, width = image.shape
    (top, left), (top2, left2) = places
    first, second = np.zeros((height, width), bool), np.zeros((height, width), bool)
    first[top : top + side, left : left + side] = True
    second[top2 : top2 + side, left2 : left2 + side] = True
    unused = max(eps**2 - (delta**2).sum(), 0)
    after = delta.copy()
    for c in range(channels):
        old = delta[c][first].reshape(side, side)
        new = sign[c] * patch + old / max(np.linalg.norm(old), 1e-300)
        budget = math.sqrt((delta[c][first | second] ** 2).sum() + unused / channels)
        after[c][second] = 0
        after[c][first] = (new / np.linalg.norm(new) * budget).ravel()
    return after * eps / np.linalg.norm(after)


@pytest.mark.parametrize("fill", [0.1, 0.25])
def test_shifts_the_budget_of_one_window_into_another(fill):
    """With and without unused ε, windows overlapping and apart, in either orientation."""
    height, width, side, eps = 9, 12, 5, 0.25
    images = torch.full((40, 2, height, width), 0.5, dtype=torch.float64)
    delta = torch.randn_like(images)
    best = images + fill * delta / delta.flatten(1).norm(dim=1).view(-1, 1, 1, 1)
    u = torch.rand(40, 7)
    found = _shifted(images, best, eps, side, u) - images
    patches = _patches(side, torch.device("cpu")).double().view(2, side, side).numpy()
    for n in range(40):
        spot = [int(u[n, k] * (size - side + 1)) for k, size in enumerate([height, width] * 2)]
        sign = [1 if share >= 0.5 else -1 for share in u[n, 5:].tolist()]
        expected = naive_shift(
            images[n].numpy(),
            best[n].numpy(),
            eps,
            side,
            (spot[:2], spot[2:]),
            sign,
            patches[int(u[n, 4] < 0.5)],
        )
        assert np.allclose(found[n], expected, atol=1e-6)


# --- the search -----------------------------------------------------------------------------------


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_keeps_what_lowers_the_margin_and_asks_as_often_as_it_may(norm):
    images = torch.rand(3, 2, 8, 8, dtype=torch.float64)
    model = never_fooled(images)
    seen = recorded(model)
    Square(0.1, norm, queries=90)(model, images, torch.zeros(3, dtype=torch.long))
    assert len(seen) == 1 + 90  # the images themselves, and 90 perturbations of each
    side, lowest, best = 0, math.inf, None
    for query, (points, logits) in enumerate(seen[1:]):
        changed = None if best is None else (points[0] != best).any(0)
        if norm == "linf" and changed is not None and changed.any():
            rows, columns = changed.any(1).nonzero(), changed.any(0).nonzero()
            side = _side(images.shape, query / 90, odd=False)
            assert max(rows.max() - rows.min(), columns.max() - columns.min()) < side
        margin = float(logits[0, 0] - logits[0, 1:].max())
        if margin < lowest:
            lowest, best = margin, points[0]
    assert lowest < float(seen[1][1][0, 0] - seen[1][1][0, 1:].max())  # than at the first query


@pytest.mark.parametrize(("norm", "slack"), [("linf", 1.02), ("l2", 2.0)])
def test_succeeds_not_far_from_the_best_attack(norm, slack, linear, greys, thresholds):
    greys = greys[:2]
    labels = linear(greys).argmax(1)
    for n, threshold in enumerate(thresholds(linear, greys, labels, norm).tolist()):
        one, own = greys[n : n + 1], labels[n : n + 1]
        assert accuracy(linear, one, own, Square(0.99 * threshold, norm, queries=100)) == 1
        assert accuracy(linear, one, own, Square(slack * threshold, norm, queries=400)) == 0


@pytest.mark.parametrize(
    ("attack", "left"),
    [(Square(0.2, queries=300), 0.15), (Square(1.0, norm="l2", queries=300), 0.5)],
    ids=repr,
)
def test_takes_digits_down(attack, left, digits):
    model, images, labels = digits
    assert accuracy(model, images, labels) > 0.9
    assert accuracy(model, images, labels, attack) <= left


@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
def test_models_and_images_of_any_precision(dtype, norm, digits):
    model, images, labels = digits
    eps = 0.3 if norm == "linf" else 2.0
    other = nn.Sequential(nn.Flatten(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))
    other.load_state_dict(model.state_dict())
    other.to(dtype)
    half = torch.finfo(dtype).bits < 32
    if half:
        with pytest.raises(InputError, match="images: expected float32 or float64 images"):
            Square(eps, norm, queries=1)(other, images.to(dtype), labels)
    for given in (images,) if half else (images, images.to(dtype)):
        attacked = Square(eps, norm, queries=150)(other, given, labels)
        assert attacked.dtype == given.dtype
        assert attacked.min() >= 0
        assert attacked.max() <= 1
        delta = (attacked.double() - given.double()).flatten(1)
        size = delta.abs().amax(1) if norm == "linf" else delta.norm(dim=1)
        assert (size <= eps * (1 + 8 * torch.finfo(given.dtype).eps)).all()
        assert correct(other, attacked, labels).double().mean() < 0.4


@pytest.mark.parametrize("attack", ATTACKS)
def test_a_default_precision_of_float64_changes_nothing(attack, digits):
    model, images, labels = digits
    before = attack(model, images, labels)
    torch.set_default_dtype(torch.float64)
    try:
        assert torch.allclose(attack(model, images, labels), before, atol=1e-6)
    finally:
        torch.set_default_dtype(torch.float32)


@pytest.mark.parametrize("attack", ATTACKS)
def test_needs_no_gradient(attack, digits):
    model, images, labels = digits

    class Blind(nn.Module):
        def forward(self, x):
            with torch.no_grad():
                return {"logits": model((x * 255).round() / 255)}

    expected = attack(Blind(), images, labels)
    assert accuracy(Blind(), expected, labels) < accuracy(Blind(), images, labels)
    with torch.inference_mode():
        assert torch.equal(attack(Blind(), images, labels), expected)


@pytest.mark.parametrize("attack", ATTACKS)
def test_takes_a_model_whose_logits_are_the_pixels(attack):
    """No parameter, and logits that share their memory with the images."""
    images = torch.full((3, 1, 5, 5), 0.5)
    images[:, 0, 0, 0] = 0.55
    given = images.clone()
    attack(nn.Flatten(), images, torch.zeros(3, dtype=torch.int32))
    assert torch.equal(images, given)


@pytest.mark.parametrize(
    "shape", [(1, 5, 20), (3, 17, 6), (1, 5, 5), (2, 12, 12), (1, 14, 14), (1, 24, 18), (1, 27, 41)]
)
@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_takes_images_of_any_shape(shape, norm):
    images = torch.rand(3, *shape)
    labels = torch.zeros(3, dtype=torch.long)
    model = never_fooled(images)
    seen = recorded(model)
    assert torch.equal(Square(0.1, norm, queries=40)(model, images, labels), images)
    for points, _ in seen[1:]:
        assert points.min() >= 0
        assert points.max() <= 1
        delta = (points - images).flatten(1)
        assert (delta.norm(dim=1) if norm == "l2" else delta.abs().amax(1)).max() <= 0.1 + 1e-6


@pytest.mark.parametrize("shape", [(1, 1, 1), (3, 1, 9), (2, 2, 2), (1, 4, 3)])
def test_linf_takes_images_of_any_size(shape):
    images, labels = torch.rand(3, *shape), torch.zeros(3, dtype=torch.long)
    assert torch.equal(Square(0.1, queries=60)(never_fooled(images), images, labels), images)


def test_l2_needs_five_pixels(own_errors):
    images, labels = torch.rand(2, 1, 4, 9), torch.tensor([0, 1])
    with pytest.raises(InputError, match="images: expected at least 5×5 pixels.*got 4×9 pixels"):
        Square(0.1, "l2")(nn.Flatten(), images, labels)


@pytest.mark.parametrize(
    ("settings", "field"),
    [
        ({"eps": -0.1}, "eps"),
        ({"norm": "l1"}, "norm"),
        ({"queries": 0}, r"Square\.queries"),
        ({"restarts": 0}, r"Square\.restarts"),
    ],
)
def test_refuses_settings(settings, field, own_errors):
    with pytest.raises(InputError, match=field):
        Square(**({"eps": 0.1} | settings))
