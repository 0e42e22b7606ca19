"""What APGD and Square promise alike: an image's result is its own, drawn from its own seed."""

import pytest
import torch

from holdfast.adversarial import APGD, Square

ATTACKS = [
    pytest.param(APGD(0.1, steps=10), id="apgd-ce"),
    pytest.param(APGD(0.1, loss="dlr", steps=10, restarts=2), id="apgd-dlr"),
    pytest.param(APGD(0.5, norm="l2", steps=10), id="apgd-l2"),
    pytest.param(Square(0.1, queries=25), id="square-linf"),
    pytest.param(Square(0.1, queries=25, restarts=2), id="square-linf-restarts"),
    pytest.param(Square(0.5, norm="l2", queries=25), id="square-l2"),
]


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
    strided = images.to(memory_format=torch.channels_last)
    assert torch.allclose(attack(smooth_model, strided, labels), together)


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
    before = torch.get_rng_state()
    attack(smooth_model, *half_fooled)
    assert torch.equal(torch.get_rng_state(), before)
