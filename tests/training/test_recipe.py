from dataclasses import dataclass

import pytest
import torch
import yaml

from holdfast import adversarial, objectives
from holdfast.adversarial import PGD
from holdfast.audit import Audit
from holdfast.contracts import HoldfastError, InputError
from holdfast.objectives import (
    ART,
    TRADES,
    AdversarialTraining,
    AttributionRegularization,
    Natural,
    SaliencyTraining,
    Successive,
)
from holdfast.training.recipe import (
    OptimizerSettings,
    Recipe,
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


def _top_k_of(name):
    settings = {"k": 1, "eps": 0.1, "step_size": 0.1, "steps": 1}
    attribution = {"class_path": name, "init_args": {"eps": 0.1}}
    return {"class_path": "TopK", "init_args": settings | {"attribution": attribution}}


class TestRecipesOfHoldfast:
    @pytest.mark.parametrize("name", recipe_names())
    def test_builds_names_its_source_and_takes_one_step(self, name):
        recipe = load_recipe(name)
        assert recipe.source
        assert recipe.audit is not None
        assert build(Audit, recipe.audit).k > 0
        size = recipe.data.size or 28
        options = recipe.model.options
        model = build(
            type(recipe.model), {"name": recipe.model.name, "size": size, "options": options}
        ).build()
        batch = {"images": torch.rand(2, 1, size, size), "labels": torch.tensor([0, 9])}
        before = [p.detach().clone() for p in model.parameters()]
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        recipe.objective(model, batch)["loss"].backward()
        optimizer.step()
        moved = [not torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True)]
        assert all(moved)

    def test_names(self):
        assert {"mnist/natural", "mnist/pgd", "mnist/art", "digits/art"} <= set(recipe_names())

    def test_published_settings(self):
        """Figures of the papers' appendices, by hand."""
        madry = load_recipe("mnist/pgd")
        assert madry.objective.attack == PGD(eps=0.3, step_size=0.01, steps=40)
        assert (madry.optimizer.name, madry.optimizer.lr, madry.batch_size) == ("adam", 1e-4, 50)
        assert madry.trainer == {"max_steps": 90000}
        rar = load_recipe("mnist/ig_sum_norm").objective
        assert isinstance(rar, AttributionRegularization)
        assert (rar.form, rar.steps, rar.weight) == ("ig_sum_norm", 50, 0.1)
        art = load_recipe("mnist/art").objective
        assert isinstance(art, ART)
        assert (art.weight, art.beta, art.attack.steps) == (0.5, 50.0, 3)


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

    @pytest.mark.parametrize(
        ("text", "says"),
        [
            ("- a list", "holds no mapping"),
            ("a: [", "is no valid YAML"),
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


class TestBuild:
    @pytest.mark.parametrize(
        ("overrides", "says"),
        [
            ({"bogus": 1}, "Recipe has no setting bogus; it has data, model"),
            ({"objective.bogus": 1}, "ART has no setting bogus; it has weight, beta"),
            ({"objective.weight": "heavy"}, "ART.weight: expected float, got 'heavy'"),
            ({"objective.attack": 3}, "ART.attack: expected the settings of PGD"),
            ({"objective.attack.norm": "l7"}, "PGD.norm"),
            ({"objective.attack.eps": -1}, "eps: expected a number of at least 0"),
            ({"objective": "PGD"}, r"called with \(model, batch\), got PGD, called with"),
            ({"objective": "Nope"}, "class_path 'Nope'"),
            ({"objective": "os.path.join"}, "the name of a class"),
            ({"objective": {"weight": 1}}, "class_path and init_args"),
            ({"data.size": "big"}, "ImageData.size"),
            ({"batch_size": 0}, "batch_size"),
            ({"objective.weight": "1/0"}, "divides by zero"),
        ],
    )
    def test_refuses(self, overrides, says):
        with pytest.raises(HoldfastError, match=says):
            load_recipe("digits/art", overrides)

    def test_names_what_is_missing(self):
        with pytest.raises(HoldfastError, match="PGD needs step_size, steps"):
            build(PGD, {"eps": 0.1})
        with pytest.raises(InputError, match=r"Audit.attacks.x: expected a class called with"):
            build(Audit, {"attacks": {"x": "Gradient"}})

    def test_a_name_in_two_rooms_is_the_one_that_fits(self):
        """`UniformNoise` is an attack and an objective."""
        named = {"class_path": "UniformNoise", "init_args": {"eps": "8/255"}}
        recipe = load_recipe("digits/art", {"objective": named})
        assert recipe.objective == objectives.UniformNoise(eps=8 / 255)
        trained = build(AdversarialTraining, {"attack": named})
        assert trained.attack == adversarial.UniformNoise(eps=8 / 255)
        with pytest.raises(InputError, match=r"called with \(model, images, targets\), got Unif"):
            build(Audit, {"manipulations": {"x": _top_k_of("UniformNoise")}})

    @pytest.mark.parametrize(
        "objective",
        [
            Successive(SaliencyTraining(source="boxes"), AdversarialTraining(), share=0.3),
            Successive(objectives.UniformNoise(), TRADES(weight=3.0)),
            objectives.EnhancedRegularization(rule="stratified", base=False),
            objectives.InputAlignment(distance="l2"),
            objectives.GradientStability(),
            objectives.JacobianRegularization(),
            objectives.AttentionDropout(layers=("layer3", "layer4"), threshold=0.8),
            ART(negative="argmin", attack_cross_entropy=1.0),
        ],
        ids=repr,
    )
    def test_objectives_round_trip_through_yaml(self, objective):
        settings = yaml.safe_load(yaml.safe_dump(to_settings(objective)))
        assert load_recipe("digits/art", {"objective": settings}).objective == objective

    @pytest.mark.parametrize("name", recipe_names())
    def test_settings_round_trip_through_yaml(self, name):
        recipe = load_recipe(name)
        text = yaml.safe_dump(to_settings(recipe))
        assert build(Recipe, yaml.safe_load(text)) == recipe

    def test_fractions(self):
        attack = build(
            PGD,
            {"eps": " 8 / 255 ", "step_size": "-1.5/-255", "steps": 3} | {"step_size": "1.5/255"},
        )
        assert attack.eps == 8 / 255
        assert attack.step_size == 1.5 / 255


def test_schedule():
    """Published for Flower-17: 1e-4 for 1,500 steps, 1e-3 until 70,000, then 1e-4."""
    s = OptimizerSettings(lr=1e-4, schedule={1500: 1e-3, 70000: 1e-4}, interval="step")
    rates = [s.rate_at(t) for t in (0, 1499, 1500, 69999, 70000, 90000)]
    assert rates == [1e-4, 1e-4, 1e-3, 1e-3, 1e-4, 1e-4]
