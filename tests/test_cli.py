import os
import subprocess
import sys

import pytest
from PIL import Image

from holdfast.cli import main

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

    assert run("report", "runs/digits/natural", "runs/digits/art", "--title=Two") == 0
    printed = capsys.readouterr().out
    assert "natural" in printed
    assert "art" in printed
    assert "<title>Two" in (in_tmp / "report.html").read_text()


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
        (["train", "digits/art", "--bogus", "1"], "Recipe has no setting bogus"),
        (["train", "digits/art", "--objective.bogus", "1"], "ART has no setting bogus"),
        (["train", "digits/art", "--objective.weight"], "--objective.weight needs a value"),
        (["train", "digits/art", "--objective.weight", "much"], "ART.weight: expected float"),
        (["train", "digits/art", "--data.path", "./none"], "ImageData.path"),
        (["train", "digits/art", "--trainer.bogus", "1"], "no setting bogus"),
        (["train", "digits/art", "--set"], "--set"),
        (["audit", "none"], "none is no folder of a trained run"),
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


@pytest.mark.parametrize("verb", ["train", "audit", "report", "list", "demo"])
def test_help(verb, capsys):
    assert run(verb, "--help") == 0
    assert f"usage: holdfast {verb}" in capsys.readouterr().out


def test_overview_and_list(capsys):
    assert run() == 0
    assert "holdfast COMMAND --help" in capsys.readouterr().out
    assert run("list", "recipes") == 0
    assert "mnist/art" in capsys.readouterr().out
    assert run("list") == 0
    printed = capsys.readouterr().out
    for name in ("IntegratedGradients", "PGD", "TopK", "ART", "wrn_28_10", "resnet50"):
        assert name in printed


def test_a_users_own_class_is_found_beside_the_recipe(tmp_path):
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
    command = [sys.executable, "-m", "holdfast", "train", "mine.yaml", *TINY]
    done = subprocess.run(
        command, cwd=tmp_path, env=os.environ, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
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
