import pytest
import torch

from holdfast.models import Architecture
from holdfast.training import save


@pytest.fixture
def run(tmp_path):
    torch.manual_seed(0)
    architecture = Architecture("mlp", 10, 1, 16, options={"hidden": [8]})
    (tmp_path / "run").mkdir()
    classes = [f"digit {n}" for n in range(10)]
    save(architecture.build(), tmp_path / "run", architecture=architecture, classes=classes)
    return tmp_path / "run"


def test_from_a_run_to_an_audit(run, tmp_path, command):
    words = ["--data", "digits", "--data.limit", "30", "--about", "digits, untrained"]
    made = command("release", "run", "digits/mine", "--to", "mine", *words, cwd=tmp_path)
    assert made.status == 0, made.stderr
    assert "30 of 30 images are predicted as before" in made.stdout
    named = {"HOLDFAST_ZOO": "mine"}
    listed = command("list", "zoo", cwd=tmp_path, env=named)
    assert listed.stdout.split() == ["zoo", "zoo:digits/mine", "digits,", "untrained"]
    words = ["--data", "digits", "--data.limit", "5", "--battery", "eccv2020/figure6", "--quiet"]
    audited = command("audit", "zoo:digits/mine", *words, cwd=tmp_path, env=named)
    assert audited.status == 0, audited.stderr
    assert (tmp_path / "runs" / "zoo.digits.mine" / "audit" / "part-00000.parquet").is_file()


def test_says_what_is_wrong(run, tmp_path, command):
    for words, says in (
        (["run", "Mine"], "'Mine' is no name of a release"),
        (["run", "mine"], "no recipe says what run is to be audited on; give --data"),
        (["gone", "mine", "--data", "digits"], "there is no model 'gone'"),
    ):
        ended = command("release", *words, cwd=tmp_path)
        assert (ended.status, ended.stdout) == (2, "")
        assert ended.stderr.startswith("holdfast: error: ")
        assert says in ended.stderr
    ended = command("audit", "zoo:none", "--data", "digits", cwd=tmp_path)
    assert "there is no released model 'none'" in ended.stderr
