from dataclasses import dataclass
from functools import partial

import captum.attr
import pytest
import torch
import yaml
from torch import nn

from holdfast import adversarial, objectives
from holdfast.adversarial import PGD, Transfer
from holdfast.attributions import IntegratedGradients, from_captum
from holdfast.audit import Audit
from holdfast.contracts import HoldfastError, InputError
from holdfast.data import Augmentation, ImageData
from holdfast.manipulation import RandomSign
from holdfast.models import Architecture
from holdfast.objectives import (
    ART,
    TRADES,
    AdversarialTraining,
    DefensiveDistillation,
    SaliencyTraining,
    Successive,
)
from holdfast.training import load, save
from holdfast.training.recipe import Recipe, load_recipe
from holdfast.training.settings import build, to_settings


def _top_k_of(name):
    settings = {"k": 1, "eps": 0.1, "step_size": 0.1, "steps": 1}
    attribution = {"class_path": name, "init_args": {"eps": 0.1}}
    return {"class_path": "TopK", "init_args": settings | {"attribution": attribution}}


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
            ({"batch_size": None}, "Recipe.batch_size: expected int, got None"),
            ({"optimizer.schedule": None}, "OptimizerSettings.schedule: expected dict"),
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

    def test_fractions(self):
        attack = build(
            PGD,
            {"eps": " 8 / 255 ", "step_size": "-1.5/-255", "steps": 3} | {"step_size": "1.5/255"},
        )
        assert attack.eps == 8 / 255
        assert attack.step_size == 1.5 / 255


@pytest.fixture
def run(tmp_path):
    """The folder of a trained run."""
    architecture = Architecture("mlp", classes=10, in_channels=1, size=8, options={"hidden": [4]})
    model = architecture.build()
    names = [str(digit) for digit in range(10)]
    save(model, tmp_path / "run" / "model.safetensors", architecture=architecture, classes=names)
    return tmp_path / "run"


class TestTrainedModels:
    def distillation(self, teacher):
        return {"class_path": "DefensiveDistillation", "init_args": {"teacher": teacher}}

    def test_a_teacher_is_the_model_of_the_run(self, run):
        recipe = load_recipe("digits/natural", {"objective": self.distillation(str(run))})
        images = torch.rand(3, 1, 8, 8)
        assert torch.equal(recipe.objective.teacher(images), load(run)(images))
        assert not recipe.objective.teacher.training

    def test_settings_name_the_run_as_it_was_given(self, run, monkeypatch):
        monkeypatch.chdir(run.parent)
        recipe = load_recipe("digits/natural", {"objective": self.distillation("run")})
        settings = yaml.safe_load(yaml.safe_dump(to_settings(recipe)))
        assert settings["objective"]["init_args"]["teacher"] == "run"
        again = build(Recipe, settings)
        assert again == recipe
        images = torch.rand(3, 1, 8, 8)
        assert torch.equal(again.objective.teacher(images), recipe.objective.teacher(images))

    def test_one_that_was_loaded_by_hand_is_named_too(self, run):
        settings = to_settings(DefensiveDistillation(load(run)))
        assert settings["init_args"]["teacher"] == str(run)
        assert to_settings(DefensiveDistillation(load(str(run / "model.safetensors"))))[
            "init_args"
        ]["teacher"].endswith("model.safetensors")

    def test_deep_inside_and_where_none_is_needed(self, run):
        first = {"class_path": "SaliencyTraining", "init_args": {"teacher": str(run)}}
        then = {"class_path": "SaliencyTraining", "init_args": {"teacher": None}}
        made = build(Successive, {"first": first, "then": then})
        assert isinstance(made.first.teacher, nn.Module)
        assert made.then.teacher is None
        assert build(Successive, to_settings(made)["init_args"]) == made

    def test_the_source_of_a_transfer(self, run):
        fgsm = {"class_path": "FGSM", "init_args": {"eps": 0.1}}
        transfer = {"class_path": "Transfer", "init_args": {"attack": fgsm, "source": str(run)}}
        audit = build(Audit, {"attacks": {"transfer": transfer}, "manipulations": {}})
        attack = audit.attacks["transfer"]
        assert isinstance(attack, Transfer)
        images, labels = torch.rand(2, 1, 8, 8), torch.tensor([0, 9])
        expected = adversarial.FGSM(eps=0.1)(load(run), images, labels)
        assert torch.equal(attack(nn.Identity(), images, labels), expected)
        settings = yaml.safe_load(yaml.safe_dump(to_settings(audit)))["init_args"]
        assert settings["attacks"]["transfer"]["init_args"]["source"] == str(run)
        assert isinstance(build(Audit, settings).attacks["transfer"], Transfer)

    def test_a_model_that_is_given_stays(self):
        teacher = nn.Flatten()
        assert build(DefensiveDistillation, {"teacher": teacher}).teacher is teacher

    @pytest.mark.parametrize(
        ("teacher", "says"),
        [
            ("runs/none", "expected a model file, or a run folder .* runs/none, which does not"),
            (".", "expected .* a run folder with model.safetensors, got ., which has none"),
            (3, "expected the folder of a trained run, got 3"),
            (None, "expected the folder of a trained run, got None"),
        ],
    )
    def test_no_run(self, teacher, says, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        with pytest.raises(InputError, match=f"DefensiveDistillation.teacher: {says}"):
            load_recipe("digits/natural", {"objective": self.distillation(teacher)})

    def test_pickled_and_foreign_code(self, run, tmp_path):
        torch.save(nn.Flatten(), tmp_path / "model.pt")
        with pytest.raises(InputError, match="teacher: expected a safetensors file.*pickled"):
            build(DefensiveDistillation, {"teacher": str(tmp_path / "model.pt")})
        architecture = Architecture("torch.nn:Flatten", classes=64)
        names = [str(pixel) for pixel in range(64)]
        save(nn.Flatten(), run, architecture=architecture, classes=names)
        with pytest.raises(InputError, match=r"teacher: .*of Holdfast, torchvision, timm or .*own"):
            build(DefensiveDistillation, {"teacher": str(run)})

    def test_one_in_memory_alone_cannot_be_written_down(self):
        with pytest.raises(
            HoldfastError, match=r"no Flatten that is in memory alone: save it with"
        ):
            to_settings(DefensiveDistillation(nn.Flatten()))


class TestWhatIsNotPlain:
    def test_a_class_of_captum_round_trips_by_its_path(self):
        occlusion = from_captum(captum.attr.Occlusion, sliding_window_shapes=(1, 4, 4))
        attack = RandomSign(occlusion, eps=0.1)
        settings = yaml.safe_load(yaml.safe_dump(to_settings(attack)))
        again = build(RandomSign, settings["init_args"])
        images = torch.rand(2, 1, 8, 8)
        torch.manual_seed(0)
        model = nn.Sequential(nn.Flatten(), nn.Linear(64, 3))
        assert torch.equal(again.attribution(model, images), occlusion(model, images))

    def test_a_class_of_captum_by_its_public_path(self):
        made = build(
            RandomSign,
            {
                "attribution": {"class_path": "FromCaptum", "init_args": {"method": SALIENCY}},
                "eps": 1,
            },
        )
        assert made.attribution == from_captum(captum.attr.Saliency)

    @pytest.mark.parametrize("method", ["captum.attr.Nope", "torch.nn.Linear", 3])
    def test_no_class_of_captum(self, method):
        settings = {"class_path": "FromCaptum", "init_args": {"method": method}}
        with pytest.raises(InputError, match="method"):
            build(RandomSign, {"attribution": settings, "eps": 1})

    def test_a_function_by_its_path(self):
        settings = to_settings(RandomSign(_constant, eps=0.1))["init_args"]
        assert settings["attribution"] == f"{__name__}._constant"

    def test_functions_without_a_path_by_their_code(self):
        def settings(attribution):
            attack = RandomSign(attribution, eps=0.1)
            return yaml.safe_load(yaml.safe_dump(to_settings(attack)))["init_args"]["attribution"]

        def scaled(factor):
            return lambda model, images, targets=None: factor * images

        different = [
            scaled(1),
            scaled(2),
            lambda model, images, targets=None: -images,
            partial(_constant, create_graph=True),
            partial(_constant, create_graph=False),
            IntegratedGradients(steps=3).__call__,
            IntegratedGradients(steps=4).__call__,
        ]
        told = [settings(one) for one in different]
        assert all(told.count(one) == 1 for one in told)
        assert settings(scaled(2)) == told[1]

    def test_the_class_of_every_part_that_is_called(self):
        @dataclass(frozen=True)
        class Blur:
            eps: float = 0.1

            def __call__(self, net, images, labels):
                return images

        @dataclass(frozen=True)
        class Sharpen(Blur):
            pass

        first, second = (to_settings({"mine": kind()})["mine"] for kind in (Blur, Sharpen))
        assert first["class_path"].endswith("Blur")
        assert second["class_path"].endswith("Sharpen")
        assert first["init_args"] == second["init_args"] == {"eps": 0.1}

    def test_tensors_are_told_apart(self):
        def baseline(values):
            settings = to_settings(IntegratedGradients(baseline=values))["init_args"]["baseline"]
            return yaml.safe_load(yaml.safe_dump(settings))

        zeros = torch.zeros(1, 2, 2)
        assert baseline(zeros) == baseline(zeros.clone())
        assert baseline(zeros) != baseline(zeros + 0.5)
        assert baseline(zeros) != baseline(torch.zeros(1, 4, 1))

    def test_refuses_what_it_cannot_write(self):
        with pytest.raises(HoldfastError, match="settings can hold no object"):
            to_settings({"a": [object()]})


SALIENCY = "captum.attr.Saliency"


def _constant(model, images, targets=None, *, create_graph=False):
    return torch.ones_like(images)


class TestOptionalParts:
    def test_a_part_that_may_be_missing(self):
        data = {"augmentation": {"crop": 2, "flip": True}}
        made = build(ImageData, data)
        assert made.augmentation == Augmentation(crop=2, flip=True)
        settings = yaml.safe_load(yaml.safe_dump(to_settings(made)))
        assert settings["augmentation"]["crop"] == 2
        assert build(ImageData, settings) == made
        assert build(ImageData, {"augmentation": None}).augmentation is None
        with pytest.raises(HoldfastError, match="Augmentation has no setting zoom"):
            build(ImageData, {"augmentation": {"zoom": 2}})
        with pytest.raises(InputError, match="augmentation: expected the settings of Augmentation"):
            build(ImageData, {"augmentation": 3})
