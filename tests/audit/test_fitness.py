import pytest
import torch
import yaml
from torch import nn

from holdfast.adversarial import PGD
from holdfast.attributions import Gradient, IntegratedGradients
from holdfast.audit import Audit, check_fitness
from holdfast.contracts import HoldfastError
from holdfast.data import ImageData

PLAIN = Audit({"pgd": PGD(0.1, 0.05, 2, seed=0)}, {}, shard=10)


@pytest.fixture(scope="module")
def data():
    return ImageData("digits").load("test")


@pytest.fixture(scope="module")
def trained():
    torch.manual_seed(0)
    train = ImageData("digits", limit=600).load("train").batch(range(600))
    net = nn.Sequential(nn.Flatten(), nn.Linear(256, 24), nn.ReLU(), nn.Linear(24, 10))
    optimizer = torch.optim.Adam(net.parameters(), lr=0.01)
    for _ in range(60):
        loss = nn.functional.cross_entropy(net(train["images"]), train["labels"])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return net.eval()


class Around(nn.Module):
    """A model with something done to what comes in, and to what goes out."""

    def __init__(self, inner, before=lambda x: x, after=lambda z: z):
        super().__init__()
        self.inner, self.before, self.after = inner, before, after

    def forward(self, x):
        return self.after(self.inner(self.before(x)))


class NoGradient(nn.Module):
    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, x):
        with torch.no_grad():
            return self.inner(x)


def test_nothing_is_found_against_a_sound_model(trained, data):
    fitness = check_fitness(trained, data, [Gradient(), IntegratedGradients(steps=3)])
    assert fitness.findings == ()
    rows = torch.linspace(0, len(data) - 1, 32).round().long()
    batch = data.batch(rows)
    right = (trained(batch["images"]).argmax(1) == batch["labels"]).sum().item()
    assert (fitness.images, fitness.classes, fitness.right) == (32, 10, right)
    assert right > 25


def test_leaves_the_model_and_the_generator_as_they_were(data, untouched):
    net = nn.Sequential(nn.Flatten(), nn.Dropout(), nn.Linear(256, 10))
    before = torch.get_rng_state()
    with untouched(net):
        check_fitness(net, data, [Gradient()])
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(
    ("model", "says"),
    [
        (nn.Linear(7, 10), r"cannot take the images of digits, 1×16×16: RuntimeError"),
        (nn.Conv2d(1, 10, 16), r"expected logits \(N, K\)"),
        (nn.Sequential(nn.Flatten(), nn.Linear(256, 1)), r"for a binary model \[0, z\]"),
        (nn.Sequential(nn.Flatten(), nn.Linear(256, 9)), "images of class 9"),
    ],
)
def test_refuses_what_is_no_classifier_of_this_data(model, says, data):
    with pytest.raises(HoldfastError, match=says):
        check_fitness(model, data)


@pytest.mark.parametrize(
    ("after", "says"),
    [
        (lambda z: z / 0 * 0, "NaN or infinite logits"),
        (lambda z: 0 * z + torch.arange(10.0), "the same logits"),
    ],
)
def test_refuses_logits_that_say_nothing(after, says, trained, data, tmp_path):
    model = Around(trained, after=after)
    with pytest.raises(HoldfastError, match=says):
        PLAIN(model, data, tmp_path / "audit", progress=False)
    assert not (tmp_path / "audit").exists()  # the folder is free for the model put right


@pytest.mark.parametrize(
    ("before", "says"),
    [
        (lambda x: x / 255, "With pixels from 0 to 255 it gets"),
        (lambda x: 1 - x, "With black and white exchanged it gets"),
        (lambda x: 0.229 * x + 0.485, "is that the preprocessing it needs"),
    ],
)
def test_asks_for_the_right_preprocessing(before, says, trained, data):
    (finding,) = check_fitness(Around(trained, before), data).findings
    assert says in finding
    assert "which chance may do" in finding


def test_asks_for_the_order_of_classes(trained, data):
    (finding,) = check_fitness(Around(trained, after=lambda z: z.roll(1, 1)), data).findings
    assert "is their order another?" in finding


def test_asks_in_general_of_an_untrained_model(data):
    torch.manual_seed(3)
    net = nn.Sequential(nn.Flatten(), nn.Linear(256, 10))
    (finding,) = check_fitness(net, data).findings
    assert "Is the order of classes right" in finding
    few = ImageData("digits", limit=1).load("test")
    assert check_fitness(net, few).findings == ()  # one image tells nothing


@pytest.mark.parametrize(
    "before", [lambda x: (x * 8).round() / 8, lambda x: (x > 0.5).float() + 0 * x, torch.floor]
)
def test_sees_gradients_that_are_zero(before, trained, data):
    model = Around(trained, lambda x: before(x) + 0 * x)
    found = check_fitness(model, data).findings
    assert any("The gradient is zero at 8 of 8 images" in said for said in found)


def test_sees_a_model_that_cannot_be_differentiated(trained, data):
    (finding,) = check_fitness(NoGradient(trained), data).findings
    assert "cannot be differentiated" in finding
    (finding,) = check_fitness(Around(trained, torch.Tensor.detach), data).findings
    assert "cannot be differentiated" in finding


def test_sees_gradients_that_are_not_finite(trained, data):
    # The root of 0 has an infinite slope, and most pixels of a digit are 0.
    model = Around(trained, lambda x: x.sqrt().square())
    (finding,) = check_fitness(model, data).findings
    assert "NaN or infinite at 8 of 8" in finding


def test_sees_what_draws_at_random(trained, data):
    model = Around(trained, lambda x: x + 0.1 * torch.randn_like(x))
    found = check_fitness(model, data).findings
    assert any("differently in a second call" in said for said in found)

    def noisy(model, images, targets=None, *, create_graph=False):
        return torch.randn_like(images)

    (finding,) = check_fitness(trained, data, [Gradient(), noisy]).findings
    assert finding.startswith("noisy explains the same image differently in a second call")


def test_sees_maps_without_a_difference(trained, data):
    model = Around(trained, torch.ceil)
    found = check_fitness(model, data, [Gradient()]).findings
    assert any(said.startswith("Gradient gives an image a map without any") for said in found)


def test_sees_a_surrogate_that_answers_otherwise(trained, data):
    # At an input of 0 softplus is 0.0139 and ReLU 0: enough for this model to change its mind.
    class Brittle(nn.Module):
        def forward(self, x):
            logits = trained(x)
            return (
                logits
                + 1e6 * torch.relu(-1 - x.mean((1, 2, 3))[:, None] * 0 + 1) * (torch.eye(10)[3])
            )

    found = check_fitness(Brittle(), data).findings
    assert any("The softplus surrogate" in said for said in found)


def test_an_audit_writes_down_what_it_found_once(trained, data, tmp_path):
    few = ImageData("digits", limit=40).load("test")
    model = Around(trained, lambda x: 1 - x)
    with pytest.warns(UserWarning, match="black and white exchanged"):
        PLAIN(model, few, tmp_path, progress=False)
    written = yaml.safe_load((tmp_path / "fitness.yaml").read_text())
    assert written["images"] == 32
    assert written["findings"] == list(check_fitness(model, few).findings)
    time = (tmp_path / "fitness.yaml").stat().st_mtime_ns
    (tmp_path / "part-00001.parquet").unlink()
    PLAIN(model, few, tmp_path, progress=False)
    assert (tmp_path / "fitness.yaml").stat().st_mtime_ns == time


def test_sees_gradients_that_do_not_bend(trained, data):
    class Positive(nn.Module):
        """ReLU in a spelling that no surrogate reaches."""

        def forward(self, x):
            return x * (x > 0)

    hidden = nn.Sequential(*list(trained[:2]), Positive(), trained[3])
    fitness = check_fitness(hidden, data, [Gradient()])
    (finding,) = fitness.findings
    assert "does not change with the image, even with the surrogate" in finding
    assert fitness.flat
    assert not check_fitness(trained, data, [Gradient()]).flat
    assert check_fitness(hidden, data).findings == ()  # no explanation is attacked
