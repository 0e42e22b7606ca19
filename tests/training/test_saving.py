import json
import os
import resource
import signal
import socket
import stat
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import nn

import holdfast
from holdfast.contracts import HoldfastError, InputError
from holdfast.models import Architecture
from holdfast.training.saving import is_saved, save
from holdfast.training.saving import load_saved as load

SMALL = Architecture("mnist_cnn", classes=2, size=8, mean=(0.5,), std=(0.25,))
NAMES = ("cat", "dog")


@pytest.fixture
def small(tmp_path: Path) -> Path:
    """A saved model, for the tests that only read."""
    file = tmp_path / "run" / "model.safetensors"
    save(SMALL.build(), file, architecture=SMALL, classes=NAMES)
    return file


def metadata(file: Path) -> dict[str, str]:
    with safe_open(file, framework="pt") as opened:
        return opened.metadata()


def rewrite(file: Path, **changes: str) -> None:
    """The same tensors with other metadata, as another program or version would leave them."""
    with safe_open(file, framework="pt") as opened:
        tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
        kept = opened.metadata()
    save_file(tensors, file, {**kept, **changes})


class TestRoundTrip:
    @pytest.mark.parametrize(
        ("architecture", "size"),
        [
            (Architecture("mnist_cnn", classes=3, in_channels=3, size=12), 12),
            (Architecture("cifar_resnet10", 3, mean=(0.1, 0.2, 0.3), std=(1.0, 0.5, 0.1)), 8),
            (Architecture("cifar_resnet18", 3, standardize=True), 8),
            (Architecture("wide_resnet", 3, options={"depth": 10, "width": 2}), 8),
            (Architecture("wrn_40_2", 3, options={"dropout": 0.3}), 8),
            (Architecture("wrn_28_10", 3), 8),
            (Architecture("small_resnet", 3, standardize=True, options={"units": 2}), 8),
            (Architecture("vgg16_gap", 3, weights="IMAGENET1K_V1"), 16),
            (Architecture("cifar_resnet10", 3, 3, 8, attributing=True), 8),
            (Architecture("squeezenet1_1", 3), 32),
            (Architecture("regnet_x_400mf", 3), 32),
            (Architecture("shufflenet_v2_x0_5", 3, weights="IMAGENET1K_V1"), 32),
        ],
        ids=lambda value: value.name if isinstance(value, Architecture) else "",
    )
    def test_logits_are_identical(
        self, tmp_path: Path, architecture: Architecture, size: int
    ) -> None:
        model = architecture.build(pretrained=False)
        images = torch.rand(2, 3, size, size)
        model(images)  # in train mode, so that running statistics leave their start
        save(model, tmp_path, architecture=architecture, classes=["a", "b", "c"])
        loaded = load(tmp_path)
        assert not any(module.training for module in loaded.modules())
        assert torch.equal(loaded(images), model.eval()(images))
        assert loaded.architecture == architecture
        assert loaded.origin == str(tmp_path)

    def test_class_names_of_any_script(self, tmp_path: Path) -> None:
        names = ("Tigerlilie", "虎百合", 'a "quoted" name', "🌸")
        architecture = Architecture("mnist_cnn", size=8)
        model = Architecture("mnist_cnn", classes=4, size=8).build()
        save(model, tmp_path, architecture=architecture, classes=names)
        assert load(tmp_path).classes == names
        assert json.loads(metadata(tmp_path / "model.safetensors")["classes"]) == list(names)

    def test_tied_weights(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.syspath_prepend(tmp_path)
        (tmp_path / "their_tied.py").write_text(
            "from torch import nn\n"
            "def make():\n"
            "    first, second = nn.Linear(4, 4), nn.Linear(4, 4)\n"
            "    second.weight = first.weight\n"
            "    return nn.Sequential(nn.Flatten(), first, second)\n"
        )
        architecture = Architecture("their_tied:make")
        model = architecture.build()
        save(model, tmp_path, architecture=architecture, classes=list("abcd"))
        loaded = load(tmp_path, trust_code=True)
        images = torch.rand(1, 1, 2, 2)
        assert loaded[1].weight is loaded[2].weight
        assert torch.equal(loaded(images), model(images))

    @pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
    def test_precision_stays(self, tmp_path: Path, dtype: torch.dtype) -> None:
        save(SMALL.build().to(dtype), tmp_path, architecture=SMALL, classes=NAMES)
        assert {p.dtype for p in load(tmp_path).parameters()} == {dtype}

    def test_leaves_model_and_dice_alone(self, tmp_path: Path) -> None:
        model = SMALL.build()
        before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
        dice = torch.get_rng_state()
        save(model, tmp_path, architecture=SMALL, classes=NAMES)
        load(tmp_path)
        assert torch.equal(torch.get_rng_state(), dice)
        assert all(torch.equal(model.state_dict()[name], before[name]) for name in before)
        assert model.training


class TestFile:
    def test_metadata_says_all(self, tmp_path: Path) -> None:
        file = tmp_path / "flowers.safetensors"
        save(SMALL.build(), file, architecture=SMALL, classes=NAMES, recipe="objective: ART\n")
        found = metadata(file)
        assert found["holdfast_format"] == "1"
        assert found["holdfast_version"] == holdfast.__version__
        assert json.loads(found["classes"]) == ["cat", "dog"]
        assert found["recipe"] == "objective: ART\n"
        described = json.loads(found["architecture"])
        assert (described["name"], described["classes"], described["size"]) == ("mnist_cnn", 2, 8)
        assert (described["mean"], described["std"]) == ([0.5], [0.25])

    def test_file_or_folder(self, small: Path) -> None:
        assert load(small).classes == load(str(small.parent)).classes == NAMES

    def test_nothing_else_is_left(self, small: Path) -> None:
        assert list(small.parent.iterdir()) == [small]

    def test_others_may_read_it(self, tmp_path: Path) -> None:
        mask = os.umask(0o022)
        try:
            save(SMALL.build(), tmp_path, architecture=SMALL, classes=NAMES)
        finally:
            os.umask(mask)
        assert stat.S_IMODE((tmp_path / "model.safetensors").stat().st_mode) == 0o644

    def test_a_save_that_fails_leaves_the_old_file(self, small: Path) -> None:
        before = small.read_bytes()
        model = SMALL.build()
        limits = resource.getrlimit(resource.RLIMIT_FSIZE)
        ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))  # as a full disk would
        try:
            with pytest.raises(HoldfastError, match="File too large"):
                save(model, small, architecture=SMALL, classes=NAMES)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
            signal.signal(signal.SIGXFSZ, ignored)
        assert small.read_bytes() == before
        assert list(small.parent.iterdir()) == [small]


class TestSaveErrors:
    def save(self, folder: Path, architecture: Architecture = SMALL, classes: Any = NAMES) -> None:
        save(SMALL.build(), folder, architecture=architecture, classes=classes)

    def test_number_of_classes(self, tmp_path: Path) -> None:
        with pytest.raises(InputError, match="classes: expected 2 names.*got 3"):
            self.save(tmp_path, classes=["a", "b", "c"])

    @pytest.mark.usefixtures("own_errors")
    @pytest.mark.parametrize("classes", ["ab", [1, 2]])
    def test_no_names(self, tmp_path: Path, classes: Any) -> None:
        with pytest.raises(InputError, match="classes: expected a sequence of names"):
            self.save(tmp_path, classes=classes)

    def test_options_beyond_json(self, tmp_path: Path) -> None:
        architecture = Architecture("mnist_cnn", classes=2, options={"act": nn.ReLU})
        with pytest.raises(InputError, match="architecture.options"):
            self.save(tmp_path, architecture)

    def test_another_model(self, tmp_path: Path) -> None:
        other = Architecture("mnist_cnn", classes=2, size=12)
        message = (
            "model: expected the tensors of its architecture, got missing: conv1.weight, "
            "conv1.bias, conv2.weight and 5 more; unexpected: mean, std, module.conv1.weight and 7"
        )
        with pytest.raises(InputError, match=message):
            self.save(tmp_path, other)
        assert list(tmp_path.iterdir()) == []


class TestLoadErrors:
    def test_no_file(self, tmp_path: Path) -> None:
        with pytest.raises(InputError, match="path: expected a model file.*does not exist"):
            load(tmp_path / "nowhere.safetensors")

    def test_no_file_in_folder(self, tmp_path: Path) -> None:
        with pytest.raises(InputError, match="path: .*model.safetensors, got .*has none"):
            load(tmp_path)

    @pytest.mark.parametrize("name", ["model.pt", "model.ckpt", "model.safetensors"])
    def test_pickle(self, tmp_path: Path, name: str) -> None:
        torch.save(SMALL.build(), tmp_path / name)
        with pytest.raises(InputError, match="path: expected a safetensors file.*pickled"):
            load(tmp_path / name)

    def test_cut_off(self, small: Path) -> None:
        small.write_bytes(small.read_bytes()[:-100])
        with pytest.raises(InputError, match="path: expected a safetensors file"):
            load(small)

    @pytest.mark.parametrize("foreign", [None, {"format": "pt"}])
    def test_foreign(self, tmp_path: Path, foreign: dict[str, str] | None) -> None:
        file = tmp_path / "model.safetensors"
        save_file(SMALL.build().state_dict(), file, foreign)
        with pytest.raises(InputError, match="written by holdfast.*without Holdfast's metadata"):
            load(file)

    def test_newer(self, small: Path) -> None:
        rewrite(small, holdfast_format="2")
        with pytest.raises(InputError, match="expected format 1 or older, got format 2.*update"):
            load(small)

    @pytest.mark.parametrize(
        "changes",
        [
            {"holdfast_format": "one"},
            {"architecture": "{"},
            {"architecture": "[]"},
            {"architecture": "{}"},
            {"architecture": '{"mean": null, "std": null, "name": "mnist_cnn", "colour": 1}'},
            {"architecture": '{"mean": null, "std": null, "name": "mnist_cnn", "size": "8"}'},
            {"classes": "7"},
        ],
    )
    @pytest.mark.usefixtures("own_errors")
    def test_damaged(self, small: Path, changes: dict[str, str]) -> None:
        rewrite(small, **changes)
        with pytest.raises(InputError, match="damaged metadata"):
            load(small)

    @pytest.mark.parametrize("wrong", [0, -1, 2.5, "8", True, [8], {}, 10**9, 2**70], ids=repr)
    @pytest.mark.parametrize("field", ["classes", "in_channels", "size"])
    def test_numbers_that_no_network_has(self, small: Path, field: str, wrong: Any) -> None:
        described = json.loads(metadata(small)["architecture"]) | {field: wrong}
        rewrite(small, architecture=json.dumps(described))
        with pytest.raises(InputError, match=rf"damaged metadata \(architecture\.{field} is"):
            load(small)

    @pytest.mark.parametrize(
        ("field", "wrong"),
        [
            *(("name", wrong) for wrong in ("", 7, None, "x" * 5_000, "a\0b", ["mnist_cnn"])),
            *(("mean", wrong) for wrong in ([], 0.5, ["0"], [1e300], [[0.5]], {"a": 1})),
            *(("std", wrong) for wrong in ([0.0], [-1.0], [True])),
            *(("standardize", wrong) for wrong in (1, "yes", None)),
            *(("options", wrong) for wrong in (None, [], "x", {"a": 10**12}, {"a": "x" * 20_000})),
            *(("config", wrong) for wrong in ([], "x", {"n": {"layers": 2**64}})),
            ("weights", 7),
        ],
    )
    def test_settings_of_another_kind(self, small: Path, field: str, wrong: Any) -> None:
        described = json.loads(metadata(small)["architecture"]) | {field: wrong}
        rewrite(small, architecture=json.dumps(described))
        with pytest.raises(InputError, match="damaged metadata|trust_code"):
            load(small)

    @pytest.mark.parametrize(
        "settings",
        [
            {"size": [8]},
            {"size": [8, 10**9]},
            {"size": [8, 8], "resize": 0},
            {"size": [8, 8], "mode": "stretch"},
            {"size": [8, 8], "interpolation": "__class__"},
            {"size": [8, 8], "channels": 2**40},
            {"size": [8, 8], "std": [0.0]},
            {"size": [8, 8], "colour": 1},
            {"mode": "crop"},
            [],
        ],
        ids=repr,
    )
    @pytest.mark.usefixtures("own_errors")
    def test_preprocessing_that_is_none(self, small: Path, settings: Any) -> None:
        rewrite(small, preprocessing=json.dumps(settings))
        with pytest.raises(InputError, match="damaged metadata|Preprocessing"):
            load(small)

    @pytest.mark.parametrize(
        "text",
        [
            "[" * 100_000,
            '{"a":' * 100_000,
            '{"name": "mnist_cnn", "mean": [NaN], "std": [1]}',
            '{"name": "mnist_cnn", "mean": [1e999], "std": [1]}',
            '{"name": "mnist_cnn", "name": "mlp"}',
            '{"name": "mnist_cnn", "size": ' + "9" * 5_000 + "}",
            '{"name": "mlp", "options": {"hidden": [' + "1," * 200_000 + "1]}}",
            '{"name": "mlp", "options": ' + '{"a":' * 30 + "1" + "}" * 31,
            "\x00",
            "",
        ],
        ids=lambda text: text[:30],
    )
    def test_json_beyond_all_bounds(self, small: Path, text: str) -> None:
        rewrite(small, architecture=text)
        with pytest.raises(InputError, match="damaged metadata") as error:
            load(small)
        assert len(str(error.value)) < 600

    @pytest.mark.parametrize(
        "classes",
        ['["cat"]', '["cat", "cat"]', '["cat", 7]', '["cat", ""]', "{}", '["a", "b", "c"]', "null"],
    )
    def test_class_names_that_are_none(self, small: Path, classes: str) -> None:
        rewrite(small, classes=classes)
        with pytest.raises(InputError, match="damaged metadata"):
            load(small)

    @pytest.mark.parametrize(
        ("name", "options"),
        [
            ("vgg16_gap", {"weights": "IMAGENET1K_V1"}),
            ("resnet18", {"weights": "IMAGENET1K_V1"}),
            ("timm:test_resnet", {"pretrained": True}),
            ("timm:test_resnet", {"pretrained_cfg": {"url": "http://localhost/x.pth"}}),
            ("timm:hf-hub:owner/name", {}),
            ("hf:owner/name", {}),
        ],
    )
    def test_starts_no_download(
        self, small: Path, name: str, options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def connect(*_: object) -> None:
            raise AssertionError("asks the network")

        monkeypatch.setattr(socket.socket, "connect", connect)
        monkeypatch.setattr(socket, "getaddrinfo", connect)
        rewrite(small, architecture=json.dumps({"name": name, "classes": 2, "options": options}))
        with pytest.raises(HoldfastError):
            load(small)

    @pytest.mark.parametrize(
        ("name", "options"),
        [
            ("mlp", {"hidden": [10_000_000, 10_000_000]}),
            ("wide_resnet", {"depth": 9_999_994, "width": 1}),
            ("wide_resnet", {"depth": 10, "width": 10_000_000}),
            ("small_resnet", {"units": 10_000_000}),
            ("torchvision:swin_v2_t", {"window_size": [20_000, 20_000]}),
            ("torchvision:vit_b_16", {"image_size": 8_000_000, "hidden_dim": 9_000_000}),
            ("torchvision:vit_b_16", {"num_layers": 10_000_000}),
            ("mnist_cnn", {"size": 1_000_000}),
            ("mnist_cnn", {"size": 0}),
            ("mnist_cnn", {"size": "8"}),
            ("mlp", {"hidden": [0]}),
            ("mlp", {"hidden": "abc"}),
            ("torchvision:resnet18", {"layers": "abc"}),
        ],
        ids=repr,
    )
    @pytest.mark.usefixtures("own_errors")
    def test_networks_that_are_not_to_be_built(
        self, small: Path, name: str, options: dict[str, Any]
    ) -> None:
        """Not even for a moment: 20,000² windows are more than any memory."""
        rewrite(small, architecture=json.dumps({"name": name, "classes": 2, "options": options}))
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        with pytest.raises(InputError):
            load(small)
        assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 500_000

    @pytest.mark.parametrize(
        "content",
        [
            b"",
            b"\0" * 8,
            (2**60).to_bytes(8, "little") + b"{}",
            (2).to_bytes(8, "little") + b"{}",
            (9).to_bytes(8, "little") + b'{"a": 1}\n',
            (10**5).to_bytes(8, "little") + b"[" * 10**5,
        ],
        ids=repr,
    )
    def test_no_safetensors(self, tmp_path: Path, content: bytes) -> None:
        (tmp_path / "model.safetensors").write_bytes(content[:200_000])
        with pytest.raises(InputError, match="a safetensors file|without Holdfast's metadata"):
            load(tmp_path)

    def test_a_loop_of_links_and_a_name_too_long(self, tmp_path: Path) -> None:
        (tmp_path / "model.safetensors").symlink_to("model.safetensors")
        for path in (tmp_path, tmp_path / "model.safetensors", "x" * 5_000, "a\0b"):
            with pytest.raises(InputError, match="path"):
                load(path)
            assert is_saved(path) == (path == tmp_path)

    @pytest.mark.parametrize(
        ("value", "says"),
        [
            (torch.full((2,), torch.nan), "finite numbers, got others in module.logits.bias"),
            (torch.tensor([0.0, torch.inf]), "finite numbers, got others in module.logits.bias"),
            (torch.tensor([1, 2]), "module.logits.bias of int64"),
            (torch.zeros(2, dtype=torch.float8_e4m3fn), "module.logits.bias of float8_e4m3fn"),
            (torch.zeros(2, dtype=torch.bool), "module.logits.bias of bool"),
            (torch.zeros(3), "module.logits.bias \\(3,\\) instead of \\(2,\\)"),
            (torch.zeros(()), "module.logits.bias \\(\\) instead of \\(2,\\)"),
        ],
        ids=repr,
    )
    def test_numbers_that_are_no_weights(self, small: Path, value: torch.Tensor, says: str) -> None:
        with safe_open(small, framework="pt") as opened:
            tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
            kept = opened.metadata()
        assert "module.logits.bias" in tensors
        save_file(tensors | {"module.logits.bias": value}, small, kept)
        with pytest.raises(InputError, match=says):
            load(small)

    def test_unknown_architecture(self, small: Path) -> None:
        rewrite(small, architecture=metadata(small)["architecture"].replace("mnist_cnn", "mnist"))
        with pytest.raises(InputError, match="Architecture.name: .*mnist_cnn.*got 'mnist'"):
            load(small)

    def test_shapes_that_do_not_fit(self, small: Path) -> None:
        described = metadata(small)["architecture"]
        rewrite(small, architecture=described.replace('"size": 8', '"size": 12'))
        message = r"of another shape: module.dense.weight \(1024, 256\) instead of \(1024, 576\)"
        with pytest.raises(InputError, match=message):
            load(small)

    def test_names_that_do_not_fit(self, small: Path) -> None:
        described = json.loads(metadata(small)["architecture"]) | {"mean": None, "std": None}
        rewrite(small, architecture=json.dumps(described))
        message = (
            "missing: conv1.weight, conv1.bias, conv2.weight and 5 more; unexpected: .*and 7 more$"
        )
        with pytest.raises(InputError, match=message):
            load(small)

    def test_code_is_not_trusted(self, tmp_path: Path) -> None:
        marker = tmp_path / "executed"
        architecture = Architecture("os:mkdir", options={"path": str(marker)})
        save(SMALL.build(), tmp_path, architecture=architecture, classes=NAMES)
        with pytest.raises(InputError, match="trust_code: .*'os:mkdir'"):
            load(tmp_path)
        assert not marker.exists()


@pytest.mark.parametrize("name", ["plain", "two.dots", "x.safetensors"])
def test_a_file_may_have_any_name(name, tmp_path):
    architecture = Architecture("mlp", classes=2, in_channels=1, size=4)
    model = architecture.build()
    save(model, tmp_path / name, architecture=architecture, classes=["a", "b"])
    assert is_saved(tmp_path / name)
    assert holdfast.load(tmp_path / name).classes == ("a", "b")
    (tmp_path / "other").write_bytes(b"no model")
    assert not is_saved(tmp_path / "other")
