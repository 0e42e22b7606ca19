"""Small networks of transformers in local folders: no network is asked."""

import json
import sys

import pytest
import torch
from huggingface_hub import constants

from holdfast.contracts import HoldfastError
from holdfast.models import Architecture

transformers = pytest.importorskip("transformers")
NAMES = {0: "cat", 1: "dog", 2: "owl"}


@pytest.fixture(autouse=True)
def _offline(monkeypatch, tmp_path):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))


@pytest.fixture(scope="module")
def vit(tmp_path_factory):
    folder = tmp_path_factory.mktemp("vit")
    config = transformers.ViTConfig(
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
        image_size=32,
        patch_size=8,
        id2label=NAMES,
    )
    model = transformers.ViTForImageClassification(config).eval()
    model.save_pretrained(folder)
    size = {"height": 32, "width": 32}
    transformers.ViTImageProcessor(size=size, image_mean=[0.1, 0.2, 0.3]).save_pretrained(folder)
    return folder, model


def normalized(images):
    return (images - torch.tensor([0.1, 0.2, 0.3]).view(3, 1, 1)) / 0.5


def test_logits_are_those_of_transformers(vit):
    folder, model = vit
    given = Architecture(f"hf:{folder}", weights="DEFAULT")
    card = given.described()
    assert card.classes == ("cat", "dog", "owl")
    assert str(card.preprocessing) == "squashed to 32×32 (bilinear)"
    filled = given.filled(card)
    images = torch.rand(2, 3, 32, 32)
    expected = model(normalized(images)).logits
    assert torch.allclose(filled.build().eval()(images), expected, atol=1e-6)


def test_built_again_without_the_folder(vit):
    folder, model = vit
    given = Architecture(f"hf:{folder}", weights="DEFAULT")
    filled = given.filled(given.described())
    # As JSON holds it.
    config = json.loads(json.dumps(filled.config))
    elsewhere = Architecture("hf:gone", 3, config=config, mean=filled.mean, std=filled.std)
    built = elsewhere.build(pretrained=False)
    built.load_state_dict(filled.build().state_dict())
    images = torch.rand(2, 3, 32, 32)
    assert torch.allclose(built.eval()(images), model(normalized(images)).logits, atol=1e-6)


def test_a_new_last_layer(vit):
    folder, model = vit
    built = Architecture(f"hf:{folder}", classes=7, weights="DEFAULT").build()
    state, old = built.network.state_dict(), model.state_dict()
    changed = {key for key in state if not torch.equal(state[key], old[key])}
    assert changed == {"classifier.weight", "classifier.bias"}


def test_options_change_the_configuration(vit):
    folder, _ = vit
    built = Architecture(f"hf:{folder}", options={"num_hidden_layers": 2}).build()
    assert built.network.config.num_hidden_layers == 2
    grey = Architecture(f"hf:{folder}", in_channels=1, size=16).build()
    assert grey(torch.rand(2, 1, 16, 16)).shape == (2, 3)


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"weights": "DEFAULT", "size": 64}, "none that fit .*position_embeddings"),
        ({"weights": "DEFAULT", "size": 64, "classes": 7}, "none that fit .*position_embeddings"),
        ({"weights": "DEFAULT", "in_channels": 1, "classes": 7}, "none that fit .*projection"),
        ({"weights": "V1"}, "'DEFAULT', its own, None for random ones"),
        ({"options": {"bogus": 1}}, "Architecture.options: expected settings of hf:.*bogus"),
        ({"options": {"auto_map": {}}}, "Architecture.options"),
        ({"options": {"num_labels": 7}}, "Architecture.options"),
    ],
)
def test_nothing_else_is_drawn_at_random(settings, says, vit):
    with pytest.raises(HoldfastError, match=says) as caught:
        Architecture(f"hf:{vit[0]}", **settings).build()
    assert "\n" not in str(caught.value)


def test_weights_without_a_classifier(vit, tmp_path):
    _, model = vit
    model.vit.save_pretrained(tmp_path)  # as google/vit-base-patch16-224-in21k is published
    with pytest.raises(HoldfastError, match="none that fit classifier.bias, classifier.weight"):
        Architecture(f"hf:{tmp_path}", weights="DEFAULT").build()
    assert Architecture(f"hf:{tmp_path}", classes=7, weights="DEFAULT").build()


def test_a_model_of_timm_on_the_hub_is_timms(tmp_path):
    timm = pytest.importorskip("timm")
    network = timm.create_model("test_resnet", num_classes=2).eval()
    about = {"label_names": ["cat", "dog"]}
    timm.models.save_for_hf(network, tmp_path, about, safe_serialization=True)
    given = Architecture(f"hf:{tmp_path}", weights="DEFAULT")
    card = given.described()
    assert (card.name, card.classes) == ("timm:test_resnet", ("cat", "dog"))
    images = torch.rand(1, 3, 64, 64)
    expected = network((images - 0.5) / 0.5)
    assert torch.allclose(given.filled(card).build().eval()(images), expected, atol=1e-6)
    assert torch.equal(given.build().eval()(images), network(images))


def test_blue_first(tmp_path):
    config = transformers.MobileViTConfig(
        num_labels=2, image_size=64, hidden_sizes=[16] * 3, neck_hidden_sizes=[8] * 7
    )
    model = transformers.MobileViTForImageClassification(config).eval()
    model.save_pretrained(tmp_path)
    transformers.MobileViTImageProcessor(
        size={"shortest_edge": 72}, crop_size={"height": 64, "width": 64}
    ).save_pretrained(tmp_path)
    given = Architecture(f"hf:{tmp_path}", weights="DEFAULT")
    filled = given.filled(given.described())
    images = torch.rand(1, 3, 64, 64)
    assert torch.allclose(filled.build().eval()(images), model(images.flip(1)).logits, atol=1e-6)


def test_a_model_that_does_not_say_its_normalization(vit, tmp_path):
    vit[1].save_pretrained(tmp_path)
    given = Architecture(f"hf:{tmp_path}", weights="DEFAULT")
    with pytest.raises(HoldfastError, match="a normalization: hf:.* has no image processor"):
        given.filled(given.described())
    said = Architecture(f"hf:{tmp_path}", weights="DEFAULT", mean=(0.5,) * 3, std=(0.5,) * 3)
    assert said.filled(said.described()).mean == (0.5,) * 3


@pytest.mark.parametrize(
    ("config", "says"),
    [
        ({"model_type": "bert"}, "expected an image classifier, got 'hf:gone', a bert"),
        ({"model_type": "none"}, "expected an image classifier"),
        ({"model_type": "timm_wrapper", "architecture": "hf-hub:evil/x"}, "an image classifier"),
    ],
)
def test_a_configuration_of_anybodys(config, says):
    with pytest.raises(HoldfastError, match=says):
        Architecture("hf:gone", 2, config=config).build(pretrained=False)


def test_code_of_the_models_own_does_not_run(vit, tmp_path):
    vit[1].save_pretrained(tmp_path)
    file = tmp_path / "config.json"
    own = {"AutoConfig": "evil.Config", "AutoModelForImageClassification": "evil.Model"}
    config = json.loads(file.read_text()) | {"model_type": "evil", "auto_map": own}
    file.write_text(json.dumps(config))
    (tmp_path / "evil.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    with pytest.raises(HoldfastError, match="needs code of its own, which Holdfast does not run"):
        Architecture(f"hf:{tmp_path}", weights="DEFAULT").described()
    assert not (tmp_path / "ran").exists()


def test_no_such_model():
    with pytest.raises(HoldfastError, match="of hf:no/such cannot be had .there is no such folder"):
        Architecture("hf:no/such").build()


def test_transformers_is_not_installed(monkeypatch):
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(HoldfastError, match=r"pip install 'holdfast\[transformers\]'"):
        Architecture("hf:no/such").build()
