import pytest
import torch
from safetensors import safe_open
from torch import nn

from holdfast import plain_yaml, zoo
from holdfast.contracts import HoldfastError, InputError
from holdfast.data import ImageData
from holdfast.models import Architecture
from holdfast.preprocessing import Preprocessing
from holdfast.training import load, release, save

RECIPE = "data:\n  path: /home/me/sets/mnist\nobjective:\n  teacher: [/home/me/runs/pgd, runs/x]\n"


@pytest.fixture(scope="module")
def data():
    return ImageData("digits", limit=60).load("test")


@pytest.fixture
def run(tmp_path, data):
    torch.manual_seed(0)
    options = {"hidden": [40]}
    architecture = Architecture("mlp", 10, 1, 16, mean=(0.137,), std=(0.31,), options=options)
    model = architecture.build()
    model.preprocessing = Preprocessing((16, 16), channels=1)
    folder = tmp_path / "run"
    folder.mkdir()
    save(model, folder, architecture=architecture, classes=data.classes, recipe=RECIPE)
    return folder


def test_what_is_released_predicts_what_the_run_does(run, data, tmp_path, monkeypatch):
    model = load(run)
    released = release(model, data, "digits/mine", tmp_path / "zoo", about="a net")
    assert released.file == tmp_path / "zoo" / "digits" / "mine.safetensors"
    assert (released.images, released.agree) == (60, 60)
    assert sorted(path.name for path in (tmp_path / "zoo").iterdir()) == ["digits", "index.yaml"]
    assert zoo.read_index(tmp_path / "zoo" / "index.yaml") == {
        "digits/mine": (released.sha256, "a net")
    }
    monkeypatch.setenv("HOLDFAST_ZOO", str(tmp_path / "zoo"))
    again = load("zoo:digits/mine")
    assert again.architecture == model.architecture
    assert again.classes == model.classes
    assert again.preprocessing == model.preprocessing
    for name, tensor in model.state_dict().items():
        there = again.state_dict()[name]
        assert there.dtype == torch.float32
        # Few values are kept as they are: mean and deviation among them.
        assert torch.equal(there, tensor.half().float() if tensor.numel() > 1024 else tensor)
    sizes = [path.stat().st_size for path in (released.file, run / "model.safetensors")]
    assert sizes[0] < 0.6 * sizes[1]
    assert {p.dtype for p in model.parameters()} == {torch.float32}


def test_paths_of_this_machine_are_left_out(run, data, tmp_path):
    released = release(load(run), data, "mine", tmp_path / "zoo")
    assert b"/home" not in released.file.read_bytes()
    with safe_open(released.file, framework="pt") as opened:
        recipe = plain_yaml.parse(opened.metadata()["recipe"], "recipe")
    assert recipe == {"data": {"path": "mnist"}, "objective": {"teacher": ["pgd", "runs/x"]}}


def test_a_release_is_replaced_on_the_users_word_alone(run, data, tmp_path):
    folder, model = tmp_path / "zoo", load(run)
    first = release(model, data, "mine", folder)
    release(model, data, "other", folder)
    with torch.no_grad():
        next(model.parameters()).mul_(1.5)
    with pytest.raises(HoldfastError, match="has a release mine already"):
        release(model, data, "mine", folder)
    assert zoo.digest(first.file) == first.sha256
    second = release(model, data, "mine", folder, replaced=True)
    listed = zoo.read_index(folder / "index.yaml")
    assert list(listed) == ["mine", "other"]
    assert listed["mine"].sha256 == second.sha256 == zoo.digest(second.file) != first.sha256


def test_a_model_that_halving_changes_is_not_released(data, tmp_path):
    architecture = Architecture("mlp", classes=10, in_channels=1, size=16, options={"hidden": []})
    model = architecture.build()
    model.architecture, model.classes = architecture, data.classes
    layer = next(module for module in model.modules() if isinstance(module, nn.Linear))
    with torch.no_grad():  # the classes differ by less than half precision can tell
        torch.manual_seed(0)
        layer.weight.fill_(1.0).add_(1e-5 * torch.randn(10, 256))
        layer.bias.zero_()
    with pytest.raises(HoldfastError, match="in half precision only .* of 60 images are predicted"):
        release(model, data, "mine", tmp_path / "zoo")
    assert not any(path.is_file() for path in (tmp_path / "zoo").rglob("*"))
    with torch.no_grad():
        layer.weight[0, 0] = 1e5
    with pytest.raises(InputError, match="expected values that half precision can hold, got 1000"):
        release(model, data, "mine", tmp_path / "zoo")


def test_refuses_what_cannot_be_released(run, data, tmp_path):
    with pytest.raises(HoldfastError, match="no name of a release"):
        release(load(run), data, "../mine", tmp_path / "zoo")
    with pytest.raises(InputError, match="model: expected a trained run"):
        release(nn.Flatten(), data, "mine", tmp_path / "zoo")
    assert not (tmp_path / "zoo").exists()
