import argparse

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from holdfast.contracts import InputError
from holdfast.models import Architecture, Normalized, classes_in
from holdfast.models.checkpoint import classes_of, fit, load_into, read_weights


def network(classes=3):
    return nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Flatten(), nn.Linear(8, classes))


def prefixed(state, prefix):
    return {prefix + key: value for key, value in state.items()}


STATE = network().state_dict()
EPOCH = {"epoch": 3, "lr": 0.1}


@pytest.mark.parametrize(
    "content",
    [
        STATE,
        {"state_dict": STATE, **EPOCH},
        {"model": STATE, "args": argparse.Namespace(lr=0.1), **EPOCH},
        {"model_state_dict": STATE, "optimizer_state_dict": {"state": {}}},
        {"state_dict": STATE, "state_dict_ema": {k: v * 0 for k, v in STATE.items()}},
        {"model_ema": STATE},
        {"state_dict": prefixed(STATE, "module.")},
        {"state_dict": prefixed(STATE, "model._orig_mod.")},
        {"model": {"state_dict": prefixed(STATE, "_orig_mod.module.")}},
        prefixed({**STATE, "total_ops": torch.zeros(1)}, "model."),
    ],
)
def test_common_layouts(content, tmp_path):
    torch.save(content, tmp_path / "w.pth")
    model = network()
    state, normal = fit(read_weights(tmp_path / "w.pth"), model.state_dict())
    load_into(model, state, origin="w.pth")
    assert normal is None
    assert all(torch.equal(value, STATE[key]) for key, value in model.state_dict().items())


def test_safetensors(tmp_path):
    save_file(STATE, tmp_path / "w.safetensors")
    assert read_weights(tmp_path / "w.safetensors").keys() == STATE.keys()


def test_the_normalization_around_a_network_is_read(tmp_path):
    whole = Normalized(network(), mean=(0.25,), std=(0.5,))
    state, normal = fit(whole.state_dict(), network().state_dict())
    assert state.keys() == STATE.keys()
    assert [values.flatten().tolist() for values in normal] == [[0.25], [0.5]]


class Evil:
    def __init__(self, file):
        self.file = file

    def __reduce__(self):
        return open, (self.file, "w")


@pytest.mark.parametrize("wrap", [lambda x: x, lambda x: {"state_dict": STATE, "hyper": x}])
def test_no_code_runs(wrap, tmp_path):
    torch.save(wrap(Evil(str(tmp_path / "ran"))), tmp_path / "w.pth")
    with pytest.raises(InputError, match="weights alone.*would run code to be read") as caught:
        read_weights(tmp_path / "w.pth")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "ran").exists()


def test_a_whole_module_is_refused(tmp_path):
    torch.save(network(), tmp_path / "w.pt")
    with pytest.raises(InputError, match="would run code to be read"):
        read_weights(tmp_path / "w.pt")


@pytest.mark.parametrize("content", [{"epoch": 3}, [1, 2], {}, {"state_dict": {}}])
def test_no_weights_inside(content, tmp_path):
    torch.save(content, tmp_path / "w.pth")
    with pytest.raises(InputError, match="expected tensors by their names"):
        read_weights(tmp_path / "w.pth")


@pytest.mark.parametrize("name", ["w.pth", "w.safetensors"])
def test_damaged(name, tmp_path):
    (tmp_path / name).write_bytes(b"no weights")
    with pytest.raises(InputError, match="weights: expected a"):
        read_weights(tmp_path / name)
    with pytest.raises(InputError, match="does not exist"):
        read_weights(tmp_path / f"other-{name}")


def test_classes_are_counted_in_the_weights():
    assert classes_of(network(5).state_dict(), STATE) == 5
    assert classes_of(STATE, STATE) is None
    wider = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(16, 5))
    assert classes_of(wider.state_dict(), STATE) is None


def test_only_a_last_layer_starts_anew():
    model, trained = network(7), network(3).state_dict()
    head = model[3].weight.clone()
    load_into(model, trained, origin="w", new_head=True)
    assert torch.equal(model[0].weight, trained["0.weight"])
    assert torch.equal(model[3].weight, head)
    with pytest.raises(InputError, match=r"w: .*of another shape: 3.weight \(3, 8\) instead of"):
        load_into(network(7), trained, origin="w")
    with pytest.raises(InputError, match=r"w: .*missing: 0.weight"):
        load_into(network(7), {"3.weight": torch.ones(3, 8)}, origin="w", new_head=True)


def test_auxiliary_heads_and_counters(tmp_path):
    plain = Architecture("googlenet", classes=2).build()
    state = {k: v for k, v in plain.state_dict().items() if "num_batches" not in k}
    torch.save({**state, "aux1.fc2.weight": torch.ones(2, 4)}, tmp_path / "g.pth")
    architecture = Architecture("googlenet", weights=str(tmp_path / "g.pth"))
    assert classes_in(architecture) == 2
