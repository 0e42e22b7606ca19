import pickle
import sys

import pytest
import torch
import yaml
from datasets import ClassLabel, Dataset, Features, Image
from PIL import Image as Pixels
from torch import nn

from holdfast import report
from holdfast.audit import Audit
from holdfast.audit.assignment import assign
from holdfast.cli import main
from holdfast.contracts import HoldfastError
from holdfast.models import Architecture
from holdfast.training import save

MODULE = """
import torch
from torch import nn

def make_model():
    return nn.Sequential(nn.Flatten(), nn.Linear(256, 10))

def twelve():
    return nn.Sequential(nn.Flatten(), nn.Linear(256, 12))

def colour():
    return nn.Conv2d(3, 10, 16)

def pictures():
    return nn.Conv2d(1, 10, 3)

def broken():
    raise OSError("no weights here")
"""


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A folder with a module of models, which is the current one."""
    (tmp_path / "mine.py").write_text(MODULE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    yield tmp_path
    sys.modules.pop("mine", None)


@pytest.fixture
def run(here):
    """A trained run, as far as its files tell."""
    architecture = Architecture("mlp", classes=10, in_channels=1, size=16, options={"hidden": [8]})
    torch.manual_seed(0)
    save(
        architecture.build(),
        here / "run" / "model.safetensors",
        architecture=architecture,
        classes=[*"0123456789"],
    )
    recipe = {"data": {"path": "digits", "limit": 8}, "audit": {"explained": 3, "k": 7}}
    (here / "run" / "config.yaml").write_text(yaml.safe_dump(recipe))
    return "run"


def parquet(file, classes, side=64):
    """Three images a class, in one file."""
    names = [f"class {n}" for n in range(classes)]
    features = Features({"image": Image(), "label": ClassLabel(names=names)})
    noise = torch.randint(0, 256, (3 * classes, side, side, 3), dtype=torch.uint8).numpy()
    rows = {"image": [Pixels.fromarray(n) for n in noise], "label": [*range(classes)] * 3}
    Dataset.from_dict(rows, features).to_parquet(str(file))
    return str(file)


def test_a_run_is_audited_as_its_recipe_says(run):
    job = assign(run, overrides={"audit.k": 9, "data.limit": 5})
    assert (job.audit.explained, job.audit.k, len(job.load_data())) == (3, 9, 5)
    assert str(job.folder) == "run"
    assert job.load_model().origin == "run"


def test_model_and_data_are_loaded_once_in_each_process(run):
    job = assign("run")
    for load in (job.load_model, job.load_data):
        assert load() is load()
        elsewhere = pickle.loads(pickle.dumps(load))  # as it comes to another process
        assert elsewhere() is elsewhere()
        assert elsewhere() is not load()


def test_a_run_whose_recipe_says_nothing_of_an_audit(run, here):
    (here / "run" / "config.yaml").write_text("data: {path: digits, limit: 8}\naudit: null\n")
    assert assign(run).audit == Audit()
    assert assign(run, overrides={"audit.explained": 4}).audit.explained == 4
    (here / "run" / "config.yaml").unlink()
    assert assign(run, data="digits", battery="quick").audit.explained == 50


def test_a_run_and_a_battery(run):
    words = {"battery": "standard", "eps": "4/255", "source": run, "reference": run}
    job = assign(run, **words, out="elsewhere", overrides={"audit.explained": 4})
    assert job.audit.attacks["pgd-40"].eps == pytest.approx(4 / 255)
    assert job.audit.explained == 4
    assert job.audit.attacks["transfer"].source.origin == run
    assert str(job.folder) == "elsewhere"
    pgd = {"audit.attacks.pgd-20.steps": 3}
    assert assign(run, battery="quick", overrides=pgd).audit.attacks["pgd-20"].steps == 3


def test_a_users_model_from_end_to_end(here, capsys):
    words = ["--battery=quick", "--data=digits", "--data.limit=6", "--eps=0.1", "--quiet"]
    assert main(["audit", "mine:make_model", *words]) == 0
    assert "Next: holdfast report runs/mine.make_model" in capsys.readouterr().out
    read = report.read_run("runs/mine.make_model")
    assert {"clean", "pgd-20", "alignment/image"} <= set(read.checks)
    assert main(["audit", "mine:make_model", *words, "--out", "twice"]) == 0
    again = report.read_run("twice")
    assert again.records.equals(read.records)  # its random weights are the same every time
    # What is done is not done again.
    assert main(["audit", "mine:make_model", *words]) == 0


def test_torchvisions_network_with_random_weights(here, capsys):
    file = parquet(here / "tiny.parquet", classes=2)
    words = ["--data", file, "--battery=quick", "--model.weights=null", "--out=squeeze", "--quiet"]
    fast = ["--audit.manipulations={}", "--audit.attacks.pgd-20.steps=1", "--audit.gallery=1"]
    assert main(["audit", "squeezenet1_1", *words, *fast]) == 0, capsys.readouterr().err
    assert report.read_run("squeeze").images == 6


def test_torchvisions_trained_weights_come_with_their_normalization(here, monkeypatch):
    made = []

    def build(architecture, *, pretrained=True):
        made.append(architecture)
        return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 1000))

    monkeypatch.setattr(Architecture, "build", build)
    file = parquet(here / "many.parquet", classes=1000, side=4)
    assign("squeezenet1_1", data=file)
    assert made[0].weights == "IMAGENET1K_V1"
    assert made[0].mean == pytest.approx((0.485, 0.456, 0.406))
    assert made[0].std == pytest.approx((0.229, 0.224, 0.225))


def test_data_without_names_may_lack_the_last_classes(here):
    assert assign("mine:twelve", data="digits").load_model()[1].out_features == 12


@pytest.mark.parametrize(
    ("subject", "words", "says"),
    [
        ("none", {}, "none is no folder of a trained run, no package.module:function and no"),
        (".", {}, ". is no folder of a trained run: it has no config.yaml"),
        ("mine:make_model", {}, "no recipe says what mine:make_model is to be audited on"),
        ("mine:none", {"data": "digits"}, "'mine:none'"),
        ("nowhere:none", {"data": "digits"}, "'nowhere:none'"),
        ("mine:broken", {"data": "digits"}, r"mine:broken cannot be made \(OSError: no weights"),
        ("mine:colour", {"data": "digits"}, "mine:colour cannot take the images of digits, 1×16×"),
        ("mine:pictures", {"data": "digits"}, r"answers with \(1, 10, 14, 14\) instead of logits"),
        ("mine:make_model", {"data": "tiny.parquet", "overrides": {"data.size": 16}}, "1×16×16|3×"),
        ("squeezenet1_1", {"data": "tiny.parquet"}, "has 1000 classes, but tiny has 2; --model.w"),
        (
            "squeezenet1_1",
            {"data": "tiny.parquet", "overrides": {"model.weights": "BEST"}},
            "no weights BEST of squeezenet1_1; there are IMAGENET1K_V1, DEFAULT",
        ),
        ("run", {"battery": "none"}, "no battery 'none'; there are quick, standard, full"),
        ("run", {"battery": "quick", "eps": "8/0"}, "--eps is '8/0'; expected a number above 0"),
        ("run", {"battery": "quick", "eps": "much"}, "--eps is 'much'"),
        ("run", {"battery": "quick", "eps": "-1"}, "--eps is '-1'"),
        ("run", {"eps": "0.1"}, "--eps, --source and --reference go with --battery"),
        ("run", {"battery": "quick", "source": "gone"}, "gone, which does not exist"),
        ("run", {"data": "./gone"}, "ImageData.path"),
        ("run", {"overrides": {"model.name": "mlp"}}, "there is no option --model.name here"),
        ("run", {"overrides": {"bogus": 1}}, "there is no option --bogus here"),
        ("run", {"overrides": {"audit.bogus": 1}}, "Audit has no setting bogus"),
        ("run", {"data": "two.parquet"}, "run has 10 classes, but two has 2"),
    ],
)
def test_says_what_is_wrong(subject, words, says, run, here, own_errors):
    parquet(here / "tiny.parquet", classes=2)
    grey = Features({"image": Image(), "label": ClassLabel(names=["cat", "dog"])})
    rows = {"image": [Pixels.new("L", (16, 16))] * 2, "label": [0, 1]}
    Dataset.from_dict(rows, grey).to_parquet("two.parquet")
    with pytest.raises(HoldfastError, match=says):
        assign(subject, **words)


def test_the_command_says_it_in_one_line(here, capsys):
    assert main(["audit", "mine:make_model", "--battery", "quick"]) == 2
    captured = capsys.readouterr()
    assert captured.err.count("\n") == 1
    assert "give --data" in captured.err
    assert captured.out == ""
