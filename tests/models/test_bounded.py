import pytest
import torch
from torch import nn

from holdfast.contracts import HoldfastError, InputError
from holdfast.models import Architecture
from holdfast.models.bounded import build_within


@pytest.mark.parametrize("name", ["mlp", "wrn_40_2", "torchvision:swin_t", "timm:test_vit"])
def test_builds_what_the_tensors_are_of(name):
    architecture = Architecture(name, classes=3, in_channels=3, size=32)
    state = architecture.build(pretrained=False).state_dict()
    built = build_within(architecture, state)
    built.load_state_dict(state)
    assert all(tensor.device.type == "cpu" for tensor in built.state_dict().values())


class LooksAtItsNumbers(nn.Linear):
    """Cannot be built without memory, as some networks cannot."""

    def __init__(self, side: int) -> None:
        super().__init__(side, 2)
        self.mean = self.weight.mean().item()


@pytest.mark.parametrize(("side", "fits"), [(8, True), (2**31, False)])
def test_bounds_what_must_be_built_with_memory(side, fits, monkeypatch):
    import holdfast.models.build as build

    monkeypatch.setitem(build._OURS, "looking", lambda side: LooksAtItsNumbers(side))
    architecture = Architecture("looking", options={"side": side})
    state = {"weight": torch.zeros(2, 8), "bias": torch.zeros(2)}
    if fits:
        assert isinstance(build_within(architecture, state), LooksAtItsNumbers)
        return
    with pytest.raises(InputError, match="a network without end"):
        build_within(architecture, state)


def test_any_fault_of_building_is_one_line(monkeypatch):
    import holdfast.models.build as build

    def fail():
        raise RecursionError("deep\nand deeper")

    monkeypatch.setitem(build._OURS, "failing", fail)
    with pytest.raises(HoldfastError, match=r"cannot be built \(RecursionError: deep"):
        build_within(Architecture("failing"), {}, "path x")
