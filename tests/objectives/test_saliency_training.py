import pytest
import torch
from torch import nn

from holdfast.attributions import Gradient
from holdfast.contracts import InputError
from holdfast.objectives import SaliencyTraining, Successive, UniformNoise, saliency_perturbation


def loss_on(model, images, labels):
    return -model(images).log_softmax(1)[torch.arange(len(images)), labels].mean()


@pytest.mark.parametrize(("alpha", "epoch"), [(0.9, 0), (0.9, 1), (0.5, 3), (0.0, 1), (1.0, 7)])
def test_share_of_random_components(alpha, epoch):
    """δ is −s but where it is random; s is nowhere a sign, so the two can be told apart."""
    saliency = torch.rand(10, 3, 32, 32) * 0.8 + 0.1
    delta = saliency_perturbation(saliency, random=alpha**epoch)
    opposed = delta == -saliency
    signs = delta[~opposed]
    assert set(signs.unique().tolist()) <= {-1.0, 1.0}
    count, share = delta.numel(), alpha**epoch
    deviation = (share * (1 - share) / count) ** 0.5
    assert abs(len(signs) / count - share) <= 5 * deviation
    if len(signs):
        assert abs(signs.mean()) <= 5 / len(signs) ** 0.5


def test_random_components_do_not_depend_on_the_saliency():
    sharp = torch.cat([torch.full((1, 1, 50, 50), 0.9), torch.full((1, 1, 50, 50), -0.9)])
    delta = saliency_perturbation(sharp, random=0.4)
    random = delta.abs() == 1
    for half in (0, 1):
        assert abs(random[half].float().mean() - 0.4) < 5 * (0.24 / 2500) ** 0.5
        assert abs(delta[half][random[half]].mean()) < 5 / 1000**0.5


@pytest.mark.parametrize("source", ["saliency", "masks", "boxes"])
def test_loss_of_what_the_batch_carries(smooth_model, images, labels, source, same_gradients):
    """With α = 0 all is saliency after epoch 0, and the loss can be written out."""
    maps = {
        "saliency": torch.rand(3, 5, 5).double() * 2 - 1,
        "masks": torch.randint(2, (3, 5, 5)).double(),
        "boxes": torch.tensor([[0.0, 1.0, 3.0, 5.0], [2.0, 2.0, 4.0, 3.0], [0.0, 0.0, 5.0, 5.0]]),
    }
    given = maps[source]
    x = images.clone()
    for n in range(3):
        for c in range(2):
            for i in range(5):
                for j in range(5):
                    if source == "saliency":
                        s = given[n, i, j]
                    elif source == "masks":
                        s = 1 if given[n, i, j] else -1
                    else:
                        x0, y0, x1, y1 = given[n]
                        s = 1 if x0 <= j + 0.5 < x1 and y0 <= i + 0.5 < y1 else -1
                    x[n, c, i, j] = min(1, max(0, images[n, c, i, j] - 0.3 * s))
    objective = SaliencyTraining(eps=0.3, alpha=0.0, source=source)
    batch = {"images": images, "labels": labels, "epoch": 1, **maps}
    ours = objective(smooth_model, batch)["loss"]
    naive = loss_on(smooth_model, x, labels)
    assert ours.item() == pytest.approx(naive.item(), rel=1e-10)
    same_gradients(smooth_model, ours, naive)


def test_loss_of_a_teachers_maps(smooth_model, images, labels):
    teacher = nn.Sequential(nn.Flatten(), nn.Linear(50, 4)).double()
    objective = SaliencyTraining(
        eps=0.2, alpha=0.0, teacher=teacher, attribution=Gradient(), quantile=1.0
    )
    x = images.clone()
    for n, y in enumerate(labels):
        weights = teacher[1].weight[y].detach()
        x[n] = images[n] - 0.2 * (weights / weights.abs().max()).view(2, 5, 5)
    ours = objective(smooth_model, {"images": images, "labels": labels, "epoch": 4})["loss"]
    assert ours.item() == pytest.approx(loss_on(smooth_model, x.clamp(0, 1), labels).item())


def test_opposes_the_true_class():
    """Of a linear model that teaches itself, the perturbation lowers the true class's logit."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(50, 2)).double()
    model[1].weight.data[1] = -model[1].weight.data[0]
    images, labels = torch.rand(4, 2, 5, 5).double() * 0.6 + 0.2, torch.tensor([0, 1, 0, 1])
    batch = {"images": images, "labels": labels, "epoch": 50}
    objective = SaliencyTraining(eps=0.1, alpha=0.5, teacher=model, attribution=Gradient())
    clean = loss_on(model, images, labels)
    assert objective(model, batch)["loss"] > clean
    # As much as the best attack, where only signs are left.
    hardest = SaliencyTraining(0.1, 0.5, teacher=model, attribution=Gradient(), quantile=0.0)
    margins = model(images).gather(1, labels[:, None]) - model(images).gather(
        1, 1 - labels[:, None]
    )
    worst = margins.squeeze(1) - 2 * 0.1 * model[1].weight[0].abs().sum()
    expected = torch.log(1 + torch.exp(-worst)).mean()
    assert hardest(model, batch)["loss"].item() == pytest.approx(expected.item())


def test_starts_as_uniform_noise(smooth_model, images, labels):
    """In epoch 0 every component moves by ε up or down, whatever the saliency is."""
    seen = []
    handle = smooth_model.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    batch = {"images": images, "labels": labels, "epoch": 0, "saliency": torch.zeros(3, 5, 5)}
    SaliencyTraining(eps=0.1)(smooth_model, batch)
    handle.remove()
    assert torch.allclose((seen[0] - images).abs(), torch.full_like(images, 0.1))


def test_before_an_attack_and_its_control(smooth_model, images, labels):
    batch = {"images": images, "labels": labels, "epoch": 1, "masks": torch.ones(3, 5, 5)}
    after = UniformNoise(eps=0.0)
    objective = Successive(SaliencyTraining(eps=0.1, alpha=0.0, source="masks"), after, share=0.4)
    early = objective(smooth_model, batch | {"progress": 0.1})["loss"]
    late = objective(smooth_model, batch | {"progress": 0.9})["loss"]
    assert early.item() == pytest.approx(loss_on(smooth_model, images - 0.1, labels).item())
    assert late.item() == pytest.approx(loss_on(smooth_model, images, labels).item())


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"eps": -0.1}, "SaliencyTraining.eps"),
        ({"alpha": 1.5}, "SaliencyTraining.alpha"),
        ({"quantile": -0.5}, "SaliencyTraining.quantile"),
        ({"missing": "guess"}, "SaliencyTraining.missing: expected 'noise', 'leave_out'"),
        ({"source": "labels"}, "SaliencyTraining.source: expected 'saliency', 'masks' or 'boxes'"),
    ],
)
def test_refuses_settings(settings, says, own_errors):
    with pytest.raises(InputError, match=says):
        SaliencyTraining(**settings)


@pytest.mark.parametrize(
    ("source", "carried", "says"),
    [
        ("saliency", {}, "batch: expected an entry 'saliency', got images, labels, epoch"),
        (
            "saliency",
            {"saliency": torch.zeros(3, 4, 5)},
            r"shape \(3, 5, 5\), got shape \(3, 4, 5\)",
        ),
        ("saliency", {"saliency": torch.full((3, 5, 5), 2.0)}, r"values in \[−1, 1\]"),
        ("saliency", {"saliency": torch.eye(5).log().expand(3, 5, 5)}, r"values in \[−1, 1\]"),
        ("masks", {"masks": torch.zeros(3, 1, 5, 5)}, r"batch\['masks'\]: expected shape"),
        ("boxes", {"boxes": torch.zeros(3, 5)}, r"batch\['boxes'\]: expected shape \(3, 4\)"),
        ("boxes", {"boxes": torch.zeros(3, 4), "epoch": -1}, r"batch\['epoch'\]: expected"),
    ],
)
def test_refuses_batches(smooth_model, images, labels, source, carried, says, own_errors):
    batch = {"images": images, "labels": labels, "epoch": 1} | carried
    with pytest.raises(InputError, match=says):
        SaliencyTraining(source=source)(smooth_model, batch)


def test_refuses_a_batch_without_epoch(smooth_model, images, labels):
    with pytest.raises(InputError, match="an entry 'epoch'"):
        SaliencyTraining()(smooth_model, {"images": images, "labels": labels})


KINDS = {
    "saliency": torch.rand(4, 3, 5) * 2 - 1,
    "masks": torch.randint(2, (4, 3, 5)).float(),
    "boxes": torch.tensor([[0.0, 1.0, 3.0, 3.0]]).repeat(4, 1),
}


@pytest.fixture
def marked_in_part(linear_model):
    """Four images of which the second and the last have no mask, box or saliency."""
    images, labels = torch.rand(4, 2, 3, 5) * 0.6 + 0.2, torch.tensor([0, 1, 1, 0])
    entries = {kind: values.clone() for kind, values in KINDS.items()}
    for values in entries.values():
        values[[1, 3]] = torch.nan
    return {"images": images, "labels": labels, "epoch": 30, **entries}


@pytest.fixture
def linear_model():
    return nn.Sequential(nn.Flatten(), nn.Linear(30, 2))


@pytest.mark.parametrize("source", KINDS)
def test_unmarked_images_are_trained_on_noise(source, linear_model, marked_in_part):
    seen = []
    linear_model.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    objective = SaliencyTraining(eps=0.1, alpha=0.0, source=source)
    terms = objective(linear_model, marked_in_part)
    moved = seen[0] - marked_in_part["images"]
    whole = objective(linear_model, marked_in_part | {source: KINDS[source]})
    expected = seen[1] - marked_in_part["images"]
    assert torch.allclose(moved[[0, 2]], expected[[0, 2]])  # as if all images were marked
    assert not torch.allclose(moved[1], expected[1])
    noise = moved[[1, 3]]
    assert torch.allclose(noise.abs(), torch.full_like(noise, 0.1), atol=1e-6)
    assert 10 < (noise > 0).sum() < 50
    assert (terms["marked"].item(), whole["marked"].item()) == (0.5, 1.0)
    assert terms["loss"].isfinite()


@pytest.mark.parametrize("source", KINDS)
def test_unmarked_images_are_left_out(source, linear_model, marked_in_part):
    objective = SaliencyTraining(eps=0.1, alpha=0.0, source=source, missing="leave_out")
    ours = objective(linear_model, marked_in_part)["loss"]
    alone = {
        name: values if name == "epoch" else values[[0, 2]]
        for name, values in marked_in_part.items()
    }
    assert ours.item() == pytest.approx(objective(linear_model, alone)["loss"].item())


def test_a_batch_of_which_all_is_left_out_moves_nothing(linear_model, marked_in_part):
    batch = marked_in_part | {"masks": torch.full((4, 3, 5), torch.nan)}
    terms = SaliencyTraining(source="masks", missing="leave_out")(linear_model, batch)
    terms["loss"].backward()
    assert (terms["loss"].item(), terms["marked"].item()) == (0, 0)
    assert all((p.grad == 0).all() for p in linear_model.parameters())


@pytest.mark.parametrize("source", ["masks", "boxes"])
def test_refuses_entries_that_are_nan_in_part(source, linear_model, marked_in_part, own_errors):
    broken = KINDS[source].clone()
    broken.view(4, -1)[1, 2] = torch.nan
    with pytest.raises(InputError, match=f"batch.'{source}'.: expected numbers, or NaN all over"):
        SaliencyTraining(source=source)(linear_model, marked_in_part | {source: broken})
