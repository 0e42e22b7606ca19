from dataclasses import dataclass
from functools import partial

import captum.attr
import pytest
import torch
import yaml
from torch import nn

from holdfast import adversarial, attributions, objectives
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
from holdfast.plain_yaml import Unread
from holdfast.training import load, save
from holdfast.training.recipe import OptimizerSettings, Recipe, load_recipe
from holdfast.training.settings import build, from_a_run, to_settings


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
            (
                {"objective.weight": "heavy"},
                "^objective.weight: expected a finite number, got 'heavy'",
            ),
            ({"objective.attack": 3}, "^objective.attack: expected the settings of PGD"),
            (
                {"objective.attack.norm": "l7"},
                "^objective.attack.norm: expected 'linf' or 'l2', got 'l7'",
            ),
            (
                {"objective.attack.eps": -1},
                "^objective.attack.eps: expected a number of at least 0",
            ),
            ({"objective": "PGD"}, r"called with \(model, batch\), got PGD, called with"),
            ({"objective": "Nope"}, "class_path 'Nope'"),
            ({"objective": "os.path.join"}, "the name of a class"),
            ({"objective": {"weight": 1}}, "class_path and init_args"),
            ({"data.size": "big"}, "^data.size: expected an integer or 2 values"),
            ({"batch_size": 0}, "batch_size"),
            ({"batch_size": None}, "^batch_size: expected an integer, got None"),
            ({"optimizer.schedule": None}, "^optimizer.schedule: expected a mapping"),
            ({"objective.weight": "1/0"}, "divides by zero"),
        ],
    )
    def test_refuses(self, overrides, says):
        with pytest.raises(HoldfastError, match=says):
            load_recipe("digits/art", overrides)

    @pytest.mark.parametrize(
        ("text", "says"),
        [
            ("batch_size: many", r"^batch_size in \S*mine.yaml: expected an integer, got 'many'"),
            ("objective: {weight: 0}", r"^objective.weight in \S*mine.yaml: expected .*, got -1"),
            ("seed: 4294967296", r"^seed in \S*mine.yaml: expected a seed from 0 to 4294967295"),
            ("data: 3", r"^data in \S*mine.yaml: expected the settings of ImageData, got 3"),
            ("optimizer: {lr: .inf}", r"^optimizer.lr in \S*mine.yaml: expected a finite number"),
            ("optimizer: {lr: .nan}", r"^optimizer.lr in \S*mine.yaml: expected a finite number"),
            ("optimizer: {schedule: {3: -1}}", r"^optimizer.schedule in .*at least 0"),
            ("optimizer: {schedule: {-3: 1}}", r"^optimizer.schedule in .*at least 0"),
            ("optimizer: {momentum: -1}", r"^optimizer.momentum in "),
            ("optimizer: {momentum: 0, nesterov: true}", r"^optimizer.nesterov in .*momentum"),
        ],
    )
    def test_names_the_file_where_it_stands(self, text, says, tmp_path):
        text = text.replace("{weight: 0}", "{class_path: ART, init_args: {weight: -1}}")
        (tmp_path / "mine.yaml").write_text(f"base: digits/natural\n{text}\n")
        with pytest.raises(HoldfastError, match=says):
            load_recipe(tmp_path / "mine.yaml", {"trainer.max_steps": 1})

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
        with pytest.raises(InputError, match=f"objective.teacher: {says}"):
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


class TestPartsOfSeveralKinds:
    @pytest.mark.parametrize(
        ("settings", "kind"),
        [
            ({"steps": 3}, "BoundarySearch"),
            ({"class_path": "BoundaryPipeline", "init_args": {"steps": 3}}, "BoundaryPipeline"),
            ({"class_path": "holdfast.adversarial.BoundaryPipeline"}, "BoundaryPipeline"),
            ("BoundaryPipeline", "BoundaryPipeline"),
        ],
    )
    def test_the_one_that_is_named_else_the_first(self, settings, kind):
        made = build(attributions.BoundarySaliency, {"search": settings})
        assert type(made.search).__name__ == kind
        assert build(attributions.BoundarySaliency, to_settings(made)["init_args"]) == made

    def test_number_by_number(self):
        settings = {"class_path": "BoundaryPipeline", "init_args": {"epsilons": ["36/255", "0.5"]}}
        made = build(attributions.BoundarySaliency, {"search": settings})
        assert made.search.epsilons == (36 / 255, 0.5)

    @pytest.mark.parametrize(
        "settings", ["FGSM", {"class_path": "FGSM"}, {"class_path": "os.path.join"}, 3]
    )
    def test_refuses_others(self, settings):
        says = r"BoundarySaliency.search: expected a BoundarySearch or a BoundaryPipeline, got"
        with pytest.raises(InputError, match=says):
            build(attributions.BoundarySaliency, {"search": settings})

    def test_refuses_settings_of_the_other_kind(self):
        settings = {"class_path": "BoundaryPipeline", "init_args": {"restarts": 3}}
        with pytest.raises(HoldfastError, match="BoundaryPipeline has no setting restarts"):
            build(attributions.BoundarySaliency, {"search": settings})


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


class Own:
    """A class that says when it is made, and whose call has names of its own."""

    made = 0

    def __init__(self, width: int = 1):
        Own.made += 1
        self.width = width

    def __call__(self, net, x, y):
        return x


class TestTrust:
    """What stands in a run's folder is not imported without the user's word."""

    @pytest.mark.parametrize(
        "part",
        [
            {"class_path": "evil.Attack"},
            {"class_path": "evil", "init_args": {}},
            "evil.Attack",
            {"class_path": "os.system", "init_args": {}},
            {"class_path": "holdfast.files.os.system"},
            {"class_path": "holdfast.audit.devices.multiprocessing.Process"},
            {"class_path": "captum.attr.Saliency.__class__.__base__"},
            {"class_path": "Transfer", "init_args": {"attack": "evil.Attack", "source": "run"}},
        ],
        ids=repr,
    )
    def test_is_asked_before_anything_is_imported(self, part, tmp_path, monkeypatch):
        (tmp_path / "evil.py").write_text(f"open({str(tmp_path / 'marker')!r}, 'w')")
        monkeypatch.syspath_prepend(tmp_path)
        with from_a_run(trust_code=False), pytest.raises(HoldfastError):
            build(Audit, {"attacks": {"x": part}})
        method = {"class_path": "FromCaptum", "init_args": {"method": "evil.Attack"}}
        with from_a_run(trust_code=False), pytest.raises(InputError, match="trust_code"):
            build(RandomSign, {"attribution": method, "eps": 0.1})
        assert not (tmp_path / "marker").exists()

    def test_with_the_word_it_is_made(self):
        named = {"class_path": f"{__name__}.Own", "init_args": {"width": "3"}}
        with from_a_run(trust_code=True):
            attack = build(Audit, {"attacks": {"x": named}}).attacks["x"]
        assert (type(attack).__name__, attack.width) == ("Own", 3)

    def test_holdfasts_own_and_captums_need_none(self):
        with from_a_run(trust_code=False):
            attribution = {"class_path": "FromCaptum", "init_args": {"method": SALIENCY}}
            made = build(RandomSign, {"attribution": attribution, "eps": "1/10"})
        assert made.attribution == from_captum(captum.attr.Saliency)


class TestWords:
    """Text from the command line is read by the type that it is for."""

    @pytest.mark.parametrize(
        "text", ["no", "2024-01-01", "1e-3", "0o7", "1/2", "[x]", "x={", "a: b"]
    )
    def test_text_stays_as_it_was_written(self, text):
        assert build(ImageData, {"path": Unread(text)}).path == text
        assert build(ImageData, {"config": Unread(text)}).config == text

    @pytest.mark.parametrize("text", ["null", "~", ""])
    def test_nothing(self, text):
        assert build(ImageData, {"config": Unread(text)}).config is None
        assert build(ImageData, {"limit": Unread(text)}).limit is None
        assert build(ImageData, {"path": Unread("null")}).path == "null"

    @pytest.mark.parametrize(
        ("kind", "name", "text", "value"),
        [
            (OptimizerSettings, "lr", "1e-3", 0.001),
            (OptimizerSettings, "lr", "1/8", 0.125),
            (OptimizerSettings, "nesterov", "true", True),
            (OptimizerSettings, "schedule", "{5: 1e-3}", {5: 0.001}),
            (ImageData, "size", "[8, 9]", (8, 9)),
            (ImageData, "augmentation", "{crop: 2}", Augmentation(crop=2)),
            (ImageData, "seed", "0o17", 15),
            (Architecture, "options", "{hidden: [4], rate: 1/2}", {"hidden": [4], "rate": 0.5}),
        ],
    )
    def test_the_type_decides(self, kind, name, text, value):
        given = {"name": "mlp"} if kind is Architecture else {}
        assert getattr(build(kind, {**given, name: Unread(text)}), name) == value

    @pytest.mark.parametrize(
        ("kind", "name", "text"),
        [
            (OptimizerSettings, "nesterov", "no"),
            (OptimizerSettings, "lr", "inf"),
            (OptimizerSettings, "lr", "{"),
            (ImageData, "seed", "1_000"),
            (ImageData, "seed", "1.5"),
            (ImageData, "seed", "true"),
            (ImageData, "limit", "\t[\x00"),
            (ImageData, "size", "9" * 5000),
            (ImageData, "augmentation", "[" * 10_000),
            (ImageData, "fit", "\udcff"),
            (Architecture, "options", "x={"),
        ],
    )
    def test_refuses(self, kind, name, text):
        given = {"name": "mlp"} if kind is Architecture else {}
        with pytest.raises(HoldfastError, match=name):
            build(kind, {**given, name: Unread(text)})

    def test_in_a_recipe(self):
        overrides = {
            "model": "{name: mlp, options: {hidden: [4]}}",
            "model.options.depth": "2",
            "data.path": "2024-01-01",
            "trainer": "{max_steps: 3}",
            "source": "2024",
            "seed": "3",
            "objective": "{class_path: ART, init_args: {attack: {eps: 0.1}}}",
            "objective.attack": "{eps: 1/4, step_size: 1e-2, steps: 3}",
            "objective.attack.steps": "4",
        }
        recipe = load_recipe("digits/natural", {k: Unread(v) for k, v in overrides.items()})
        assert recipe.model.options == {"hidden": [4], "depth": 2}
        assert (recipe.source, recipe.seed) == ("2024", 3)
        assert (recipe.data.path, recipe.trainer["max_steps"]) == ("2024-01-01", 3)
        assert recipe.objective.attack == PGD(0.25, 0.01, 4)
        assert type(to_settings(recipe)["data"]["path"]) is str


def test_methods_with_names_of_their_own_keep_their_class():
    named = {"class_path": f"{__name__}.Own", "init_args": {}}
    assert type(build(Audit, {"attacks": {"x": named}}).attacks["x"]).__name__ == "Own"


def test_recipes_that_begin_from_each_other(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.yaml").write_text("base: b.yaml")
    (tmp_path / "b.yaml").write_text("base: a.yaml")
    with pytest.raises(HoldfastError, match="a.yaml begins from itself: a.yaml → b.yaml → a.yaml"):
        load_recipe("a.yaml")
    (tmp_path / "b.yaml").write_text("base: [3]")
    with pytest.raises(InputError, match=r"base: expected the name of a recipe"):
        load_recipe("a.yaml")


@pytest.mark.parametrize("key", ["." * 3000, "a.b", "data.size.x.y", "", "..", "data."])
def test_keys_that_lead_nowhere(key):
    with pytest.raises(HoldfastError):
        load_recipe("digits/natural", {key: Unread("1"), "data.size": Unread("8")})
