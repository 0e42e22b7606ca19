import pickle
import sys
from pathlib import Path

import pytest
import torch
import torchvision
import yaml
from datasets import ClassLabel, Dataset, Features, Image
from PIL import Image as Pixels

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
    words += ["--audit.explained=2", "--audit.attacks.pgd-20.steps=2"]
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


def test_published_weights_come_with_all_they_say(here, monkeypatch):
    torch.manual_seed(0)
    weights = torchvision.models.get_model_weights("squeezenet1_1").IMAGENET1K_V1
    monkeypatch.setenv("TORCH_HOME", str(here))
    (here / "hub" / "checkpoints").mkdir(parents=True)
    network = torchvision.models.squeezenet1_1().eval()
    torch.save(network.state_dict(), here / "hub" / "checkpoints" / weights.url.split("/")[-1])
    folder = here / "photographs"
    for name, place in (("n02123045", 281), ("n01440764", 0)):
        (folder / "test" / name).mkdir(parents=True)
        noise = torch.randint(0, 256, (30, 40, 3), dtype=torch.uint8).numpy()
        image = Pixels.fromarray(noise).resize((400, 300))
        image.save(folder / "test" / name / f"{place}.png")
    job = assign("torchvision:squeezenet1_1", data=str(folder))
    data, model = job.load_data(), job.load_model()
    batch = data.batch([0, 1])
    # Folders come in the alphabet's order: the tench, then the cat.
    assert batch["labels"].tolist() == [0, 281]
    assert len(data.classes) == 1000
    wanted = weights.transforms()
    images = [Pixels.open(p).convert("RGB") for p in sorted(folder.rglob("*.png"))]
    expected = network(torch.stack([wanted(image) for image in images]))
    assert (model(batch["images"]) - expected).abs().max() < 0.05  # of 8 bits a pixel
    assert (batch["images"] * 255 % 1).max() < 1e-3
    # What the user says goes before it.
    small = assign("squeezenet1_1", data=str(folder), overrides={"data.size": 64})
    assert small.load_data().shape == (3, 64, 64)


def test_nothing_is_downloaded_for_other_classes(here, monkeypatch):
    monkeypatch.setattr(Architecture, "build", lambda *_, **__: pytest.fail("built"))
    with pytest.raises(HoldfastError, match="no logit of the model fits class 'class 0'"):
        assign("squeezenet1_1", data=parquet(here / "tiny.parquet", classes=2))


def test_data_without_names_may_lack_the_last_classes(here):
    words = {"data": "digits", "overrides": {"data.mapping": "index"}}
    job = assign("mine:twelve", **words)
    assert job.load_model()[1].out_features == len(job.load_data().classes) == 12


def test_a_file_of_weights(here):
    Path("w").mkdir()
    network = Architecture("mlp", 10, 1, 16, options={"hidden": [8]}).build()
    torch.save({"state_dict": network.state_dict()}, "w/last.pth")
    settings = {"model.options": {"hidden": [8]}, "model.size": 16, "model.in_channels": 1}
    mapping = {"data.mapping": "index"}
    job = assign("w/last.pth", architecture="mlp", data="digits", overrides={**settings, **mapping})
    images = job.load_data().batch(range(3))["images"]
    assert torch.equal(job.load_model()(images), network.eval()(images))
    assert str(job.folder) == "runs/w.last.pth"


def test_a_source_of_any_name_and_of_the_same_classes(run, here):
    job = assign(run, battery="standard", source="mine:make_model")
    assert job.audit.attacks["transfer"].source.origin == "mine:make_model"
    other = Architecture("mlp", classes=10, in_channels=1, size=16)
    Path("turned").mkdir()
    save(other.build(), "turned", architecture=other, classes=[*"9876543210"])
    with pytest.raises(HoldfastError, match="the source turned has the model's classes in another"):
        assign(run, battery="standard", source="turned")
    with pytest.raises(HoldfastError, match="the reference mine:twelve has 12 classes, but the m"):
        assign(run, battery="standard", reference="mine:twelve")


class TestTrust:
    """A run may come from anybody; what it names is run on the user's word alone."""

    @pytest.fixture
    def own(self, here):
        architecture = Architecture("mine:make_model", classes=10)
        (here / "own").mkdir()
        save(architecture.build(), "own", architecture=architecture, classes=[*"0123456789"])
        (here / "own" / "config.yaml").write_text("data: {path: digits, limit: 4}\n")
        return "own"

    def test_code_that_builds_the_model(self, own):
        with pytest.raises(HoldfastError, match="--trust-code.*'mine:make_model'"):
            assign(own)
        assert assign(own, trust_code=True).load_model().origin == own

    def test_code_in_the_settings(self, run, here):
        settings = {"attacks": {"x": {"class_path": "mine.Evil"}}}
        recipe = {"data": {"path": "digits", "limit": 8}, "audit": settings}
        (here / "run" / "config.yaml").write_text(yaml.safe_dump(recipe))
        (here / "mine.py").write_text("raise SystemExit('ran')")
        with pytest.raises(
            HoldfastError, match="--trust-code, to import mine.Evil for audit.attacks.x"
        ):
            assign(run)
        settings["attacks"]["x"]["class_path"] = "holdfast.adversarial.pgd.PGD"
        settings["attacks"]["x"]["init_args"] = {"eps": 0.1, "step_size": 0.1, "steps": 1}
        (here / "run" / "config.yaml").write_text(yaml.safe_dump(recipe))
        assert assign(run).audit.attacks["x"].steps == 1


@pytest.mark.parametrize(
    ("subject", "words", "says"),
    [
        ("none", {"data": "digits"}, "there is no model 'none'.*; expected a run's folder, torch"),
        (".", {}, ". is no folder of a trained run: it has no config.yaml"),
        ("mine:make_model", {}, "no recipe says what mine:make_model is to be audited on"),
        ("mine:none", {"data": "digits"}, "'mine:none'"),
        ("nowhere:none", {"data": "digits"}, "'nowhere:none'"),
        ("mine:broken", {"data": "digits"}, r"mine:broken cannot be made \(OSError: no weights"),
        ("mine:colour", {"data": "digits"}, "mine:colour cannot take the images of digits, 1×16×"),
        ("mine:pictures", {"data": "digits"}, r"expected logits .N, K. .*\(1, 10, 14, 14\)"),
        ("mine:make_model", {"data": "tiny.parquet", "overrides": {"data.size": 16}}, "1×16×16|3×"),
        ("squeezenet1_1", {"data": "tiny.parquet"}, "no logit of the model fits class 'class 0'"),
        (
            "squeezenet1_1",
            {"data": "tiny.parquet", "overrides": {"model.weights": "BEST"}},
            "expected one of IMAGENET1K_V1, DEFAULT, weights of squeezenet1_1, got BEST",
        ),
        ("run", {"battery": "none"}, "no battery 'none'; there are quick, standard, full"),
        ("run", {"battery": "eccv2020/table3", "eps": "8/255"}, "--eps is not for the battery ecc"),
        ("run", {"battery": "quick", "eps": "8/0"}, "--eps is '8/0'; expected a number above 0"),
        ("run", {"battery": "quick", "eps": "much"}, "--eps is 'much'"),
        ("run", {"battery": "quick", "eps": "-1"}, "--eps is '-1'"),
        ("run", {"battery": "quick", "eps": "8"}, "--eps is '8'; expected .* at most 1"),
        ("run", {"eps": "0.1"}, "--eps, --source and --reference go with --battery"),
        ("run", {"battery": "quick", "source": "gone"}, "there is no model 'gone'"),
        ("run", {"data": "./gone"}, "ImageData.path"),
        ("run", {"overrides": {"model.name": "mlp"}}, "there is no option --model.name here"),
        ("run", {"overrides": {"bogus": 1}}, "there is no option --bogus here"),
        ("run", {"overrides": {"audit.bogus": 1}}, "Audit has no setting bogus"),
        ("run", {"data": "two.parquet"}, "no logit of the model fits class 'cat'"),
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
