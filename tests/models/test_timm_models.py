"""timm's small test models, with random weights and weights in local files: no network is asked."""

import sys

import numpy as np
import pytest
import torch
from huggingface_hub import constants
from PIL import Image

from holdfast.contracts import HoldfastError, InputError
from holdfast.models import Architecture
from holdfast.models.timm_models import describe

timm = pytest.importorskip("timm")


@pytest.fixture(autouse=True)
def _offline(monkeypatch, tmp_path):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))


@pytest.mark.parametrize(
    "name",
    [
        "resnet50.a1_in1k",  # a share that has to be rounded down
        "test_resnet.r160_in1k",
        "vit_base_patch16_224.augreg_in21k",
        "convnext_tiny.fb_in22k_ft_in1k_384",  # squashed
        "efficientnet_b0.ra_in1k",
        "volo_d4_448.sail_in1k",  # cuts more than there is
    ],
)
def test_preprocessing_is_timms_own(name):
    from timm.data import create_transform, resolve_data_config

    pixels = np.random.default_rng(0).integers(0, 256, (30, 42, 3), np.uint8)
    image = Image.fromarray(pixels).resize((420, 300))
    card = describe(name)
    settings = resolve_data_config({}, pretrained_cfg=timm.get_pretrained_cfg(name).to_dict())
    expected = create_transform(**settings)(image)
    ours = torch.from_numpy(np.array(card.preprocessing.apply(image))).permute(2, 0, 1) / 255
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in (card.mean, card.std))
    assert ((ours - mean) / std - expected).abs().max() < 1e-5


def test_classes_of_imagenet_by_name():
    card = describe("resnet50.a1_in1k")
    assert (card.count, len(card.classes)) == (1000, 1000)
    assert card.classes[281] == "tabby, tabby cat"
    assert describe("vit_base_patch16_clip_224.openai").classes == ()


def test_built_as_timm_builds_it():
    torch.manual_seed(0)
    expected = timm.create_model("test_vit", num_classes=3, img_size=64).eval()
    torch.manual_seed(0)
    model = Architecture("timm:test_vit.r160_in1k", classes=3, in_channels=3, size=64).build()
    images = torch.rand(2, 3, 64, 64)
    assert torch.equal(model.eval()(images), expected(images))


def test_another_tag():
    assert describe("resnet50", "a2_in1k").name == "timm:resnet50.a2_in1k"
    assert describe("resnet50.a1_in1k", "a2_in1k").name == "timm:resnet50.a2_in1k"


@pytest.mark.parametrize("classes", [None, 2])
def test_a_folder_that_timm_wrote(classes, tmp_path):
    network = timm.create_model("test_resnet", num_classes=3, in_chans=1).eval()
    folder = tmp_path / "mine"
    about = {"label_names": ["cat", "dog", "owl"]}
    timm.models.save_for_hf(network, folder, about, safe_serialization=True)
    given = Architecture(f"timm:{folder}", classes, weights="DEFAULT", mean=(0.2,), std=(0.5,))
    card = given.described()
    assert (card.classes, card.count) == (("cat", "dog", "owl"), 3)
    filled = given.filled(card)
    assert filled.name == "timm:test_resnet"
    images = torch.rand(2, 1, 32, 32)
    logits = filled.build().eval()(images)
    if classes is None:
        assert torch.equal(logits, network((images - 0.2) / 0.5))
    else:
        assert logits.shape == (2, 2)
    # From what is filled in, it is built again without the folder.
    state = filled.build(pretrained=False).state_dict()
    assert state["module.conv1.0.weight"].shape == network.conv1[0].weight.shape


@pytest.mark.parametrize(
    ("architecture", "says"),
    [
        (
            Architecture("timm:test_resnet.r160_in1k", weights="DEFAULT"),
            "trained weights of timm:test_resnet.r160_in1k cannot be had .the Hugging Face hub can",
        ),
        (Architecture("timm:someone/theirs", weights="DEFAULT"), "timm:.*someone/theirs cannot be"),
        (Architecture("timm:resnet50.a9", weights="DEFAULT"), "one of a1_in1k, .*got 'a9'"),
        (Architecture("timm:resnet50", weights="a9"), "one of a1_in1k, .*got 'a9'"),
        (Architecture("timm:test_resnet", options={"bogus": 1}), "Architecture.options: .*bogus"),
        (Architecture("timm:test_resnet", options={"pretrained": True}), "no weights there"),
        (Architecture("timm:test_resnet", options={"checkpoint_path": "x"}), "no weights there"),
        (Architecture("timm:vit_small_patch14_dinov2"), "weights are of features alone"),
    ],
)
def test_says_what_is_wrong(architecture, says):
    with pytest.raises(HoldfastError, match=says) as caught:
        architecture.build()
    assert "\n" not in str(caught.value)


def test_timm_is_not_installed(monkeypatch):
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(HoldfastError, match=r"pip install 'holdfast\[timm\]'"):
        Architecture("timm:test_resnet").build()


def test_refuses_with_an_argument():
    with pytest.raises(InputError, match="Architecture.name"):
        describe("resnet5000")
