import captum.attr
import pytest
import torch
import torchvision
from captum.attr import LayerAttribution
from torch import nn
from torchvision.models.swin_transformer import SwinTransformer
from torchvision.models.vision_transformer import VisionTransformer

from holdfast.attributions import (
    CAM,
    GradCAM,
    GradCAMPlusPlus,
    GuidedGradCAM,
    GuidedGradCAMPlusPlus,
)
from holdfast.contracts import HoldfastError, InputError
from holdfast.models import softplus


@pytest.fixture
def images():
    return torch.rand(3, 2, 9, 7).double()


@pytest.fixture
def targets():
    return torch.tensor([0, 3, 1])


def pooled():
    """A network of global average pooling and a dense layer, made for class activation maps."""
    return nn.Sequential(
        *(nn.Conv2d(2, 5, 3), nn.ReLU(), nn.Conv2d(5, 6, 2), nn.ReLU(inplace=True)),
        *(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 4)),
    ).double()


def dense():
    return nn.Sequential(
        *(nn.Conv2d(2, 5, 3), nn.ReLU(), nn.Conv2d(5, 6, 2), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Flatten(), nn.Linear(36, 8), nn.ReLU(), nn.Linear(8, 4)),
    ).double()


def upsampled(maps, images):
    return LayerAttribution.interpolate(maps, images.shape[2:], interpolate_mode="bilinear")


@pytest.mark.parametrize("make", [pooled, dense])
@pytest.mark.parametrize("layer", ["0", "1", "2", "3", None])
def test_grad_cam_equals_captum(make, layer, images, targets):
    model = make()
    maps = GradCAM(layer=layer)(model, images, targets)
    explainer = captum.attr.LayerGradCam(model, model[3 if layer is None else int(layer)])
    theirs = upsampled(explainer.attribute(images, targets, relu_attributions=True), images)
    assert maps.shape == images.shape
    assert torch.equal(maps[:, 0], maps[:, 1])
    assert torch.allclose(maps.sum(1, keepdim=True), theirs, atol=1e-9)


@pytest.mark.filterwarnings("ignore:Setting backward hooks")
def test_guided_grad_cam_equals_captum(images, targets):
    model = dense()
    maps = GuidedGradCAM()(model, images, targets)
    theirs = captum.attr.GuidedGradCam(model, model[3]).attribute(
        images, targets, interpolate_mode="bilinear"
    )
    assert theirs.abs().max() > 0
    assert torch.allclose(maps, theirs, atol=1e-9)


def naive_plus_plus(model, image, target):
    """Grad-CAM++ as its paper writes it, in loops, with the score exp f."""
    features = model[:4](image[None]).detach().requires_grad_(True)
    score = model[4:](features)[0, target]
    (g,) = torch.autograd.grad(score, features)
    cam = torch.zeros(features.shape[2:]).double()
    for k in range(features.shape[1]):
        a, d = features[0, k].detach(), g[0, k]
        weight = 0.0
        for i in range(a.shape[0]):
            for j in range(a.shape[1]):
                first, second, third = (score.exp() * d[i, j] ** power for power in (1, 2, 3))
                below = 2 * second + a.sum() * third
                alpha = second / below if below != 0 else 0.0
                weight += alpha * max(first, torch.zeros(()).double())
        cam += weight * a
    return cam.clamp(min=0).detach() / score.exp().detach()


def test_grad_cam_plus_plus_equals_the_naive_loop(images, targets):
    model = dense()
    maps = GradCAMPlusPlus()(model, images, targets)
    naive = torch.stack(
        [naive_plus_plus(model, x, int(t)) for x, t in zip(images, targets, strict=True)]
    )
    theirs = upsampled(naive[:, None], images)
    assert theirs.max() > 0
    assert torch.allclose(maps.sum(1, keepdim=True), theirs, rtol=1e-9)
    guided = GuidedGradCAMPlusPlus()(model, images, targets)
    captums = captum.attr.GuidedBackprop(model).attribute(images, targets)
    assert torch.allclose(guided, captums * theirs, atol=1e-9)


def test_cam_is_the_weighted_features(images, targets):
    model = pooled()
    maps = CAM()(model, images, targets)
    features = model[:4](images)
    expected = torch.stack(
        [
            sum(model[-1].weight[t, k] * features[n, k] for k in range(6))
            for n, t in enumerate(targets)
        ]
    )
    assert torch.allclose(maps.sum(1, keepdim=True), upsampled(expected[:, None], images))
    # The mean of the map is the logit without its bias, before it is upsampled.
    logits = (model(images) - model[-1].bias).gather(1, targets[:, None])[:, 0]
    assert torch.allclose(expected.mean((1, 2)), logits)


def test_cam_of_an_unmodified_resnet_is_grad_cam_before_the_cut():
    model = torchvision.models.resnet18(num_classes=5).double().eval()
    images = torch.rand(2, 3, 64, 64).double()
    cam, grad_cam = CAM()(model, images), GradCAM()(model, images)
    # Bilinear interpolation and the cut do not commute, but agree where all values are positive.
    positions = 4
    explainer = captum.attr.LayerGradCam(model, model.layer4)
    theirs = explainer.attribute(images, model(images).argmax(1), relu_attributions=False)
    assert torch.allclose(cam.sum(1, keepdim=True), positions * upsampled(theirs, images))
    assert torch.allclose(grad_cam.sum(1, keepdim=True), upsampled(theirs.clamp(min=0), images))


def test_cam_can_be_differentiated(images, targets):
    model = pooled()

    def maps(x):
        with softplus(beta=3.0):
            return CAM()(model, x, targets[:1], create_graph=True)

    x = images[:1].clone().requires_grad_(True)
    assert torch.autograd.gradcheck(maps, (x,))
    assert not CAM()(model, x, targets[:1]).requires_grad


def test_cam_leaves_the_model_as_it_was_and_predicts(images, untouched):
    model = pooled().train()
    with untouched(model):
        assert torch.equal(
            CAM()(model, images), CAM(chunk=2)(model, images, model(images).argmax(1))
        )


@pytest.mark.parametrize(
    ("method", "says"),
    [
        (CAM(), "model: expected logits that are a dense layer of the means of the last c"),
        (CAM(layer="0"), "model: expected logits that are a dense layer of the means of '0'"),
        (GradCAM(layer="no.such"), "layer: expected a submodule"),
        (GradCAM(layer="6"), "layer: expected a layer that gives feature maps"),
    ],
)
def test_refuses_layers_that_do_not_fit(method, says, images, own_errors):
    with pytest.raises(InputError, match=says):
        method(dense(), images)


def test_refuses_a_layer_that_does_not_matter(images, own_errors):
    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.used, self.spare = pooled(), nn.Conv2d(2, 2, 1).double()

        def forward(self, x):
            self.spare(x)
            return self.used(x)

    with pytest.raises(InputError, match="layer: expected a layer that the logits depend on"):
        GradCAM(layer="spare")(Model(), images)


@pytest.mark.parametrize("method", [CAM(), GradCAM()])
def test_refuses_targets_out_of_range(method, images, own_errors):
    with pytest.raises(InputError, match="targets: expected classes from 0 to 3"):
        method(pooled(), images, torch.tensor([0, 1, 4]))


@pytest.mark.parametrize("layer", [None, "2"])
@pytest.mark.parametrize("make", [pooled, dense])
def test_parts_and_a_graph_change_nothing(make, layer, images, targets):
    model = make()
    whole = GradCAM(layer=layer)(model, images, targets, create_graph=True)
    parts = GradCAM(layer=layer, chunk=2)(model, images, targets)
    assert whole.abs().sum() > 0
    assert torch.allclose(parts, whole, atol=1e-12)
    assert whole.requires_grad
    assert not parts.requires_grad


def test_refuses_a_layer_beside_the_way_to_the_logits_in_parts_too(images, targets):
    class Beside(nn.Module):
        def __init__(self):
            super().__init__()
            self.way, self.aside = nn.Linear(126, 4).double(), nn.Conv2d(2, 3, 2).double()

        def forward(self, x):
            logits = self.way(x.flatten(1))
            self.aside(x)
            return logits

    with pytest.raises(InputError, match="layer: expected a layer that the logits depend on"):
        GradCAM(chunk=2)(Beside(), images, targets)


def small_vit():
    model = VisionTransformer(32, 8, 3, 2, 16, 32, num_classes=5).double().eval()
    nn.init.normal_(model.heads.head.weight)
    return model


def small_swin():
    return SwinTransformer([2, 2], 8, [2, 2], [2, 4], [2, 2], num_classes=5).double().eval()


@pytest.mark.parametrize("layer", [None, "encoder.layers.encoder_layer_2.ln_1"])
def test_grad_cam_of_a_vit_by_hand(layer):
    model, images, targets = small_vit(), torch.rand(2, 3, 32, 32).double(), torch.tensor([1, 4])
    kept = []
    hook = model.encoder.layers[-1].ln_1.register_forward_hook(lambda *call: kept.append(call[2]))
    logits = model(images)
    hook.remove()
    (gradient,) = torch.autograd.grad(logits[[0, 1], targets].sum(), kept[0])
    cams = torch.zeros(2, 1, 4, 4).double()
    for n in range(2):
        weights = gradient[n, 1:].mean(0)  # without the class token
        for place in range(16):
            value = (weights * kept[0][n, 1 + place]).sum().detach()
            cams[n, 0, place // 4, place % 4] = value.clamp(min=0)
    theirs = upsampled(cams, images)
    assert theirs.abs().max() > 0
    maps = GradCAM(layer=layer)(model, images, targets)
    assert torch.allclose(maps.sum(1, keepdim=True), theirs, atol=1e-12)
    assert torch.allclose(GradCAM(layer=layer, chunk=1)(model, images, targets), maps, atol=1e-12)


def test_cam_of_a_swin_that_is_not_square():
    # Tokens are averaged, so the map is exact: its mean is the logit without the bias.
    model, images = small_swin(), torch.rand(2, 3, 32, 48).double()
    targets = torch.tensor([1, 4])
    features = model.norm(model.features(images))  # channels last
    assert features.shape == (2, 8, 12, 16)
    expected = torch.einsum("nyxf,nf->nyx", features, model.head.weight[targets])
    maps = CAM()(model, images, targets)
    assert torch.allclose(maps.sum(1, keepdim=True), upsampled(expected[:, None], images))
    grad_cam = GradCAM()(model, images, targets)
    cut = upsampled((expected / 96).clamp(min=0)[:, None], images)
    assert torch.allclose(grad_cam.sum(1, keepdim=True), cut)


@pytest.mark.parametrize("make", [small_vit, small_swin])
@pytest.mark.parametrize("method", [GradCAMPlusPlus, GuidedGradCAM, GuidedGradCAMPlusPlus])
@pytest.mark.filterwarnings("ignore")
def test_the_family_works_on_tokens(make, method, untouched):
    model, images = make(), torch.rand(3, 3, 32, 32).double()
    with untouched(model):
        maps = method()(model, images)
    assert maps.shape == images.shape
    assert torch.isfinite(maps).all()
    assert maps.abs().sum() > 0
    assert torch.allclose(method(chunk=1)(model, images), maps, atol=1e-9)


def test_cam_refuses_a_class_token(own_errors):
    with pytest.raises(InputError, match="model: expected logits that are a dense layer of the m"):
        CAM()(small_vit(), torch.rand(1, 3, 32, 32).double())


def test_inference_mode_is_named(images, own_errors):
    with (
        torch.inference_mode(),
        pytest.raises(HoldfastError, match=r"inside torch.inference_mode\(\)"),
    ):
        GradCAM(layer="2")(pooled(), images)
