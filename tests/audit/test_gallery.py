import random

import pyarrow as pa
import pyarrow.compute as pc
import pytest
import torch
from torch import nn

from holdfast.adversarial import PGD
from holdfast.attributions import Gradient
from holdfast.audit import Audit, WeaklySupervisedLocalization
from holdfast.audit.gallery import Candidates, Contest, correct_images, gallery, worst_cases
from holdfast.audit.unfinished import Finding
from holdfast.contracts import Batch
from holdfast.manipulation import RandomSign
from holdfast.parts import SCHEMA, DamagedError


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
    sign = RandomSign(Gradient(), eps=0.1)
    audit = Audit(
        {},
        {"sign": sign, "again": RandomSign(Gradient(), eps=0.2)},
        {"wsol/gradient": wsol, "quiet": lambda model, batch: {}},
    )
    outcomes = {
        "sign|before": torch.full((2, 1, 8, 8), 1.0),
        "sign|images": torch.full((2, 1, 8, 8), 2.0),
        "sign|maps": torch.full((2, 1, 8, 8), 3.0),
        "again|images": torch.full((2, 1, 8, 8), 4.0),
        "again|maps": torch.full((2, 1, 8, 8), 5.0),
    }
    rows = [
        *[(i, check, "preserved", float(i == 9)) for i in (4, 9) for check in ("sign", "again")],
        (9, "sign", "kendall_tau", 1 / 3),
        (9, "sign", "top_k_intersection", 0.1),
        (9, "again", "kendall_tau", 0.2),
        (9, "again", "top_k_intersection", 0.3),
    ]
    names = ("index", "check", "measure", "value")
    records = pa.table(dict(zip(names, map(list, zip(*rows, strict=True)), strict=True)))
    kept = gallery(model, batch, [4, 9], {9, 17}, outcomes, records, audit)
    shapes = {name: tuple(tensor.shape) for name, tensor in kept.items()}
    attacked = {
        "images": (2, 1, 8, 8),
        "maps": (2, 1, 8, 8),
        "perturbed_images": (2, 1, 8, 8),
        "perturbed_maps": (2, 1, 8, 8),
        "kendall_tau": (2,),
        "top_k_intersection": (2,),
        "preserved": (2,),
    }
    assert shapes == {
        "index": (2,),
        "label": (2,),
        "worst": (2,),
        "images": (2, 1, 8, 8),
        "boxes": (2, 4),
        "masks": (2, 8, 8),
        **{
            f"{check}|{name}": shape
            for check in ("sign", "again")
            for name, shape in attacked.items()
        },
        "wsol/gradient|heat_maps": (2, 8, 8),
        "wsol/gradient|thresholds": (3,),
        "wsol/gradient|estimated_boxes": (2, 3, 4),
    }
    assert kept["index"].tolist() == [4, 9]
    assert kept["worst"].tolist() == [False, True]
    assert kept["masks"][1].sum() == 0  # NaN in the batch: no mask
    assert torch.equal(kept["images"], batch["images"])
    for number, name in enumerate(("sign|maps", "sign|perturbed_images", "sign|perturbed_maps"), 1):
        assert kept[name].unique().tolist() == [number]
    assert kept["again|maps"].unique().tolist() == [1]  # the same maps before
    assert kept["again|perturbed_maps"].unique().tolist() == [5]
    # To the last digit; and what no perturbation has changed is like itself.
    assert kept["sign|kendall_tau"].tolist() == [1.0, 1 / 3]
    assert kept["again|top_k_intersection"].tolist() == [1.0, 0.3]
    assert kept["sign|preserved"].tolist() == [False, True]


def test_may_be_empty(batch):
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 2))
    nobody = Batch(images=batch["images"][:0], labels=batch["labels"][:0])
    audit = Audit({}, {"sign/gradient": RandomSign(Gradient(), eps=0.1)})
    kept = gallery(model, nobody, [], [], {}, SCHEMA.empty_table(), audit)
    assert sorted(kept) == ["images", "index", "label", "worst"]
    assert kept["images"].shape == (0, 1, 8, 8)


@pytest.mark.parametrize(("gallery", "worst"), [(2, 1), (0, 2), (3, 0), (99, 99), (0, 0)])
def test_the_contest_ends_with_whom_all_records_would_choose(gallery, worst):
    rng = random.Random(gallery)
    audit = Audit(
        {"pgd": PGD(0.1, 0.1, 1)},
        {name: RandomSign(Gradient(), eps=0.1) for name in "ab"},
        gallery=gallery,
        worst=worst,
    )
    drawn = rng.sample(range(60), 40)
    rows = []
    for i in range(60):
        rows.append((i, 0, "clean", "correct", float(rng.random() < 0.7)))
        rows.append((i, 0, "pgd", "correct", 1.0))  # not what is meant by right
        if i in drawn and rows[-2][-1]:
            rows += [(i, 0, check, "kendall_tau", rng.randrange(20) / 20) for check in "ab"]
    columns = [list(column) for column in zip(*rows, strict=True)]
    records = pa.table(dict(zip(SCHEMA.names, columns, strict=True)), schema=SCHEMA)
    shards = [
        records.filter(pc.equal(pc.divide(records["index"], 10), number)) for number in range(6)
    ]
    rng.shuffle(shards)
    contest = Contest(audit, drawn)
    for shard in shards:
        contest.enter(shard)
        assert contest._records.num_rows <= 4 * (gallery + 2 * worst)  # few are remembered
    right = correct_images(records)
    first = [i for i in drawn if i in right][:gallery]
    lowest = {i for check in "ab" for i in worst_cases(records, check, worst)}
    assert contest.chosen() == (first + sorted(lowest - set(first)), lowest)


def test_candidates_come_back_as_they_were(tmp_path):
    audit = Audit({}, {name: RandomSign(Gradient(), eps=0.1) for name in "ab"})
    shapes = {
        f"{name}|{key}": (3, 1, 2, 2) for name in "ab" for key in ("before", "images", "maps")
    }
    finding = Finding(outcomes={name: torch.rand(shape) for name, shape in shapes.items()})
    candidates = Candidates(tmp_path, audit, "abc")
    candidates.keep(4, finding, attacked=[21, 25, 28], index=[21, 28])
    held = candidates.read(4, [28, 21])
    assert sorted(held) == ["a|before", "a|images", "a|maps", "b|images", "b|maps"]
    for name, values in held.items():
        assert torch.equal(values, finding.outcomes[name][[2, 0]])
    for other, number, index in (("abc", 4, [25]), ("abd", 4, [21]), ("abc", 3, [21])):
        with pytest.raises(DamagedError):
            Candidates(tmp_path, audit, other).read(number, index)
    (tmp_path / "candidates-00004.safetensors").rename(tmp_path / "candidates-00003.safetensors")
    with pytest.raises(DamagedError):
        candidates.read(3, [21])
    candidates.remove()
    assert not list(tmp_path.iterdir())


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
