import random

import numpy as np
import pytest
import torch
import torchattacks
from torch import nn

from holdfast.adversarial import APGD, Square, accuracy
from holdfast.contracts import InputError

NAMES = {"linf": "Linf", "l2": "L2"}
ATTACKS = [
    pytest.param(APGD(0.1, steps=10), id="apgd"),
    pytest.param(APGD(0.1, loss="dlr", steps=10, restarts=2), id="apgd-dlr"),
    pytest.param(APGD(0.5, norm="l2", steps=10), id="apgd-l2"),
    pytest.param(Square(0.1, queries=40), id="square"),
    pytest.param(Square(0.1, queries=40, restarts=2), id="square-restarts"),
    pytest.param(Square(0.5, norm="l2", queries=40), id="square-l2"),
]


class Inclusive(torchattacks.Square):
    """Square with positions as in the paper, the last one included."""

    def random_int(self, low=0, high=1):
        return super().random_int(low, high + 1)


@pytest.fixture
def half_fooled(smooth_model):
    """Images of which some fall at once, some late, and the second is wrong from the start."""
    images = torch.rand(12, 2, 5, 5, dtype=torch.float64)
    with torch.no_grad():
        smooth_model[-1].weight *= 5
    labels = smooth_model(images).argmax(1)
    labels[1] = (labels[1] + 1) % 4
    return images, labels


@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize("loss", ["ce", "dlr"])
def test_apgd_succeeds_exactly_where_the_best_attack_does(norm, loss, linear, greys, thresholds):
    labels = linear(greys).argmax(1)
    for n, threshold in enumerate(thresholds(linear, greys, labels, norm).tolist()):
        one, own = greys[n : n + 1], labels[n : n + 1]
        assert accuracy(linear, one, own, APGD(0.99 * threshold, norm, loss)) == 1
        assert accuracy(linear, one, own, APGD(1.02 * threshold, norm, loss, restarts=3)) == 0


@pytest.mark.parametrize(("norm", "slack"), [("linf", 1.02), ("l2", 2.0)])
def test_square_succeeds_not_far_from_the_best_attack(norm, slack, linear, greys, thresholds):
    greys = greys[:3]
    labels = linear(greys).argmax(1)
    for n, threshold in enumerate(thresholds(linear, greys, labels, norm).tolist()):
        one, own = greys[n : n + 1], labels[n : n + 1]
        assert accuracy(linear, one, own, Square(0.99 * threshold, norm, queries=100)) == 1
        assert accuracy(linear, one, own, Square(slack * threshold, norm, queries=400)) == 0


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_an_image_gets_what_torchattacks_alone_gives_it(norm, digits):
    model, images, labels = digits
    eps = 0.1 if norm == "linf" else 0.4
    apgd = APGD(eps, norm, steps=20, seed=5)(model, images[:10], labels[:10])
    square = Square(eps, norm, queries=50, seed=5)(model, images[:10], labels[:10])
    for n in range(10):
        one, own = images[n : n + 1], labels[n : n + 1]
        theirs = torchattacks.APGD(model, NAMES[norm], eps, steps=20, seed=5)(one, own)
        assert torch.allclose(apgd[n], theirs[0], atol=1e-5)
        theirs = Inclusive(model, NAMES[norm], eps, n_queries=50, seed=5)(one, own)
        fooled = bool(model(theirs).argmax(1) != own)
        assert torch.allclose(square[n], theirs[0] if fooled else one[0], atol=1e-5)


@pytest.mark.parametrize(
    ("attack", "left"),
    [
        (APGD(0.2), 0.05),
        (APGD(0.2, loss="dlr"), 0.05),
        (APGD(0.8, norm="l2"), 0.15),
        (Square(0.2, queries=500), 0.1),
        (Square(1.0, norm="l2", queries=500), 0.4),
    ],
    ids=repr,
)
def test_takes_digits_down(attack, left, digits):
    model, images, labels = digits
    assert accuracy(model, images, labels) > 0.9
    assert accuracy(model, images, labels, attack) <= left


@pytest.mark.parametrize("attack", ATTACKS)
def test_does_not_depend_on_the_batch(attack, smooth_model, half_fooled):
    images, labels = half_fooled
    together = attack(smooth_model, images, labels)
    fooled = smooth_model(together).argmax(1) != labels
    assert 1 < fooled.sum() < 12
    order = torch.randperm(12)
    assert torch.allclose(attack(smooth_model, images[order], labels[order]), together[order])
    alone = [attack(smooth_model, images[i : i + 1], labels[i : i + 1]) for i in range(12)]
    assert torch.allclose(torch.cat(alone), together)
    small = type(attack)(**{**vars(attack), "chunk": 5})
    assert torch.allclose(small(smooth_model, images, labels), together)


@pytest.mark.parametrize("attack", ATTACKS)
def test_another_seed_is_another_attack(attack, digits):
    other = type(attack)(**{**vars(attack), "seed": 7})
    results = [one(*digits) for one in (attack, other)]
    assert not torch.allclose(*results)


@pytest.mark.parametrize("attack", ATTACKS)
def test_what_is_wrong_or_withstands_comes_back_as_it_was(attack, smooth_model, half_fooled):
    images, labels = half_fooled
    attacked = attack(smooth_model, images, labels)
    assert torch.equal(attacked[1], images[1])
    robust = smooth_model(attacked).argmax(1) == labels
    assert torch.equal(attacked[robust], images[robust])


@pytest.mark.parametrize("attack", ATTACKS)
def test_leaves_the_caller_s_generators_alone(attack, smooth_model, half_fooled):
    before = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist()
    attack(smooth_model, *half_fooled)
    assert torch.equal(torch.get_rng_state(), before[0])
    assert (random.getstate(), np.random.get_state()[1].tolist()) == before[1:]


@pytest.mark.parametrize("attack", ATTACKS)
def test_says_nothing(attack, smooth_model, half_fooled, capfd):
    attack(smooth_model, *half_fooled)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("attack", ATTACKS)
def test_takes_a_model_whose_logits_are_the_pixels(attack):
    """No parameter, and logits that share their memory with the images."""
    images = torch.full((3, 1, 5, 5), 0.5)
    images[:, 0, 0, 0] = 0.55
    given = images.clone()
    attack(nn.Flatten(), images, torch.zeros(3, dtype=torch.long))
    assert torch.equal(images, given)


@pytest.mark.parametrize("attack", ATTACKS)
def test_the_model_s_own_draws_stay_its_own(attack):
    class Noisy(nn.Module):
        def forward(self, x):
            noise = torch.rand(x.shape)
            if len(x) > 1:
                assert not torch.equal(noise[0], noise[1])
            return (x + 1e-6 * noise).flatten(1)

    images = torch.full((3, 1, 5, 5), 0.5)
    images[:, 0, 0, 0] = 0.9
    attack(Noisy(), images, torch.zeros(3, dtype=torch.long))


@pytest.mark.parametrize(
    "shape", [(1, 5, 20), (3, 17, 6), (1, 5, 5), (2, 12, 12), (1, 14, 14), (1, 24, 18), (1, 27, 41)]
)
@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_square_takes_images_of_any_shape(shape, norm):
    images = torch.rand(3, *shape)
    model = nn.Sequential(nn.Flatten(), nn.Linear(images[0].numel(), 3))
    with torch.no_grad():
        model[1].weight *= 0.01
        model[1].bias.copy_(torch.tensor([5.0, 0.0, 0.0]))  # never fooled: all queries are spent
    labels = torch.zeros(3, dtype=torch.long)
    assert torch.equal(Square(0.1, norm, queries=100)(model, images, labels), images)


def test_square_in_l2_needs_five_pixels(own_errors):
    images, labels = torch.rand(2, 1, 4, 9), torch.tensor([0, 1])
    with pytest.raises(InputError, match="images: expected at least 5×5 pixels.*got 4×9 pixels"):
        Square(0.1, "l2")(nn.Flatten(), images, labels)


def test_dlr_needs_three_classes(own_errors):
    model = nn.Sequential(nn.Flatten(), nn.Linear(4, 2))
    images, labels = torch.rand(2, 1, 2, 2), torch.tensor([0, 1])
    with pytest.raises(InputError, match="at least 3 classes"):
        APGD(0.1, loss="dlr")(model, images, labels)
    assert APGD(0.1)(model, images, labels).shape == images.shape


@pytest.mark.parametrize(
    ("attack", "settings", "field"),
    [
        (APGD, {"eps": -0.1}, "eps"),
        (APGD, {"norm": "l1"}, "norm"),
        (APGD, {"loss": "margin"}, r"APGD\.loss"),
        (APGD, {"steps": 0}, r"APGD\.steps"),
        (APGD, {"restarts": 0}, r"APGD\.restarts"),
        (Square, {"eps": -0.1}, "eps"),
        (Square, {"norm": "l1"}, "norm"),
        (Square, {"queries": 0}, r"Square\.queries"),
        (Square, {"restarts": 0}, r"Square\.restarts"),
    ],
)
def test_refuses_settings(attack, settings, field, own_errors):
    with pytest.raises(InputError, match=field):
        attack(**({"eps": 0.1} | settings))
