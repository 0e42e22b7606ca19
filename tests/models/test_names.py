import pytest

from holdfast.contracts import InputError
from holdfast.models import Architecture
from holdfast.models.names import parse


@pytest.mark.parametrize(
    ("name", "source", "plain", "weights"),
    [
        ("mnist_cnn", "holdfast", "mnist_cnn", None),
        ("resnet50", "holdfast", "resnet50", None),
        ("torchvision:resnet50", "torchvision", "resnet50", None),
        ("torchvision:resnet50/DEFAULT", "torchvision", "resnet50", "DEFAULT"),
        (
            "timm:vit_base_patch16_224.augreg_in21k",
            "timm",
            "vit_base_patch16_224.augreg_in21k",
            None,
        ),
        ("hf:microsoft/resnet-50", "hf", "microsoft/resnet-50", None),
        ("hf:./folder", "hf", "./folder", None),
        ("package.module:Class.method", "code", "package.module:Class.method", None),
        ("os:system", "code", "os:system", None),
        ("timm.models:create_model", "code", "timm.models:create_model", None),
    ],
)
def test_whose_code_a_name_calls(name, source, plain, weights):
    assert parse(name) == (source, plain, weights)


def test_a_bare_name_that_is_not_ours_is_torchvisions():
    assert Architecture("mnist_cnn").source == "holdfast"
    assert Architecture("resnet50").source == "torchvision"


@pytest.mark.parametrize("name", ["timm:", "hf:", "torchvision:", "mine:"])
def test_nothing_behind_the_colon(name):
    with pytest.raises(InputError, match=f"a name behind {name}"):
        parse(name)
