import pytest
import torch
from torch.nn import functional as F

from holdfast.adversarial import PGD
from holdfast.contracts import InputError
from holdfast.models import evaluating
from holdfast.objectives import AttributionRegularization
from holdfast.objectives.attribution_regularization import attribution_size

LABELS = torch.tensor([0, 3, 1])


@pytest.fixture
def images():
    return torch.rand(3, 2, 5, 5, dtype=torch.float64) * 0.8 + 0.1


def naive_size(model, image, perturbed, label, steps):
    """The ℓ1 norm of IG of the loss, pixel by pixel and point by point."""
    total = 0.0
    mean = torch.zeros_like(image)
    for k in range(1, steps + 1):
        point = image + k / steps * (perturbed - image)
        point = point if point.requires_grad else point.requires_grad_(True)
        loss = -model(point[None]).log_softmax(1)[0, label]
        mean = mean + torch.autograd.grad(loss, point, create_graph=True)[0] / steps
    for d, g in zip((perturbed - image).flatten(), mean.flatten(), strict=True):
        total = total + (d * g).abs()
    return total


def test_size_and_its_gradients_equal_the_naive_computation(smooth_model, images):
    x = (images + 0.1 * torch.randn_like(images)).requires_grad_(True)
    ours = attribution_size(smooth_model, images, x, LABELS, steps=6)
    naive = torch.stack([naive_size(smooth_model, images[i], x[i], LABELS[i], 6) for i in range(3)])
    assert torch.allclose(ours, naive, atol=1e-12)
    by = (x, *smooth_model.parameters())
    ours_by = torch.autograd.grad(ours.sum(), by, allow_unused=True, materialize_grads=True)
    naive_by = torch.autograd.grad(naive.sum(), by, allow_unused=True, materialize_grads=True)
    for a, b in zip(ours_by, naive_by, strict=True):
        assert torch.allclose(a, b, atol=1e-12)


def test_is_zero_without_a_perturbation(smooth_model, images):
    assert attribution_size(smooth_model, images, images, LABELS).abs().sum() == 0


def test_bounds_the_change_of_the_loss(smooth_model, images):
    """Completeness: the map sums to ℓ(x′) − ℓ(x), so its ℓ1 norm cannot be smaller."""
    x = images + 0.1 * torch.randn_like(images)
    size = attribution_size(smooth_model, images, x, LABELS, steps=100, rule="midpoint")
    change = F.cross_entropy(smooth_model(x), LABELS, reduction="none") - F.cross_entropy(
        smooth_model(images), LABELS, reduction="none"
    )
    assert (size >= change.abs() - 1e-6).all()


@pytest.mark.parametrize("form", ["ig_sum_norm", "ig_norm"])
def test_loss_equals_the_naive_computation(smooth_model, images, form):
    attack = PGD(eps=0.1, step_size=0.03, steps=3, seed=0)
    objective = AttributionRegularization(
        weight=0.4, form=form, steps=7, attack_steps=2, attack=attack
    )
    terms = objective(smooth_model, {"images": images, "labels": LABELS})

    x = attack.start(images)
    for _ in range(3):
        x = x.requires_grad_(True)
        value = sum(0.4 * naive_size(smooth_model, images[i], x[i], LABELS[i], 2) for i in range(3))
        if form == "ig_sum_norm":
            value = value + F.cross_entropy(smooth_model(x), LABELS, reduction="sum")
        (gradient,) = torch.autograd.grad(value, x)
        x = (x.detach() + 0.03 * gradient.sign()).clamp(images - 0.1, images + 0.1).clamp(0, 1)
    size = sum(naive_size(smooth_model, images[i], x[i], LABELS[i], 7) for i in range(3)) / 3
    seen = x if form == "ig_sum_norm" else images
    cross_entropy = F.cross_entropy(smooth_model(seen), LABELS)
    assert terms["attribution"].item() == pytest.approx(size.item(), rel=1e-9)
    assert terms["cross_entropy"].item() == pytest.approx(cross_entropy.item(), rel=1e-9)
    assert terms["loss"].item() == pytest.approx((cross_entropy + 0.4 * size).item(), rel=1e-9)


@pytest.mark.parametrize("form", ["ig_sum_norm", "ig_norm"])
def test_inner_attack_does_not_lower_its_own_objective(smooth_model, images, form):
    attack = PGD(eps=0.1, step_size=0.02, steps=5, seed=0)

    def value(x):
        size = attribution_size(smooth_model, images, x, LABELS, steps=10)
        loss = F.cross_entropy(smooth_model(x), LABELS, reduction="none")
        return size if form == "ig_norm" else loss + size

    start = attack.start(images)
    with evaluating(smooth_model):
        end = attack.maximize(value, images, start)
    assert (value(end) >= value(start)).all()


def test_a_step_trains_and_counts_batch_statistics_once(stateful_model):
    batch = {"images": torch.rand(8, 2, 5, 5), "labels": torch.randint(4, (8,))}
    terms = AttributionRegularization(steps=4, attack_steps=2, rule="stratified")(
        stateful_model, batch
    )
    assert stateful_model[1].num_batches_tracked == 1
    terms["loss"].backward()
    assert stateful_model[6].weight.grad.isfinite().all()


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"form": "ig_max_norm"}, "form: expected 'ig_sum_norm' or 'ig_norm'"),
        ({"weight": -1.0}, "weight"),
        ({"steps": 0}, "steps"),
        ({"attack_steps": 0}, "attack_steps"),
    ],
)
def test_refuses_settings(settings, says, own_errors):
    with pytest.raises(InputError, match=says):
        AttributionRegularization(**settings)
