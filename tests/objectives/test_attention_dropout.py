import pytest
import torch
from torch import nn

from holdfast.contracts import InputError
from holdfast.objectives import AttentionDropout


@pytest.fixture
def model():
    return nn.Sequential(
        nn.Conv2d(2, 3, 3), nn.ReLU(inplace=True), nn.Flatten(), nn.Linear(27, 4)
    ).double()


def naive_loss(model, images, labels, mask, threshold):
    """The loss with the layer written out, feature by feature."""
    total = 0.0
    for image, y in zip(images, labels, strict=True):
        features = torch.relu(model[0](image[None])[0])
        attention = sum(features[f] for f in range(3)) / 3
        most = attention.max()
        factors = []
        for a in attention.flatten():
            if mask:
                factors.append(torch.ones_like(a) if a < threshold * most else torch.zeros_like(a))
            else:
                factors.append(1 / (1 + torch.exp(-a)))
        seen = features * torch.stack(factors).view(3, 3)
        logits = model[3](seen.flatten())
        total = total - logits.log_softmax(0)[y] / 3
    return total


@pytest.mark.parametrize(("drop_rate", "mask"), [(1.0, True), (0.0, False)])
@pytest.mark.parametrize("threshold", [0.5, 0.9])
@pytest.mark.parametrize("layers", [("1",), ()])
def test_equals_the_naive_computation(
    model, images, labels, drop_rate, mask, threshold, layers, same_gradients
):
    objective = AttentionDropout(layers, drop_rate, threshold)
    ours = objective(model, {"images": images, "labels": labels})["loss"]
    naive = naive_loss(model, images, labels, mask, threshold)
    assert ours.item() == pytest.approx(naive.item(), rel=1e-10)
    same_gradients(model, ours, naive)


def test_drops_the_part_that_tells_most(model, images, labels):
    seen = []
    handle = model[2].register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    objective = AttentionDropout(("1",), drop_rate=1.0, threshold=0.9)
    objective(model, {"images": images, "labels": labels})
    handle.remove()
    attention = torch.relu(model[0](images)).mean(1).flatten(1)
    dropped = (seen[0] == 0).all(1).flatten(1)
    assert dropped.gather(1, attention.argmax(1, keepdim=True)).all()
    assert not dropped.all(1).any()


def test_a_coin_decides(model, images, labels):
    losses = {m: naive_loss(model, images, labels, m, 0.9).item() for m in (True, False)}
    objective = AttentionDropout(("1",), drop_rate=0.75)
    batch = {"images": images, "labels": labels}
    found = [objective(model, batch)["loss"].item() for _ in range(200)]
    dropped = [loss == pytest.approx(losses[True]) for loss in found]
    weighed = [loss == pytest.approx(losses[False]) for loss in found]
    assert all(a != b for a, b in zip(dropped, weighed, strict=True))
    assert abs(sum(dropped) - 150) < 5 * (200 * 0.75 * 0.25) ** 0.5


def test_leaves_no_hook_and_no_layer_in_eval_mode_changed(model, images, labels):
    batch = {"images": images, "labels": labels}
    AttentionDropout()(model, batch)
    assert not any(module._forward_hooks for module in model.modules())
    plain = -model(images).log_softmax(1)[torch.arange(3), labels].mean()
    assert AttentionDropout()(model.eval(), batch)["loss"].item() == pytest.approx(plain.item())


def test_several_layers(model, images, labels):
    """Each layer changes what it gives itself, after the one before has."""
    with torch.no_grad():
        model[0].weight.zero_()
        model[0].bias.copy_(torch.tensor([1.0, -1.0, 0.0]))
    seen = []
    handle = model[2].register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    objective = AttentionDropout(("0", "1"), drop_rate=0.0)
    objective(model, {"images": images, "labels": labels})
    handle.remove()
    # Of 1, −1, 0 the mean is 0; of what ReLU leaves of their halves, 1/6.
    expected = 0.5 / (1 + torch.exp(torch.tensor(-1 / 6)))
    assert seen[0][0, 0, 0, 0].item() == pytest.approx(expected.item(), rel=1e-6)


@pytest.mark.parametrize(
    ("layer", "says"),
    [
        ("head", "layers: expected submodules, in one of 0, 1, 2, 3, got 'head'"),
        ("3", r"layers: expected layers that give feature maps"),
    ],
)
def test_refuses_layers(model, images, labels, layer, says):
    with pytest.raises(InputError, match=says):
        AttentionDropout((layer,))(model, {"images": images, "labels": labels})
    assert not any(module._forward_hooks for module in model.modules())


def test_refuses_a_layer_that_does_not_run(model, images, labels):
    model.spare = nn.Conv2d(1, 1, 1)
    model.forward = lambda x: model[3](model[2](model[1](model[0](x))))
    with pytest.raises(InputError, match="'spare', which does not run"):
        AttentionDropout(("spare",))(model, {"images": images, "labels": labels})


@pytest.mark.parametrize("field", ["drop_rate", "threshold"])
def test_refuses_settings(field, own_errors):
    with pytest.raises(InputError, match=f"AttentionDropout.{field}"):
        AttentionDropout(**{field: 1.5})


def test_needs_a_convolution(images, labels):
    dense = nn.Sequential(nn.Flatten(), nn.Linear(50, 4)).double()
    with pytest.raises(InputError, match="a classifier with a convolution"):
        AttentionDropout()(dense, {"images": images, "labels": labels})
