from pathlib import Path

import pytest
import torch
import torchvision
from captum.attr import GuidedBackprop
from torch import nn

from holdfast.attributions import CAM
from holdfast.contracts import InputError
from holdfast.models import Architecture, last_convolution, vgg16_gap


@pytest.fixture(scope="module")
def model() -> nn.Module:
    return vgg16_gap(classes=5).eval()


def test_forward_is_vgg_up_to_its_last_pooling_and_an_average(model: nn.Module) -> None:
    with torch.device("meta"):
        theirs = torchvision.models.vgg16().features[:-1]
    theirs.load_state_dict(model.features.state_dict(), assign=True)
    images = torch.rand(2, 3, 48, 32)
    features = theirs(images)
    assert features.shape == (2, 512, 3, 2)
    features = model.conv6(features).clamp(min=0)
    assert features.shape == (2, 1024, 3, 2)
    expected = features.mean((2, 3)) @ model.logits.weight.T + model.logits.bias
    torch.testing.assert_close(model(images), expected)


def test_a_class_activation_map_is_defined(model: nn.Module) -> None:
    images = torch.rand(2, 3, 32, 32)
    assert last_convolution(model, images) == "relu6"
    assert CAM()(model, images, torch.tensor([0, 4])).shape == images.shape


def test_no_relu_is_in_place(model: nn.Module) -> None:
    assert not any(m.inplace for m in model.modules() if isinstance(m, nn.ReLU))
    maps = GuidedBackprop(model).attribute(torch.rand(1, 3, 16, 16), target=0)
    assert maps.abs().max() > 0


def test_channels() -> None:
    assert vgg16_gap(3, in_channels=1)(torch.rand(1, 1, 16, 16)).shape == (1, 3)


class TestWeights:
    @pytest.fixture
    def published(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, torch.Tensor]:
        """Weights in torch's own download folder, so that nothing is downloaded."""
        monkeypatch.setenv("TORCH_HOME", str(tmp_path))
        with torch.device("meta"):
            shapes = torchvision.models.vgg16().features.state_dict()
        state = {f"features.{name}": torch.rand(t.shape) for name, t in shapes.items()}
        file = Path(torchvision.models.VGG16_Weights.IMAGENET1K_V1.url).name
        (tmp_path / "hub" / "checkpoints").mkdir(parents=True)
        torch.save(
            state | {"classifier.0.bias": torch.rand(3)}, tmp_path / "hub/checkpoints" / file
        )
        return state

    def test_of_the_convolutions_are_those_published(
        self, published: dict[str, torch.Tensor]
    ) -> None:
        architecture = Architecture("vgg16_gap", classes=7, weights="IMAGENET1K_V1")
        state = architecture.build().state_dict()
        assert all(torch.equal(state[name], tensor) for name, tensor in published.items())
        assert state["logits.weight"].shape == (7, 1024)
        fresh = architecture.build(pretrained=False).state_dict()
        assert not torch.equal(fresh["features.0.weight"], published["features.0.weight"])

    def test_unknown(self) -> None:
        with pytest.raises(InputError, match="weights: expected one of IMAGENET1K_V1.*got NONE"):
            vgg16_gap(weights="NONE")

    def test_for_grey_images(self) -> None:
        with pytest.raises(InputError, match="in_channels: expected 3"):
            vgg16_gap(in_channels=1, weights="IMAGENET1K_V1")
