import copy

import pytest
import torch
from torch.nn import functional as F

from holdfast.contracts import InputError
from holdfast.models import WithDiscriminator
from holdfast.objectives import JARN

SGD = {"lr": 0.1, "momentum": 0.9, "weight_decay": 0.01}


@pytest.fixture
def judged(smooth_model):
    return WithDiscriminator(smooth_model, channels=2, width=2)


def naive_terms(model, images, labels):
    """ℓ(x), and the discriminator's mean cross-entropy, from new graphs."""
    x = images.clone().requires_grad_(True)
    probabilities = model.classifier(x).softmax(1)
    own = probabilities[torch.arange(len(labels)), labels]
    (gradient,) = torch.autograd.grad(own.sum(), x, create_graph=True)

    def standardized(pictures):
        centred = pictures - pictures.mean((1, 2, 3), keepdim=True)
        return centred / centred.flatten(1).norm(dim=1).view(-1, 1, 1, 1)

    adapted = torch.tanh(model.adaptor(standardized(gradient)))
    logits = model.discriminator(standardized(torch.cat([adapted, images])))
    fake = torch.cat([torch.zeros(len(labels)), torch.ones(len(labels))]).long()
    return -own.log().mean(), F.cross_entropy(logits, fake)


def naive_training(model, batches, weight, every):
    """Three optimizers, each with a backward pass of its own, as in the public code."""
    parts = model.classifier, model.adaptor, model.discriminator
    classifier, adaptor, discriminator = (torch.optim.SGD(p.parameters(), **SGD) for p in parts)
    for step, (images, labels) in enumerate(batches):
        gradients = []
        for part, sign in zip(parts, (-weight, -weight, 1.0), strict=True):
            loss, discrimination = naive_terms(model, images, labels)
            total = sign * discrimination + (loss if part is model.classifier else 0)
            gradients.append(torch.autograd.grad(total, list(part.parameters())))
        for part, found in zip(parts, gradients, strict=True):
            for parameter, gradient in zip(part.parameters(), found, strict=True):
                parameter.grad = gradient
        classifier.step()
        adaptor.step()
        if step % every == 0:
            discriminator.step()


def test_one_optimizer_does_what_three_do(judged, images, labels):
    batches = [(images, labels), (images.flip(0), labels.flip(0)), (1 - images, labels)] * 2
    expected, before = copy.deepcopy(judged), copy.deepcopy(judged)
    naive_training(expected, batches, weight=0.7, every=3)
    optimizer = torch.optim.SGD(judged.parameters(), **SGD)
    for x, y in batches:
        optimizer.zero_grad()
        JARN(weight=0.7, every=3, noise=0.0)(judged, {"images": x, "labels": y})["loss"].backward()
        optimizer.step()
    pairs = zip(judged.named_parameters(), expected.parameters(), before.parameters(), strict=True)
    for (name, ours), theirs, then in pairs:
        assert torch.allclose(ours, theirs, atol=1e-9), name
        # A bias before batch-norm has no slope, and begins at 0.
        assert not torch.equal(ours, then) or name.startswith("discriminator"), name


def test_terms_are_what_they_say(judged, images, labels):
    terms = JARN(weight=0.7, noise=0.0)(judged, {"images": images, "labels": labels})
    loss, discrimination = naive_terms(judged, images, labels)
    assert terms["cross_entropy"].item() == pytest.approx(loss.item(), rel=1e-10)
    assert terms["discrimination"].item() == pytest.approx(discrimination.item(), rel=1e-8)


def test_the_discriminator_learns_every_so_often_and_its_momentum_rests(judged, images, labels):
    optimizer = torch.optim.SGD(judged.parameters(), **SGD)
    head = judged.discriminator[-1].weight
    moved = []
    for _ in range(7):
        before = head.detach().clone()
        optimizer.zero_grad()
        JARN(every=3)(judged, {"images": images, "labels": labels})["loss"].backward()
        optimizer.step()
        moved.append(not torch.equal(before, head))
    assert moved == [True, False, False, True, False, False, True]
    assert judged.calls == 7


def test_does_not_count_in_eval_mode(judged, images, labels):
    judged.eval()
    JARN()(judged, {"images": images, "labels": labels})
    assert judged.calls == 0


def test_noise_moves_uniformly_within_its_bound_and_the_image(judged, images, labels):
    images[0, 0] = 0.0
    seen = []
    judged.classifier.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].detach()))
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        JARN(noise=0.1)(judged, {"images": images, "labels": labels})
    assert torch.equal(seen[0], seen[1])
    assert not torch.equal(seen[0], seen[2])
    delta = (seen[0] - images)[1:]
    assert delta.abs().max() <= 0.1
    assert 0.045 < delta.std() < 0.07  # 0.1 / √3
    assert seen[0].min() == 0


def test_loss_and_probability_point_opposite_ways(judged, images, labels):
    """With the adaptor's weights turned, the one is the other."""
    batch = {"images": images, "labels": labels}
    torch.manual_seed(0)
    first = JARN()(judged, batch)["discrimination"]
    judged.adaptor.weight.data.neg_()
    torch.manual_seed(0)
    turned = JARN(output="loss")(judged, batch)["discrimination"]
    assert turned.item() == pytest.approx(first.item(), rel=1e-6)


def test_works_under_no_grad(judged, images, labels):
    with torch.no_grad():
        assert JARN()(judged, {"images": images, "labels": labels})["loss"].isfinite()


@pytest.mark.parametrize("settings", [{"weight": -1.0}, {"every": 0}, {"noise": -0.1}])
def test_refuses_settings(settings, own_errors):
    with pytest.raises(InputError, match=rf"JARN\.{next(iter(settings))}"):
        JARN(**settings)


def test_refuses_a_model_without_discriminator(smooth_model, images, labels, own_errors):
    with pytest.raises(InputError, match="model: expected a holdfast.models.WithDiscriminator"):
        JARN()(smooth_model, {"images": images, "labels": labels})
