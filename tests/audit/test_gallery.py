from dataclasses import dataclass

import pyarrow as pa
import pytest
import torch
from safetensors.torch import load
from torch import nn

from holdfast.attributions import Gradient, SmoothGrad
from holdfast.audit import WeaklySupervisedLocalization
from holdfast.audit.gallery import correct_images, gallery, worst_cases
from holdfast.audit.map_checks import similarities
from holdfast.contracts import Batch, Outcome
from holdfast.manipulation import RandomSign


@pytest.fixture
def batch():
    torch.manual_seed(0)
    masks = torch.ones(2, 8, 8)
    masks[1] = torch.nan
    return Batch(
        images=torch.rand(2, 1, 8, 8),
        labels=torch.tensor([0, 1]),
        boxes=torch.tensor([[0.0, 0.0, 4.0, 8.0], [1.0, 1.0, 5.0, 5.0]]),
        masks=masks,
    )


def test_holds_images_objects_maps_and_what_checks_show(batch):
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 2))
    wsol = WeaklySupervisedLocalization(thresholds=(0.2, 0.4, 0.6))
    manipulation = RandomSign(Gradient(), eps=0.1)
    kept = load(
        gallery(
            model,
            batch,
            [4, 9],
            [False, True],
            {"sign/gradient": manipulation},
            {"wsol/gradient": wsol, "quiet": lambda model, batch: {}},
            5,
            ("cat", "dog"),
        )
    )
    assert {name: tuple(tensor.shape) for name, tensor in kept.items()} == {
        "index": (2,),
        "label": (2,),
        "worst": (2,),
        "images": (2, 1, 8, 8),
        "boxes": (2, 4),
        "masks": (2, 8, 8),
        "sign/gradient|images": (2, 1, 8, 8),
        "sign/gradient|maps": (2, 1, 8, 8),
        "sign/gradient|perturbed_images": (2, 1, 8, 8),
        "sign/gradient|perturbed_maps": (2, 1, 8, 8),
        "sign/gradient|kendall_tau": (2,),
        "sign/gradient|top_k_intersection": (2,),
        "sign/gradient|preserved": (2,),
        "wsol/gradient|heat_maps": (2, 8, 8),
        "wsol/gradient|thresholds": (3,),
        "wsol/gradient|estimated_boxes": (2, 3, 4),
    }
    assert kept["index"].tolist() == [4, 9]
    assert kept["worst"].tolist() == [False, True]
    assert kept["masks"][1].sum() == 0  # NaN in the batch: no mask
    maps = kept["sign/gradient|maps"].flatten(1)
    assert torch.allclose(maps, model[1].weight)  # the gradient of a linear model
    assert torch.equal(kept["images"], batch["images"])


def test_may_be_empty(batch):
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 2))
    nobody = Batch(images=batch["images"][:0], labels=batch["labels"][:0])
    manipulations = {"sign/gradient": RandomSign(Gradient(), eps=0.1)}
    kept = load(gallery(model, nobody, [], [], manipulations, {}, 5, ("cat", "dog")))
    assert sorted(kept) == ["images", "index", "label", "worst"]
    assert kept["images"].shape == (0, 1, 8, 8)


def test_worst_cases_and_correct_images():
    records = pa.table(
        {
            "index": [1, 2, 1, 2, 3, 4, 5, 3],
            "check": ["clean"] * 2 + ["a"] * 3 + ["a", "b", "a"],
            "measure": ["correct"] * 2 + ["kendall_tau"] * 5 + ["preserved"],
            "value": [1.0, 0.0, 0.3, 0.1, 0.3, 0.2, -1.0, 0.0],
        }
    )
    assert correct_images(records) == {1}
    assert worst_cases(records, "a", 3) == [2, 4, 1]  # of equal ones the first
    assert worst_cases(records, "a", 99) == [2, 4, 1, 3]
    assert worst_cases(records, "a", 0) == []
    assert worst_cases(records, "none", 3) == []


def test_maps_before_and_after_share_their_draws(batch):
    """A manipulation that does nothing changes no map, however much that is drawn at random."""

    @dataclass(frozen=True)
    class Nudge:
        attribution: SmoothGrad = SmoothGrad(samples=2, noise=0.5)

        def __call__(self, model, images, labels):
            one = torch.ones(len(images))
            return Outcome((images - 1e-6).clamp(0, 1), one, one.bool())

    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 30), nn.Tanh(), nn.Linear(30, 2))
    kept = load(
        gallery(model, batch, [0, 1], [False] * 2, {"nudge": Nudge()}, {}, 5, ("cat", "dog"))
    )
    assert kept["nudge|kendall_tau"].min() > 0.99
    other = SmoothGrad(samples=2, noise=0.5, seed=1)(model, batch["images"], batch["labels"])
    drawn = similarities(kept["nudge|maps"], other, 5)["kendall_tau"]
    assert drawn.max() < 0.9  # what draws of their own would do
