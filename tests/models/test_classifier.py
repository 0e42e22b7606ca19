"""Whatever a model returns, and however it treats its input, it is one kind of classifier."""

from collections import OrderedDict
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from holdfast.adversarial import FGSM, PGD, CarliniWagner, TargetedPGD, accuracy
from holdfast.attributions import (
    AdversarialGradientIntegration,
    DeepLIFT,
    Gradient,
    IntegratedGradients,
)
from holdfast.contracts import HoldfastError, InputError
from holdfast.manipulation import TopK
from holdfast.models import Normalized, as_logits, classify
from holdfast.objectives import ART, GradientStability, JacobianRegularization


class Returning(nn.Module):
    """A linear classifier whose logits come in the form that ``wrap`` gives them."""

    def __init__(self, wrap, classes=3):
        super().__init__()
        self.dense = nn.Linear(4, classes)
        self.wrap = wrap

    def forward(self, x):
        return self.wrap(self.dense(x.flatten(1)))


FORMS = {
    "tensor": lambda z: z,
    "object": lambda z: SimpleNamespace(logits=z, loss=None),
    "mapping": lambda z: {"features": None, "logits": z},
    "ordered": lambda z: OrderedDict(logits=z),
    "tuple": lambda z: (z, "features"),
    "list": lambda z: [z],
}


@pytest.mark.parametrize("form", FORMS)
def test_takes_the_logits_out_of_every_form(form):
    model, images = Returning(FORMS[form]), torch.rand(2, 1, 2, 2)
    assert torch.equal(classify(model, images), model.dense(images.flatten(1)))
    normalized = Normalized(model, 0.5, 0.25)
    assert torch.equal(normalized(images), model.dense((images.flatten(1) - 0.5) / 0.25))


@pytest.mark.parametrize(
    ("wrap", "came"),
    [
        (lambda z: z[:, :1], r"one logit per image, shape \(2, 1\)"),
        (lambda z: z[:, 0], r"one logit per image, shape \(2,\)"),
        (lambda z: z[:, :, None], r"shape \(2, 3, 1\)"),
        (lambda z: z[:1], r"shape \(1, 3\)"),
        (lambda z: z.argmax(1, keepdim=True).expand(2, 3), "torch.int64"),
        (lambda z: {"scores": z}, "type dict"),
        (lambda z: (), "type tuple"),
        (lambda z: None, "type NoneType"),
        (lambda z: z.tolist(), "type list"),
    ],
)
def test_refuses_the_rest(wrap, came, own_errors):
    model, images = Returning(wrap), torch.rand(2, 1, 2, 2)
    with pytest.raises(InputError, match=rf"model: expected logits \(N, K\).*{came}"):
        classify(model, images)


@pytest.mark.parametrize("attack", [PGD(0.1, 0.05, 2), FGSM(0.1), TargetedPGD(0.1, 0.05, 2)])
def test_a_binary_model_of_one_logit_is_refused_with_advice(attack, own_errors):
    model, images = Returning(FORMS["tensor"], classes=1), torch.rand(2, 1, 2, 2)
    labels = torch.tensor([0, 0])
    for call in (
        lambda: attack(model, images, labels),
        lambda: accuracy(model, images, labels),
        lambda: TopK(Gradient(), 1, 0.1, 0.05, 2)(model, images, labels),
        lambda: IntegratedGradients()(model, images, labels),
    ):
        with pytest.raises(InputError, match=r"for a binary model \[0, z\] instead of z"):
            call()


def test_the_images_of_the_caller_are_never_changed():
    class InPlace(nn.Module):
        def forward(self, x):
            return x.sub_(0.5).div_(0.25).flatten(1)

    images = torch.rand(2, 1, 2, 2)
    before, labels = images.clone(), torch.tensor([0, 1])
    logits = classify(InPlace(), images)
    assert torch.allclose(logits, (before.flatten(1) - 0.5) / 0.25)
    maps = Gradient()(InPlace(), images, labels)
    assert torch.equal(maps.flatten(1), 4 * nn.functional.one_hot(labels, 4).float())
    TopK(Gradient(), 1, 0.1, 0.05, 2)(InPlace(), images, labels)
    PGD(0.1, 0.05, 2)(InPlace(), images, labels)
    assert torch.equal(images, before)


@pytest.mark.parametrize("precision", [torch.bfloat16, torch.float16, torch.float64])
def test_logits_come_in_the_precision_of_the_images(precision):
    model = Returning(FORMS["tensor"])
    images = torch.rand(2, 1, 2, 2)
    expected = model.dense(images.flatten(1))
    model = model.to(precision)
    logits = classify(model, images.requires_grad_(True))
    assert logits.dtype == torch.float32
    assert torch.allclose(logits, expected, atol=0.02)
    assert torch.autograd.grad(logits.sum(), images)[0].dtype == torch.float32
    assert classify(model, images.to(precision)).dtype == precision


class Silent(nn.Module):
    """Runs without recording gradients."""

    def forward(self, x):
        with torch.no_grad():
            return 5 * x.flatten(1)[:, :3]


class Backbone(nn.Module):
    """Records the gradients of its head, but none back to the images."""

    def __init__(self):
        super().__init__()
        self.head = nn.Linear(4, 3)

    def forward(self, x):
        with torch.inference_mode():
            features = x.flatten(1)
        return self.head(features.clone())


class Detached(Backbone):
    def forward(self, x):
        return self.head(x.flatten(1).detach())


class Numpy(nn.Module):
    def forward(self, x):
        return torch.from_numpy(x.detach().flatten(1).numpy()[:, :3].copy())


CALLS = {
    "pgd": lambda m, x, y: PGD(0.1, 0.05, 2)(m, x, y),
    "fgsm": lambda m, x, y: FGSM(0.1)(m, x, y),
    "targeted": lambda m, x, y: TargetedPGD(0.1, 0.05, 2)(m, x, y),
    "carlini-wagner": lambda m, x, y: CarliniWagner(searches=1, steps=2)(m, x, y),
    "accuracy": lambda m, x, y: accuracy(m, x, y, PGD(0.1, 0.05, 2)),
    "gradient": lambda m, x, y: Gradient()(m, x, y),
    "integrated gradients": lambda m, x, y: IntegratedGradients(steps=2)(m, x, y),
    "top-k": lambda m, x, y: TopK(Gradient(), 1, 0.1, 0.05, 2)(m, x, y),
    "deep lift": lambda m, x, y: DeepLIFT()(m, x, y),
    "adversarial path": lambda m, x, y: AdversarialGradientIntegration(steps=2)(m, x, y),
    "art": lambda m, x, y: ART()(m, {"images": x, "labels": y}),
    "stability": lambda m, x, y: GradientStability()(m, {"images": x, "labels": y}),
    "jacobian": lambda m, x, y: JacobianRegularization()(m, {"images": x, "labels": y}),
}


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("kind", [Silent, Backbone, Detached, Numpy])
def test_a_model_that_hides_its_gradient_is_an_error(kind, call):
    model, images = kind(), torch.rand(3, 1, 2, 2)
    labels = classify(model, images).argmax(1)
    with pytest.raises(HoldfastError, match="no gradient with respect to the images"):
        CALLS[call](model, images, labels)


@pytest.mark.parametrize("call", CALLS)
def test_a_call_inside_inference_mode_is_an_error(call):
    model, images = Returning(FORMS["tensor"]), torch.rand(3, 1, 2, 2)
    labels = classify(model, images).argmax(1)
    with torch.inference_mode(), pytest.raises(HoldfastError, match="leave it, or use torch.no_gr"):
        CALLS[call](model, images, labels)
    with torch.no_grad():
        CALLS[call](model, images, labels)


def test_compiled_models_are_differentiated_twice():
    plain = nn.Sequential(nn.Flatten(), nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 3))
    images, labels = torch.rand(2, 1, 2, 2), torch.tensor([0, 1])
    compiled = torch.compile(plain, backend="aot_eager")
    attack = TopK(IntegratedGradients(steps=3), 1, 0.1, 0.05, 3)
    expected = attack(plain, images, plain(images).argmax(1))
    found = attack(compiled, images, plain(images).argmax(1))
    assert torch.equal(found.images, expected.images)
    assert (found.moved > 0).all()
    assert torch.equal(Gradient()(compiled, images, labels), Gradient()(plain, images, labels))


def test_an_output_is_checked_against_its_images(own_errors):
    with pytest.raises(InputError, match=r"shape \(3, 2\)"):
        as_logits(torch.zeros(3, 2), torch.rand(2, 1, 2, 2))


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("which", ["images", "labels", "model"])
def test_what_was_made_inside_inference_mode_is_refused(which, call):
    with torch.inference_mode():
        inside = {
            "model": Returning(FORMS["tensor"]),
            "images": torch.rand(3, 1, 2, 2),
            "labels": torch.tensor([0, 1, 2]),
        }
    given = {
        "model": Returning(FORMS["tensor"]),
        "images": torch.rand(3, 1, 2, 2),
        "labels": torch.tensor([0, 1, 2]),
    }
    given[which] = inside[which]
    with pytest.raises(
        HoldfastError, match=rf"({which}|targets): .*made inside torch.inference_mode"
    ):
        CALLS[call](*given.values())
