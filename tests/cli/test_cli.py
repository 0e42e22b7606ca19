import errno
import os
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from matplotlib.figure import Figure
from PIL import Image

import holdfast
from holdfast import plot
from holdfast.attributions import METHODS
from holdfast.cli import main
from holdfast.data import ImageData
from holdfast.models import Architecture, Normalized
from holdfast.objectives import Natural
from holdfast.training import load_recipe, save

TINY = [
    "--data.limit=40",
    "--batch_size=20",
    "--trainer={max_steps: 3}",
    "--model.options={hidden: [16]}",
    "--audit.manipulations.top_k/integrated_gradients.attribution.steps=4",
    "--audit.manipulations.top_k/integrated_gradients.steps=2",
    "--audit.attacks.pgd-40.steps=2",
    "--quiet",
]


def run(*arguments):
    return main([str(a) for a in arguments])


@pytest.fixture
def in_tmp(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_train_audit_report(in_tmp, capsys):
    assert run("train", "digits/natural", *TINY) == 0
    assert "Next: holdfast audit runs/digits/natural" in capsys.readouterr().out
    assert (in_tmp / "runs/digits/natural/model.safetensors").exists()

    assert run("train", "digits/art", "--set", "objective.attack.eps=8/255", *TINY) == 0
    assert "eps: 0.0313" in (in_tmp / "runs/digits/art/config.yaml").read_text()

    for name in ("natural", "art"):
        assert run("audit", f"runs/digits/{name}", "--quiet") == 0
    assert "Next: holdfast report runs/digits/art" in capsys.readouterr().out

    both = ("runs/digits/natural", "runs/digits/art")
    assert run("report", *both, "--title=Two", "--tables=tables") == 0
    printed = capsys.readouterr().out
    assert "natural" in printed
    assert "art" in printed
    assert "<title>Two" in (in_tmp / "report.html").read_text()
    assert "Its tables are in tables." in printed
    lines = (in_tmp / "tables/comparison.csv").read_text().splitlines()
    assert [line.split(",")[0] for line in lines] == ["run", "natural", "art"]
    assert (in_tmp / "tables/comparison.tex").exists()


def test_audit_takes_settings(in_tmp):
    assert run("train", "digits/natural", "--out", "run", *TINY) == 0
    assert run("audit", "run", "--audit.explained", "5", "--data.limit", "10", "--quiet") == 0
    settings = (in_tmp / "run/audit/settings.yaml").read_text()
    assert "explained: 5" in settings
    assert "images: 10" in settings


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["fly"], "no command 'fly'; there are demo, train"),
        (["train"], "recipe"),
        (["train", "mnist/none"], "no recipe 'mnist/none'"),
        (["train", "none.yaml"], "no recipe at none.yaml"),
        (
            ["train", "digits/art", "--bogus", "1"],
            "holdfast train has no option --bogus. It has settings --data.…",
        ),
        (["train", "digits/art", "--objective.bogus", "1"], "ART has no setting bogus"),
        (["train", "digits/art", "--objective.weight"], "--objective.weight needs a value"),
        (
            ["train", "digits/art", "--objective.weight", "much"],
            ": --objective.weight: expected a finite number",
        ),
        (["train", "digits/art", "--data.path", "./none"], ": --data.path: "),
        (["train", "digits/art", "--trainer.bogus", "1"], "no option --trainer.bogus. There are"),
        (["train", "digits/art", "--set"], "--set"),
        (["audit", "none"], "there is no model 'none'"),
        (["report", "none"], "expected the folder of a run, got none"),
        (["report"], "runs"),
        (["report", "none", "--bogus", "1"], "holdfast report has no option --bogus"),
        (["list", "fruit"], "nothing to list by the name 'fruit'"),
    ],
)
def test_what_is_wrong_is_said_in_one_line_with_status_2(
    arguments, says, in_tmp, capsys, own_errors
):
    assert run(*arguments) == 2
    captured = capsys.readouterr()
    assert captured.err.startswith("holdfast: error: ")
    assert captured.err.count("\n") == 1
    assert says in captured.err
    assert captured.out == ""


def test_an_unreadable_image_and_data_without_labels(in_tmp, capsys, own_errors):
    for name in ("cat", "dog"):
        (in_tmp / "images" / "train" / name).mkdir(parents=True)
        Image.new("L", (16, 16)).save(in_tmp / "images" / "train" / name / "good.png")
    (in_tmp / "images" / "train" / "cat" / "broken.png").write_bytes(b"no image")
    assert run("train", "digits/natural", "--data.path", "images", *TINY) == 2
    error = capsys.readouterr().err
    assert "broken.png" in error
    assert error.count("\n") == 1

    (in_tmp / "bare" / "train").mkdir(parents=True)
    Image.new("L", (16, 16)).save(in_tmp / "bare" / "train" / "1.png")
    assert run("train", "digits/natural", "--data.path", "bare", *TINY) == 2
    error = capsys.readouterr().err
    assert "label" in error
    assert error.count("\n") == 1


def test_does_not_train_over_a_run(in_tmp, capsys):
    assert run("train", "digits/natural", *TINY) == 0
    before = (in_tmp / "runs/digits/natural/model.safetensors").read_bytes()
    assert run("train", "digits/natural", *TINY) == 2
    assert "already holds a trained model" in capsys.readouterr().err
    assert (in_tmp / "runs/digits/natural/model.safetensors").read_bytes() == before


@pytest.fixture
def colour_run(in_tmp):
    """A run whose classifier takes colour images of 16×16 pixels, untrained."""
    torch.manual_seed(0)
    architecture = Architecture("mlp", classes=3, in_channels=3, size=16, options={"hidden": [8]})
    save(
        architecture.build(),
        "run/model.safetensors",
        architecture=architecture,
        classes=["cat", "dog", "owl"],
    )
    return in_tmp / "run"


@pytest.fixture
def drawn(monkeypatch):
    """What is given to `plot.explain`."""
    calls = []

    def explain(model, images, methods):
        calls.append((images, list(methods)))
        return original(model, images, methods)

    original = plot.explain
    monkeypatch.setattr(plot, "explain", explain)
    return calls


def test_explain_brings_all_images_to_what_the_model_takes(colour_run, drawn, capsys):
    Image.new("L", (16, 16), 51).save("grey.png")
    Image.new("RGB", (40, 20), (255, 0, 0)).save("large.jpg", quality=95)
    Image.new("RGBA", (16, 16), (0, 255, 0, 255)).save("alpha.png")
    files = ["grey.png", "large.jpg", "alpha.png"]
    assert run("explain", "run", *files, "--methods", "bsm, ig", "--out", "new/three.png") == 0
    assert "new/three.png" in capsys.readouterr().out
    ((images, methods),) = drawn
    assert methods == ["bsm", "ig"]
    colours = torch.tensor([[0.2, 0.2, 0.2], [1, 0, 0], [0, 1, 0]])
    torch.testing.assert_close(
        images, colours[..., None, None].expand(3, 3, 16, 16), atol=0.02, rtol=0
    )
    with Image.open("new/three.png") as picture:
        assert picture.format == "PNG"
        assert picture.width > 400


def test_explain_on_a_full_disk_leaves_what_was_drawn_before(colour_run, monkeypatch, capsys):
    Image.new("L", (16, 16), 51).save("grey.png")
    explain = ("explain", "run", "grey.png", "--methods=gradient", "--out=picture.PNG")
    assert run(*explain) == 0
    before = Path("picture.PNG").read_bytes()

    def fill(figure, file, **options):
        Path(file).write_bytes(before[:100])
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Figure, "savefig", fill)
    assert run(*explain) == 2
    assert "picture.PNG cannot be written: No space left" in capsys.readouterr().err
    assert Path("picture.PNG").read_bytes() == before
    assert not list(Path().glob(".picture*"))


def test_explain_of_a_model_saved_without_a_size(in_tmp, drawn):
    architecture = Architecture("cifar_resnet10")
    save(
        architecture.build(),
        "run/model.safetensors",
        architecture=architecture,
        classes=[str(n) for n in range(10)],
    )
    for size in (12, 20):
        Image.new("L", (size, size)).save(f"{size}.png")
    assert run("explain", "run", "12.png", "20.png", "--methods=gradient") == 0
    assert drawn[0][0].shape == (2, 3, 12, 12)
    assert (in_tmp / "explanation.png").is_file()


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["run", "none.png"], "none.png"),
        (["run", "broken.png"], "broken.png"),
        (["run", "good.png", "broken.png"], "broken.png"),
        (["none", "good.png"], "there is no model 'none'"),
        (["run"], "images"),
        (["run", "good.png", "--methods", "ig,tea"], f"has tea; there are {', '.join(METHODS)}"),
        (["run", "good.png", "--methods", ","], "has nothing; there are gradient"),
        (["run", "good.png", "--methods", "grad_cam"], "model"),
        (["run", "good.png", "--out", "map.exe"], "--out is map.exe"),
    ],
)
def test_explain_says_what_is_wrong(arguments, says, colour_run, capsys, own_errors):
    Image.new("RGB", (16, 16)).save("good.png")
    (colour_run.parent / "broken.png").write_bytes(b"no image")
    assert run("explain", *arguments) == 2
    captured = capsys.readouterr()
    assert captured.err.startswith("holdfast: error: ")
    assert captured.err.count("\n") == 1
    assert says in captured.err
    assert captured.out == ""


@pytest.mark.parametrize("verb", ["train", "explain", "audit", "roar", "report", "list", "demo"])
def test_help(verb, capsys):
    assert run(verb, "--help") == 0
    assert f"usage: holdfast {verb}" in capsys.readouterr().out


def test_overview_and_list(capsys):
    assert run() == 0
    assert "holdfast COMMAND --help" in capsys.readouterr().out
    assert run("list", "recipes") == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    published = next(line for line in lines if line[:1] == ["mnist/pgd"])
    assert published[-4:] == ["(AAAI", "2021),", "table", "1c"]
    assert all("/" in line[0] for line in lines[1:] if line)  # an entry, a line
    assert run("list") == 0
    printed = capsys.readouterr().out
    for name in ("IntegratedGradients", "PGD", "TopK", "ART", "wrn_28_10", "resnet50"):
        assert name in printed


def test_a_users_own_class_is_found_beside_the_recipe(command, tmp_path):
    (tmp_path / "mine.py").write_text(
        "from dataclasses import dataclass\n"
        "@dataclass(frozen=True)\n"
        "class Square:\n"
        "    def __call__(self, model, batch):\n"
        "        return {'loss': model(batch['images']).square().mean()}\n"
    )
    (tmp_path / "mine.yaml").write_text(
        "base: digits/natural\nobjective: {class_path: mine.Square}\n"
    )
    done = command("train", "mine.yaml", *TINY, cwd=tmp_path)
    assert done.status == 0, done.stderr
    assert (tmp_path / "runs" / "mine" / "model.safetensors").exists()


@pytest.mark.slow
def test_demo_ends_with_a_table_and_a_report(in_tmp, capsys):
    """The whole demonstration, shortened: four models, one table, one page."""
    assert run("demo", "--out", "demo", *TINY) == 0
    printed = capsys.readouterr().out
    for name in ("natural", "pgd", "ig_sum_norm", "art"):
        assert name in printed
    assert "The report is in demo/report.html" in printed
    assert printed.rstrip().splitlines()[-2].startswith("Next:")
    assert "art" in (in_tmp / "demo" / "report.html").read_text()
    assert run("demo", "--out", "demo", *TINY) == 2


def test_imports_a_published_layout(tmp_path, capsys):
    source = tmp_path / "cifar"
    source.mkdir()
    pixels = np.random.default_rng(0).integers(0, 256, (10, 32, 32, 3), dtype=np.uint8)
    np.save(source / "fog.npy", pixels)
    np.save(source / "labels.npy", np.array([3, 8] * 5))
    assert main(["data", "import", "cifar-10-c", str(source), str(tmp_path / "out")]) == 0
    assert "fog/5/test 2" in capsys.readouterr().out
    severest = ImageData(str(tmp_path / "out" / "fog" / "5")).load("test").batch(range(2))
    assert severest["labels"].tolist() == [3, 8]
    expected = torch.from_numpy(pixels[8:]).permute(0, 3, 1, 2) / 255
    assert torch.allclose(severest["images"], expected)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["import", "imagenet", "a", "b"], "no layout 'imagenet'; there are cub-200"),
        (["export", "gtsrb", "a", "b"], "no action 'export'"),
        (["import", "gtsrb", "nowhere", "b"], "nowhere"),
    ],
)
def test_says_what_cannot_be_imported(arguments, says, capsys):
    assert main(["data", *arguments]) == 2
    error = capsys.readouterr().err
    assert says in error
    assert error.count("\n") == 1


def test_lists_short_names_of_attributions(capsys):
    assert main(["list", "attributions"]) == 0
    said = capsys.readouterr().out
    assert "IntegratedGradients (ig)" in said
    assert "IntegratedGradients (ig_white)" in said
    assert "the same, baseline=1.0" in said


def test_roar_retrains_naturally_and_goes_on_where_it_was(in_tmp, capsys):
    assert run("train", "digits/pgd", "--out", "run", *TINY) == 0
    command = ["roar", "run", "--methods=gradient", "--roar.shares=[0.25]", "--quiet"]
    command += ["--trainer={max_steps: 2}", "--out=roar"]
    assert run(*command) == 0
    rows = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["pixels", "removed", "0", "%", "25", "%"] in rows
    assert {"gradient", "random"} <= {row[0] for row in rows if len(row) == 3}
    assert rows[-1] == ["The", "curves", "are", "in", "roar/roar.png."]
    assert (in_tmp / "roar" / "roar.png").is_file()
    trained = {file: file.stat().st_mtime_ns for file in in_tmp.glob("roar/*/*/model.safetensors")}
    assert len(trained) == 3
    assert run(*command, "--roar.repeats=2") == 0
    assert {file: file.stat().st_mtime_ns for file in trained} == trained
    assert len(list(in_tmp.glob("roar/*/*/model.safetensors"))) == 6
    configs = list(in_tmp.glob("roar/*/*/config.yaml"))
    assert [load_recipe(file).objective for file in configs] == [Natural()] * 6
    capsys.readouterr()
    assert run(*command, "--retrain=digits/pgd", "--data.limit=40") == 2
    assert "recipe.objective" in capsys.readouterr().err


def test_roar_of_several_runs_is_one_plot_and_one_table(in_tmp, capsys):
    assert run("train", "digits/pgd", "--out", "runs/pgd", *TINY) == 0
    shutil.copytree("runs/pgd", "runs/art")
    capsys.readouterr()
    command = ["--methods=gradient", "--roar.shares=[0.25]", "--quiet"]
    assert run("roar", "runs/pgd", "runs/art", *command, "--out=both") == 0
    rows = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert [row[:2] for row in rows[1:5]] == [
        [name, model] for name in ("gradient", "random") for model in ("pgd", "art")
    ]
    assert rows[-1] == ["The", "curves", "are", "in", "both/roar.png."]
    assert {path.name for path in (in_tmp / "both").iterdir()} >= {"roar.png", "roar.md"}
    for name in ("pgd", "art"):
        assert (in_tmp / "runs" / name / "roar" / "roar.parquet").is_file()
    assert run("roar", "runs/pgd", "runs/../runs/pgd", *command) == 2
    assert "the same model twice" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["none"], "none is no folder of a trained run"),
        (["bare"], "bare is no folder of a trained run: it has no config.yaml"),
        (["run", "--methods", "tea"], "--methods has tea; there are gradient"),
        (["run", "--roar.shares", "[1.5]"], ": --roar.shares: expected numbers above 0 and below"),
        (["run", "--roar.bogus", "1"], "holdfast roar has no option --roar.bogus"),
        (["run", "--trainer.devices", "2"], ": --trainer.devices: expected 1"),
    ],
)
def test_roar_says_what_is_wrong(arguments, says, in_tmp, capsys, own_errors):
    assert run("train", "digits/natural", "--out", "run", *TINY) == 0
    (in_tmp / "bare").mkdir()
    capsys.readouterr()
    assert run("roar", *arguments, "--quiet") == 2
    captured = capsys.readouterr()
    assert captured.err.startswith("holdfast: error: ")
    assert captured.err.count("\n") == 1
    assert says in captured.err
    assert captured.out == ""


@pytest.fixture
def photographs(in_tmp):
    """Two classes of small photographs, of which no side is the other."""
    torch.manual_seed(0)
    for split in ("train", "test"):
        for name in ("cat", "dog"):
            folder = in_tmp / "pictures" / split / name
            folder.mkdir(parents=True)
            for number in range(3):
                noise = torch.randint(0, 256, (30, 40, 3), dtype=torch.uint8).numpy()
                Image.fromarray(noise).save(folder / f"{number}.png")
    return "pictures"


FAST = [
    "--audit.manipulations={}",
    "--audit.attacks={}",
    "--audit.explained=1",
    "--audit.gallery=0",
    "--quiet",
]


def test_what_train_prints_works_for_a_users_own_network(photographs, in_tmp, capsys):
    (in_tmp / "own.py").write_text(
        "from torch import nn\n"
        "def make():\n"
        "    return nn.Sequential(nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(12, 2))\n"
    )
    recipe = {
        "data": {"path": photographs, "size": 16},
        "model": {"name": "own:make"},
        "objective": {"class_path": "Natural"},
        "trainer": {"max_steps": 1},
    }
    (in_tmp / "own.yaml").write_text(yaml.safe_dump(recipe))
    try:
        assert run("train", "own.yaml", "--out", "run", "--quiet") == 0, capsys.readouterr().err
        command = capsys.readouterr().out.split("Next: holdfast ")[1].split()
        assert command == ["audit", "run", "--trust-code"]
        assert run(*command, *FAST) == 0, capsys.readouterr().err
        picture = "pictures/test/cat/0.png"
        explain = ["explain", "run", picture, "--methods", "gradient"]
        assert run(*explain, "--trust-code") == 0
        capsys.readouterr()
        assert run(*explain) == 2
        assert "--trust-code" in capsys.readouterr().err
        assert run("roar", "run", "--methods", "gradient", "--quiet") == 2
        assert "--trust-code" in capsys.readouterr().err
    finally:
        sys.modules.pop("own", None)


@pytest.mark.parametrize("package", ["timm", "transformers"])
def test_training_from_published_weights(package, photographs, in_tmp, drawn, capsys):
    """They are in a local folder, and gone when the run is audited."""
    library = pytest.importorskip(package)
    torch.manual_seed(0)
    if package == "timm":
        network = library.create_model("test_resnet", num_classes=5)
        library.models.save_for_hf(network, "theirs", {}, safe_serialization=True)
        trained, name = network.state_dict()["conv1.0.weight"], "module.conv1.0.weight"
    else:
        config = library.ResNetConfig(
            embedding_size=8, hidden_sizes=[8], depths=[1], layer_type="basic", num_labels=5
        )
        network = library.ResNetForImageClassification(config)
        network.save_pretrained("theirs")
        library.ConvNextImageProcessor(size={"shortest_edge": 24}).save_pretrained("theirs")
        name = "module.network.resnet.embedder.embedder.convolution.weight"
        trained = network.resnet.embedder.embedder.convolution.weight
    recipe = {
        "data": {"path": photographs, "size": 24, "resize": 28, "interpolation": "bicubic"},
        "model": {
            "name": ("timm:" if package == "timm" else "hf:") + "theirs",
            "weights": "DEFAULT",
        },
        "objective": {"class_path": "Natural"},
        "optimizer": {"lr": 1e-12},
        "trainer": {"max_steps": 1},
    }
    Path("mine.yaml").write_text(yaml.safe_dump(recipe))
    assert run("train", "mine.yaml", "--out", "run", "--quiet") == 0, capsys.readouterr().err
    command = capsys.readouterr().out.split("Next: holdfast ")[1].split()
    shutil.rmtree("theirs")
    assert run(*command, *FAST) == 0, capsys.readouterr().err
    model = holdfast.load("run")
    torch.testing.assert_close(model.state_dict()[name], trained)
    assert model.classes == ("cat", "dog")
    assert isinstance(model, Normalized)
    # What is explained is what is audited, to the pixel.
    assert run("explain", "run", "pictures/test/dog/1.png", "--methods", "gradient") == 0
    data = load_recipe("run/config.yaml").data.load("test")
    assert torch.equal(drawn[0][0], data.batch([4])["images"])


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["audit", "timm:resnet5", "--data", "digits"], "(close: resnet50"),
        (["audit", "hf:no/such", "--data", "digits"], "of hf:no/such cannot be had"),
        (["audit", "w.pth", "--data", "digits"], "there is no file w.pth"),
        (["explain", "resnet18", "a.png", "--architecture", "mlp"], "it goes with a file of weig"),
        (["explain", "run", "a.png", "--model.size", "3"], "--model.… is not for run"),
        (["roar", "torchvision:resnet18"], "--retrain says what to retrain by"),
    ],
)
def test_a_bad_name_is_said_in_one_line(arguments, says, colour_run, capsys, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert run(*arguments) == 2
    captured = capsys.readouterr()
    assert captured.err.count("\n") == 1
    assert says in captured.err


def test_show_a_folder_of_images(in_tmp, capsys):
    for name in ("Training/2", "Training/10", "Testing/10"):
        (in_tmp / "pets" / name).mkdir(parents=True)
        Image.new("RGB", (9, 8), "red").save(in_tmp / "pets" / name / "1.png")
    assert run("data", "show", "pets", "--out", "new/sheet.png") == 0
    printed = capsys.readouterr().out
    assert "train: 2 images, all 8×9 (height × width)" in printed
    assert "0  2   train 1, test 0\n      1  10  train 1, test 1" in printed
    assert Image.open(in_tmp / "new/sheet.png").format == "PNG"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere/at/all"], "expected a folder or file that exists, got 'nowhere/at/all'"),
        (["pandas"], "by this name nothing is sought on the hub"),
        (["digits", "--out", "sheet.txt"], "its name has to end in .png"),
        (["digits", "--data.box_format", "coco"], "data.box_format"),
        (["digits", "--data.box", "xywh"], "data.box"),
    ],
)
def test_what_cannot_be_shown_is_refused(in_tmp, capsys, arguments, message):
    assert run("data", "show", *arguments) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
