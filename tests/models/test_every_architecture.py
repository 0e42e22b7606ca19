"""A small member of every family of classifiers, through every kind of method.

torchvision's families, and those of timm and transformers where they are installed. Weights are
random, of a size that keeps activations alive.
"""

import functools
import math
import warnings

import pytest
import torch
import torchvision.models as tv
from torch import nn
from torch.nn import functional as F
from torchvision.models import (
    convnext,
    efficientnet,
    inception,
    mobilenetv3,
    regnet,
    resnet,
    swin_transformer,
    vgg,
)
from torchvision.models.googlenet import Inception, InceptionAux

from holdfast.adversarial import PGD, BoundarySearch
from holdfast.attributions import (
    BoundaryIntegratedGradients,
    DeepLIFT,
    GradCAM,
    Gradient,
    GuidedBackprop,
    IntegratedGradients,
    SmoothGrad,
)
from holdfast.manipulation import RandomSign, TopK
from holdfast.models import classify, last_features
from holdfast.objectives import ART, alignment_loss

pytestmark = pytest.mark.harness

CLASSES = 5


def torchvision_convnext():
    blocks = [convnext.CNBlockConfig(16, 32, 1), convnext.CNBlockConfig(32, None, 1)]
    return convnext.ConvNeXt(blocks, layer_scale=1.0, num_classes=CLASSES)


def torchvision_efficientnet():
    blocks = [
        efficientnet.MBConvConfig(1, 3, 1, 16, 8, 1),
        efficientnet.MBConvConfig(4, 5, 2, 8, 16, 2),
    ]
    return tv.EfficientNet(blocks, 0.2, num_classes=CLASSES, last_channel=32)


def torchvision_efficientnet_v2():
    blocks = [
        efficientnet.FusedMBConvConfig(1, 3, 1, 16, 16, 1),
        efficientnet.FusedMBConvConfig(4, 3, 2, 16, 24, 1),
        efficientnet.MBConvConfig(4, 3, 1, 24, 32, 1),
    ]
    return tv.EfficientNet(blocks, 0.2, num_classes=CLASSES, last_channel=32)


def torchvision_mobilenet_v3():
    block = functools.partial(mobilenetv3.InvertedResidualConfig, width_mult=1.0)
    blocks = [block(16, 3, 16, 16, True, "RE", 2, 1), block(16, 5, 48, 24, True, "HS", 1, 1)]
    return tv.MobileNetV3(blocks, 64, num_classes=CLASSES)


def torchvision_regnet(se_ratio):
    blocks = regnet.BlockParams([1, 1], [16, 32], [8, 8], [1, 1], [2, 2], se_ratio=se_ratio)
    return tv.RegNet(blocks, num_classes=CLASSES, stem_width=8)


def torchvision_resnet(block, **options):
    return tv.ResNet(block, [1, 1, 1, 1], num_classes=CLASSES, **options)


def narrow(build, flat):
    """Build a network whose dense layers are narrow, without filling millions of weights first."""
    with torch.device("meta"):
        model = build()
        head = nn.Linear(flat, 32), nn.ReLU(inplace=True), nn.Dropout(), nn.Linear(32, CLASSES)
        model.classifier = nn.Sequential(*head)
    model.to_empty(device="cpu")
    for module in model.modules():
        if hasattr(module, "reset_parameters"):
            module.reset_parameters()
    return model


def torchvision_vgg(batch_norm):
    layers = vgg.make_layers([8, "M", 16, "M", 32, 32, "M"], batch_norm=batch_norm)
    return tv.VGG(layers, init_weights=False)


class NarrowConvolution(inception.BasicConv2d):
    """GoogLeNet's and Inception's convolution with an eighth of the channels."""

    def __init__(self, before, after, **options):
        super().__init__(before if before == 3 else before // 8, after // 8, **options)


def torchvision_inception():
    kinds = (
        inception.InceptionA,
        inception.InceptionB,
        inception.InceptionC,
        inception.InceptionD,
        inception.InceptionE,
    )
    blocks = [functools.partial(kind, conv_block=NarrowConvolution) for kind in kinds]
    blocks = [NarrowConvolution, *blocks, inception.InceptionAux]
    model = tv.Inception3(CLASSES, aux_logits=False, inception_blocks=blocks, init_weights=False)
    model.fc = nn.Linear(256, CLASSES)
    return model


def torchvision_googlenet():
    block = functools.partial(Inception, conv_block=NarrowConvolution)
    blocks = [NarrowConvolution, block, InceptionAux]
    model = tv.GoogLeNet(CLASSES, aux_logits=False, init_weights=False, blocks=blocks)
    model.fc = nn.Linear(128, CLASSES)
    return model


def torchvision_swin(**options):
    shape = {"patch_size": [4, 4], "depths": [1, 2], "num_heads": [2, 4], "window_size": [2, 2]}
    drop = {"stochastic_depth_prob": 0.0}
    return tv.SwinTransformer(embed_dim=16, num_classes=CLASSES, **shape, **drop, **options)


def torchvision_maxvit():
    shape = {"input_size": (32, 32), "stem_channels": 8, "partition_size": 2, "head_dim": 4}
    layers = {"block_channels": [8, 16], "block_layers": [1, 1], "stochastic_depth_prob": 0.0}
    return tv.MaxVit(**shape, **layers, num_classes=CLASSES)


def timm(name, **options):
    create_model = pytest.importorskip("timm").create_model
    return create_model(name, num_classes=CLASSES, **options)


def timm_mixer():
    mixer = pytest.importorskip("timm").models.mlp_mixer.MlpMixer
    return mixer(CLASSES, img_size=32, patch_size=8, embed_dim=32, num_blocks=2)


def timm_poolformer():
    metaformer = pytest.importorskip("timm").models.metaformer
    return metaformer.MetaFormer(
        depths=(1, 1, 1, 1),
        dims=(16, 16, 32, 32),
        token_mixers=metaformer.Pooling,
        norm_layers=metaformer.GroupNorm1,
        mlp_act=nn.GELU,
        num_classes=CLASSES,
        use_mlp_head=False,
    )


def transformers_resnet():
    transformers = pytest.importorskip("transformers")
    config = transformers.ResNetConfig(
        embedding_size=8,
        hidden_sizes=[16, 16, 32, 32],
        depths=[1, 1, 1, 1],
        layer_type="basic",
        num_labels=CLASSES,
    )
    return transformers.ResNetForImageClassification(config)


def transformers_vit(attention):
    transformers = pytest.importorskip("transformers")
    config = transformers.ViTConfig(
        image_size=32,
        patch_size=8,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        num_labels=CLASSES,
        attn_implementation=attention,
    )
    return transformers.ViTForImageClassification(config)


V2 = {
    "block": swin_transformer.SwinTransformerBlockV2,
    "downsample_layer": swin_transformer.PatchMergingV2,
}
DENSENET = {"growth_rate": 8, "block_config": (2, 2), "num_init_features": 16}
NARROW = [[1, 8, 1, 1], [4, 16, 1, 2], [4, 24, 1, 2]]
VIT = {"patch_size": 8, "embed_dim": 32, "depth": 2, "num_heads": 2}
# By name: how it is built, the images' height and width, the layer that Grad-CAM reads, and the
# tokens in front of those of the image.
FAMILIES = {
    "alexnet": (lambda: narrow(tv.AlexNet, 9216), 64, "features.11", 0),
    "convnext": (torchvision_convnext, 32, "features", 0),
    "densenet": (
        lambda: tv.DenseNet(**DENSENET, num_classes=CLASSES),
        32,
        "features",
        0,
    ),
    "densenet_checkpointed": (
        lambda: tv.DenseNet(**DENSENET, num_classes=CLASSES, memory_efficient=True),
        32,
        "features",
        0,
    ),
    "efficientnet": (torchvision_efficientnet, 32, "features", 0),
    "efficientnet_v2": (torchvision_efficientnet_v2, 32, "features", 0),
    "googlenet": (torchvision_googlenet, 64, "inception5b", 0),
    "inception": (torchvision_inception, 107, "Mixed_7c", 0),
    "maxvit": (torchvision_maxvit, 32, "blocks.1", 0),
    "mnasnet": (lambda: tv.MNASNet(0.25, CLASSES), 64, "layers", 0),
    "mobilenet_v2": (
        lambda: tv.MobileNetV2(CLASSES, 0.5, inverted_residual_setting=NARROW),
        32,
        "features",
        0,
    ),
    "mobilenet_v3": (torchvision_mobilenet_v3, 32, "features", 0),
    "regnet_x": (lambda: torchvision_regnet(None), 32, "trunk_output", 0),
    "regnet_y": (lambda: torchvision_regnet(0.25), 32, "trunk_output", 0),
    "resnet": (lambda: torchvision_resnet(resnet.BasicBlock), 48, "layer4", 0),
    "resnext": (
        lambda: torchvision_resnet(resnet.Bottleneck, groups=8, width_per_group=2),
        48,
        "layer4",
        0,
    ),
    "wide_resnet": (
        lambda: torchvision_resnet(resnet.Bottleneck, width_per_group=80),
        48,
        "layer4",
        0,
    ),
    "shufflenet": (
        lambda: tv.ShuffleNetV2([1, 1, 1], [8, 16, 32, 64, 64], CLASSES),
        64,
        "conv5",
        0,
    ),
    "squeezenet": (lambda: tv.SqueezeNet("1_1", CLASSES), 48, "classifier.2", 0),
    "swin": (torchvision_swin, 32, "norm", 0),
    "swin_v2": (lambda: torchvision_swin(**V2), 32, "norm", 0),
    "vgg": (lambda: narrow(lambda: torchvision_vgg(False), 1568), 32, "features.9", 0),
    "vgg_bn": (lambda: narrow(lambda: torchvision_vgg(True), 1568), 32, "features.13", 0),
    "vit": (
        lambda: tv.VisionTransformer(32, 8, 2, 2, 32, 64, num_classes=CLASSES),
        32,
        "encoder.layers.encoder_layer_1.ln_1",
        1,
    ),
    "timm_byobnet": (lambda: timm("test_byobnet"), 64, "final_conv", 0),
    "timm_coatnet": (lambda: timm("test_coatnet", img_size=64), 64, "norm", 0),
    "timm_convnext": (lambda: timm("test_convnext"), 64, "norm_pre", 0),
    "timm_deit": (
        lambda: timm("deit_tiny_distilled_patch16_224", img_size=32, **VIT),
        32,
        "blocks.1.norm1",
        2,
    ),
    "timm_edgenext": (
        lambda: timm("edgenext_xx_small", depths=(1, 1, 1, 1), dims=(16, 16, 32, 32)),
        64,
        "norm_pre",
        0,
    ),
    "timm_efficientnet": (lambda: timm("test_efficientnet"), 64, "bn2", 0),
    "timm_fastvit": (
        lambda: timm("fastvit_t8", layers=(1, 1, 1, 1), embed_dims=(16, 16, 32, 32)),
        64,
        "final_conv",
        0,
    ),
    "timm_levit": (
        lambda: timm(
            "levit_128s",
            img_size=128,
            embed_dim=(32, 48, 64),
            key_dim=8,
            num_heads=(2, 3, 4),
            depth=(1, 1, 1),
        ),
        128,
        "stages.2.blocks.0",
        0,
    ),
    "timm_mambaout": (lambda: timm("test_mambaout"), 64, "stages.3.blocks.0", 0),
    "timm_mixer": (timm_mixer, 32, "norm", 0),
    "timm_nfnet": (lambda: timm("test_nfnet"), 64, "final_act", 0),
    "timm_poolformer": (timm_poolformer, 64, "stages", 0),
    "timm_resnet": (lambda: timm("test_resnet"), 48, "layer4", 0),
    "timm_swin": (
        lambda: timm(
            "swin_tiny_patch4_window7_224",
            img_size=32,
            window_size=4,
            embed_dim=16,
            depths=(1, 1),
            num_heads=(2, 4),
        ),
        32,
        "norm",
        0,
    ),
    "timm_vit": (lambda: timm("test_vit", img_size=64), 64, "blocks.5.norm1", 1),
    "transformers_resnet": (transformers_resnet, 64, "resnet.encoder.stages.3", 0),
    "transformers_vit": (lambda: transformers_vit("sdpa"), 32, "vit.layers.1.layernorm_before", 1),
    "transformers_vit_eager": (
        lambda: transformers_vit("eager"),
        32,
        "vit.layers.1.layernorm_before",
        1,
    ),
}


def alive(model, size):
    """Give a network weights with which its activations are of order one, as after training."""
    torch.manual_seed(1)
    for name, parameter in model.named_parameters():
        if parameter.ndim >= 2:
            nn.init.kaiming_normal_(parameter)
        elif name.endswith("weight") or "gamma" in name or "layer_scale" in name:
            nn.init.ones_(parameter)  # some begin at 0, which cuts off what lies before them
    for module in model.modules():
        if hasattr(module, "momentum"):
            module.momentum = 1.0
        module.training = isinstance(module, nn.modules.batchnorm._BatchNorm)
    with torch.no_grad():
        model(torch.rand(8, 3, size, size))
    return model.eval()


@functools.cache
def case(name):
    """Build a network, and take two of eight images whose class is the safest."""
    torch.manual_seed(0)
    build, size, layer, _ = FAMILIES[name]
    model = alive(build(), size)
    images = torch.rand(8, 3, size, size)
    labels, radii = safe_radii(model, images)
    best = radii.topk(2).indices
    return model, images[best], labels[best], layer


def safe_radii(model, images):
    """Predict classes, and how far every pixel may move before they change, to first order."""
    x = images.clone().requires_grad_(True)
    first, second = classify(model, x).topk(2, 1).values.unbind(1)
    (gradient,) = torch.autograd.grad((first - second).sum(), x)
    with torch.no_grad():
        labels = classify(model, images).argmax(1)
    return labels, (first - second).detach() / gradient.flatten(1).abs().sum(1)


def relative(first, second):
    return ((first - second).norm() / second.norm()).item()


def slow_gradient(model, images, labels):
    x = images.clone().requires_grad_(True)
    logits = classify(model, x).gather(1, labels[:, None])
    return torch.autograd.grad(logits.sum(), x)[0]


@pytest.mark.parametrize("name", FAMILIES)
def test_gradients(name):
    model, images, labels, _ = case(name)
    gradient = Gradient()(model, images, labels)
    expected = slow_gradient(model, images, labels)
    assert expected.isfinite().all()
    assert (expected.flatten(1).abs().amax(1) > 0).all()
    assert relative(gradient, expected) < 1e-4
    # Little noise changes little; a kink or two may lie in the way.
    smooth = SmoothGrad(samples=2, noise=1e-5)(model, images, labels)
    assert relative(smooth, expected) < 0.3
    points = [slow_gradient(model, images * (k + 1) / 4, labels) for k in range(4)]
    path = IntegratedGradients(steps=4)(model, images, labels)
    assert relative(path, images * sum(points) / 4) < 1e-4


@pytest.mark.parametrize("name", FAMILIES)
def test_guided_backpropagation(name):
    model, images, labels, _ = case(name)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        maps = GuidedBackprop()(model, images, labels)
    assert maps.isfinite().all()
    assert maps.abs().sum() > 0
    guided = relative(maps, slow_gradient(model, images, labels)) > 1e-3
    assert guided or any("GuidedBackprop" in str(w.message) for w in caught)


@pytest.mark.parametrize("name", FAMILIES)
def test_deep_lift_sums_up_or_warns(name):
    model, images, labels, _ = case(name)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        maps = DeepLIFT()(model, images, labels)
    assert maps.isfinite().all()
    assert maps.abs().sum() > 0
    with torch.no_grad():
        change = classify(model, images) - classify(model, 0 * images)
    change = change.gather(1, labels[:, None])[:, 0]
    missed = (maps.flatten(1).sum(1) - change).abs() / change.abs()
    assert missed.max() < 0.011 or any("DeepLIFT" in str(w.message) for w in caught), missed


@pytest.mark.parametrize("name", FAMILIES)
def test_grad_cam_reads_the_last_spatial_features(name):
    model, images, labels, layer = case(name)
    front = FAMILIES[name][3]
    assert last_features(model, images) == layer
    seen = []

    def keep(module, inputs, output):
        seen.append(output)
        return output.clone()  # DenseNet changes it in place

    hook = model.get_submodule(layer).register_forward_hook(keep)
    try:
        with torch.enable_grad():
            logits = classify(model, images).gather(1, labels[:, None])
    finally:
        hook.remove()
    (features,) = seen
    (gradient,) = torch.autograd.grad(logits.sum(), features)
    cam = spatial(gradient, front).mean((2, 3), keepdim=True) * spatial(features, front)
    cam = F.interpolate(cam.sum(1, keepdim=True).relu(), images.shape[2:], mode="bilinear")
    maps = GradCAM()(model, images, labels)
    assert torch.allclose(maps.sum(1, keepdim=True), cam, atol=1e-4 * cam.abs().max().item())


def spatial(features, front):
    """Bring tokens, or features with the channels last, to the shape of feature maps."""
    if features.ndim == 3:
        side = math.isqrt(features.shape[1] - front)
        return features[:, front:].mT.unflatten(2, (side, side))
    channels_last = features.shape[1] == features.shape[2] != features.shape[3]
    return features.permute(0, 3, 1, 2) if channels_last else features


@pytest.mark.parametrize("name", FAMILIES)
def test_boundary_attribution(name):
    model, images, labels, _ = case(name)
    method = BoundaryIntegratedGradients(
        BoundarySearch(steps=4, scout_steps=3, restarts=0), steps=3
    )
    maps, found = method.with_found(model, images[:1], labels[:1])
    assert maps.isfinite().all()
    assert found.all()
    assert maps.abs().sum() > 0


@pytest.mark.parametrize("name", FAMILIES)
def test_top_k_attack_beats_random_signs(name):
    model, images, labels, _ = case(name)
    eps = min(4 / 255, safe_radii(model, images)[1].min().item() / 2)
    k = images[0, 0].numel() // 10
    attack = TopK(Gradient(), k=k, eps=eps, step_size=eps / 3, steps=4, judge_every=2)
    outcome = attack(model, images, labels)
    random = RandomSign(Gradient(), eps=eps)(model, images, labels)
    assert outcome.preserved.all()
    assert (outcome.moved > 0.5 * eps).all()
    assert (outcome.stuck == 0).all()
    # Where ε is small both are near 1: then the changes are compared.
    assert 1 - outcome.similarity.mean() > 1.3 * (1 - random.similarity.mean())


@pytest.mark.parametrize("name", FAMILIES)
def test_art_step(name):
    model, images, labels, _ = case(name)
    x = images.clone().requires_grad_(True)
    second = torch.autograd.grad(alignment_loss(model, x, labels).sum(), x)[0]
    assert second.isfinite().all()
    assert (second.flatten(1).abs().amax(1) > 0).all()
    for module in model.modules():
        # Two images of one pixel are too few to normalize by, for the last batch-norm.
        module.training = not isinstance(module, nn.modules.batchnorm._BatchNorm)
    objective = ART(attack=PGD(eps=8 / 255, step_size=4 / 255, steps=1))
    try:
        terms = objective(model, {"images": images, "labels": labels})
        weights = list(model.parameters())
        gradients = torch.autograd.grad(terms["alignment"], weights, allow_unused=True)
    finally:
        model.eval()
    gradients = [gradient for gradient in gradients if gradient is not None]
    assert all(gradient.isfinite().all() for gradient in gradients)
    moved = sum(bool(gradient.any()) for gradient in gradients) / len(gradients)
    assert moved > 0.6
    assert terms["loss"].isfinite()
