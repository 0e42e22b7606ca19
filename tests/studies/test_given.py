from pathlib import Path

import pytest

from holdfast import plain_yaml
from holdfast.studies.given import described
from holdfast.studies.plan import Reproduction
from holdfast.studies.study import Row, Study
from holdfast.training.recipe import Recipe, build, read_recipe, to_settings
from holdfast.training.settings import build as built


@pytest.fixture
def run(tmp_path):
    """Write what training leaves of its settings."""

    def write(recipe, overrides):
        settings = to_settings(build(Recipe, read_recipe(recipe, overrides), at=""))
        (tmp_path / "config.yaml").write_text(plain_yaml.dump(settings), encoding="utf-8")
        return tmp_path

    return write


def test_the_same_training_is_not_said_to_be_another(run):
    overrides = {"optimizer.lr": 0.01, "data.path": "elsewhere", "seed": 3}
    folder = run("digits/pgd", overrides)
    row = Row("digits/pgd", overrides={"optimizer.lr": 0.01})
    assert described(row, folder) == f"{folder}, trained on elsewhere"


def test_another_training_is_said_to_be_one(run):
    folder = run("digits/natural", {"trainer.max_steps": 7, "optimizer.schedule": {3: 0.1}})
    told = described(Row("digits/pgd", overrides={"batch_size": 9}), folder)
    assert told.startswith(f"{folder}, trained on digits, unlike its recipe in ")
    for key in ("batch_size", "objective.class_path", "trainer.max_steps", "optimizer.schedule.3"):
        assert key in told


def test_what_says_nothing_of_its_training(tmp_path):
    assert "not known" in described(Row("digits/pgd"), tmp_path)


def test_stands_above_the_table(run, settings):
    folder = run("digits/natural", {"trainer.max_steps": 7})
    study = built(Study, settings, "study")
    assert "Not trained by" not in Reproduction(study, Path("out")).terms
    terms = Reproduction(study, Path("out"), runs={"pgd": (folder,)}).terms
    assert f"Not trained by this study: pgd: {folder}, trained on digits, unlike" in terms
