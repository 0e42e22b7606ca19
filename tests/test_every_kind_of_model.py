"""The same classifier in many guises: every method gives the same, or says in words why not."""

import copy
import dataclasses
import functools
import itertools
import math
import warnings

import pytest
import torch
from captum.attr import Saliency
from torch import nn

from holdfast import adversarial, attributions, manipulation, objectives
from holdfast.contracts import HoldfastError, InputError, StuckWarning
from holdfast.models import classify

pytestmark = pytest.mark.harness

SEARCH = adversarial.BoundarySearch(steps=3, scout_steps=2, restarts=1, restart_steps=1)
GRADIENT = attributions.Gradient()
IG = attributions.IntegratedGradients(steps=2)
PGD = adversarial.PGD(eps=0.05, step_size=0.02, steps=2)
WALK = {"eps": 0.03, "step_size": 0.01, "steps": 2}
TRAINING = {"attack": adversarial.PGD(eps=0.05, step_size=0.02, steps=1)}
SHORT = {"steps": 2, "attack_steps": 1, **TRAINING}
ATTRIBUTIONS = [
    GRADIENT,
    attributions.InputXGradient(),
    IG,
    attributions.SmoothGrad(samples=2),
    attributions.GradientSHAP(samples=2),
    attributions.GuidedBackprop(),
    attributions.DeepLIFT(),
    attributions.GradCAM(layer="relu"),
    attributions.GuidedGradCAMPlusPlus(layer="relu"),
    attributions.BoundaryIntegratedGradients(SEARCH, steps=2),
    attributions.BoundarySaliency(SEARCH),
    attributions.AdversarialGradientIntegration(classes=1, steps=1),
    attributions.from_captum(Saliency),
]
ATTACKS = [
    adversarial.FGSM(0.05),
    PGD,
    adversarial.TargetedPGD(0.05, 0.02, 2),
    adversarial.APGD(0.05, steps=2),
    adversarial.Square(0.05, queries=3),
    adversarial.SPSA(0.05, steps=1, samples=4, step_size=0.01),
    adversarial.CarliniWagner(searches=1, steps=2),
    adversarial.UniformNoise(0.05),
]
WALKS = [
    manipulation.TopK(GRADIENT, 20, **WALK),
    manipulation.TopK(IG, 20, path_samples=1, **WALK),
    manipulation.TopK(attributions.GradCAM(layer="relu"), 20, **WALK),
    manipulation.MassCentre(GRADIENT, **WALK),
    manipulation.RankCorrelation(GRADIENT, pairs=4, **WALK),
    manipulation.Targeted(GRADIENT, **WALK),
]
BLIND = [
    manipulation.RandomSign(GRADIENT, 0.03),
    manipulation.RandomSearch(GRADIENT, 0.03, queries=2),
]
OBJECTIVES = [
    objectives.Natural(),
    objectives.TRADES(**TRAINING),
    objectives.ART(**TRAINING),
    objectives.AttributionRegularization(**SHORT),
    objectives.EnhancedRegularization(**SHORT),
    objectives.JacobianRegularization(),
]
METHODS = ATTRIBUTIONS + ATTACKS + WALKS + BLIND + OBJECTIVES


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, stride=2, padding=1)
        self.norm = nn.BatchNorm2d(8)
        self.relu = nn.ReLU()
        self.pool = nn.AdaptiveAvgPool2d(2)
        self.drop = nn.Dropout(0.3)
        self.head = nn.Linear(32, 4)

    def forward(self, x):
        x = self.relu(self.norm(self.conv(x)))
        return self.head(self.drop(self.pool(x).flatten(1)))


@functools.cache
def base():
    torch.manual_seed(0)
    model = Net()
    nn.init.kaiming_normal_(model.conv.weight)
    nn.init.normal_(model.head.weight)
    model.norm.momentum = 1.0
    model(torch.rand(16, 3, 12, 12))
    return model.eval()


@functools.cache
def data():
    images = torch.rand(2, 3, 12, 12, generator=torch.Generator().manual_seed(0))
    return images, base()(images).argmax(1)


class Around(Net):
    """The same layers, of the same names, and something done to what comes in or goes out."""

    def __init__(self, before=lambda x: x, after=lambda y: y):
        super().__init__()
        self.load_state_dict(base().state_dict())
        self.before, self.after = before, after
        self.eval()

    def forward(self, x):
        return self.after(super().forward(self.before(x)))


@dataclasses.dataclass
class Output:
    logits: torch.Tensor


def own():
    return copy.deepcopy(base())


FORMS = itertools.cycle([lambda y: (y, "more"), lambda y: {"logits": y}, Output])


def another(y):
    """Return logits as a tuple, a dictionary or an object, in turns."""
    return next(FORMS)(y)


SAME = {
    "outputs": lambda: Around(after=another),
    "in place": lambda: Around(before=lambda x: x.sub_(0.5).add_(0.5)),
    "frozen": lambda: own().requires_grad_(False),
    "channels last": lambda: own().to(memory_format=torch.channels_last),
    "double": lambda: own().double(),
    "exported": lambda: torch.export.export(
        own(), (data()[0],), dynamic_shapes=({0: torch.export.Dim.AUTO},)
    ).module(),
    "compiled": lambda: torch.compile(own(), backend="aot_eager"),
}


def run(method, model, images, labels):
    if method in OBJECTIVES:
        torch.manual_seed(0)
        terms = method(model, {"images": images, "labels": labels})
        return torch.stack([term.detach().double() for term in terms.values()])
    torch.manual_seed(0)
    result = method(model, images, labels)
    return result.images if isinstance(method, manipulation_kinds()) else result


def manipulation_kinds():
    return tuple({type(method) for method in WALKS + BLIND})


@functools.cache
def expected(number):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return run(METHODS[number], own(), *data())


def error(result, number):
    """How far a result is from that of the plain model, as a share of what it did."""
    right = expected(number).double()
    done = right - data()[0] if METHODS[number] in ATTACKS + WALKS + BLIND else right
    return ((result.double() - right).norm() / done.norm().clamp_min(1e-9)).item()


def over(methods):
    found = [METHODS.index(method) for method in methods]
    names = [type(method).__name__ for method in methods]
    return pytest.mark.parametrize("number", found, ids=names)


every = over(METHODS)
# One for each way in which models are run; of the rest, a test with plain models is enough.
representatives = over(
    [
        *(GRADIENT, IG, *ATTRIBUTIONS[5:10], ATTRIBUTIONS[-1]),
        *(PGD, *ATTACKS[3:5], WALKS[0], WALKS[2], WALKS[-1], BLIND[0]),
        *(OBJECTIVES[0], OBJECTIVES[2], OBJECTIVES[-2]),
    ]
)


@representatives
@pytest.mark.parametrize("guise", SAME)
@pytest.mark.filterwarnings("ignore")
def test_the_same_in_another_guise(guise, number, untouched):
    model, (images, labels) = SAME[guise](), data()
    images = images.clone()
    if guise == "channels last":
        images = images.to(memory_format=torch.channels_last)
    method = METHODS[number]
    with untouched(model), warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            result = run(method, model, images, labels)
        except InputError:
            # Exported programs have no layers of these names.
            assert guise == "exported"
            assert "relu" in repr(method)
            return
    assert torch.equal(images, data()[0])
    # In float64 some signs of gradients are others.
    bound = 0.4 if guise == "double" and method in WALKS else 2e-3
    said = [str(warning.message) for warning in caught if "DeepLIFT" in str(warning.message)]
    assert error(result, number) < bound or said


@every
@pytest.mark.usefixtures("own_errors")
def test_labels_of_another_integer_type(number):
    images, labels = data()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        result = run(METHODS[number], own(), images, labels.to(torch.uint8))
    assert torch.equal(result, expected(number))


@every
def test_the_default_dtype_does_not_matter(number):
    right = expected(number)
    torch.set_default_dtype(torch.float64)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            result = run(METHODS[number], own(), *data())
    finally:
        torch.set_default_dtype(torch.float32)
    assert result.dtype == right.dtype
    assert torch.equal(result, right)


@every
@pytest.mark.filterwarnings("ignore")
def test_models_in_half_precision(number):
    images, labels = data()
    method, model = METHODS[number], own().bfloat16()
    result = run(method, model, images, labels)
    assert result.isfinite().all()
    if method in OBJECTIVES:
        assert error(result, number) < 0.05
    elif method in ATTRIBUTIONS:
        assert result.dtype == images.dtype
        assert torch.cosine_similarity(result.flatten(), expected(number).flatten(), 0) > 0.9
    else:
        assert result.dtype == images.dtype
        moved = (result - images).abs().max()
        assert moved > 0.005 or isinstance(method, adversarial.Square)  # it may find nothing


@representatives
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.filterwarnings("ignore")
def test_images_in_half_precision_are_attacked_by_nobody(dtype, number):
    """Of a bfloat16 image, the next value after 0.5 is more than an ε of 1/255 away."""
    images, labels = data()
    method = METHODS[number]
    searching = method in ATTRIBUTIONS and hasattr(method, "search")
    if method in OBJECTIVES or (method in ATTRIBUTIONS and not searching):
        assert run(method, own().to(dtype), images.to(dtype), labels).isfinite().all()
    else:
        with pytest.raises(InputError, match="images: expected float32 or float64"):
            run(method, own().to(dtype), images.to(dtype), labels)


SCRIPTED = {
    "scripted": lambda: torch.jit.script(own()),
    "frozen script": lambda: torch.jit.freeze(torch.jit.script(own())),
}


@representatives
@pytest.mark.parametrize("guise", SCRIPTED)
@pytest.mark.filterwarnings("ignore:.*torch.jit:FutureWarning")
def test_torchscript_gives_the_same_or_says_why_not(guise, number):
    """The surrogate and rules for activation functions do not reach into it."""
    model, method = SCRIPTED[guise](), METHODS[number]
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            result = run(method, model, *data())
        except HoldfastError:
            return
    if method in WALKS:
        assert any(issubclass(warning.category, StuckWarning) for warning in caught)
    else:
        said = [str(warning.message) for warning in caught if warning.category is UserWarning]
        assert error(result, number) < 2e-3 or said


@every
@pytest.mark.filterwarnings("ignore")
def test_binary_models_of_one_logit_are_refused(number):
    if isinstance(METHODS[number], adversarial.UniformNoise):
        pytest.skip("it evaluates no model")
    with pytest.raises(InputError, match=r"for a binary model \[0, z\] instead of z"):
        run(METHODS[number], Around(after=lambda y: y[:, :1]), data()[0], torch.zeros(2).long())


@representatives
@pytest.mark.filterwarnings("ignore")
def test_modes_are_restored(number, untouched):
    model = own().train()
    model.norm.eval()
    if METHODS[number] in OBJECTIVES:
        pytest.skip("a loss is made in train mode")
    with untouched(model):
        result = run(METHODS[number], model, *data())
    assert error(result, number) < 1e-6
    assert math.isfinite(classify(model, data()[0]).sum())
