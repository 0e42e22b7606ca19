import math

import pytest
import torch
from torch import Tensor, nn
from torch.autograd import gradcheck, gradgradcheck
from torch.nn import functional as F
from torch.nn.attention import sdpa_kernel

from holdfast.models import double_backward, softplus

FUNCTIONS = {
    **{
        name: getattr(F, name)
        for name in [
            "celu",
            "elu",
            "gelu",
            "hardshrink",
            "hardsigmoid",
            "hardswish",
            "hardtanh",
            "leaky_relu",
            "logsigmoid",
            "mish",
            "relu",
            "relu6",
            "rrelu",
            "selu",
            "sigmoid",
            "silu",
            "softplus",
            "softshrink",
            "softsign",
            "tanh",
            "tanhshrink",
        ]
    },
    "gelu_tanh": lambda x: F.gelu(x, approximate="tanh"),
    "glu": lambda x: F.glu(x, 1),
    "prelu": lambda x: F.prelu(x, x.new_tensor([0.1, 0.2, 0.3, 0.4])),
    "threshold": lambda x: F.threshold(x, 0.1, 0.3),
    "softmax": lambda x: F.softmax(x, 1),
    "adaptive_avg_pool2d": lambda x: F.adaptive_avg_pool2d(x, 3),
    "adaptive_max_pool2d": lambda x: F.adaptive_max_pool2d(x, 3),
    "avg_pool2d": lambda x: F.avg_pool2d(x, 2),
    "lp_pool2d": lambda x: F.lp_pool2d(x, 2, 2),
    "max_pool2d": lambda x: F.max_pool2d(x, 2),
    "batch_norm": lambda x: F.batch_norm(x, None, None, training=True),
    "batch_norm_weight": lambda x: F.batch_norm(x, None, None, x[0, :, 0, 0], training=True),
    "group_norm": lambda x: F.group_norm(x, 2),
    "instance_norm": F.instance_norm,
    "layer_norm": lambda x: F.layer_norm(x, x.shape[1:]),
    "local_response_norm": lambda x: F.local_response_norm(x, 2),
    "normalize": F.normalize,
    "rms_norm": lambda x: F.rms_norm(x, x.shape[1:]),
    "cdist": lambda x: torch.cdist(x, x.flip(0) + 1),
    "conv_transpose2d": lambda x: F.conv_transpose2d(x, x.new_ones(4, 2, 3, 3)),
    "grid_sample": lambda x: F.grid_sample(x, x[:, :2].mT.tanh().transpose(1, 3)),
    "interpolate": lambda x: F.interpolate(x, size=5, mode="bilinear", antialias=True),
    "interpolate_bicubic": lambda x: F.interpolate(x, size=5, mode="bicubic"),
    "pixel_shuffle": lambda x: F.pixel_shuffle(x, 2),
    "pixel_unshuffle": lambda x: F.pixel_unshuffle(x, 2),
    "attention": lambda x: F.scaled_dot_product_attention(x, x, x),
    "causal_attention": lambda x: F.scaled_dot_product_attention(x, x, x, is_causal=True),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_whatever_classifiers_are_made_of_has_a_second_derivative(name):
    torch.manual_seed(0)
    x = torch.randn(2, 4, 4, 4, dtype=torch.float64, requires_grad=True)

    def function(x: Tensor) -> Tensor:
        with double_backward():
            return FUNCTIONS[name](x)

    assert gradcheck(function, (x,), fast_mode=True)
    assert gradgradcheck(function, (x,), fast_mode=True)


class OnAttention(nn.Module):
    def __init__(self, layer):
        super().__init__()
        self.layer, self.head = layer, nn.Linear(8, 3)

    def forward(self, images):
        tokens = images.flatten(2).mT
        if isinstance(self.layer, nn.MultiheadAttention):
            tokens = self.layer(tokens, tokens, tokens, need_weights=False)[0]
        else:
            tokens = self.layer(tokens)
        return self.head(tokens.mean(1))


class Plain(nn.Module):
    """What `nn.MultiheadAttention` computes, written out."""

    def __init__(self, layer):
        super().__init__()
        self.inner, self.outer, self.heads = layer.in_proj_weight, layer.out_proj, layer.num_heads

    def forward(self, tokens):
        q, k, v = (
            part.unflatten(2, (self.heads, -1)).transpose(1, 2)
            for part in (tokens @ self.inner.T).chunk(3, 2)
        )
        weights = (q @ k.mT / math.sqrt(q.shape[-1])).softmax(-1)
        return self.outer((weights @ v).transpose(1, 2).flatten(2))


def second(model, images):
    x = images.clone().requires_grad_(True)
    with double_backward():
        logits = model(x)
    (first,) = torch.autograd.grad(logits[:, 0].sum(), x, create_graph=True)
    return logits, first, torch.autograd.grad(first.square().sum(), x)[0]


@pytest.mark.parametrize("form", ["eager", "script", "export"])
def test_attention_equals_attention_written_out(form):
    torch.manual_seed(0)
    images = torch.randn(2, 8, 2, 3, dtype=torch.float64)
    layer = nn.MultiheadAttention(8, 2, batch_first=True, bias=False).double().eval()
    model = OnAttention(layer).double().eval()
    written = nn.Sequential(nn.Flatten(2), Transposed(), Plain(layer), Mean(), model.head)
    if form == "script":
        model = torch.jit.trace(model, images)
    elif form == "export":
        model = torch.export.export(model, (images,)).module()
    for ours, plain in zip(second(model, images), second(written, images), strict=True):
        assert torch.allclose(ours, plain, rtol=1e-9)


class Transposed(nn.Module):
    def forward(self, x):
        return x.mT


class Mean(nn.Module):
    def forward(self, x):
        return x.mean(1)


@pytest.mark.parametrize("frozen", [True, False])
def test_encoder_layers_leave_their_fast_path(frozen):
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(8, 2, 16, 0.1, "gelu", batch_first=True)
    encoder = nn.TransformerEncoder(layer, 2).double().eval().requires_grad_(not frozen)
    images = torch.randn(2, 8, 2, 3, dtype=torch.float64)
    model = OnAttention(encoder).double()
    *_, curvature = second(model, images)

    def gradient(x):
        return second(model, x)[1].square().sum()

    step = 1e-6 * torch.randn_like(images)
    change = (gradient(images + step) - gradient(images - step)) / 2
    assert torch.isclose(change, (curvature * step).sum(), rtol=1e-6)
    with torch.no_grad(), softplus(50.0), double_backward():  # as the gradient saw it
        assert torch.backends.mha.get_fastpath_enabled() is False


@pytest.mark.parametrize("module", [nn.LSTM, nn.GRU, nn.RNN])
def test_recurrent_layers(module):
    layer = module(3, 4, batch_first=True).double()
    x = torch.randn(2, 5, 3, dtype=torch.float64, requires_grad=True)

    def function(x):
        with double_backward():
            return layer(x)[0]

    assert gradgradcheck(function, (x,), fast_mode=True)


SPELLINGS = {
    "function": F.hardsigmoid,
    "module": nn.Hardsigmoid(),
    "inplace": lambda x: F.hardsigmoid(x.clone(), inplace=True),
    "inplace, the input used": lambda x: _used(x.clone()),
    "inplace module": lambda x: nn.Hardsigmoid(inplace=True)(x.clone()),
    "aten": torch.ops.aten.hardsigmoid.default,
    "aten, inplace": lambda x: torch.ops.aten.hardsigmoid_.default(x.clone()),
}


def _used(x):
    F.hardsigmoid(x, inplace=True)
    return x


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_hard_sigmoid_in_every_spelling(spelling):
    x = torch.tensor([-4.0, -3.0, -1.0, 0.0, 2.0, 3.0, 5.0], requires_grad=True)
    plain = F.hardsigmoid(x)
    (slope,) = torch.autograd.grad(plain.sum(), x)
    with double_backward():
        ours = SPELLINGS[spelling](x)
    (first,) = torch.autograd.grad(ours.pow(2).sum(), x, create_graph=True)
    assert torch.equal(ours, plain)
    assert torch.allclose(first, 2 * plain * slope)
    (curvature,) = torch.autograd.grad(first.sum(), x)
    assert torch.allclose(curvature, 2 * slope.square())


def test_leaves_settings_as_they_were():
    flags = (
        torch.backends.cuda.flash_sdp_enabled,
        torch.backends.cuda.mem_efficient_sdp_enabled,
        torch.backends.cuda.math_sdp_enabled,
        torch.backends.mha.get_fastpath_enabled,
    )
    before = [flag() for flag in flags]
    mode = double_backward()
    with mode, double_backward():
        assert [flag() for flag in flags] == [False, False, True, False]
    assert [flag() for flag in flags] == before
    with pytest.raises(ZeroDivisionError), double_backward():
        raise ZeroDivisionError
    assert [flag() for flag in flags] == before
    with mode, mode:  # twice the same, one in the other
        pass
    assert [flag() for flag in flags] == before
    with sdpa_kernel(torch.nn.attention.SDPBackend.FLASH_ATTENTION):
        with double_backward():
            pass
        assert torch.backends.cuda.flash_sdp_enabled()
        assert not torch.backends.cuda.math_sdp_enabled()


def test_exported_programs_are_reached():
    """An exported batch-norm and convolution have the second derivative of the module itself."""
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(1, 2, 3),
        nn.BatchNorm2d(2),
        nn.Tanh(),
        nn.Hardsigmoid(),
        nn.Flatten(),
        nn.Linear(8, 2),
    ).double()
    model(torch.randn(8, 1, 4, 4, dtype=torch.float64))  # running statistics
    images = torch.randn(2, 1, 4, 4, dtype=torch.float64)
    program = torch.export.export(model.eval(), (images,)).module()
    for ours, plain in zip(second(program, images), second(model, images), strict=True):
        assert torch.allclose(ours, plain, rtol=1e-9)
