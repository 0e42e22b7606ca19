import dataclasses

import pytest

from holdfast.adversarial import PGD
from holdfast.audit.retraining import natural_settings, naturally, on_one_device
from holdfast.contracts import InputError
from holdfast.data import ImageData
from holdfast.models import Architecture
from holdfast.objectives import AdversarialTraining, Natural
from holdfast.training import load_recipe
from holdfast.training.recipe import Recipe, build, to_settings

PGD_TRAINING = AdversarialTraining(PGD(0.1, 0.05, 2))


def of(**model):
    return Recipe(
        data=ImageData("digits", limit=30, validation=5, balance=4),
        model=Architecture(**model),
        objective=PGD_TRAINING,
        batch_size=7,
        trainer={"max_steps": 3},
        seed=5,
    )


def test_all_but_the_objective_stays():
    recipe = of(name="mlp", options={"hidden": [8]})
    assert naturally(recipe) == dataclasses.replace(recipe, objective=Natural())


def test_weights_are_fresh_and_nothing_explains_itself():
    trained = of(name="torchvision:resnet18/IMAGENET1K_V1", attributing=True)
    model = naturally(trained).model
    assert (model.name, model.weights, model.attributing) == ("torchvision:resnet18", None, False)
    # What the weights' own images were normalized by, the network still does inside.
    assert (model.mean, model.std) == ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    said = of(name="resnet18", weights="DEFAULT", mean=(0.5,) * 3, std=(0.1,) * 3)
    assert naturally(said).model.mean == (0.5,) * 3


@pytest.mark.parametrize("name", ["digits/art", "cub200/art", "cifar10/pgd", "svhn/art"])
def test_settings_of_a_run_become_what_its_recipe_becomes(name):
    recipe = load_recipe(name)
    assert build(Recipe, natural_settings(to_settings(recipe)), at="") == naturally(recipe)


def test_a_run_whose_teacher_is_gone_can_be_retrained():
    settings = to_settings(of(name="mlp", attributing=True, weights=None))
    settings["objective"] = {
        "class_path": "DefensiveDistillation",
        "init_args": {"teacher": "no/such/run"},
    }
    assert build(Recipe, natural_settings(settings), at="").objective == Natural()


@pytest.mark.parametrize("trainer", [{"devices": 2}, {"devices": "auto"}, {"num_nodes": 2}])
def test_several_devices_are_refused(trainer):
    recipe = dataclasses.replace(of(name="mlp"), trainer=trainer)
    with pytest.raises(InputError, match="recipe.trainer.devices"):
        on_one_device(recipe)


def test_a_model_that_is_no_mapping(own_errors):
    with pytest.raises(InputError, match="model: expected a mapping of settings"):
        natural_settings({"model": "mlp"})
