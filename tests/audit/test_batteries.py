import pytest
import torch
from datasets import Dataset, Features, Image, Sequence, Value
from PIL import Image as Pixels
from torch import nn

from holdfast.adversarial import CORRUPTIONS
from holdfast.attributions import Gradient
from holdfast.audit import BATTERIES, full, quick, standard
from holdfast.data import ImageData
from holdfast.models import Architecture
from holdfast.training import load, save
from holdfast.training.recipe import build, to_settings

OF_OBJECTS = ("eccv2020/segmentation", "eccv2020/table2")
"""They need boxes or masks, which digits do not have: see test_wsol_batteries.py."""


@pytest.fixture(scope="module")
def data():
    return ImageData("digits", limit=6).load("test")


@pytest.fixture(scope="module")
def boxed(tmp_path_factory):
    """Four colour images of 12×12 pixels with boxes."""
    noise = torch.randint(0, 256, (4, 12, 12, 3), dtype=torch.uint8).numpy()
    features = Features(
        {"image": Image(), "label": Value("int64"), "bbox": Sequence(Value("float32"))}
    )
    rows = {
        "image": [Pixels.fromarray(picture) for picture in noise],
        "label": [0, 1, 0, 1],
        "bbox": [[1, 2, 7, 9]] * 4,
    }
    table = Dataset.from_dict(rows, features)
    file = tmp_path_factory.mktemp("boxed") / "test.parquet"
    table.to_parquet(str(file))
    return ImageData(str(file), test_split="train").load("test")


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("run")
    architecture = Architecture("mlp", classes=10, in_channels=1, size=16, options={"hidden": [8]})
    save(architecture.build(), folder, architecture=architecture, classes=[*"0123456789"])
    return load(folder)


@pytest.mark.parametrize("name", [n for n in BATTERIES if n not in OF_OBJECTS])
def test_settings_of_every_battery_can_be_built_again(name, data, model):
    audit = BATTERIES[name](data, model=model)
    settings = to_settings(audit)["init_args"]
    again = build(type(audit), settings)
    assert to_settings(again)["init_args"] == settings


@pytest.mark.parametrize("battery", [quick, standard, full])
def test_what_general_batteries_make_of_other_models(battery, data, model):
    audit = battery(data, eps=0.1, model=model, source=model, reference=model)
    settings = to_settings(audit)["init_args"]
    assert to_settings(build(type(audit), settings))["init_args"] == settings
    assert audit.k == 26  # of 256 pixels
    assert "transfer" in audit.attacks
    assert "reference/integrated_gradients" in audit.checks
    assert "alignment/image" in audit.checks


def test_quick_runs(data, model, tmp_path):
    records = quick(data, eps=0.1)(model, data, tmp_path, progress=False)
    assert {"clean", "pgd-20", "alignment/image"} <= set(records["check"].to_pylist())


def test_the_points_of_a_curve_differ_in_eps_alone(data):
    audit = standard(data, eps=8 / 255)
    curves = (
        ("attacks", "pgd-40", ("pgd-40@2/255", "pgd-40@4/255", "pgd-40@16/255")),
        (
            "manipulations",
            "top_k/integrated_gradients",
            tuple(f"top_k/integrated_gradients@{n}/255" for n in (2, 4, 16)),
        ),
    )
    for kind, base, points in curves:
        methods = getattr(audit, kind)
        first = vars(methods[base])
        for point, factor in zip(points, (0.25, 0.5, 2), strict=True):
            other = vars(methods[point])
            differ = {key for key in first if first[key] != other[key]}
            assert differ == {"eps", "step_size"}, point
            assert other["eps"] == pytest.approx(factor * 8 / 255)
            assert other["step_size"] / other["eps"] == pytest.approx(
                first["step_size"] / first["eps"]
            )


@pytest.mark.parametrize(("battery", "severities"), [(standard, [3]), (full, [1, 2, 3, 4, 5])])
def test_corruptions(battery, severities, data):
    names = {name for name in battery(data).attacks if name.startswith("corruption/")}
    assert names == {f"corruption/{one}/{s}" for one in CORRUPTIONS for s in severities}


def test_localization_where_the_data_has_boxes(data, boxed):
    for battery in (standard, full):
        assert not any("localization/" in name for name in battery(data).checks)
        assert {"localization/gradient", "wsol/gradient"} <= set(battery(boxed).checks)
    methods = ("input_x_gradient", "smooth_grad", "deep_lift", "bsm", "big", "agi")
    assert {f"localization/{name}" for name in methods} <= set(full(boxed).checks)
    assert {"removal/integrated_gradients", "removal/big"} <= set(full(boxed).checks)
    assert not any("removal/" in name for name in full(data).checks)
    assert full(data).checks["baseline/integrated_gradients"].k == 26
    assert "apgd-dlr" in full(data).attacks
    assert "apgd-dlr" not in full(boxed).attacks  # of two classes


def test_grad_cam_where_the_model_has_feature_maps(data, model):
    convolutional = nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 14 * 14, 10)
    )
    assert "top_k/grad_cam" in full(data, model=convolutional).manipulations
    assert "faithfulness/grad_cam" in full(data, model=convolutional).checks
    for other in (None, model):
        audit = full(data, model=other)
        assert not any("grad_cam" in name for name in (*audit.manipulations, *audit.checks))


def test_a_ball_never_holds_everything(data):
    audit = standard(data, eps=0.55)
    assert "pgd-40@0.275" in audit.attacks
    assert max(attack.eps for name, attack in audit.attacks.items() if "@" in name) < 1


def test_every_attack_on_explanations_meets_every_attribution(data):
    manipulations = full(data).manipulations
    for attack in ("top_k", "mass_centre", "targeted", "rank", "random_sign", "ensemble"):
        for attribution in ("gradient", "integrated_gradients", "smooth_grad"):
            assert f"{attack}/{attribution}" in manipulations
    assert manipulations["rank/gradient"].attribution == Gradient()
