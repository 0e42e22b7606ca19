import dataclasses
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import torchvision
import yaml
from jsonargparse import ArgumentParser
from torch import nn
from torchvision.transforms import v2

from holdfast.contracts import InputError
from holdfast.models import (
    Architecture,
    Attributing,
    Normalized,
    Standardized,
    cifar_resnet18,
    mnist_cnn,
    names,
    wide_resnet,
    wrn_40_2,
)


def same_tensors(first: nn.Module, second: nn.Module) -> bool:
    shapes = [{k: v.shape for k, v in m.state_dict().items()} for m in (first, second)]
    return shapes[0] == shapes[1]


class TestOurs:
    @pytest.mark.parametrize(
        ("architecture", "expected"),
        [
            (Architecture("mnist_cnn"), mnist_cnn()),
            (Architecture("mnist_cnn", 3, 2, 16), mnist_cnn(3, 2, 16)),
            (Architecture("cifar_resnet18", classes=5, size=32), cifar_resnet18(5)),
            (Architecture("wrn_40_2", in_channels=1), wrn_40_2(in_channels=1)),
            (
                Architecture("wide_resnet", classes=7, options={"depth": 10, "width": 2}),
                wide_resnet(10, 2, classes=7),
            ),
        ],
        ids=lambda value: value.name if isinstance(value, Architecture) else "",
    )
    def test_builds_what_the_function_builds(
        self, architecture: Architecture, expected: nn.Module
    ) -> None:
        assert same_tensors(architecture.build(), expected)

    def test_options_reach_the_network(self) -> None:
        model = Architecture("wrn_40_2", options={"dropout": 0.3}).build()
        assert {m.p for m in model.modules() if isinstance(m, nn.Dropout)} == {0.3}

    @pytest.mark.parametrize(
        ("name", "options"), [("wrn_40_2", {"drop": 0.3}), ("wide_resnet", {"depth": 10})]
    )
    def test_options_that_do_not_fit(self, name: str, options: dict[str, float]) -> None:
        with pytest.raises(InputError, match=rf"Architecture.options.*'{name}'.*argument"):
            Architecture(name, options=options).build()

    def test_no_pretrained_weights(self) -> None:
        with pytest.raises(InputError, match="Architecture.weights"):
            Architecture("mnist_cnn", weights="DEFAULT").build()


class TestNormalization:
    def test_none(self) -> None:
        assert not isinstance(Architecture("mnist_cnn").build(), Normalized | Standardized)

    def test_mean_and_std(self) -> None:
        model = Architecture("mnist_cnn", mean=(0.25,), std=(0.5,)).build()
        assert isinstance(model, Normalized)
        assert model.normalize(torch.full((1, 1, 1, 1), 0.75)).item() == 1

    def test_per_image(self) -> None:
        assert isinstance(Architecture("mnist_cnn", standardize=True).build(), Standardized)

    def test_twice(self) -> None:
        with pytest.raises(InputError, match="Architecture.standardize"):
            Architecture("mnist_cnn", mean=(0.5,), std=(0.5,), standardize=True)

    def test_by_halves(self) -> None:
        with pytest.raises(InputError, match="both of them or neither"):
            Architecture("mnist_cnn", mean=(0.5,))

    def test_for_other_channels(self) -> None:
        architecture = Architecture("mnist_cnn", in_channels=3, mean=(0.5,), std=(0.5,))
        with pytest.raises(InputError, match="Architecture.mean: expected 3 values"):
            architecture.build()


class TestAttributing:
    def test_the_decoder_is_around_the_normalized_classifier(self) -> None:
        architecture = Architecture(
            "mnist_cnn", 3, 1, 8, mean=(0.5,), std=(0.25,), attributing=True
        )
        model = architecture.build()
        assert isinstance(model, Attributing)
        assert isinstance(model.classifier, Normalized)
        logits, maps = model.attribute(torch.rand(2, 1, 8, 8))
        assert (logits.shape, maps.shape) == ((2, 3), (2, 1, 8, 8))

    @pytest.mark.parametrize("given", [{}, {"size": 8}, {"in_channels": 1}])
    def test_needs_the_shape_of_the_images(self, given: dict[str, int]) -> None:
        with pytest.raises(InputError, match="Architecture.in_channels, size: expected both"):
            Architecture("mnist_cnn", attributing=True, **given).build()


class TestTorchvision:
    def test_builds_what_torchvision_builds(self) -> None:
        expected = torchvision.models.get_model("resnet18", weights=None, num_classes=7)
        assert same_tensors(Architecture("resnet18", 7, 3, 64).build(), expected)

    @pytest.mark.parametrize("name", ["densenet121", "mobilenet_v3_small", "regnet_x_400mf"])
    def test_any_name(self, name: str) -> None:
        model = Architecture(name, classes=3).build()
        assert model.eval()(torch.rand(1, 3, 32, 32)).shape == (1, 3)

    def test_options_reach_the_network(self) -> None:
        model = Architecture("vit_b_32", classes=2, options={"image_size": 64}).build()
        assert model(torch.rand(1, 3, 64, 64)).shape == (1, 2)

    @pytest.mark.parametrize(("name", "size"), [("googlenet", 64), ("inception_v3", 80)])
    def test_one_output_in_train_mode(self, name: str, size: int) -> None:
        model = Architecture(name, classes=3).build()
        assert model.training
        assert model(torch.rand(2, 3, size, size)).shape == (2, 3)

    def test_colour_only(self) -> None:
        with pytest.raises(InputError, match=r"Architecture.in_channels: expected 3.*got 1"):
            Architecture("resnet18", in_channels=1).build()

    def test_options_that_do_not_fit(self) -> None:
        with pytest.raises(InputError, match=r"Architecture.options.*depht"):
            Architecture("resnet18", options={"depht": 3}).build()

    def test_unknown_weights(self) -> None:
        with pytest.raises(InputError, match="one of IMAGENET1K_V1, DEFAULT, weights of resnet34"):
            Architecture("resnet34", weights="IMAGENET1K_V9").build()


class TestPretrained:
    """Weights in torch's own download folder, so that nothing is downloaded."""

    @pytest.fixture(autouse=True)
    def _hub(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("TORCH_HOME", str(tmp_path))
        self.checkpoints = tmp_path / "hub" / "checkpoints"
        self.checkpoints.mkdir(parents=True)

    def published(self, name: str) -> nn.Module:
        weights = torchvision.models.get_model_weights(name)["IMAGENET1K_V1"]
        extra = {"init_weights": False} if name == "googlenet" else {}
        model = torchvision.models.get_model(name, **extra)
        torch.save(model.state_dict(), self.checkpoints / Path(weights.url).name)
        return model.eval()

    @pytest.mark.parametrize("classes", [None, 1000])
    def test_weights_are_those_published(self, classes: int | None) -> None:
        published = self.published("shufflenet_v2_x0_5")
        images = torch.rand(1, 3, 64, 64)
        model = Architecture("shufflenet_v2_x0_5", classes, weights="IMAGENET1K_V1").build()
        torch.testing.assert_close(model.eval()(images), published(images))

    def test_the_last_layer_starts_anew_for_other_classes(self) -> None:
        published = self.published("shufflenet_v2_x0_5").state_dict()
        model = Architecture("shufflenet_v2_x0_5", 5, weights="IMAGENET1K_V1").build()
        state = model.state_dict()
        assert state.pop("fc.weight").shape == (5, 1024)
        assert state.pop("fc.bias").shape == (5,)
        assert all(torch.equal(tensor, published[name]) for name, tensor in state.items())

    def test_a_last_layer_that_is_not_linear(self) -> None:
        published = self.published("squeezenet1_1").state_dict()
        model = Architecture("squeezenet1_1", 5, weights="DEFAULT").build()
        state = model.state_dict()
        assert state.pop("classifier.1.weight").shape == (5, 512, 1, 1)
        assert state.pop("classifier.1.bias").shape == (5,)
        assert all(torch.equal(tensor, published[name]) for name, tensor in state.items())

    def test_googlenet_takes_the_normalization_of_all_others(self) -> None:
        # Its weights expect [-1, 1]; torchvision's transform_input converts, also without weights.
        self.published("googlenet")
        architecture = Architecture("googlenet", weights="DEFAULT")
        pixels = torch.rand(1, 3, 64, 64)
        images = v2.functional.normalize(pixels, [0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
        for model in (architecture.build(), architecture.build(pretrained=False)):
            seen = []
            model.conv1.register_forward_hook(lambda _, inputs, __, seen=seen: seen.append(*inputs))
            model.eval()(images)
            torch.testing.assert_close(seen[0], pixels * 2 - 1)

    def test_left_out_on_demand(self) -> None:
        # The folder is empty: a download would fail.
        architecture = Architecture("vit_b_16", weights="IMAGENET1K_SWAG_E2E_V1")
        with torch.device("meta"):
            model = architecture.build(pretrained=False)
        # 24 × 24 patches of 16 pixels and the class token: built in the weights' 384 pixels.
        assert model.encoder.pos_embedding.shape == (1, 577, 768)
        assert model.heads.head.out_features == 1000


class TestImported:
    @pytest.fixture(autouse=True)
    def _package(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
        (tmp_path / "their_models.py").write_text(
            "from torch import nn\n"
            "def make_model(outputs):\n"
            "    return nn.Sequential(nn.Flatten(), nn.LazyLinear(outputs))\n"
            "def make_none():\n"
            "    return None\n"
            "def make_error():\n"
            "    raise TypeError('from inside')\n"
        )
        (tmp_path / "their_broken.py").write_text("import no_such_package_at_all\n")
        monkeypatch.syspath_prepend(tmp_path)
        yield
        sys.modules.pop("their_models", None)

    def test_function(self) -> None:
        model = Architecture("their_models:make_model", options={"outputs": 3}).build()
        assert model(torch.rand(2, 1, 4, 4)).shape == (2, 3)

    def test_class_with_normalization(self) -> None:
        architecture = Architecture("torch.nn:Flatten", mean=(0.5,), std=(0.5,))
        assert architecture.build()(torch.ones(1, 1, 1, 1)).tolist() == [[1.0]]

    @pytest.mark.parametrize(
        ("name", "message"),
        [
            ("no_such_package_at_all:make", "No module named 'no_such_package_at_all'"),
            ("their_broken:make", "No module named 'no_such_package_at_all'"),
            ("their_models:mkae_model", "no attribute 'mkae_model'"),
            (":make_model", "Empty module name"),
            ("their_models:make_none", "returns an nn.Module, got a NoneType"),
        ],
    )
    def test_errors(self, name: str, message: str) -> None:
        with pytest.raises(InputError, match=rf"Architecture.name: expected .*{message}"):
            Architecture(name).build()

    def test_options_that_do_not_fit(self) -> None:
        with pytest.raises(InputError, match=r"Architecture.options.*missing.*'outputs'"):
            Architecture("their_models:make_model").build()

    def test_errors_from_inside_are_theirs(self) -> None:
        with pytest.raises(TypeError, match="from inside"):
            Architecture("their_models:make_error").build()


class TestNames:
    def test_are_ours_and_torchvisions_each_once(self) -> None:
        assert len(set(names())) == len(names())
        assert {
            "mnist_cnn",
            "small_resnet",
            "resnet50_se",
            "vgg16_gap",
            "cifar_resnet18",
            "resnet18",
            "vgg16",
            "convnext_tiny",
        } < set(names())

    def test_unknown(self) -> None:
        with pytest.raises(InputError, match=r"one of cifar_resnet10.*close: resnet50.*'resnet5O'"):
            Architecture("resnet5O").build()

    def test_far_from_all(self) -> None:
        with pytest.raises(InputError, match=r"function', got '§§§'"):
            Architecture("§§§").build()


@pytest.mark.parametrize("field", ["classes", "in_channels", "size"])
def test_numbers_below_one(field: str) -> None:
    with pytest.raises(InputError, match=f"Architecture.{field}: expected a number of at least 1"):
        Architecture("mnist_cnn", **{field: 0})


def test_frozen_and_hashable() -> None:
    architecture = Architecture("wrn_40_2", mean=(0.5,), std=(0.5,), options={"dropout": 0.3})
    assert hash(architecture) == hash(dataclasses.replace(architecture))
    with pytest.raises(dataclasses.FrozenInstanceError):
        architecture.name = "other"  # type: ignore[misc]


def test_goes_through_yaml() -> None:
    parser = ArgumentParser()
    parser.add_argument("--config", action="config")
    parser.add_argument("--model", type=Architecture)
    text = {
        "model": {
            "name": "wrn_40_2",
            "classes": 10,
            "mean": [0, 0.5, 0.5],
            "std": [1, 0.2, 0.2],
            "options": {"dropout": 0.3},
        }
    }
    parsed = parser.parse_args([f"--config={yaml.safe_dump(text)}"])
    assert parser.instantiate_classes(parsed).model == Architecture(
        "wrn_40_2",
        classes=10,
        mean=(0.0, 0.5, 0.5),
        std=(1.0, 0.2, 0.2),
        options={"dropout": 0.3},
    )


class TestGrammar:
    def test_torchvisions_weights_in_the_name(self) -> None:
        architecture = Architecture("torchvision:resnet50/IMAGENET1K_V2", classes=3)
        assert (architecture.name, architecture.weights) == (
            "torchvision:resnet50",
            "IMAGENET1K_V2",
        )
        model = architecture.build(pretrained=False)
        assert same_tensors(model, torchvision.models.get_model("resnet50", num_classes=3))

    def test_weights_named_twice(self) -> None:
        with pytest.raises(InputError, match="Architecture.weights: expected V1, as the name says"):
            Architecture("torchvision:resnet50/V1", weights="V2")

    @pytest.mark.parametrize(
        ("name", "says"),
        [
            ("resnet5", r"a torchvision name, 'timm:NAME', 'hf:NAME' or .*\(close: resnet50"),
            ("torchvision:resnet5", r"a classifier of torchvision, .*\(close: resnet50"),
            ("torchvision:mnist_cnn", "a classifier of torchvision"),
            ("timm:resnet5", r"a model of timm, .*\(close: resnet50"),
            ("nowhere:make", "'package.module:function' that Python can import"),
        ],
    )
    def test_unknown(self, name: str, says: str) -> None:
        with pytest.raises(InputError, match=f"Architecture.name: expected .*{says}") as caught:
            Architecture(name).build()
        assert "\n" not in str(caught.value)

    @pytest.mark.parametrize(
        ("name", "option"), [("resnet18", "weights"), ("resnet18", "pretrained")]
    )
    def test_options_fetch_no_weights(self, name: str, option: str) -> None:
        with pytest.raises(InputError, match=f"no weights there; .*, got {option}"):
            Architecture(name, options={option: True}).build()


class TestFile:
    @pytest.fixture
    def file(self, tmp_path: Path) -> str:
        torch.save({"model": mnist_cnn(4, size=8).state_dict()}, tmp_path / "w.pth")
        return str(tmp_path / "w.pth")

    def test_weights_of_a_file(self, file: str) -> None:
        state = torch.load(file)["model"]
        model = Architecture("mnist_cnn", 4, size=8, weights=file, mean=(0.5,), std=(0.5,)).build()
        assert all(torch.equal(t, state[name]) for name, t in model.module.state_dict().items())

    def test_the_last_layer_starts_anew_for_other_classes(self, file: str) -> None:
        state = torch.load(file)["model"]
        model = Architecture("mnist_cnn", 3, size=8, weights=file).build()
        same = {name for name, t in model.state_dict().items() if torch.equal(t, state[name])}
        assert set(state) - same == {"logits.weight", "logits.bias"}

    def test_a_file_is_not_needed_to_build_again(self, file: str) -> None:
        architecture = Architecture("mnist_cnn", 4, size=8, weights=file)
        Path(file).unlink()
        architecture.build(pretrained=False)
        with pytest.raises(InputError, match="does not exist"):
            architecture.build()

    def test_the_normalization_of_a_file_is_taken(self, tmp_path: Path) -> None:
        whole = Normalized(mnist_cnn(4, size=8), (0.25,), (0.5,))
        torch.save(whole.state_dict(), tmp_path / "n.pt")
        architecture = Architecture("mnist_cnn", 4, size=8, weights=str(tmp_path / "n.pt"))
        filled = architecture.filled(architecture.described())
        assert (filled.mean, filled.std) == ((0.25,), (0.5,))
        images = torch.rand(2, 1, 8, 8)
        assert torch.equal(filled.build().eval()(images), whole.eval()(images))


class TestFilled:
    def test_trained_weights_bring_their_normalization(self) -> None:
        architecture = Architecture("resnet18", classes=3, weights="DEFAULT")
        filled = architecture.filled(architecture.described())
        wanted = torchvision.models.ResNet18_Weights.DEFAULT.transforms()
        assert (filled.mean, filled.std) == (tuple(wanted.mean), tuple(wanted.std))
        assert (filled.classes, filled.weights) == (3, "IMAGENET1K_V1")

    @pytest.mark.parametrize(
        "given",
        [
            Architecture("resnet18", weights="DEFAULT", mean=(0.0,) * 3, std=(1.0,) * 3),
            Architecture("resnet18", weights="DEFAULT", standardize=True),
            Architecture("resnet18"),
        ],
    )
    def test_what_is_said_stays(self, given: Architecture) -> None:
        filled = given.filled(given.described())
        assert (filled.mean, filled.std, filled.standardize) == (
            given.mean,
            given.std,
            given.standardize,
        )


@pytest.mark.parametrize(
    "hidden", [True, ["x"], [[1]], [2.5], {"a": 1}, [-1], "16", [None], [10**30]]
)
def test_options_of_the_wrong_kind_are_named(hidden, own_errors):
    architecture = Architecture("mlp", classes=2, in_channels=1, size=4, options={"hidden": hidden})
    with pytest.raises(InputError, match="hidden"):
        architecture.build()
