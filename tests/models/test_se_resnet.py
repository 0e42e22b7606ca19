import pytest
import timm
import torch
from torch import nn

from holdfast.contracts import InputError
from holdfast.models import last_convolution, resnet50_se


@pytest.fixture(scope="module")
def model() -> nn.Module:
    torch.manual_seed(0)
    return resnet50_se(classes=5).eval()


def test_it_is_timms_network_with_a_finer_last_stage(model: nn.Module) -> None:
    """With timm's own stride put back, the logits are timm's."""
    theirs = timm.create_model("seresnet50", num_classes=5).eval()
    theirs.load_state_dict(model.state_dict())
    images = torch.rand(2, 3, 64, 48)
    with torch.no_grad():
        assert theirs.forward_features(images).shape[2:] == (2, 2)
        assert not torch.allclose(theirs(images), model(images))
        block = theirs.layer4[0]
        for conv in (block.conv2, block.downsample[0]):
            conv.stride = (1, 1)
        torch.testing.assert_close(model(images), theirs(images), rtol=1e-4, atol=1e-4)
        assert theirs.forward_features(images).shape[2:] == (4, 3)


def test_no_relu_is_in_place(model: nn.Module) -> None:
    assert not any(m.inplace for m in model.modules() if isinstance(m, nn.ReLU))
    assert last_convolution(model, torch.rand(1, 3, 32, 32)).startswith("layer4")


def test_channels() -> None:
    with torch.device("meta"):
        assert resnet50_se(3, in_channels=1).conv1.weight.shape == (64, 1, 7, 7)
    with pytest.raises(InputError, match="in_channels: expected 3"):
        resnet50_se(3, in_channels=1, weights="a1_in1k")


def test_trained_weights_are_timms(monkeypatch: pytest.MonkeyPatch) -> None:
    from holdfast.models import se_resnet

    asked = {}

    def build(name: str, **settings: object) -> nn.Module:
        asked.update(settings, name=name)
        return timm.create_model("seresnet50", num_classes=4)

    monkeypatch.setattr(se_resnet.timm_models, "build", build)
    model = resnet50_se(4, weights="a1_in1k")
    assert (asked["name"], asked["weights"], asked["pretrained"]) == ("seresnet50", "a1_in1k", True)
    assert model.fc.out_features == 4
