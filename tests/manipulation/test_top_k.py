import pytest
import torch
from scipy import stats
from torch import nn

from holdfast.attributions import Gradient, IntegratedGradients
from holdfast.contracts import InputError
from holdfast.manipulation import TopK

IG = IntegratedGradients(steps=6)


@pytest.fixture
def images():
    return torch.rand(6, 2, 5, 5, dtype=torch.float64)


@pytest.fixture
def labels(relu_model, images):
    return relu_model(images).argmax(1)


def ig_scores(model, image, label, steps=6):
    mean = torch.zeros_like(image)
    for k in range(1, steps + 1):
        x = (image * k / steps).detach().requires_grad_(True)
        model(x[None])[0, label].backward()
        mean += x.grad / steps
    return (mean * image).abs().sum(0).flatten()


@pytest.mark.parametrize(
    ("attribution", "path_samples"), [(IG, None), (IG, 3), (Gradient(), None)], ids=repr
)
@pytest.mark.parametrize("eps", [0.0, 0.05, 0.3])
def test_stays_in_the_ball_and_in_range(attribution, path_samples, eps, relu_model, images, labels):
    attack = TopK(attribution, 5, eps, 0.02, 8, path_samples=path_samples)
    outcome = attack(relu_model, images, labels)
    assert (outcome.images - images).abs().max() <= eps + 1e-12
    assert outcome.images.min() >= 0
    assert outcome.images.max() <= 1


@pytest.mark.parametrize("path_samples", [None, 2])
def test_reports_what_an_independent_judge_measures(path_samples, relu_model, images, labels):
    outcome = TopK(IG, 5, 0.1, 0.02, 8, path_samples=path_samples)(relu_model, images, labels)
    assert outcome.preserved.all()
    assert torch.equal(relu_model(outcome.images).argmax(1), labels)
    for i in range(len(images)):
        before = ig_scores(relu_model, images[i], labels[i])
        after = ig_scores(relu_model, outcome.images[i], labels[i])
        tau = stats.kendalltau(before.numpy(), after.numpy()).statistic
        assert outcome.similarity[i].item() == pytest.approx(tau, abs=1e-9)


def test_each_step_follows_the_published_direction(relu_model, images, labels):
    """One step from the image: x − α sign of the derivative of the top-k share, by differences."""
    alpha = 0.01
    outcome = TopK(IG, 5, 1.0, alpha, 1, beta=4.0)(relu_model, images, labels)

    def share(image, top, label):
        z = image[None] * torch.arange(1, 7, dtype=torch.float64).view(-1, 1, 1, 1) / 6
        hidden = torch.nn.functional.conv2d(z, relu_model.conv.weight, relu_model.conv.bias)
        # Gradients through softplus, written out with autograd on the closed form.
        z = z.detach().requires_grad_(True)
        hidden = torch.nn.functional.conv2d(z, relu_model.conv.weight, relu_model.conv.bias)
        hidden = torch.log1p(torch.exp(4 * hidden)) / 4
        hidden = relu_model.hidden(hidden.flatten(1))
        hidden = torch.log1p(torch.exp(4 * hidden)) / 4
        relu_model.last(hidden)[:, label].sum().backward()
        scores = (z.grad.mean(0) * image).abs().sum(0).flatten()
        return (scores[top].sum() / scores.sum()).item()

    for i in range(2):
        top = ig_scores(relu_model, images[i], labels[i]).topk(5).indices
        moved = (outcome.images[i] - images[i]).flatten()
        for j in (0, 17, 31, 49):
            if not 0.02 < images[i].flatten()[j] < 0.98:
                continue
            step = torch.zeros_like(images[i]).flatten()
            step[j] = 1e-5
            step = step.view_as(images[i])
            slope = share(images[i] + step, top, labels[i]) - share(
                images[i] - step, top, labels[i]
            )
            assert moved[j].item() == pytest.approx(-alpha if slope > 0 else alpha, abs=1e-9)


@pytest.mark.parametrize("path_samples", [None, 3])
def test_result_does_not_depend_on_the_batch(path_samples, relu_model, images, labels):
    attack = TopK(IG, 5, 0.1, 0.02, 6, path_samples=path_samples)
    together = attack(relu_model, images, labels)
    order = torch.tensor([5, 0, 3, 1, 4, 2])
    shuffled = attack(relu_model, images[order], labels[order])
    assert torch.allclose(shuffled.images, together.images[order], atol=1e-12)
    assert torch.allclose(shuffled.similarity, together.similarity[order])
    for i in (0, 3):
        alone = attack(relu_model, images[i : i + 1], labels[i : i + 1])
        assert torch.allclose(alone.images, together.images[i : i + 1], atol=1e-12)
    chunked = TopK(IG, 5, 0.1, 0.02, 6, path_samples=path_samples, chunk=4)
    assert torch.allclose(chunked(relu_model, images, labels).images, together.images, atol=1e-12)


def test_an_image_that_never_has_its_label_comes_back_unpreserved(relu_model, images, labels):
    labels = labels.clone()
    logits = relu_model(images)
    labels[1] = logits[1].argmin()
    outcome = TopK(IG, 5, 0.01, 0.005, 3)(relu_model, images, labels)
    assert outcome.preserved.tolist() == [True, False, True, True, True, True]
    assert outcome.similarity[1] == 1
    assert torch.equal(outcome.images[1], images[1])


def test_perturbations_that_change_the_label_are_never_kept():
    """Labels flip easily here; whatever comes back as preserved still has its label."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(50, 30), nn.ReLU(), nn.Linear(30, 4)).double()
    images = torch.rand(40, 2, 5, 5).double()
    labels = model(images).argmax(1)
    outcome = TopK(Gradient(), 10, 0.5, 0.25, 5)(model, images, labels)
    same = model(outcome.images).argmax(1) == labels
    assert same.all()
    lost = ~outcome.preserved
    assert (outcome.similarity[lost] == 1).all()
    assert torch.equal(outcome.images[lost], images[lost])


def test_makes_maps_less_similar_than_noise_does(relu_model, images, labels):
    outcome = TopK(IG, 10, 0.1, 0.01, 20)(relu_model, images, labels)
    noisy = (images + 0.1 * torch.randn_like(images).sign()).clamp(0, 1)
    by_noise = [
        stats.kendalltau(
            ig_scores(relu_model, images[i], labels[i]), ig_scores(relu_model, noisy[i], labels[i])
        ).statistic
        for i in range(len(images))
    ]
    assert outcome.similarity.mean() < sum(by_noise) / len(by_noise)


def test_judging_less_often_still_judges_the_end(relu_model, images, labels):
    every = TopK(IG, 5, 0.1, 0.02, 7)(relu_model, images, labels)
    seldom = TopK(IG, 5, 0.1, 0.02, 7, judge_every=100)(relu_model, images, labels)
    assert (seldom.similarity >= every.similarity - 1e-12).all()
    assert seldom.preserved.any()


def test_leaves_the_model_and_the_generator_as_they_were(stateful_model, untouched):
    images = torch.rand(4, 2, 5, 5)
    before = torch.get_rng_state()
    with untouched(stateful_model):
        TopK(IG, 5, 0.1, 0.05, 2, path_samples=2)(
            stateful_model, images, torch.tensor([0, 1, 2, 3])
        )
    assert torch.equal(torch.get_rng_state(), before)


def test_a_constant_model_keeps_its_maps():
    class Constant(nn.Module):
        def forward(self, x):
            return x.flatten(1)[:, :3] * 0 + torch.tensor([1.0, 0.0, 0.0])

    outcome = TopK(Gradient(), 2, 0.1, 0.05, 2)(
        Constant(), torch.rand(2, 1, 3, 3), torch.tensor([0, 0])
    )
    assert outcome.similarity.tolist() == [1.0, 1.0]
    assert outcome.preserved.all()


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"k": 0}, "TopK.k"),
        ({"eps": -0.1}, "TopK.eps"),
        ({"step_size": 0.0}, "TopK.step_size"),
        ({"steps": 0}, "TopK.steps"),
        ({"beta": 0.0}, "TopK.beta"),
        ({"path_samples": 0}, "TopK.path_samples"),
        ({"judge_every": 0}, "TopK.judge_every"),
        ({"attribution": Gradient(), "path_samples": 2}, "expected IntegratedGradients"),
    ],
)
def test_refuses_settings(settings, says, own_errors):
    good = {"attribution": IG, "k": 5, "eps": 0.1, "step_size": 0.1, "steps": 1}
    with pytest.raises(InputError, match=says):
        TopK(**(good | settings))


def test_refuses_k_larger_than_the_map(relu_model, images, labels, own_errors):
    with pytest.raises(InputError, match=r"TopK.k: expected at most the number of pixels, 25"):
        TopK(IG, 26, 0.1, 0.1, 1)(relu_model, images, labels)


def test_images_with_fewer_ink_pixels_than_k_are_attacked_all_the_same(relu_model):
    """All importance lies in the top k, and black pixels sit on the kink of the absolute value."""
    images = torch.zeros(2, 2, 5, 5, dtype=torch.float64)
    images[:, :, 1:3, 1:3] = torch.rand(2, 2, 2, 2, dtype=torch.float64)
    labels = relu_model(images).argmax(1)
    outcome = TopK(IG, 10, 0.1, 0.02, 6)(relu_model, images, labels)
    assert ((outcome.images - images).abs().flatten(1).amax(1) > 0).all()
    assert (outcome.similarity < 0.95).all()
