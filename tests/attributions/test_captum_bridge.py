import captum.attr
import pytest
import torch
from torch import nn

from holdfast.attributions import (
    DeepLIFT,
    Gradient,
    GuidedGradCAM,
    IntegratedGradients,
    as_captum,
    from_captum,
)
from holdfast.contracts import Attribution, InputError


@pytest.fixture
def images():
    return torch.rand(4, 2, 5, 5).double()


@pytest.fixture
def targets():
    return torch.tensor([0, 1, 2, 3])


@pytest.fixture
def modules():
    return nn.Sequential(
        nn.Conv2d(2, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(36, 8), nn.ReLU(), nn.Linear(8, 4)
    ).double()


@pytest.mark.parametrize(
    "settings",
    [
        (captum.attr.IntegratedGradients, {"n_steps": 7, "method": "riemann_right"}),
        (captum.attr.DeepLift, {}),
        (captum.attr.DeepLift, {"eps": 1e-9}),
        (captum.attr.GuidedGradCam, {"layer": "1", "interpolate_mode": "bilinear"}),
    ],
)
def test_from_captum_equals_ours(settings, modules, images, targets, untouched):
    kind, arguments = settings
    ours = {
        captum.attr.IntegratedGradients: IntegratedGradients(steps=7),
        captum.attr.DeepLift: DeepLIFT(),
        captum.attr.GuidedGradCam: GuidedGradCAM(),
    }[kind]
    method = from_captum(kind, chunk=3, **arguments)
    assert isinstance(method, Attribution)
    with untouched(modules.train()):
        maps = method(modules, images, targets)
    assert modules.training
    assert not maps.requires_grad
    assert not images.requires_grad
    assert torch.allclose(maps, ours(modules, images, targets), atol=1e-9)


@pytest.mark.filterwarnings("error")
def test_from_captum_predicts_and_is_quiet(modules, images):
    predicted = modules(images).argmax(1)
    method = from_captum(captum.attr.DeepLift)
    with torch.no_grad():
        assert torch.equal(method(modules, images), method(modules, images, predicted))


def test_from_captum_compares_and_prints():
    method = from_captum(captum.attr.Saliency, abs=False)
    assert method == from_captum(captum.attr.Saliency, abs=False)
    assert method != from_captum(captum.attr.Saliency)
    assert hash(method) == hash(from_captum(captum.attr.Saliency, abs=False))
    assert "Saliency" in repr(method)


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda m, x: from_captum(nn.ReLU), "method: expected a class of captum.attr, got ReLU"),
        (
            lambda m, x: from_captum(captum.attr.Saliency, steps=3),
            "settings: expected arguments that Saliency has, got steps",
        ),
        (
            lambda m, x: from_captum(captum.attr.Saliency)(m, x, create_graph=True),
            "create_graph: expected False",
        ),
        (
            lambda m, x: from_captum(captum.attr.LayerGradCam, layer="1")(m, x),
            "method: expected maps of shape",
        ),
        (
            lambda m, x: from_captum(captum.attr.LayerGradCam, layer="nowhere")(m, x),
            "layer: expected the dotted name of a submodule",
        ),
    ],
)
def test_from_captum_refuses(call, says, modules, images, own_errors):
    with pytest.raises(InputError, match=says):
        call(modules, images)


@pytest.mark.parametrize("target", [2, [2], torch.tensor(2), torch.tensor([2] * 4), [2] * 4])
def test_as_captum_takes_targets_in_captums_forms(target, modules, images):
    explainer = as_captum(Gradient(), modules)
    assert isinstance(explainer, captum.attr.Attribution)
    theirs = captum.attr.Saliency(modules).attribute(
        images.clone().requires_grad_(True), target=2, abs=False
    )
    assert torch.allclose(explainer.attribute(images, target=target), theirs)
    (inside_tuple,) = explainer.attribute((images,), target)
    assert torch.allclose(inside_tuple, theirs)
    assert "Gradient" in repr(explainer)


def test_captums_noise_tunnel_takes_ours(modules, images):
    images = images * 0.5 + 0.25
    torch.manual_seed(3)
    ours = captum.attr.NoiseTunnel(as_captum(Gradient(), modules)).attribute(
        images, nt_samples=4, stdevs=0.01, target=1
    )
    torch.manual_seed(3)
    theirs = captum.attr.NoiseTunnel(captum.attr.Saliency(modules)).attribute(
        images, nt_samples=4, stdevs=0.01, target=1, abs=False
    )
    assert torch.allclose(ours, theirs)


def test_captum_is_not_imported_before_it_is_needed(imported):
    assert "holdfast.attributions" in imported
    assert "captum" not in imported
