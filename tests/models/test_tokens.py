"""The last features of networks on tokens, and of every family of torchvision."""

import pytest
import torch
import torchvision
from torch import nn
from torchvision.models.maxvit import MaxVit
from torchvision.models.swin_transformer import (
    PatchMergingV2,
    SwinTransformer,
    SwinTransformerBlockV2,
)
from torchvision.models.vision_transformer import VisionTransformer

from holdfast.contracts import InputError
from holdfast.models import classify, from_features, last_features, with_features


def vit(size=32):
    return with_head(VisionTransformer(size, 8, 3, 4, 32, 64, num_classes=5))


def swin(**settings):
    return SwinTransformer([2, 2], 8, [2, 2], [2, 4], [2, 2], num_classes=5, **settings)


def with_head(model):
    """Heads that begin with zeros make constant logits."""
    for weights in model.parameters():
        if weights.ndim == 2 and not weights.any():
            nn.init.normal_(weights)
    return model


FAMILIES = {
    "alexnet": ("features.11", (1, 256, 3, 3)),
    "vgg11": ("features.19", (1, 512, 4, 4)),
    "resnet18": ("layer4", (1, 512, 2, 2)),
    "densenet121": ("features", (1, 1024, 2, 2)),
    "squeezenet1_1": ("classifier.2", (1, 5, 3, 3)),
    "googlenet": ("inception5b", (1, 1024, 2, 2)),
    "inception_v3": ("Mixed_7c", (1, 2048, 2, 2)),
    "mobilenet_v2": ("features", (1, 1280, 2, 2)),
    "mobilenet_v3_small": ("features", (1, 576, 2, 2)),
    "shufflenet_v2_x0_5": ("conv5", (1, 1024, 2, 2)),
    "mnasnet0_5": ("layers", (1, 1280, 2, 2)),
    "efficientnet_b0": ("features", (1, 1280, 2, 2)),
    "regnet_y_400mf": ("trunk_output", (1, 440, 2, 2)),
    "convnext_tiny": ("features", (1, 768, 2, 2)),
}


@pytest.mark.harness
@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.filterwarnings("ignore:The default weight init")
def test_every_convolutional_family_of_torchvision(name):
    model = getattr(torchvision.models, name)(num_classes=5).eval()
    layer, shape = FAMILIES[name]
    images = torch.rand(1, 3, *((107, 107) if name == "inception_v3" else (64, 64)))
    assert last_features(model, images) == layer
    assert with_features(model, images, layer)[1].shape == shape


@pytest.mark.parametrize(
    ("make", "size", "layer", "shape"),
    [
        (lambda: vit(), (32, 32), "encoder.layers.encoder_layer_2.ln_1", (32, 4, 4)),
        (lambda: swin(), (32, 48), "norm", (16, 8, 12)),
        (
            lambda: swin(block=SwinTransformerBlockV2, downsample_layer=PatchMergingV2),
            (32, 32),
            "norm",
            (16, 8, 8),
        ),
        (
            lambda: MaxVit((64, 64), 8, 2, [8, 16], [1, 1], 4, 0.1, num_classes=5),
            (64, 64),
            "blocks.1",
            (16, 8, 8),
        ),
    ],
    ids=["vit", "swin", "swin_v2", "maxvit"],
)
def test_the_transformers_of_torchvision(make, size, layer, shape, untouched):
    model, images = make().eval(), torch.rand(2, 3, *size)
    with untouched(model):
        assert last_features(model, images) == layer
    logits, features = with_features(model, images)
    assert features.shape == (2, *shape)
    assert torch.allclose(logits, model(images), atol=1e-6)
    (gradient,) = torch.autograd.grad(logits[:, 1].sum(), features)
    assert (gradient != 0).any(1).all()
    leaf = from_features(model, images, layer)
    assert torch.allclose(leaf[1], features, atol=1e-6)  # fused kernels round otherwise
    assert torch.allclose(torch.autograd.grad(leaf[0][:, 1].sum(), leaf[1])[0], gradient, atol=1e-6)


TIMM = {
    "vit_tiny_patch16_224": ("blocks.11.norm1", (192, 4, 6)),
    "deit_tiny_distilled_patch16_224": ("blocks.11.norm1", (192, 4, 6)),
    "vit_small_patch14_reg4_dinov2": ("blocks.11.norm1", (384, 4, 6)),
    "eva02_tiny_patch14_224": ("blocks.11", (192, 4, 6)),
    "cait_xxs24_224": ("blocks.23", (192, 4, 6)),
    "xcit_nano_12_p16_224": ("cls_attn_blocks.1.norm1", (128, 4, 6)),
    "pit_ti_224": ("transformers.2.blocks.3.norm1", (256, 2, 3)),
    "coat_lite_tiny": ("serial_blocks4.1.norm1", (320, 2, 3)),
    "convnext_atto": ("norm_pre", (320, 2, 3)),
    "poolformer_s12": ("stages", (512, 2, 3)),
    "pvt_v2_b0": ("stages", (256, 2, 3)),
    "mixer_s32_224": ("norm", (512, 7, 7)),
    "levit_128s": ("stages.2.blocks.3", (384, 4, 4)),
    "swin_tiny_patch4_window7_224": ("norm", (768, 7, 7)),
}


@pytest.mark.harness
@pytest.mark.parametrize("name", TIMM)
def test_families_of_timm(name):
    timm = pytest.importorskip("timm")
    layer, shape = TIMM[name]
    patch = 14 if "14" in name else 16
    size = (224, 224) if shape[1] == shape[2] else (4 * patch, 6 * patch)
    try:
        model = timm.create_model(name, num_classes=5, img_size=size)
    except TypeError:
        model = timm.create_model(name, num_classes=5)
    model, images = with_head(model).eval(), torch.rand(1, 3, *size)
    assert last_features(model, images) == layer
    assert with_features(model, images, layer)[1].shape == (1, *shape)


def hugging_face(kind, **settings):
    transformers = pytest.importorskip("transformers")
    config = getattr(transformers, f"{kind}Config")(num_labels=5, **settings)
    return getattr(transformers, f"{kind}ForImageClassification")(config).eval()


SMALL = {
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "image_size": (32, 48),
    "patch_size": 8,
}
SMALL_SWIN = {
    "image_size": (32, 48),
    "patch_size": 2,
    "embed_dim": 8,
    "depths": [2, 2],
    "num_heads": [2, 2],
    "window_size": 4,
}


@pytest.mark.parametrize(
    ("kind", "settings", "layer", "shape"),
    [
        ("ViT", SMALL, "vit.layers.1.layernorm_before", (16, 4, 6)),
        ("Swin", SMALL_SWIN, "swin.layernorm", (16, 8, 12)),
        (
            "ResNet",
            {"embedding_size": 8, "hidden_sizes": [8, 16], "depths": [1, 1]},
            "resnet.encoder.stages.1",
            (16, 4, 6),
        ),
    ],
)
def test_models_of_hugging_face(kind, settings, layer, shape):
    model, images = hugging_face(kind, **settings), torch.rand(2, 3, 32, 48)
    found = last_features(model, images)
    # Names within the encoder differ between versions.
    assert found.split(".")[-1] == layer.split(".")[-1]
    logits, features = with_features(model, images, found)
    assert features.shape == (2, *shape)
    assert torch.allclose(logits, classify(model, images), atol=1e-6)


class Block(nn.Module):
    """A block on tokens that returns a tuple."""

    def __init__(self):
        super().__init__()
        self.norm = nn.LayerNorm(6)
        self.attention = nn.MultiheadAttention(6, 2, batch_first=True)

    def forward(self, tokens):
        normal = self.norm(tokens)
        mixed, weights = self.attention(normal, normal, normal)
        return tokens + mixed, weights


class Reader(nn.Module):
    """A small ViT of blocks that return tuples; class and register tokens first or last."""

    def __init__(self, first=True, shuffled=False):
        super().__init__()
        self.embed = nn.Conv2d(1, 6, 4, 4)
        self.extra = nn.Parameter(torch.randn(1, 3, 6))
        self.begin, self.block, self.last_block = nn.Dropout(0.0), Block(), Block()
        self.head = nn.Linear(6, 4)
        self.first, self.shuffled = first, shuffled

    def forward(self, images):
        tokens = self.embed(images).flatten(2).transpose(1, 2)
        if self.shuffled:
            tokens = torch.cat([tokens, tokens[:, :4] * 2, tokens * 3, tokens * 5], 1)
        extra = self.extra.expand(len(images), -1, -1)
        tokens = torch.cat([extra, tokens] if self.first else [tokens, extra], 1)
        tokens = self.last_block(self.block(self.begin(tokens))[0])[0]
        return self.head(tokens[:, 0 if self.first else -1])


def test_tokens_of_a_block_that_returns_a_tuple():
    model, images = Reader().eval(), torch.rand(3, 1, 8, 12)
    assert last_features(model, images) == "last_block.norm"
    tokens = torch.cat(
        [model.extra.expand(3, -1, -1), model.embed(images).flatten(2).transpose(1, 2)], 1
    )
    tokens, _ = model.block(tokens)
    logits, features = with_features(model, images, "block")
    assert torch.allclose(logits, model(images), atol=1e-6)
    for y in range(2):
        for x in range(3):
            assert torch.allclose(features[:, :, y, x], tokens[:, 3 + 3 * y + x], atol=1e-6)


def test_refuses_class_tokens_that_are_not_first(own_errors):
    model, images = Reader(first=False).eval(), torch.rand(2, 1, 8, 12)
    with pytest.raises(InputError, match="layer: expected 3 class and register tokens, first"):
        with_features(model, images, "block")


def test_refuses_tokens_without_a_place(own_errors):
    # 6 patches become 6 + 4 + 12 tokens: never the patch embedding instead.
    model, images = Reader(shuffled=True).eval(), torch.rand(2, 1, 8, 12)
    with pytest.raises(InputError, match="no place in the image is known for what 'last_block"):
        last_features(model, images)
    with pytest.raises(InputError, match="layer: expected a layer that gives feature maps .* tok"):
        with_features(model, images, "block")


def test_refuses_a_classifier_that_does_not_look():
    model = Reader().eval()
    nn.init.zeros_(model.head.weight)
    with pytest.raises(InputError, match="model: expected a classifier whose logits depend on"):
        last_features(model, torch.rand(1, 1, 8, 12))


class SequenceFirst(nn.Module):
    """PyTorch's encoder as it comes, with tokens (L, N, F), and patches cut without convolution."""

    def __init__(self):
        super().__init__()
        self.embed = nn.Linear(16, 8)
        self.start = nn.Parameter(torch.randn(1, 1, 8))
        layer = nn.TransformerEncoderLayer(8, 2, 16, norm_first=True)
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.head = nn.Linear(8, 3)

    def forward(self, images):
        patches = images.unfold(2, 4, 4).unfold(3, 4, 4)
        self.kept = self.embed(patches.reshape(len(images), 6, 16)).transpose(0, 1)
        start = self.start.expand(-1, len(images), -1)
        return self.head(self.encoder(torch.cat([start, self.kept]))[0])


@pytest.mark.parametrize("count", [1, 2, 7])  # 7 is the number of tokens, too
def test_tokens_before_images(count):
    model, images = SequenceFirst().eval(), torch.rand(count, 1, 8, 12)
    assert last_features(model, images) == "encoder.layers.1.norm1"
    logits, features = with_features(model, images, "encoder.layers.0.norm1")
    assert torch.allclose(logits, model(images), atol=1e-6)
    expected = model.encoder.layers[0].norm1(model.kept)
    expected = expected.permute(1, 2, 0).reshape(count, 8, 2, 3)
    assert torch.allclose(features, expected, atol=1e-6)


def test_a_dense_layer_in_disguise_is_not_the_last_convolution():
    model = nn.Sequential(
        *(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Conv2d(4, 8, 6), nn.ReLU()),
        *(nn.Conv2d(8, 3, 1), nn.Flatten()),
    )
    assert last_features(model, torch.rand(1, 1, 8, 8)) == "1"
