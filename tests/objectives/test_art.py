import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from holdfast.adversarial import PGD
from holdfast.contracts import InputError
from holdfast.models import Normalized, evaluating
from holdfast.objectives import ART, alignment_loss

LABELS = torch.tensor([1, 3, 0])


class Net(nn.Module):
    """A float64 ReLU network small enough to write out; no bias is zero."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(2 * 3 * 3, 12), nn.Linear(12, 4)
        self.double()

    def forward(self, x):
        return self.b(F.relu(self.a(x.flatten(1))))


@pytest.fixture
def net():
    return Net()


@pytest.fixture
def images():
    return torch.rand(3, 2, 3, 3, dtype=torch.float64) * 0.8 + 0.1


def naive_alignment(net, image, label, beta, mean=0.0, std=1.0, channels="each", pick=max):
    """Equation 5 for one image, with gradients written out by the chain rule."""
    z = ((image - mean) / std).flatten()
    hidden = net.a.weight @ z + net.a.bias
    active = torch.log(1 + torch.exp(beta * hidden)) / beta
    slope = 1 / (1 + torch.exp(-beta * hidden))
    logits = net.b.weight @ active + net.b.bias
    rival = pick((i for i in range(4) if i != label), key=logits.tolist().__getitem__)

    def distance(i):
        g = torch.stack([(net.b.weight[i] * slope * net.a.weight[:, j]).sum() for j in range(18)])
        v = z
        if channels == "mean":
            g, v = g.view(2, 9).mean(0), v.view(2, 9).mean(0)
        dot = sum(g[j] * v[j] for j in range(len(v)))
        return 1 - dot / (sum(w * w for w in g).sqrt() * sum(w * w for w in v).sqrt())

    return torch.log(1 + torch.exp(-(distance(rival) - distance(label))))


@pytest.mark.parametrize("channels", ["each", "mean"])
@pytest.mark.parametrize("beta", [2.0, 50.0])
def test_value_and_gradients_equal_the_naive_computation(net, images, beta, channels):
    x = images.clone().requires_grad_(True)
    ours = alignment_loss(net, x, LABELS, beta=beta, channels=channels)
    naive = torch.stack(
        [
            naive_alignment(net, v, int(y), beta, channels=channels)
            for v, y in zip(x, LABELS, strict=True)
        ]
    )
    assert torch.allclose(ours, naive, atol=1e-8, rtol=0)
    by = (x, *net.parameters())
    ours_by = torch.autograd.grad(ours.sum(), by, allow_unused=True, materialize_grads=True)
    naive_by = torch.autograd.grad(naive.sum(), by, allow_unused=True, materialize_grads=True)
    assert naive_by[0].abs().max() > 1e-3
    for a, b in zip(ours_by, naive_by, strict=True):
        assert torch.allclose(a, b, atol=1e-6)


def test_the_weakest_class_may_be_the_one_pushed_away(net, images):
    weakest = alignment_loss(net, images, LABELS, negative="argmin")
    naive = torch.stack(
        [
            naive_alignment(net, v, int(y), 50.0, pick=min)
            for v, y in zip(images, LABELS, strict=True)
        ]
    )
    assert torch.allclose(weakest, naive, atol=1e-8, rtol=0)
    assert not torch.allclose(weakest, alignment_loss(net, images, LABELS), atol=1e-6)
    terms = ART(negative="argmin", attack=PGD(0.0, 0.0, 0))(
        net, {"images": images, "labels": LABELS}
    )
    assert terms["alignment"].item() == pytest.approx(naive.mean().item())


def test_passes_gradcheck_for_input_and_weights(net, images):
    weight, bias = net.a.weight.detach().clone(), net.a.bias.detach().clone()

    def loss(x, weight, bias):
        def forward(z):
            return net.b(F.relu(F.linear(z.flatten(1), weight, bias)))

        class Functional(nn.Module):
            def forward(self, z):
                return forward(z)

        return alignment_loss(Functional(), x, LABELS, beta=3.0)

    inputs = [t.requires_grad_(True) for t in (images, weight, bias)]
    assert torch.autograd.gradcheck(loss, inputs)


def test_anchor(net, images):
    mean, std = (0.3, 0.6), (0.2, 0.5)
    model = Normalized(net, mean, std).double()
    m, s = torch.tensor(mean).view(2, 1, 1), torch.tensor(std).view(2, 1, 1)
    expected = [
        naive_alignment(net, v, int(y), 50.0, m, s) for v, y in zip(images, LABELS, strict=True)
    ]
    normalized = alignment_loss(model, images, LABELS, anchor="normalized")
    assert torch.allclose(normalized, torch.stack(expected), atol=1e-6)
    pixels = alignment_loss(model, images, LABELS, anchor="pixels")
    assert not torch.allclose(normalized, pixels, atol=1e-3)
    # A model that does not normalize has only pixels.
    assert torch.equal(
        alignment_loss(net, images, LABELS), alignment_loss(net, images, LABELS, anchor="pixels")
    )


def test_an_aligned_model_scores_lower():
    """A classifier whose true-class weights are the image itself has d = 0 there."""
    image = torch.rand(1, 1, 4, 4)
    model = nn.Sequential(nn.Flatten(), nn.Linear(16, 2, bias=False))
    with torch.no_grad():
        model[1].weight[0], model[1].weight[1] = image.flatten(), -image.flatten()
    right = alignment_loss(model, image, torch.tensor([0]))
    wrong = alignment_loss(model, image, torch.tensor([1]))
    assert right.item() == pytest.approx(math.log(1 + math.exp(-2)), rel=1e-5)
    assert wrong.item() == pytest.approx(math.log(1 + math.exp(2)), rel=1e-5)


def test_a_zero_gradient_has_distance_one():
    class Flat(nn.Module):
        def forward(self, x):
            return x.flatten(1)[:, :3] * 0

    x = torch.rand(2, 1, 2, 2, requires_grad=True)
    loss = alignment_loss(Flat(), x, torch.tensor([0, 1]))
    assert torch.allclose(loss, torch.full((2,), math.log(2)))
    (gradient,) = torch.autograd.grad(loss.sum(), x)
    assert gradient.isfinite().all()


def test_loss_is_the_sum_of_its_terms_on_the_perturbed_images(net, images):
    attack = PGD(eps=0.1, step_size=0.03, steps=2, random_start=False)
    terms = ART(weight=0.7, attack=attack)(net, {"images": images, "labels": LABELS})

    with evaluating(net):
        x = attack.maximize(lambda z: alignment_loss(net, z, LABELS), images)
    naive = torch.stack(
        [naive_alignment(net, v, int(y), 50.0) for v, y in zip(x, LABELS, strict=True)]
    ).mean()
    cross_entropy = -net(x).log_softmax(1)[torch.arange(3), LABELS].mean()
    assert terms["alignment"].item() == pytest.approx(naive.item(), abs=1e-8)
    assert terms["cross_entropy"].item() == pytest.approx(cross_entropy.item())
    assert terms["loss"].item() == pytest.approx((cross_entropy + 0.7 * naive).item())
    assert (x - images).abs().max() <= 0.1 + 1e-12


def naive_rows(net, z, label, beta):
    """The two gradients of one normalized image, through the surrogate, by autograd."""
    logits = net.b(F.softplus(net.a(z.flatten()), beta=beta))
    rival = max((i for i in range(4) if i != label), key=logits.tolist().__getitem__)
    return [
        torch.autograd.grad(logits[i], z, create_graph=True)[0].flatten() for i in (label, rival)
    ]


def apart(g, z):
    return 1 - (g * z).sum() / (g.square().sum().sqrt() * z.square().sum().sqrt())


def test_the_variant_of_the_public_code_equals_the_naive_computation(net, images):
    """The attack sees the largest values only; the loss takes the harder of both gradients."""
    model, top, beta = Normalized(net, 0.4, 0.3).double(), 5, 20.0
    attack = PGD(eps=0.2, step_size=0.05, steps=2, seed=3)
    x = attack.start(images)
    kept = []
    for image, label in zip(x, LABELS.tolist(), strict=True):
        z = ((image - 0.4) / 0.3).requires_grad_(True)
        (g,) = torch.autograd.grad(net(z[None])[0, label], z)
        kept.append(sorted(range(18), key=lambda j, g=g: -abs(g.flatten()[j].item()))[:top])
    for _ in range(2):
        moved = []
        for image, now, label, some in zip(images, x, LABELS.tolist(), kept, strict=True):
            now = now.detach().requires_grad_(True)
            z = (now - 0.4) / 0.3
            own, other = naive_rows(net, z, label, beta)
            few = z.flatten()[some]
            value = (1 + (apart(own[some], few) - apart(other[some], few)).exp()).log()
            (slope,) = torch.autograd.grad(value, now)
            now = now.detach() + 0.05 * slope.sign()
            moved.append(torch.maximum(torch.minimum(now, image + 0.2), image - 0.2).clamp(0, 1))
        x = torch.stack(moved)
    losses = []
    for first, second, label in zip(images, x, LABELS.tolist(), strict=True):
        pair = [((v - 0.4) / 0.3).requires_grad_(True) for v in (first, second)]
        gradients = [naive_rows(net, z, label, beta) for z in pair]
        for z in pair:
            far = max((apart(own, z.flatten()) for own, _ in gradients), key=torch.Tensor.item)
            near = min((apart(other, z.flatten()) for _, other in gradients), key=torch.Tensor.item)
            losses.append((1 + (far - near).exp()).log())
    expected = sum(losses) / 6
    objective = ART(0.5, beta, attack, attack_top=top, aligned="both")
    ours = objective(model, {"images": images, "labels": LABELS})
    assert ours["alignment"].item() == pytest.approx(expected.item(), rel=1e-7)
    cross_entropy = F.cross_entropy(model(x), LABELS)
    assert ours["cross_entropy"].item() == pytest.approx(cross_entropy.item(), rel=1e-9)
    weights = [net.a.weight, net.b.weight]
    pairs = [torch.autograd.grad(v, weights) for v in (ours["alignment"], expected)]
    for a, b in zip(*pairs, strict=True):
        assert torch.allclose(a, b, atol=1e-6)
        assert b.abs().max() > 1e-4


def test_all_values_are_as_good_as_no_choice(net, images):
    batch = {"images": images, "labels": LABELS}
    attack = PGD(eps=0.2, step_size=0.05, steps=2, seed=3)
    paper, all_of_them = ART(attack=attack), ART(attack=attack, attack_top=18)
    assert paper(net, batch)["loss"].item() == pytest.approx(all_of_them(net, batch)["loss"].item())


@pytest.mark.parametrize("coefficient", [0.0, 1.0, 30.0])
def test_attack_may_ascend_the_cross_entropy_too(net, images, coefficient):
    """ART + PGD: the gradient is that of both, the loss is as always."""
    attack = PGD(eps=0.1, step_size=0.03, steps=2, norm="l2", random_start=False)
    objective = ART(attack_cross_entropy=coefficient, attack=attack)
    terms = objective(net, {"images": images, "labels": LABELS})
    x = images.clone()
    for _ in range(2):
        x = x.detach().requires_grad_(True)
        both = sum(
            naive_alignment(net, v, int(y), 50.0)
            - coefficient * net(v[None]).log_softmax(1)[0, int(y)]
            for v, y in zip(x, LABELS, strict=True)
        )
        (g,) = torch.autograd.grad(both, x)
        x = x.detach() + 0.03 * g / g.flatten(1).norm(dim=1).view(-1, 1, 1, 1)
    naive = sum(naive_alignment(net, v, int(y), 50.0) for v, y in zip(x, LABELS, strict=True)) / 3
    cross_entropy = -net(x).log_softmax(1)[torch.arange(3), LABELS].mean()
    assert terms["alignment"].item() == pytest.approx(naive.item(), abs=1e-6)
    assert terms["cross_entropy"].item() == pytest.approx(cross_entropy.item(), abs=1e-6)
    assert terms["loss"].item() == pytest.approx((cross_entropy + 0.5 * naive).item(), abs=1e-6)


def test_inner_attack_does_not_lower_its_own_objective(net, images):
    with evaluating(net):
        attack = PGD(eps=0.05, step_size=0.01, steps=5, random_start=False)
        x = attack.maximize(lambda z: alignment_loss(net, z, LABELS, beta=5.0), images)
    before = alignment_loss(net, images, LABELS, beta=5.0)
    assert (alignment_loss(net, x, LABELS, beta=5.0) >= before).all()


def test_a_step_trains_and_counts_batch_statistics_once(stateful_model):
    batch = {"images": torch.rand(8, 2, 5, 5), "labels": torch.randint(4, (8,))}
    terms = ART()(stateful_model, batch)
    assert stateful_model[1].num_batches_tracked == 1
    assert stateful_model[4].training
    terms["loss"].backward()
    assert stateful_model[6].weight.grad.isfinite().all()


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"weight": -1.0}, "ART.weight"),
        ({"beta": 0.0}, "ART.beta"),
        ({"attack_cross_entropy": -1.0}, "ART.attack_cross_entropy"),
        ({"attack_top": 0}, "ART.attack_top"),
        ({"aligned": "x"}, "ART.aligned: expected 'perturbed' or 'both'"),
    ],
)
def test_refuses_settings(settings, says, own_errors):
    with pytest.raises(InputError, match=says):
        ART(**settings)


def test_refuses_more_values_than_an_image_has(net, images, own_errors):
    with pytest.raises(InputError, match=r"ART.attack_top: expected at most 18"):
        ART(attack_top=19)(net, {"images": images, "labels": LABELS})


def test_refuses_unknown_choices(net, images, own_errors):
    with pytest.raises(InputError, match="anchor"):
        alignment_loss(net, images, LABELS, anchor="logits")
    with pytest.raises(InputError, match="channels"):
        alignment_loss(net, images, LABELS, channels="sum")
    with pytest.raises(InputError, match="negative: expected 'argmax' or 'argmin'"):
        alignment_loss(net, images, LABELS, negative="random")
