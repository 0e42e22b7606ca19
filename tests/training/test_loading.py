"""Any model by its name; what needs timm or transformers stands beside their modules."""

import sys
from pathlib import Path

import pytest
import torch
import torchvision
from huggingface_hub import constants
from safetensors.torch import save_file
from torch import nn

import holdfast
from holdfast.contracts import HoldfastError
from holdfast.models import Architecture, Normalized, mnist_cnn
from holdfast.preprocessing import Preprocessing
from holdfast.training import save
from holdfast.training.loading import find

MODULE = """
from torch import nn

class Own(nn.Module):
    classes = ("cat", "dog")
    def forward(self, images):
        return images.flatten(1)[:, :2]

def make():
    return nn.Sequential(nn.Flatten(), nn.Linear(4, 3))

def broken():
    raise OSError("no weights here")
"""


@pytest.fixture(autouse=True)
def _here(tmp_path, monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    (tmp_path / "theirs.py").write_text(MODULE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    yield
    sys.modules.pop("theirs", None)


def published(name="shufflenet_v2_x0_5"):
    """torchvision's weights where torchvision stores them, so that nothing is downloaded."""
    weights = torchvision.models.get_model_weights(name)["IMAGENET1K_V1"]
    model = torchvision.models.get_model(name)
    folder = Path("torch/hub/checkpoints")
    folder.mkdir(parents=True)
    torch.save(model.state_dict(), folder / Path(weights.url).name)
    return model.eval(), weights


class TestTorchvision:
    @pytest.mark.parametrize("spelled", ["{}", "torchvision:{}", "torchvision:{}/IMAGENET1K_V1"])
    def test_with_all_that_its_weights_say(self, spelled):
        network, weights = published()
        model = holdfast.load(spelled.format("shufflenet_v2_x0_5"))
        wanted = weights.transforms()
        images = torch.rand(1, 3, 64, 64)
        mean, std = (torch.tensor(v).view(3, 1, 1) for v in (wanted.mean, wanted.std))
        torch.testing.assert_close(model(images), network((images - mean) / std))
        assert list(model.classes) == weights.meta["categories"]
        assert model.preprocessing == Preprocessing(
            (224, 224), 256, mean=tuple(wanted.mean), std=tuple(wanted.std)
        )
        assert model.origin == spelled.format("shufflenet_v2_x0_5")
        assert not model.training

    def test_saved_and_loaded_again(self):
        published()
        model = holdfast.load("shufflenet_v2_x0_5")
        save(model, "mine", architecture=model.architecture, classes=model.classes)
        Path("mine").rename("mine.safetensors")
        again, images = holdfast.load("mine.safetensors"), torch.rand(1, 3, 64, 64)
        assert torch.equal(again(images), model(images))

    def test_random_weights_are_the_same_every_time(self):
        state = torch.get_rng_state()
        models = [holdfast.load("squeezenet1_1", pretrained=False) for _ in range(2)]
        images = torch.rand(1, 3, 64, 64)
        assert torch.equal(models[0](images), models[1](images))
        torch.set_rng_state(state)

    def test_other_classes_are_trained_first(self):
        with pytest.raises(HoldfastError, match="Architecture.classes: expected 1000, as the weig"):
            find("squeezenet1_1", settings={"classes": 7})

    def test_a_normalization_of_the_users_own(self):
        published()
        said = Architecture("shufflenet_v2_x0_5", mean=(0.0,) * 3, std=(1.0,) * 3)
        model = holdfast.load(said)
        assert model.preprocessing.mean == (0.0,) * 3
        assert model.mean.flatten().tolist() == [0.0] * 3


class TestFile:
    @pytest.mark.parametrize("file", ["w.pth", "w.safetensors"])
    def test_classes_are_those_of_the_weights(self, file):
        network = mnist_cnn(4, size=8).eval()
        if file.endswith(".pth"):
            torch.save({"state_dict": network.state_dict()}, file)
        else:
            save_file(network.state_dict(), file)
        model = holdfast.load(file, architecture=Architecture("mnist_cnn", size=8))
        images = torch.rand(2, 1, 8, 8)
        assert torch.equal(model(images), network(images))
        assert (model.architecture.classes, model.classes) == (4, None)

    def test_normalized_as_the_network_usually_is(self):
        network = torchvision.models.get_model("shufflenet_v2_x0_5", num_classes=3).eval()
        torch.save(network.state_dict(), "w.pt")
        model = holdfast.load("w.pt", architecture="torchvision:shufflenet_v2_x0_5")
        assert isinstance(model, Normalized)
        assert model.preprocessing.resize == 256
        # Three classes are not ImageNet's.
        assert model.classes is None

    def test_a_users_network(self):
        network = nn.Sequential(nn.Flatten(), nn.Linear(4, 3))
        torch.save(network.state_dict(), "w.pt")
        model = holdfast.load("w.pt", architecture="theirs:make")
        images = torch.rand(1, 1, 2, 2)
        assert torch.equal(model(images), network(images))


class TestCode:
    def test_a_users_function(self):
        model = holdfast.load("theirs:make")
        assert model(torch.rand(1, 1, 2, 2)).shape == (1, 3)
        assert (model.classes, model.preprocessing, model.origin) == (None, None, "theirs:make")

    def test_what_a_users_model_knows_stays(self):
        assert holdfast.load("theirs:Own").classes == ("cat", "dog")

    def test_a_run_that_names_code(self):
        architecture = Architecture("theirs:make", classes=3)
        save(architecture.build(), "m.safetensors", architecture=architecture, classes=list("abc"))
        with pytest.raises(HoldfastError, match="--trust-code.*'theirs:make'"):
            holdfast.load("m.safetensors")
        assert holdfast.load("m.safetensors", trust_code=True).classes == ("a", "b", "c")


@pytest.mark.parametrize(
    ("name", "words", "says"),
    [
        ("resnet5", {}, r"there is no model 'resnet5' \(close: resnet50"),
        ("no/such", {}, "there is no model 'no/such'; expected a run's folder, torchvision:NAME"),
        ("no.pth", {}, "there is no file no.pth"),
        ("empty", {}, "path: .*model.safetensors, got empty, which has none"),
        ("foreign", {}, "it has a config.json, .* named hf:foreign and timm:foreign"),
        ("w.pth", {}, "w.pth does not say of which network its weights are; .*--architecture"),
        ("w.pth", {"architecture": "mnist_cn"}, "there is no model 'mnist_cn' .close: mnist_cnn"),
        ("w.pth", {"architecture": "mlp"}, "weights w.pth: .*missing: "),
        ("w.pth", {"architecture": "mnist_cnn", "pretrained": False}, "Architecture.weights"),
        ("resnet18", {"architecture": "resnet18"}, "architecture: expected None: it goes with a"),
        ("run", {"architecture": "resnet18"}, "architecture: expected None: run says itself"),
        ("mnist_cnn", {}, "there are no trained weights of mnist_cnn"),
        ("torchvision:resnet18/V9", {}, "one of IMAGENET1K_V1, DEFAULT, weights of resnet18"),
        ("torchvision:resnet5", {}, r"a classifier of torchvision, .*\(close: resnet50"),
        ("theirs:none", {}, "'theirs:none'"),
        ("theirs:broken", {}, r"theirs:broken cannot be made \(OSError: no weights here\)"),
        ("nowhere:none", {}, "'nowhere:none'"),
        ("hf:no/such", {}, "of hf:no/such cannot be had"),
        ("timm:no/such", {}, "timm:no/such cannot be had"),
        ("timm:test_resnet.r160_in1k", {}, "trained weights of timm:.* cannot be had"),
        ("timm:test_resne", {}, r"\(close: test_resnet"),
    ],
)
@pytest.mark.usefixtures("own_errors")
def test_says_what_is_wrong_in_one_line(name, words, says):
    torch.save(mnist_cnn(4).state_dict(), "w.pth")
    for folder in ("empty", "foreign", "run"):
        Path(folder).mkdir()
    Path("foreign/config.json").write_text("{}")
    architecture = Architecture("mnist_cnn", classes=2, size=8)
    save(architecture.build(), "run", architecture=architecture, classes=["a", "b"])
    with pytest.raises(HoldfastError, match=says) as caught:
        holdfast.load(name, **words)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "architecture",
    [
        {"name": "os:system"},
        {"name": "hf:evil/model"},
        {"name": "timm:evil/model"},
        {"name": "timm:hf-hub:evil/model"},
        {"name": "timm:local-dir:evil"},
        {"name": "timm:test_resnet", "options": {"pretrained": True}},
        {"name": "timm:test_resnet", "options": {"pretrained_cfg": {"url": "http://evil"}}},
        {"name": "resnet18", "options": {"pretrained": True}},
        {"name": "torchvision:resnet18", "options": {"weights": "DEFAULT"}},
        {"name": "hf:x", "config": {"model_type": "timm_wrapper", "architecture": "hf-hub:e/x"}},
    ],
)
def test_a_file_starts_no_code_and_no_download(architecture, monkeypatch):
    import json

    fields = {"classes": 2, "mean": None, "std": None, "weights": "DEFAULT", **architecture}
    metadata = {"holdfast_format": "1", "classes": '["a", "b"]', "architecture": json.dumps(fields)}
    save_file({"a": torch.zeros(1)}, "evil.safetensors", metadata)
    monkeypatch.setattr("os.system", lambda *_: pytest.fail("code ran"))
    monkeypatch.setattr("socket.create_connection", lambda *_, **__: pytest.fail("asked the hub"))
    monkeypatch.setattr("torch.hub.load_state_dict_from_url", lambda *_, **__: pytest.fail("net"))
    with pytest.raises(HoldfastError):
        holdfast.load("evil.safetensors")


def test_weights_of_a_run_are_not_downloaded(monkeypatch):
    architecture = Architecture("shufflenet_v2_x0_5", classes=2, weights="IMAGENET1K_V1")
    model = architecture.build(pretrained=False)
    save(model, "m.safetensors", architecture=architecture, classes=["a", "b"])
    assert holdfast.load("m.safetensors").architecture.weights == "IMAGENET1K_V1"


def test_nothing_is_imported_before_it_is_needed(imported):
    assert {"holdfast.models", "holdfast.training"} <= imported
    assert not {"timm", "transformers"} & imported
