from dataclasses import dataclass

import pytest
import yaml

from holdfast.audit import Audit
from holdfast.contracts import HoldfastError
from holdfast.objectives import Natural
from holdfast.training.recipe import (
    OptimizerSettings,
    build,
    load_recipe,
    read_recipe,
    recipe_names,
    to_settings,
)


@dataclass(frozen=True)
class OwnObjective:
    """An objective of a user's own, outside of Holdfast."""

    weight: float = 1.0

    def __call__(self, model, batch):
        return {"loss": self.weight * model(batch["images"]).square().mean()}


def test_names():
    names = recipe_names()
    assert names == sorted(set(names))
    assert {"mnist/natural", "mnist/pgd", "mnist/art", "digits/art"} <= set(names)


class TestOverrides:
    def test_reach_every_depth_and_skip_init_args(self):
        recipe = load_recipe(
            "digits/art",
            {
                "objective.weight": 2,
                "objective.attack.eps": "8/255",
                "objective.init_args.beta": 20,
                "trainer.max_steps": 7,
                "data.limit": 30,
                "optimizer.schedule": {10: 0.01},
            },
        )
        assert recipe.objective.weight == 2.0
        assert recipe.objective.attack.eps == 8 / 255
        assert recipe.objective.beta == 20.0
        assert recipe.trainer["max_steps"] == 7
        assert recipe.data.limit == 30
        assert recipe.optimizer.schedule == {10: 0.01}

    def test_reach_into_the_audit(self):
        key = "audit.manipulations.top_k/integrated_gradients.attribution.steps"
        audit = build(Audit, load_recipe("digits/natural", {key: 9}).audit)
        assert audit.manipulations["top_k/integrated_gradients"].attribution.steps == 9

    def test_a_value_has_no_settings_of_its_own(self):
        with pytest.raises(HoldfastError, match="seed is 0, which has no settings"):
            read_recipe("digits/art", {"seed.more": 1})


class TestFiles:
    def test_a_users_own_recipe(self, tmp_path):
        file = tmp_path / "mine.yaml"
        file.write_text(
            "base: digits/pgd\n"
            "objective:\n"
            f"  class_path: {__name__}.OwnObjective\n"
            "  init_args: {weight: 1/4}\n"
        )
        objective = load_recipe(file).objective
        assert type(objective).__name__ == "OwnObjective"
        assert objective.weight == 0.25
        assert load_recipe(file).model == load_recipe("digits/pgd").model

    def test_another_class_does_not_inherit_arguments(self, tmp_path):
        file = tmp_path / "mine.yaml"
        file.write_text("base: digits/art\nobjective: {class_path: Natural}\n")
        assert load_recipe(file).objective == Natural()

    def test_another_schedule_replaces_the_one_of_the_base(self, tmp_path):
        file = tmp_path / "mine.yaml"
        file.write_text("base: digits/natural\noptimizer: {schedule: {45: 0.0005}}\n")
        optimizer = load_recipe(file).optimizer
        assert optimizer.schedule == {45: 0.0005}
        assert optimizer.name == load_recipe("digits/natural").optimizer.name

    @pytest.mark.parametrize(
        ("text", "says"),
        [
            ("- a list", "expected a mapping of settings"),
            ("a: [", "no valid YAML"),
            ("base: digits/none", "no recipe 'digits/none'"),
        ],
    )
    def test_refuses(self, text, says, tmp_path):
        file = tmp_path / "bad.yaml"
        file.write_text(text)
        with pytest.raises(HoldfastError, match=says):
            load_recipe(file)

    def test_missing(self, tmp_path):
        with pytest.raises(HoldfastError, match="no recipe at"):
            read_recipe(tmp_path / "none.yaml")
        with pytest.raises(HoldfastError, match=r"no recipe 'mnist/none'; .*mnist/natural"):
            read_recipe("mnist/none")


def test_schedule():
    """Published for Flower-17: 1e-4 for 1,500 steps, 1e-3 until 70,000, then 1e-4."""
    s = OptimizerSettings(lr=1e-4, schedule={1500: 1e-3, 70000: 1e-4}, interval="step")
    rates = [s.rate_at(t) for t in (0, 1499, 1500, 69999, 70000, 90000)]
    assert rates == [1e-4, 1e-4, 1e-3, 1e-3, 1e-4, 1e-4]


def test_a_run_from_before_images_were_cropped_is_read_as_it_ran(tmp_path):
    record = {"size": 32, "limit": None, "image_column": None, "path": "x"}
    for name, data, fit in (
        ("config.yaml", record, "squash"),
        ("config.yaml", {**record, "size": None}, None),
        ("config.yaml", {**record, "fit": None}, None),
        ("config.yaml", {**record, "fit": "crop"}, "crop"),
        ("config.yaml", {"path": "x", "size": 32}, None),  # a recipe of that name
        ("mine.yaml", record, None),
    ):
        (tmp_path / name).write_text(yaml.safe_dump({"data": data}))
        assert read_recipe(tmp_path / name)["data"].get("fit") == fit


def test_what_a_run_records_says_how_its_images_were_fitted():
    recorded = to_settings(load_recipe("digits/natural"))["data"]
    assert {"size", "limit", "image_column", "resize", "fit"} <= recorded.keys()
