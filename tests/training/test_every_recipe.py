"""What holds for every recipe that comes with Holdfast, and the figures that the papers print."""

from dataclasses import replace
from fractions import Fraction
from functools import cache

import pytest
import torch
import yaml

from holdfast.audit import Audit
from holdfast.contracts import Batch
from holdfast.models import Architecture, Attributing, Normalized, Standardized, WithDiscriminator
from holdfast.training import save
from holdfast.training.fit import TrainingModule
from holdfast.training.recipe import Recipe, build, load_recipe, read_recipe, recipe_names
from holdfast.training.settings import to_settings

NAMES = recipe_names()

CLASSES = {
    "digits": 10,
    "mnist": 10,
    "fashion_mnist": 10,
    "gtsrb": 43,
    "flower17": 17,
    "cifar10": 10,
    "cifar100": 100,
    "svhn": 10,
    "tiny_imagenet": 200,
    "cub200": 200,
    "imagenette": 10,
}
GREY = {"digits", "mnist", "fashion_mnist"}

SMALLER = {
    "mlp": {"options": {"hidden": [8]}},
    "mnist_cnn": {"options": {"filters": [2, 3], "hidden": 8}},
    "small_resnet": {"options": {"units": 1}},
    "wide_resnet": {"options": {"depth": 10, "width": 1}},
    "wrn_28_10": {"name": "wide_resnet", "options": {"depth": 10, "width": 1}},
    "wrn_40_2": {"name": "wide_resnet", "options": {"depth": 10, "width": 1}},
    "resnet50": {"name": "resnet18"},
    "cifar_resnet50": {"name": "cifar_resnet10"},
}
"""Networks of the same kind, and with the same layers where a recipe names some."""


@pytest.fixture(scope="module")
def teachers(tmp_path_factory):
    """Runs of tiny classifiers by their number of classes."""
    folder = tmp_path_factory.mktemp("runs")
    options = {"filters": [2, 3], "hidden": 8}
    for count in (10, 100):
        architecture = Architecture("mnist_cnn", count, 3, 8, options=options)
        names = [str(label) for label in range(count)]
        file = folder / str(count) / "model.safetensors"
        save(architecture.build(), file, architecture=architecture, classes=names)
    return folder


@pytest.fixture(scope="module")
def full(teachers):
    """Build a recipe as it is, for the images that it is written for, with a teacher at hand."""

    @cache
    def load(name):
        data = name.partition("/")[0]
        tree = read_recipe(name)
        _set_all(tree["objective"], "teacher", str(teachers / str(CLASSES[data])))
        recipe = build(Recipe, tree)
        size = recipe.data.size or {"mnist": 28, "fashion_mnist": 28}.get(data, 32)
        shape = {"classes": CLASSES[data], "in_channels": 1 if data in GREY else 3, "size": size}
        return replace(recipe, model=replace(recipe.model, **shape))

    return load


@pytest.fixture(scope="module")
def small(teachers):
    """Build a recipe with a smaller network, fewer steps and a teacher at hand."""

    def load(name):
        data = name.partition("/")[0]
        tree = read_recipe(name)
        _set_all(tree["objective"], "teacher", str(teachers / str(CLASSES[data])))
        for key in ("steps", "attack_steps", "samples", "attack_top"):
            _set_all(tree["objective"], key, 1)
        tree["model"] |= SMALLER.get(tree["model"]["name"], {})
        # What drops out the most active places of the features needs several of them.
        drops = {"cub200/adl", "cub200/vgg_adl", "cub200/se_adl"}
        size = 64 if name in drops else 32 if data in ("cub200", "imagenette") else 8
        shape = {"classes": CLASSES[data], "in_channels": 1 if data in GREY else 3, "size": size}
        tree["model"] |= shape
        return build(Recipe, tree)

    return load


@pytest.fixture(scope="module")
def untrained(full):
    """Build the network of a recipe in full size, without its memory."""

    @cache
    def make(name):
        recipe = full(name)  # a teacher has its weights
        with torch.device("meta"):
            return recipe.model.build(pretrained=False)

    return make


def _set_all(tree, wanted, value):
    for key, child in tree.items():
        if key == wanted:
            tree[key] = value
        elif isinstance(child, dict):
            _set_all(child, wanted, value)


def test_every_data_set_is_known():
    assert {name.partition("/")[0] for name in NAMES} == set(CLASSES)


@pytest.mark.parametrize("name", NAMES)
def test_takes_one_step(name, small):
    torch.manual_seed(0)
    recipe = small(name)
    architecture = recipe.model
    model = architecture.build(pretrained=False)
    channels, size = architecture.in_channels, architecture.size
    batch = Batch(
        images=torch.rand(2, channels, size, size),
        labels=torch.tensor([0, architecture.classes - 1]),
        boxes=torch.tensor([[0.0, 0.0, 3.0, 5.0], [2.0, 1.0, 8.0, 8.0]]),
        masks=torch.randint(2, (2, size, size)).float(),
        epoch=1,
        progress=0.95,
    )
    before = [p.detach().clone() for p in model.parameters()]
    terms = recipe.objective(model, batch)
    terms["loss"].backward()
    torch.optim.SGD(model.parameters(), lr=0.1).step()
    assert all(term.isfinite() for term in terms.values())
    assert all(p.isfinite().all() for p in model.parameters())
    moved = [not torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True)]
    assert sum(moved) > len(moved) / 2


@pytest.mark.parametrize("name", NAMES)
def test_is_whole(name, full, untrained):
    recipe = full(name)
    assert recipe.source
    audit = build(Audit, recipe.audit)
    compared = 200 if name == "mnist/ig_norm" else audit.k  # its authors' code has two numbers
    assert all(manipulation.k == compared for manipulation in audit.manipulations.values())
    assert recipe.trainer.keys() & {"max_epochs", "max_steps"}
    model = untrained(name)
    assert all(model.get_submodule(name) for name in getattr(recipe.objective, "layers", ()))
    assert TrainingModule(model, recipe.objective, recipe.optimizer).configure_optimizers()


@pytest.mark.parametrize("name", NAMES)
def test_goes_through_yaml(name, full):
    recipe = full(name)
    again = build(Recipe, yaml.safe_load(yaml.safe_dump(to_settings(recipe))))
    assert again == recipe
    if teacher := getattr(recipe.objective, "teacher", None):
        assert again.objective.teacher.origin == teacher.origin


def test_teachers_are_runs_of_other_recipes():
    named = {
        name: teacher
        for name in NAMES
        if (teacher := read_recipe(name)["objective"].get("init_args", {}).get("teacher"))
    }
    assert len(named) == 10
    assert {teacher.removeprefix("runs/") for teacher in named.values()} < set(NAMES)


# --- the figures of the papers, by hand ----------------------------------------------------------

PUBLISHED = {
    # Enhanced Regularizers for Attributional Robustness, appendix
    "mnist/cacr_wacr": (50, {"max_steps": 90000}, (0.3, 0.01, 40)),
    "mnist/pgd": (50, {"max_steps": 90000}, (0.3, 0.01, 40)),
    "mnist/ig_sum_norm": (50, {"max_steps": 90000}, (0.3, 0.01, 40)),
    "fashion_mnist/cacr_wacr": (32, {"max_steps": 100000}, (0.1, 0.01, 20)),
    "fashion_mnist/ig_norm": (32, {"max_steps": 100000}, (0.1, 0.01, 20)),
    "fashion_mnist/pgd": (32, {"max_steps": 100000}, (0.1, 0.01, 20)),
    "flower17/cacr_wacr": (16, {"max_steps": 90000}, ("8/255", "2/255", 7)),
    "gtsrb/cacr_wacr": (32, {"max_steps": 100000}, ("8/255", "2/255", 7)),
    "gtsrb/pgd": (32, {"max_steps": 100000}, ("8/255", "2/255", 7)),
    # Robust Attribution Regularization, public code
    "flower17/rar_ig_norm": (16, {"max_steps": 70001}, ("8/255", "2/255", 7)),
    "gtsrb/rar_pgd": (64, {"max_steps": 70001}, ("8/255", "2/255", 7)),
    # Attributional Robustness Training, appendices A.3 and B.1
    "cifar10/art": (256, {"max_epochs": 100}, ("8/255", "1.5/255", 3)),
    "cifar10/pgd": (128, {"max_epochs": -1, "max_steps": 80000}, ("8/255", "2/255", 10)),
    "cifar10/art_authors": (234, {"max_epochs": 101}, ("8/255", "5/255", 3)),
    "svhn/art": (256, {"max_epochs": 200}, ("8/255", "1.5/255", 3)),
    "svhn/pgd": (128, {"max_epochs": -1, "max_steps": 80000}, ("8/255", "2.5/255", 7)),
    "gtsrb/wrn_art": (128, {"max_epochs": 12, "max_steps": -1}, ("8/255", "1.5/255", 3)),
    "gtsrb/wrn_pgd": (64, {"max_epochs": -1, "max_steps": 70001}, ("8/255", "2/255", 7)),
    "flower17/wrn_art": (128, {"max_epochs": 68, "max_steps": -1}, ("8/255", "1.5/255", 3)),
    "flower17/wrn_pgd": (128, {"max_epochs": -1, "max_steps": 80000}, ("8/255", "2.5/255", 7)),
    "cub200/art": (90, {"max_epochs": 200}, ("2/255", "1.5/255", 3)),
    "cub200/vgg_art": (90, {"max_epochs": 200}, ("2/255", "1.5/255", 3)),
    "cub200/pgd": (128, {"max_epochs": 200}, ("2/255", "0.5/255", 7)),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_batch_length_and_attack(name):
    batch_size, trainer, (eps, step_size, steps) = PUBLISHED[name]
    recipe = load_recipe(name)
    assert (recipe.batch_size, recipe.trainer) == (batch_size, trainer)
    attack = recipe.objective.attack
    assert (attack.norm, attack.random_start) == ("linf", True)
    assert attack.steps == steps
    assert attack.eps == pytest.approx(_number(eps))
    assert attack.step_size == pytest.approx(_number(step_size))


def _number(text):
    numerator, _, denominator = str(text).partition("/")
    return float(Fraction(numerator) / Fraction(denominator or 1))


@pytest.mark.parametrize(
    ("name", "rates"),
    [
        ("mnist/art", {0: 1e-4, 89999: 1e-4}),
        ("fashion_mnist/cacr_wacr", {0: 1e-4}),
        ("flower17/cacr_wacr", {0: 1e-4, 1500: 1e-3, 69999: 1e-3, 70000: 1e-4}),
        ("gtsrb/cacr_wacr", {0: 1e-5, 5000: 1e-4, 69999: 1e-4, 70000: 1e-5}),
        ("gtsrb/wrn_art", {0: 0.1, 4: 0.01, 6: 1e-3, 9: 1e-3, 10: 5e-4}),
        ("flower17/wrn_art", {0: 0.1, 14: 0.1, 15: 0.01, 35: 1e-3, 50: 5e-4}),
        ("cifar10/art", {0: 0.1, 49: 0.1, 50: 0.01, 80: 1e-3, 99: 1e-3}),
        ("cifar10/pgd", {0: 0.1, 39999: 0.1, 40000: 0.01, 60000: 1e-3, 79999: 1e-3}),
        ("svhn/pgd", {0: 0.1, 40000: 0.01, 60000: 1e-3}),
        ("flower17/wrn_pgd", {0: 0.1, 39999: 0.1, 40000: 0.01, 60000: 1e-3}),
        ("gtsrb/wrn_pgd", {0: 1e-3, 499: 1e-3, 500: 0.01, 60000: 1e-3}),
        ("cifar10/jarn", {0: 0.1, 80000: 0.01, 120000: 1e-3}),
        ("cifar10/cure", {0: 1e-4, 9: 1e-4}),
        ("flower17/rar_pgd", {0: 1e-3, 499: 1e-3, 500: 0.01, 60000: 1e-3}),
        ("flower17/rar_ig_norm", {0: 16e-4, 500: 16e-3, 60000: 16e-4}),  # of the mean loss
        ("gtsrb/rar_ig_sum_norm", {0: 0.064, 500: 0.64, 60000: 0.064}),
        ("svhn/natural", {0: 0.1, 50: 0.01, 80: 1e-3, 150: 5e-4}),
        ("cub200/natural", {0: 0.01, 59: 0.01, 60: 1e-3, 120: 1e-4, 199: 1e-5}),
        ("cub200/art", {0: 0.01, 40: 1e-3, 80: 1e-4, 120: 1e-5, 160: 1e-6, 199: 1e-6}),
    ],
)
def test_learning_rates(name, rates):
    optimizer = load_recipe(name).optimizer
    assert {count: optimizer.rate_at(count) for count in rates} == pytest.approx(rates)


@pytest.mark.parametrize(
    ("name", "optimizer", "decay"),
    [
        ("mnist/natural", "adam", 0.0),
        ("gtsrb/natural", "sgd", 2e-4),
        ("flower17/wrn_natural", "sgd", 2e-4),
        ("cifar10/natural", "sgd", 2e-4),
        ("cifar10/jarn", "sgd", 2e-4),
        ("cifar10/cure", "adam", 0.0),
        ("flower17/rar_natural", "sgd", 2e-4),
        ("flower17/rar_ig_norm", "sgd", 2e-4 / 16),
        ("gtsrb/rar_ig_norm", "sgd", 2e-4 / 64),
        ("cub200/natural", "sgd", 1e-4),
    ],
)
def test_optimizers(name, optimizer, decay):
    made = load_recipe(name).optimizer
    assert (made.name, made.weight_decay) == (optimizer, decay)
    assert made.momentum == 0.9 or optimizer == "adam"


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("mnist/cacr_wacr", {"weight": 1.0, "cacr": 1.0, "wacr": 1.0, "attack_steps": 10}),
        ("fashion_mnist/cacr_wacr", {"steps": 50, "attack_steps": 10}),
        ("gtsrb/cacr_wacr", {"steps": 50, "attack_steps": 5}),
        ("flower17/wrn_cacr_wacr", {"steps": 50, "attack_steps": 5}),
        ("mnist/cacr", {"cacr": 1.0, "wacr": 0.0, "attack_steps": 10}),
        ("mnist/wacr", {"cacr": 0.0, "wacr": 1.0}),
        ("fashion_mnist/cacr_wacr70", {"cacr": 1.0, "wacr": 0.7}),
        ("flower17/cacr70_wacr", {"cacr": 0.7, "wacr": 1.0, "attack_steps": 5}),
        ("flower17/cacr_wacr_no_base", {"base": False, "cacr": 1.0, "wacr": 1.0}),
        ("flower17/cacr_wacr_no_rival", {"rival": 0.0, "base": True}),
        ("cifar10/art", {"weight": 0.5, "beta": 50.0, "channels": "each", "negative": "argmax"}),
        ("cifar10/art", {"attack_top": None, "aligned": "perturbed"}),
        ("cifar10/art_authors", {"attack_top": 1000, "aligned": "both", "weight": 0.5}),
        ("cifar10/art_argmin", {"negative": "argmin", "weight": 0.5}),
        ("cifar10/art_pgd", {"attack_cross_entropy": 1.0, "weight": 0.5}),
        ("cifar10/input_alignment_l2", {"distance": "l2", "weight": 0.5}),
        ("cifar10/jacobian", {"weight": 0.5}),
        ("cub200/art", {"channels": "mean", "weight": 0.5, "beta": 50.0}),
        ("cub200/adl", {"drop_rate": 0.75, "threshold": 0.9}),
        ("cub200/vgg_adl", {"drop_rate": 0.75, "threshold": 0.8}),
        ("cub200/se_adl", {"drop_rate": 0.75, "threshold": 0.9}),
        ("mnist/ig_sum_norm", {"form": "ig_sum_norm", "steps": 50, "weight": 0.1}),
        ("mnist/ig_norm", {"form": "ig_norm", "steps": 50, "weight": 1.0}),
        ("fashion_mnist/ig_norm", {"form": "ig_norm", "attack_steps": 10, "weight": 1.0}),
        ("gtsrb/ig_norm", {"form": "ig_norm", "steps": 50, "attack_steps": 5}),
        ("gtsrb/rar_ig_sum_norm", {"form": "ig_sum_norm", "weight": 1.0, "attack_steps": 5}),
        ("flower17/rar_ig_norm", {"form": "ig_norm", "weight": 0.1, "steps": 50}),
        ("cifar10/cure", {"weight": 4.0, "h": 3.0, "squared": True}),
        ("tiny_imagenet/sat", {"source": "boxes"}),
        ("flower17/sat", {"source": "masks", "missing": "noise"}),
    ],
)
def test_objectives(name, expected):
    objective = load_recipe(name).objective
    assert {key: getattr(objective, key) for key in expected} == expected


@pytest.mark.parametrize(
    "name", [n for n in NAMES if n.startswith("cifar10/resnet18") and "_l2_eps" in n]
)
def test_l2_attacks_of_the_supplement_step_along_the_sign(name):
    attack = load_recipe(name).objective.attack
    assert (attack.norm, attack.step) == ("l2", "sign")
    length = attack.step_size * 3072**0.5  # of a step, for 3 · 32 · 32 values
    assert length == pytest.approx(2.5 * attack.eps / attack.steps, rel=1e-3)


def test_the_code_of_art_has_nesterov_momentum_and_other_augmentations():
    recipe, paper = load_recipe("cifar10/art_authors"), load_recipe("cifar10/art")
    assert recipe.optimizer == replace(paper.optimizer, nesterov=True)
    assert (recipe.data.augmentation.rotation, recipe.data.augmentation.colour_jitter) == (2, 0.25)


def test_jarn_begins_in_the_last_eighth():
    recipe = load_recipe("cifar10/jarn")
    assert (recipe.batch_size, recipe.trainer["max_steps"]) == (64, 160000)
    assert recipe.objective.share * 160000 == 140000
    assert (recipe.objective.then.weight, recipe.objective.then.every) == (1.0, 20)
    assert recipe.objective.first.eps == recipe.objective.then.noise == pytest.approx(8 / 255)


def test_distillation_has_the_printed_temperature(full):
    assert full("cifar10/distillation").objective.temperature == 100.0


@pytest.mark.parametrize(
    ("name", "k", "eps", "step_size", "steps"),
    [
        ("mnist/natural", 200, 0.3, 0.01, 100),
        ("fashion_mnist/cacr", 100, 0.1, 0.01, 100),
        ("gtsrb/pgd", 100, 8 / 255, 1 / 255, 50),
        ("gtsrb/wrn_art", 100, 8 / 255, 1 / 255, 50),
        ("flower17/wrn_natural", 1000, 8 / 255, 1 / 255, 100),
        ("cifar10/art_pgd", 100, 8 / 255, 1 / 255, 50),
        ("svhn/art", 100, 8 / 255, 1 / 255, 50),
    ],
)
def test_attack_on_explanations(name, k, eps, step_size, steps):
    audit = build(Audit, load_recipe(name).audit)
    attack = audit.manipulations["top_k/integrated_gradients"]
    assert (audit.k, attack.k, attack.steps) == (k, k, steps)
    assert (attack.eps, attack.step_size) == pytest.approx((eps, step_size))


def test_intersection_in_the_code_of_rar_is_of_fewer_pixels_than_the_attack():
    audit = build(Audit, load_recipe("mnist/ig_norm").audit)
    assert (audit.k, audit.manipulations["top_k/integrated_gradients"].k) == (100, 200)


@pytest.mark.parametrize("name", ["cifar10/pgd", "svhn/pgd", "flower17/wrn_pgd", "gtsrb/wrn_pgd"])
def test_schedules_of_the_cited_references_count_steps(name):
    assert load_recipe(name).optimizer.interval == "step"


@pytest.mark.parametrize("name", NAMES)
def test_networks(name, full, untrained):
    """Each paper's network, with the normalization that goes with it."""
    data, _, row = name.partition("/")
    expected = {
        "digits": "mlp",
        "mnist": "mnist_cnn",
        "fashion_mnist": "mnist_cnn",
        "gtsrb": "wrn_28_10" if row.startswith("wrn") else "small_resnet",
        "flower17": "wrn_28_10" if row.startswith("wrn") else "small_resnet",
        "cifar10": "wrn_28_10",
        "cifar100": "cifar_resnet10",
        "svhn": "wrn_40_2",
        "tiny_imagenet": "cifar_resnet10",
        "cub200": {"vgg": "vgg16_gap", "se": "resnet50_se"}.get(row.partition("_")[0], "resnet50"),
        "imagenette": "resnet50",
    }[data]
    if row.startswith("resnet18") or row in ("jacobian", "distillation", "alignment", "cure"):
        expected = "cifar_resnet18"
    expected = {"jarn": "wide_resnet", "rar": "rar_resnet"}.get(row.partition("_")[0], expected)
    if data == "cifar10" and row.startswith("resnet50"):
        expected = "cifar_resnet50"
    model = untrained(name)
    assert full(name).model.name == expected
    assert isinstance(model, Attributing) == (row == "alignment")
    assert isinstance(model, WithDiscriminator) == (row == "jarn")
    inside = getattr(model, "classifier", model)
    by_itself = expected in ("small_resnet", "rar_resnet")
    assert isinstance(inside, Standardized) == by_itself
    assert isinstance(inside, Normalized) == (data not in GREY and not by_itself)
