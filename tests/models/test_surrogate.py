import math
import threading
import warnings

import pytest
import torch
import torchvision
from torch import nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from holdfast.contracts import InputError
from holdfast.models import softplus

aten = torch.ops.aten
kernels = torch._C._nn


class Within(nn.Module):
    """A module whose forward pass is that function."""

    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function(x)


# The smooth reference, written out: z a float64 tensor, b the sharpness.


def sp(z, b):
    return torch.logaddexp(b * z, torch.zeros_like(z)) / b


def step(z, b):
    return 1 / (1 + torch.exp(-b * z))


def clamp(z, b, low, high):
    return low + sp(z - low, b) - sp(z - high, b)


def hardsigmoid(z, b):
    return (sp(z + 3, b) - sp(z - 3, b)) / 6


def shrink(z, b, width=0.5):
    return sp(z - width, b) - sp(-z - width, b)


def elu(z, b, alpha=1.0, scale=1.0, inner=1.0):
    return scale * (sp(z, b) + alpha * (torch.exp(-inner * sp(-z, b)) - 1))


ALPHA, SCALE = 1.6732632423543772, 1.0507009873554805  # SELU's
SLOPES = torch.tensor([0.25], dtype=torch.float64)
HALF = torch.tensor(0.5, dtype=torch.float64)
LOW = torch.linspace(-0.5, 0.1, 41, dtype=torch.float64)
OTHER = torch.linspace(0.4, -0.6, 41, dtype=torch.float64)
kept = {"inplace": True}

# Function: its smooth form, and each way to write it.
FUNCTIONS = {
    "relu": (
        sp,
        [
            F.relu,
            lambda z: F.relu(z, inplace=True),
            torch.relu,
            torch.relu_,
            F.relu_,
            lambda z: z.relu(),
            lambda z: z.relu_(),
            nn.ReLU(),
            nn.ReLU(inplace=True),
            aten.relu,
            aten.relu.default,
            aten.relu_,
            aten.relu_.default,
        ],
    ),
    "relu6": (
        lambda z, b: sp(z, b) - sp(z - 6, b),
        [
            F.relu6,
            lambda z: F.relu6(z, inplace=True),
            lambda z: F.relu6(z, True),
            nn.ReLU6(),
            nn.ReLU6(inplace=True),
            kernels.relu6,
            aten.relu6,
            aten.relu6.default,
        ],
    ),
    "leaky_relu": (
        lambda z, b: 0.2 * z + 0.8 * sp(z, b),
        [
            lambda z: F.leaky_relu(z, 0.2),
            lambda z: F.leaky_relu(z, 0.2, True),
            lambda z: F.leaky_relu_(z, 0.2),
            nn.LeakyReLU(0.2),
            nn.LeakyReLU(0.2, inplace=True),
            lambda z: F.leaky_relu(z, negative_slope=0.2),
            lambda z: kernels.leaky_relu(z, 0.2),
            lambda z: aten.leaky_relu.default(z, 0.2),
            lambda z: aten.leaky_relu_(z, 0.2),
        ],
    ),
    "leaky_relu, default": (
        lambda z, b: 0.01 * z + 0.99 * sp(z, b),
        [F.leaky_relu, nn.LeakyReLU(), aten.leaky_relu.default],
    ),
    "prelu": (
        lambda z, b: 0.25 * z + 0.75 * sp(z, b),
        [
            lambda z: F.prelu(z, SLOPES),
            lambda z: torch.prelu(z, SLOPES),
            lambda z: z.prelu(SLOPES),
            nn.PReLU().double(),
            lambda z: aten.prelu.default(z, SLOPES),
        ],
    ),
    "rrelu": (
        lambda z, b: 0.3 * z + 0.7 * sp(z, b),
        [
            lambda z: F.rrelu(z, 0.2, 0.4),
            lambda z: torch.rrelu(z, 0.2, 0.4),
            nn.RReLU(0.2, 0.4),
            lambda z: F.rrelu_(z, 0.2, 0.4),
            lambda z: F.rrelu(z, 0.2, 0.4, False, True),
            lambda z: aten.rrelu.default(z, 0.2, 0.4),
            nn.RReLU(0.2, 0.4, inplace=True),
        ],
    ),
    "hardtanh": (
        lambda z, b: clamp(z, b, -1, 1),
        [
            F.hardtanh,
            lambda z: F.hardtanh(z, inplace=True),
            F.hardtanh_,
            nn.Hardtanh(),
            nn.Hardtanh(inplace=True),
            kernels.hardtanh,
            aten.hardtanh.default,
            aten.hardtanh_,
        ],
    ),
    "hardtanh, other bounds": (
        lambda z, b: clamp(z, b, -0.5, 2),
        [
            nn.Hardtanh(-0.5, 2),
            lambda z: F.hardtanh(z, max_val=2, min_val=-0.5),
            lambda z: F.hardtanh(z, -0.5, 2, True),
            lambda z: aten.hardtanh.default(z, -0.5, 2),
        ],
    ),
    "threshold": (
        lambda z, b: 0.7 + sp(z - 0.5, b) - 0.2 * step(z - 0.5, b),
        [
            lambda z: F.threshold(z, 0.5, 0.7),
            lambda z: torch.threshold(z, 0.5, 0.7),
            lambda z: F.threshold(z, 0.5, 0.7, True),
            lambda z: F.threshold_(z, 0.5, 0.7),
            nn.Threshold(0.5, 0.7),
            nn.Threshold(0.5, 0.7, inplace=True),
            lambda z: torch.threshold_(z, 0.5, 0.7),
            lambda z: aten.threshold.default(z, 0.5, 0.7),
        ],
    ),
    "threshold without a jump": (
        lambda z, b: 0.5 + sp(z - 0.5, b),
        [nn.Threshold(0.5, 0.5), lambda z: F.threshold(z, threshold=0.5, value=0.5)],
    ),
    "hardsigmoid": (
        hardsigmoid,
        [
            F.hardsigmoid,
            lambda z: F.hardsigmoid(z, inplace=True),
            nn.Hardsigmoid(),
            nn.Hardsigmoid(inplace=True),
            kernels.hardsigmoid,
            aten.hardsigmoid.default,
            lambda z: F.relu6(z + 3) / 6,
            aten.hardsigmoid_,
        ],
    ),
    "hardswish": (
        lambda z, b: z * hardsigmoid(z, b),
        [
            F.hardswish,
            lambda z: F.hardswish(z, inplace=True),
            nn.Hardswish(),
            nn.Hardswish(inplace=True),
            kernels.hardswish,
            aten.hardswish.default,
            aten.hardswish_,
        ],
    ),
    "softshrink": (
        shrink,
        [F.softshrink, nn.Softshrink(), kernels.softshrink, aten.softshrink.default],
    ),
    "softshrink, other width": (
        lambda z, b: shrink(z, b, 1.5),
        [lambda z: F.softshrink(z, 1.5), nn.Softshrink(1.5), lambda z: F.softshrink(z, lambd=1.5)],
    ),
    "hardshrink": (
        lambda z, b: shrink(z, b) + 0.5 * (step(z - 0.5, b) - step(-z - 0.5, b)),
        [
            F.hardshrink,
            torch.hardshrink,
            lambda z: z.hardshrink(),
            nn.Hardshrink(),
            lambda z: F.hardshrink(z, lambd=0.5),
            aten.hardshrink.default,
        ],
    ),
    "elu": (
        lambda z, b: elu(z, b, 0.7),
        [
            lambda z: F.elu(z, 0.7),
            lambda z: F.elu(z, 0.7, True),
            lambda z: F.elu_(z, 0.7),
            nn.ELU(0.7),
            nn.ELU(0.7, inplace=True),
            lambda z: aten.elu.default(z, 0.7),
        ],
    ),
    "elu, default": (elu, [F.elu, nn.ELU(), F.elu_, aten.elu.default, kernels.elu]),
    "elu with scales": (
        lambda z, b: elu(z, b, 0.7, 1.5, 2.0),
        [lambda z: aten.elu.default(z, 0.7, 1.5, 2.0), lambda z: F.elu_(z, 0.7, 1.5, 2.0)],
    ),
    "selu": (
        lambda z, b: elu(z, b, ALPHA, SCALE),
        [
            F.selu,
            lambda z: F.selu(z, inplace=True),
            torch.selu,
            torch.selu_,
            F.selu_,
            nn.SELU(),
            nn.SELU(inplace=True),
            aten.selu.default,
        ],
    ),
    "celu": (
        lambda z, b: elu(z, b, 2.0, 1.0, 0.5),
        [
            lambda z: F.celu(z, 2.0),
            lambda z: F.celu(z, 2.0, True),
            lambda z: torch.celu(z, 2.0),
            lambda z: torch.celu_(z, 2.0),
            lambda z: F.celu_(z, 2.0),
            nn.CELU(2.0),
            nn.CELU(2.0, inplace=True),
            lambda z: aten.celu.default(z, 2.0),
        ],
    ),
}
# Likewise those that are activations within a module only.
AMBIGUOUS = {
    "abs": (
        lambda z, b: sp(z, b) + sp(-z, b),
        [
            torch.abs,
            torch.absolute,
            abs,
            lambda z: z.abs(),
            lambda z: z.absolute(),
            torch.abs_,
            lambda z: z.abs_(),
            lambda z: z.absolute_(),
            aten.abs.default,
        ],
    ),
    "clamp": (
        lambda z, b: clamp(z, b, -0.5, 0.5),
        [
            lambda z: z.clamp(-0.5, 0.5),
            lambda z: torch.clamp(z, -0.5, 0.5),
            lambda z: torch.clamp(z, max=0.5, min=-0.5),
            lambda z: z.clip(-0.5, max=0.5),
            lambda z: torch.clip(z, -0.5, 0.5),
            lambda z: z.clamp_(-0.5, 0.5),
            lambda z: torch.clamp_(z, -0.5, 0.5),
            lambda z: z.clip_(-0.5, 0.5),
            lambda z: torch.clip_(z, -0.5, 0.5),
            lambda z: z.clamp(-HALF, HALF),
            lambda z: z.clamp(-HALF.expand(41), HALF.expand(41)),
            lambda z: z.clamp(-HALF, HALF.expand(41)),
            lambda z: aten.clip.default(z, -0.5, 0.5),
            lambda z: aten.clamp.default(z, -0.5, 0.5),
            lambda z: aten.clamp.Tensor(z, -HALF, HALF),
        ],
    ),
    "clamp from 0": (
        sp,
        [
            lambda z: z.clamp(0),
            lambda z: z.clamp(min=0.0),
            lambda z: torch.clamp(z, min=0),
            lambda z: z.clamp_min(0),
            lambda z: torch.clamp_min(z, 0),
            lambda z: z.clamp_(min=0),
            lambda z: z.clamp_min_(0),
            lambda z: torch.clamp_min_(z, 0),
            lambda z: z.clip(0),
            lambda z: torch.maximum(z, torch.zeros(())),
            lambda z: z.max(torch.zeros(())),
            lambda z: torch.maximum(torch.zeros_like(z), z),
            lambda z: torch.max(z, z * 0),
            lambda z: torch.fmax(z, torch.zeros(1)),
            lambda z: z.fmax(torch.zeros(())),
            lambda z: torch.max(torch.zeros(()), z),
            lambda z: z.maximum(torch.zeros(())),
            lambda z: aten.clamp_min.default(z, 0),
            lambda z: aten.maximum(z, torch.zeros(())),
            lambda z: z.max(other=torch.zeros(())),
            lambda z: -torch.minimum(-z, torch.zeros(())),
        ],
    ),
    "clamp to 0.5": (
        lambda z, b: 0.5 - sp(0.5 - z, b),
        [
            lambda z: z.clamp(max=0.5),
            lambda z: torch.clamp_max(z, 0.5),
            lambda z: z.clamp_max(0.5),
            lambda z: z.clamp_max_(0.5),
            lambda z: torch.minimum(z, HALF),
            lambda z: z.min(HALF),
            lambda z: torch.fmin(z, HALF),
            lambda z: torch.clamp(z, None, 0.5),
            lambda z: z.clamp(max=HALF),
            lambda z: torch.min(HALF, z),
            lambda z: z.minimum(HALF),
        ],
    ),
    "maximum": (
        lambda z, b: OTHER + sp(z - OTHER, b),
        [
            lambda z: torch.maximum(z, OTHER),
            lambda z: torch.max(OTHER, z),
            lambda z: z.max(OTHER),
            lambda z: torch.fmax(z, OTHER),
            lambda z: z.clamp(min=OTHER),
            lambda z: z.clamp(OTHER),
            lambda z: aten.max.other(z, OTHER),
            lambda z: -torch.minimum(-z, -OTHER),
        ],
    ),
    "minimum": (
        lambda z, b: OTHER - sp(OTHER - z, b),
        [
            lambda z: torch.minimum(z, OTHER),
            lambda z: torch.min(OTHER, z),
            lambda z: z.min(OTHER),
            lambda z: torch.fmin(z, OTHER),
            lambda z: z.clamp(max=OTHER),
            lambda z: z.fmin(OTHER),
        ],
    ),
}


EVERY = FUNCTIONS | AMBIGUOUS


def evaluated(form):
    form = form.eval() if isinstance(form, nn.Module) else form
    return lambda z: form(z * 1)


def wide(beta):
    """Reach all kinks of all functions, and further than softplus is curved."""
    return torch.linspace(-7.0, 7.0, 41, dtype=torch.float64).mul(1 if beta > 1 else 0.3)


def derivatives(function, z):
    z = z.clone().requires_grad_(True)
    value = function(z)
    (first,) = torch.autograd.grad(value.sum(), z, create_graph=True)
    (second,) = torch.autograd.grad(first.sum(), z)
    return value, first, second


@pytest.mark.parametrize("beta", [0.8, 10.0])
@pytest.mark.parametrize("name", EVERY)
def test_value_and_two_derivatives_are_the_reference_s(name, beta):
    reference, forms = EVERY[name]
    for z in (wide(beta), torch.linspace(-1.0, 1.0, 41, dtype=torch.float64)):
        expected = derivatives(lambda z: reference(z, beta), z)
        for number, form in enumerate(forms):
            model = Within(evaluated(form))
            with softplus(beta) as surrogate:
                ours = derivatives(model, z)
                with torch.no_grad():
                    plain = model(z)
            assert surrogate.replaced, number
            for mine, theirs in zip(ours, expected, strict=True):
                assert torch.allclose(mine, theirs, atol=1e-9, rtol=1e-9), number
            assert torch.equal(plain, ours[0]), number


@pytest.mark.parametrize("name", EVERY)
def test_tends_to_the_original_and_is_it_again_after_the_block(name):
    z = torch.linspace(-7.0, 7.0, 41, dtype=torch.float64) + 0.013  # no kink and no jump
    for number, form in enumerate(EVERY[name][1]):
        model = Within(evaluated(form))
        exact = model(z)
        off = []
        for beta in (50.0, 500.0, 5000.0):
            with softplus(beta), torch.no_grad():
                off.append((model(z) - exact).abs().max().item())
        assert off[0] >= off[1] >= off[2], number
        assert off[0] < 0.2, number
        assert off[2] < 1e-9, number
        assert torch.equal(model(z), exact), number


@pytest.mark.parametrize("name", EVERY)
def test_is_off_by_no_more_than_a_constant_over_beta_at_kinks(name):
    form = EVERY[name][1][0]
    if name in ("threshold", "hardshrink"):
        return  # at a jump no continuous function is near
    z = torch.linspace(-7.0, 7.0, 2801, dtype=torch.float64)
    if name in ("maximum", "minimum"):
        z, other = z[::70][:41], OTHER
        form = torch.maximum if name == "maximum" else torch.minimum
        form = (lambda f: lambda z: f(z, other))(form)
    exact = form(z.clone())
    for beta in (50.0, 500.0, 5000.0):
        with softplus(beta), torch.no_grad():
            off = (Within(form)(z.clone()) - exact).abs().max().item()
        assert off <= 2 * math.log(2) / beta


def in_place_forms():
    return [
        *[
            lambda z: F.relu(z, inplace=True),
            torch.relu_,
            lambda z: z.relu_(),
            nn.ReLU(inplace=True),
        ],
        *[nn.ReLU6(True), nn.LeakyReLU(inplace=True), F.leaky_relu_, nn.RReLU(inplace=True).eval()],
        *[nn.Hardtanh(inplace=True), F.hardtanh_, nn.Threshold(0.1, 0.3, True), nn.Hardswish(True)],
        *[nn.Hardsigmoid(True), nn.ELU(inplace=True), nn.SELU(True), nn.CELU(inplace=True), F.elu_],
        *[lambda z: z.clamp_(0, 1), lambda z: z.abs_(), lambda z: z.clip_(-0.5), torch.abs_],
        *[lambda z: z.clamp_min_(0.5), lambda z: z.clamp_max_(-0.5), aten.relu_.default],
    ]


@pytest.mark.parametrize("form", in_place_forms())
def test_in_place_forms_overwrite_their_input(form):
    seen = {}

    def forward(x):
        z = x * 1
        seen["returned"], seen["z"] = form(z), z
        return z.square()  # what the form returned is dropped

    x = torch.linspace(-2, 2, 9).view(3, 3)
    with softplus(beta=5.0):
        value, _, second = derivatives(Within(forward), x)
    assert seen["returned"] is seen["z"]
    assert second.abs().max() > 0
    assert not torch.equal(value, form(x.clone()).square())


def test_relu_is_bit_for_bit_softplus():
    z = torch.randn(1000) * 3
    slope = torch.sigmoid(50.0 * z)
    with softplus(50.0):
        value, first, _ = derivatives(torch.relu, z)
    assert torch.equal(value, F.softplus(z, beta=50.0))
    assert torch.equal(first, slope)


def test_random_slopes_of_rrelu_in_training_are_kept():
    z = torch.linspace(-3, 3, 40, dtype=torch.float64) + 0.01
    torch.manual_seed(3)
    exact = F.rrelu(z, 0.1, 0.9, training=True)
    torch.manual_seed(3)
    with softplus(5000.0) as surrogate:
        drawn = F.rrelu(z, 0.1, 0.9, training=True)
    assert torch.allclose(drawn, exact, atol=1e-9)
    assert surrogate.replaced["rrelu"] == 1
    assert len((drawn / z)[:20].round(decimals=6).unique()) == 20


def test_learned_slopes_and_bounds_have_their_gradients():
    z = torch.randn(2, 4, 2, dtype=torch.float64)
    slopes = torch.rand(4, dtype=torch.float64, requires_grad=True)
    low = torch.rand(1, 4, 1, dtype=torch.float64, requires_grad=True)

    def smooth_prelu(slopes):
        with softplus(3.0):
            return F.prelu(z, slopes)

    def smooth_maximum(low):
        with softplus(3.0):
            return Within(lambda z: torch.clamp(z, min=low))(z)

    assert torch.autograd.gradcheck(smooth_prelu, slopes)
    assert torch.autograd.gradgradcheck(smooth_maximum, low)
    expected = low + sp(z - low, 3.0)
    assert torch.allclose(smooth_maximum(low), expected)


def test_every_activation_module_of_torch_is_accounted_for():
    smooth = {"Sigmoid", "Tanh", "SiLU", "Mish", "GLU", "GELU", "LogSigmoid", "Softplus"}
    smooth |= {"Softsign", "Tanhshrink", "Softmin", "Softmax", "Softmax2d", "LogSoftmax"}
    smooth |= {"MultiheadAttention"}
    replaced = set()
    z = torch.linspace(-2, 2, 24).view(1, 2, 3, 4)
    for name in nn.modules.activation.__all__:
        if name == "MultiheadAttention":
            continue
        module = getattr(nn, name)(*{"Threshold": (0.1, 0.2)}.get(name, ()))
        with softplus() as surrogate, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Softmin asks for a dimension
            module(z)
        replaced |= {name} if surrogate.replaced else set()
    assert replaced == set(nn.modules.activation.__all__) - smooth


# Guards and scope


def untouched(function, x):
    """Tell whether the surrogate leaves that forward pass as it is."""
    exact = function(x.clone())
    with softplus(5.0) as surrogate:
        within = Within(function)(x.clone().requires_grad_(True))
    return not surrogate.replaced and torch.equal(within, exact)


IMAGES = torch.rand(2, 3, 4, 4)
GUARDS = {
    "tiny lower bound": lambda x: x.clamp(min=1e-6),
    "tiny lower bound of two": lambda x: x.clamp(1e-7, 1 - 1e-7),
    "clamp_min": lambda x: x.clamp_min(1e-12),
    "tiny tensor": lambda x: torch.maximum(x, torch.tensor(1e-3)),
    "tiny tensors": lambda x: x.clamp(min=torch.full((4,), 1e-8)),
    "deviation": lambda x: x / x.std((1, 2, 3), keepdim=True).clamp(min=0.3),
    "deviation, maximum": lambda x: (
        x / torch.maximum(x.std((1, 2, 3)), torch.tensor(0.3)).view(-1, 1, 1, 1)
    ),
    "image clipped": lambda x: x.clamp(0, 1),
    "image clipped later": lambda x: (x * 0.5 + 0.25).clamp(0, 1),
    "normalize": lambda x: F.normalize(x),
    "cosine": lambda x: F.cosine_similarity(x, x.flip(0)),
    "indices": lambda x: x[:, torch.linspace(-1, 3, 6).clamp(0, 2).long()],
    "integers": lambda x: x * torch.arange(4).clamp(1, 2).abs(),
    "constant": lambda x: x * torch.linspace(-1, 1, 4).abs(),
    "a weight": lambda x: x * nn.Parameter(torch.tensor([0.1])).clamp(max=0.2),
    "out": lambda x: x + torch.clamp(x.detach(), 0.2, 0.6, out=torch.empty(0)),
}


@pytest.mark.parametrize("guard", GUARDS)
def test_guards_stay(guard):
    assert untouched(GUARDS[guard], IMAGES)


def test_an_infinite_bound_bends_nothing():
    with softplus(5.0):
        within = Within(lambda x: x.clamp(-torch.inf, torch.inf))(IMAGES.clone().requires_grad_())
    assert torch.equal(within, IMAGES)


def test_a_clip_of_noisy_images_stays_and_one_of_features_does_not():
    noisy = torch.randn(2, 3, 4, 4)
    assert untouched(lambda x: x.clamp(0, 1), noisy)
    assert not untouched(lambda x: (x + 1).clamp(0, 1), noisy)
    assert not untouched(lambda x: (x[:, :2] * 3 - 1).clamp(0, 1), IMAGES)


def test_ambiguous_functions_outside_of_a_forward_pass_stay():
    x = torch.randn(5, requires_grad=True)
    with softplus(5.0) as surrogate:
        for function in (torch.abs, lambda z: z.clamp(0), lambda z: torch.maximum(z, -z)):
            assert torch.equal(function(x), function(x))
            assert torch.equal(function(x).detach(), function(x.detach()))
        assert torch.equal(x.max(), x.detach().max())
        assert not surrogate.replaced
        Within(torch.abs)(x)
        assert surrogate.replaced == {"abs": 1}
        assert torch.equal(x.abs(), x.detach().abs())
        with pytest.raises(ZeroDivisionError):
            Within(lambda z: 1 / 0)(x)
        assert torch.equal(x.abs().detach(), x.detach().abs())
    assert surrogate.replaced == {"abs": 1}


def test_a_forward_pass_under_way_before_the_block_does_not_count():
    x = torch.randn(5, requires_grad=True)

    def forward(x):
        with softplus(5.0) as surrogate:
            outside = x.abs()
            inside = Within(torch.abs)(x)
        return outside, inside, surrogate.replaced

    outside, inside, replaced = Within(forward)(x)
    assert torch.equal(outside.detach(), x.detach().abs())
    assert not torch.equal(inside, outside)
    assert replaced == {"abs": 1}
    assert not nn.modules.module._global_forward_pre_hooks
    assert not nn.modules.module._global_forward_hooks


def test_another_thread_is_left_alone():
    x, found = torch.randn(5, requires_grad=True), []
    with softplus(5.0):
        thread = threading.Thread(target=lambda: found.append(Within(torch.abs)(x)))
        thread.start()
        thread.join()
        assert not torch.equal(Within(torch.abs)(x), x.abs())
    assert torch.equal(found[0], x.abs())


@pytest.mark.parametrize("bound", [torch.finfo(torch.float32).max, 1e30])
def test_huge_bounds_and_infinite_values_do_not_cancel(bound):
    x = torch.tensor([-torch.inf, -3.0, 0.25, 5.0, torch.inf], requires_grad=True)
    other = torch.full((5,), -bound)
    with softplus(50.0):
        for form in (
            lambda z: z.clamp(-bound, bound),
            lambda z: torch.maximum(z, other).clamp(max=bound),
        ):
            value = Within(form)(x)
            (slope,) = torch.autograd.grad(value.sum(), x)
            assert torch.equal(value[1:4].detach(), x[1:4].detach())
            assert torch.equal(value[[0, 4]].detach(), torch.tensor([-bound, bound]))
            assert torch.equal(slope, torch.tensor([0.0, 1.0, 1.0, 1.0, 0.0]))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_precision_is_kept(dtype):
    z = torch.linspace(-4, 8, 30, dtype=dtype)
    for form in (F.relu6, F.hardswish, F.selu, F.hardshrink, torch.abs, F.rrelu):
        with softplus(20.0):
            value, first, second = derivatives(Within(form), z)
        assert value.dtype == first.dtype == second.dtype == dtype
        assert torch.isfinite(second).all()


def test_fmax_passes_over_what_is_no_number():
    z = torch.tensor([1.0, torch.nan], requires_grad=True)
    with softplus(5.0):
        assert Within(lambda z: torch.fmax(z, torch.zeros(2)))(z).tolist() == [1.0, 0.0]


# Max-pooling


def weighted(values, b):
    """Weigh the values of each window, the last dimension, by their softmax."""
    weights = torch.exp(b * values)
    return (weights * values).sum(-1) / weights.sum(-1)


def windows(x):
    return x.unfold(2, 2, 2).unfold(3, 2, 2).flatten(4)  # of 2×2


POOLS = {
    "module": (nn.MaxPool2d(2), windows),
    "F.max_pool2d": (lambda x: F.max_pool2d(x, 2), windows),
    "torch.max_pool2d": (lambda x: torch.max_pool2d(x, 2), windows),
    "aten": (lambda x: aten.max_pool2d.default(x, [2, 2]), windows),
    "aten with a stride": (lambda x: aten.max_pool2d.default(x, [2, 2], [2, 2]), windows),
    "adaptive": (nn.AdaptiveMaxPool2d(3), windows),
    "global": (nn.AdaptiveMaxPool2d(1), lambda x: x.flatten(2)[:, :, None, None]),
    "overlapping": (
        nn.MaxPool2d((3, 2), stride=(1, 2)),
        lambda x: x.unfold(2, 3, 1).unfold(3, 2, 2).flatten(4),
    ),
    "dilated": (
        nn.MaxPool2d(2, stride=2, dilation=2),
        lambda x: x.unfold(2, 3, 2).unfold(3, 3, 2)[..., ::2, ::2].flatten(4),
    ),
    "one dimension": (
        lambda x: F.max_pool1d(x.flatten(2), 3),
        lambda x: x.flatten(2).unfold(2, 3, 3),
    ),
    "adaptive, one dimension": (
        lambda x: F.adaptive_max_pool1d(x.flatten(2), 12),
        lambda x: x.flatten(2).unfold(2, 3, 3),
    ),
    "three dimensions": (
        lambda x: F.max_pool3d(x, (1, 2, 2)),
        lambda x: x.unfold(2, 2, 2).unfold(3, 2, 2).flatten(4),
    ),
    "amax": (lambda x: x.amax(1), lambda x: x.movedim(1, -1)),
    "amax over two": (
        lambda x: torch.amax(x, dim=(2, 3), keepdim=True),
        lambda x: x.flatten(2)[:, :, None, None],
    ),
    "amax over all": (torch.amax, lambda x: x.flatten()),
    "max": (torch.max, lambda x: x.flatten()),
    "max over a dimension": (lambda x: x.max(1).values, lambda x: x.movedim(1, -1)),
    "max over the last": (lambda x: torch.max(x, -1, True)[0], lambda x: x[..., None, :]),
    "aten.amax": (lambda x: aten.amax.default(x, [1]), lambda x: x.movedim(1, -1)),
    "aten.max": (lambda x: aten.max.dim(x, 1)[0], lambda x: x.movedim(1, -1)),
    "maxout": (
        lambda x: x.view(2, 2, 2, 6, 6).max(2)[0],
        lambda x: x.view(2, 2, 2, 6, 6).movedim(2, -1),
    ),
}


@pytest.mark.parametrize("name", POOLS)
def test_pooling_alone_becomes_a_weighted_mean(name):
    form, gather = POOLS[name]
    x = torch.rand(2, 4, 6, 6, dtype=torch.float64)
    with softplus(7.0) as surrogate:
        ours = derivatives(lambda x: Within(form)(x).square(), x)
    assert sum(surrogate.replaced.values()) == 1
    expected = derivatives(lambda x: weighted(gather(x), 7.0).square(), x)
    for mine, theirs in zip(ours, expected, strict=True):
        assert torch.allclose(mine, theirs, atol=1e-9)
    off = []
    for beta in (50.0, 500.0, 1e5):
        with softplus(beta), torch.no_grad():
            off.append((Within(form)(x) - form(x)).abs().max().item())
    assert off[0] >= off[1] >= off[2]
    assert off[2] < 1e-5


@pytest.mark.parametrize("least", [lambda x: x.amin(1), lambda x: x.min(1)[0], torch.min])
def test_the_least_value_mirrors_the_greatest(least):
    greatest = {torch.min: torch.max}.get(least, lambda x: x.amax(1))
    x = torch.rand(2, 4, 6, 6, dtype=torch.float64, requires_grad=True)
    with softplus(7.0):
        assert torch.allclose(Within(least)(x), -Within(greatest)(-x))
        assert (Within(least)(x) > least(x)).all()


def test_max_over_a_dimension_keeps_its_indices():
    x = torch.rand(3, 5, requires_grad=True)
    with softplus(7.0):
        found = Within(lambda x: x.max(1))(x)
        least = Within(lambda x: x.min(1))(x)
    assert torch.equal(found.indices, x.argmax(1))
    assert torch.equal(least.indices, x.argmin(1))


def test_padding_and_ceil_mode_weigh_nothing():
    x = -1 - torch.rand(2, 4, 7, 7, dtype=torch.float64)  # zeros would win
    pools = [nn.MaxPool2d(3, 2, 1), nn.MaxPool2d(3, 2, 1, ceil_mode=True)]
    for pool in (*pools, nn.MaxPool2d(2, ceil_mode=True)):
        with softplus(1e5):
            value, first, second = derivatives(Within(pool), x)
        assert torch.allclose(value, pool(x), atol=1e-4)
        assert torch.isfinite(first).all() and torch.isfinite(second).all()  # noqa: PT018
        with softplus(50.0):
            assert torch.equal(pool(torch.ones_like(x)), torch.ones_like(pool(x)))


def test_pooling_after_anything_curved_stays_as_published():
    x = torch.rand(2, 3, 6, 6, requires_grad=True)
    for before in (nn.ReLU(), nn.ReLU6(), nn.GELU(), nn.Sigmoid(), torch.abs):
        model = Within(lambda x, before=before: F.max_pool2d(before(x - 0.5), 2).amax(1))
        with softplus(50.0) as surrogate:
            first = model(x)
            assert torch.equal(model(x), first)
        assert set(surrogate.replaced) <= {"relu", "hardtanh", "abs"}
    # and before it, in each pass anew
    model = nn.Sequential(nn.MaxPool2d(2), nn.ReLU(), nn.MaxPool2d(2))
    with softplus(50.0) as surrogate:
        model(x), model(x)
    assert surrogate.replaced == {"max_pool2d": 2, "relu": 2}


def test_pooling_with_indices_stays():
    x = torch.rand(2, 3, 6, 6, requires_grad=True)
    with softplus(50.0) as surrogate:
        Within(lambda x: F.max_pool2d(x, 2, return_indices=True))(x)
        Within(nn.AdaptiveMaxPool2d(2, return_indices=True))(x)
        Within(lambda x: torch.adaptive_max_pool1d(x.flatten(2), 2))(x)
    assert not surrogate.replaced


def test_a_network_of_max_pooling_alone_has_a_second_derivative():
    torch.manual_seed(0)
    first, second = nn.Conv2d(1, 4, 3), nn.Conv2d(4, 8, 2)
    layers = (first, nn.MaxPool2d(2), second, nn.MaxPool2d(2), nn.Flatten(), nn.Linear(8, 3))
    model = nn.Sequential(*layers)
    assert curvature(model, torch.rand(2, 1, 8, 8)) == 0
    with softplus(50.0) as surrogate:
        assert curvature(model, torch.rand(2, 1, 8, 8)) > 0
    assert surrogate.replaced == {"max_pool2d": 2}


def curvature(model, images):
    images.requires_grad_(True)
    score = model(images)[:, 0].sum()
    (gradient,) = torch.autograd.grad(score, images, create_graph=True)
    (second,) = torch.autograd.grad(
        gradient.square().sum(), images, allow_unused=True, materialize_grads=True
    )
    return second.abs().max()


# Whole models


def test_torchvision_resnet_has_a_second_derivative_and_is_restored():
    model = torchvision.models.resnet18(num_classes=5).eval()  # its ReLUs work in place
    images = torch.rand(2, 3, 32, 32)
    before = model(images)
    assert curvature(model, images.clone()) == 0
    with softplus(beta=50.0) as surrogate:
        assert not torch.equal(model(images), before)
        assert curvature(model, images.clone()) > 0
    assert set(surrogate.replaced) == {"relu"}
    assert torch.equal(model(images), before)
    assert curvature(model, images.clone()) == 0


@pytest.mark.parametrize("activation", ["relu", "gelu"])
def test_transformer_layers_leave_their_fast_path(activation):
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(8, 2, 16, activation=activation, batch_first=True).eval()
    tokens = torch.randn(2, 5, 8)
    attention = nn.MultiheadAttention(8, 2, batch_first=True).eval()
    with torch.no_grad():
        exact = layer(tokens), attention(tokens, tokens, tokens)[0]
        with softplus(5.0) as surrogate:
            smooth = layer(tokens), attention(tokens, tokens, tokens)[0]
    assert surrogate.replaced == ({"relu": 1} if activation == "relu" else {})
    assert torch.allclose(smooth[0], exact[0], atol=1e-5) == (activation == "gelu")
    assert torch.allclose(smooth[1], exact[1], atol=1e-6)


class Checkpointed(nn.Module):
    def __init__(self, again):
        super().__init__()
        self.first, self.second = nn.Linear(6, 8), nn.Linear(8, 8)
        self.last, self.again = nn.Linear(4, 3), again

    def inner(self, x):
        x = x.view(len(x), 4, 2).amax(2) + 0.1 * x.abs()[:, :4]
        return x.clamp(0, 1)

    def forward(self, x):
        if not self.again:
            return self.last(self.inner(self.second(F.relu6(self.first(x)))))
        x = checkpoint(lambda x: F.relu6(self.first(x)), x, use_reentrant=False)
        x = checkpoint(self.second, x, use_reentrant=False)
        return self.last(checkpoint(self.inner, x, use_reentrant=False))


def test_checkpointed_parts_are_computed_once():
    torch.manual_seed(0)
    plain, again = Checkpointed(False).double(), Checkpointed(True).double()
    again.load_state_dict(plain.state_dict())
    x = torch.rand(5, 6, dtype=torch.float64)

    def twice(model, outside):
        with softplus(5.0):
            value = model(z := x.clone().requires_grad_(True))
            if not outside:
                (first,) = torch.autograd.grad(value.square().sum(), z, create_graph=True)
        if outside:  # where also the model as it is has been seen in between
            value = value + model(z)
            (first,) = torch.autograd.grad(value.square().sum(), z, create_graph=True)
        return value, first, torch.autograd.grad(first.sum(), z)[0]

    for outside in (False, True):
        for mine, theirs in zip(twice(again, outside), twice(plain, outside), strict=True):
            assert torch.allclose(mine, theirs, atol=1e-12)
    pools = [nn.Sequential(nn.ReLU(), nn.MaxPool1d(2)), nn.MaxPool1d(2)]
    model = Within(lambda x: checkpoint(pools[1], pools[0](x), use_reentrant=False))
    with softplus(5.0) as surrogate:
        derivatives(lambda x: model(x[None]).square(), x - 0.5)
    assert set(surrogate.replaced) == {"relu"}


def test_blocks_nest_and_an_error_inside_ends_them():
    z = torch.zeros((), requires_grad=True)
    with softplus(beta=1.0):
        with softplus(beta=2.0):
            assert torch.relu(z).item() == pytest.approx(math.log(2) / 2)
            assert Within(torch.abs)(z[None]).item() == pytest.approx(math.log(2))
            assert F.relu6(z).item() == pytest.approx(math.log(2) / 2, abs=1e-4)
        assert torch.relu(z).item() == pytest.approx(math.log(2))
        with pytest.raises(ZeroDivisionError), softplus(beta=3.0):
            1 / 0  # noqa: B018
        assert torch.relu(z).item() == pytest.approx(math.log(2))
    assert torch.relu(z) == 0


@pytest.mark.parametrize("beta", [0.0, -1.0, float("nan")])
def test_refuses_beta(beta):
    with pytest.raises(InputError, match="beta: expected a number above 0"):
        softplus(beta)
