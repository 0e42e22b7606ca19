import itertools
import math

import pytest
import torch
from scipy import stats
from torch import nn

from holdfast.attributions import DeepLIFT, Gradient, InputXGradient, IntegratedGradients
from holdfast.audit import BaselineSensitivity, ObjectRemoval
from holdfast.contracts import Batch, HoldfastError, InputError

IG = IntegratedGradients(steps=6, rule="midpoint")


@pytest.fixture
def model():
    torch.manual_seed(2)
    layers = nn.Sequential(nn.Flatten(), nn.Linear(40, 16), nn.Tanh(), nn.Linear(16, 3)).double()
    layers[3].weight.data *= 4
    return layers


@pytest.fixture
def batch(model):
    rng = torch.Generator().manual_seed(1)
    images = torch.rand(6, 2, 4, 5, generator=rng, dtype=torch.float64)
    labels = model(images).argmax(1)
    labels[1] = (labels[1] + 1) % 3  # one is wrong
    boxes = torch.tensor([[1.0, 0, 3, 2], [0, 0, 2, 2], [2, 1, 5, 4], [0, 2, 5, 4], [0, 0, 1, 4]])
    boxes = torch.cat([boxes, torch.tensor([[0.0, 0, 5, 4]])])  # the last fills its image
    return Batch(images=images, labels=labels, boxes=boxes)


class TestBaselineSensitivity:
    def test_against_scipy_pair_by_pair(self, model, batch):
        baselines = (0.0, 0.25, 1.0)
        measures = BaselineSensitivity(IG, baselines, k=4)(model, batch)
        images = batch["images"]
        targets = model(images).argmax(1)
        maps = [
            IntegratedGradients(6, "midpoint", baseline=value)(model, images, targets)
            for value in baselines
        ]
        for n in range(6):
            found = {name: [] for name in measures}
            for first, second in itertools.combinations([m[n] for m in maps], 2):
                a, b = first.abs().sum(0).flatten(), second.abs().sum(0).flatten()
                both = set(a.topk(4).indices.tolist()) & set(b.topk(4).indices.tolist())
                found["top_k_intersection"].append(len(both) / 4)
                found["kendall_tau"].append(stats.kendalltau(a, b).statistic)
                found["spearman_rho"].append(stats.spearmanr(a, b).statistic)
                found["map_cosine"].append(
                    float((first * second).sum() / (first.norm() * second.norm()))
                )
            for name, values in found.items():
                assert float(measures[name][n]) == pytest.approx(sum(values) / 3), name

    def test_of_a_linear_model_signs_turn_and_sizes_are_the_distances(self):
        """IG is w·(x − x₀): from black and from white of opposite signs."""
        linear = nn.Sequential(nn.Flatten(), nn.Linear(6, 2, bias=False)).double()
        x = torch.tensor([0.1, 0.3, 0.5, 0.7, 0.9, 0.2]).double()
        w = linear[1].weight[int(linear(x.view(1, 1, 2, 3)).argmax())]
        check = BaselineSensitivity(k=2)
        measures = check(linear, Batch(images=x.view(1, 1, 2, 3), labels=torch.tensor([0])))
        black, white = w * x, w * (x - 1)
        expected = float((black @ white).detach() / (black.norm() * white.norm()).detach())
        assert float(measures["map_cosine"]) == pytest.approx(expected)
        assert expected < 0

    def test_a_map_that_is_zero_has_cosine_zero(self, model):
        black = Batch(images=torch.zeros(1, 2, 4, 5).double(), labels=torch.tensor([0]))
        assert float(BaselineSensitivity(IG, k=2)(model, black)["map_cosine"]) == 0

    def test_any_method_with_a_baseline(self, model, batch):
        assert len(BaselineSensitivity(DeepLIFT(), k=3)(model, batch)["map_cosine"]) == 6

    @pytest.mark.parametrize(
        ("settings", "says"),
        [
            ({"attribution": Gradient()}, "attribution: expected a method with a field baseline"),
            ({"baselines": (0.0,)}, "baselines: expected at least two different values"),
            ({"baselines": (0.5, 0.5)}, "baselines: expected at least two different values"),
            ({"baselines": (0.0, 1.5)}, "baselines: expected at least two different values"),
            ({"k": 0}, "k: expected a number above 0"),
        ],
    )
    def test_refuses(self, settings, says, own_errors):
        with pytest.raises(InputError, match=f"BaselineSensitivity.{says}"):
            BaselineSensitivity(**settings)


class TestObjectRemoval:
    @pytest.mark.parametrize("fill", [None, 0.25])
    @pytest.mark.parametrize("marked", ["boxes", "masks"])
    def test_against_a_loop(self, fill, marked, model, batch):
        objects = torch.zeros(6, 4, 5, dtype=torch.bool)
        for n, (left, top, right, bottom) in enumerate(batch["boxes"].int().tolist()):
            objects[n, top:bottom, left:right] = True
        if marked == "masks":
            objects[0] = torch.eye(4, 5, dtype=torch.bool)
            batch = Batch(images=batch["images"], labels=batch["labels"], masks=objects.double())
        measures = ObjectRemoval(IG, fill)(model, batch)

        def ask(image, label):
            logits = model(image[None])[0]
            return float(logits.argmax() == label), float(logits.softmax(0)[label])

        for n, (image, label) in enumerate(zip(batch["images"], batch["labels"], strict=True)):
            if n == 1:  # the model gets it wrong
                assert all(values[n].isnan() for values in measures.values())
                continue
            inside = objects[n]
            around = image[:, ~inside] if (~inside).any() else image.flatten(1)
            colour = around.mean(1) if fill is None else torch.full((2,), fill).double()
            without, alone = image.clone(), image.clone()
            without[:, inside], alone[:, ~inside] = colour[:, None], colour[:, None]
            before, after = (IG(model, x[None], label[None])[0] for x in (image, without))
            positive = before.sum(0).clamp_min(0)
            share = float(positive[inside].sum() / positive.sum())
            (_, p), (kept, p_without) = ask(image, label), ask(without, label)
            kept_alone, p_alone = ask(alone, label)
            expected = {
                "kept_without_object": kept,
                "lost_without_object": p - p_without,
                "kept_object_alone": kept_alone,
                "lost_object_alone": p - p_alone,
                "object_share": share,
                "map_agrees": float((share > 0.5) == (p - p_without > p - p_alone)),
            }
            for name, value in expected.items():
                assert float(measures[name][n]) == pytest.approx(value, abs=1e-12), name
            tau = math.nan
            if (~inside).any():
                scores = (m.abs().sum(0)[~inside] for m in (before, after))
                tau = stats.kendalltau(*scores).statistic
            assert float(measures["tau_elsewhere"][n]) == pytest.approx(tau, nan_ok=True)

    def test_the_dog_on_which_the_class_hangs(self):
        """Appendix D: a model that sees one half alone, and two maps, of which one says so."""

        class Left(nn.Module):
            def forward(self, x):
                left = x[..., :2].mean((1, 2, 3)) - 0.5
                return 20 * torch.stack([left, -left], 1)

        class Other:
            def __call__(self, model, images, targets=None, *, create_graph=False):
                return torch.zeros_like(images).index_fill(3, torch.tensor([3]), 1.0)

        image = torch.full((1, 1, 3, 4), 0.2)
        image[..., :2] = 0.9
        labels, left = torch.tensor([0]), torch.tensor([[0.0, 0, 2, 3]])
        batch = Batch(images=image, labels=labels, boxes=left)
        found = ObjectRemoval(InputXGradient())(Left(), batch)
        assert (found["kept_without_object"], found["kept_object_alone"]) == (0, 1)
        assert found["object_share"] == 1
        assert found["map_agrees"] == 1
        assert ObjectRemoval(Other())(Left(), batch)["map_agrees"] == 0
        right = Batch(images=image, labels=labels, boxes=torch.tensor([[2.0, 0, 4, 3]]))
        assert ObjectRemoval(InputXGradient())(Left(), right)["kept_without_object"] == 1

    def test_takes_the_mask_where_there_is_one(self, model, batch):
        masks = torch.full((6, 4, 5), torch.nan)
        masks[0] = torch.eye(4, 5)
        both = Batch(**batch, masks=masks)
        first, second = (ObjectRemoval(IG)(model, b)["object_share"] for b in (batch, both))
        assert first[0] != second[0]
        assert torch.equal(first[2:], second[2:])

    def test_without_objects_there_is_nothing_to_remove(self, model, batch):
        bare = Batch(images=batch["images"], labels=batch["labels"])
        with pytest.raises(HoldfastError, match="neither boxes nor masks"):
            ObjectRemoval(IG)(model, bare)

    def test_no_image_is_right(self, model, batch):
        wrong = Batch(**{**batch, "labels": (model(batch["images"]).argmax(1) + 1) % 3})
        assert ObjectRemoval(IG)(model, wrong) == {}

    @pytest.mark.parametrize("fill", [-0.1, 1.1])
    def test_refuses(self, fill, own_errors):
        with pytest.raises(InputError, match="ObjectRemoval.fill: expected a number in"):
            ObjectRemoval(IG, fill)


def test_leave_the_model_as_it_was(stateful_model, untouched):
    images, boxes = torch.rand(2, 2, 5, 5), torch.tensor([[0.0, 0, 2, 2]] * 2)
    batch = Batch(images=images, labels=torch.tensor([0, 1]), boxes=boxes)
    with untouched(stateful_model):
        ObjectRemoval(IG)(stateful_model, batch)
        BaselineSensitivity(IG, k=3)(stateful_model, batch)
