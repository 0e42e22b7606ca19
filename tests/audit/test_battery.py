import dataclasses

import captum.attr
import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
import yaml
from safetensors import safe_open
from scipy import stats
from torch import nn

from holdfast.adversarial import APGD, PGD
from holdfast.attributions import Gradient, IntegratedGradients, from_captum
from holdfast.audit import (
    Audit,
    BoundaryAlignment,
    Deletion,
    Faithfulness,
    ImageAlignment,
    Insertion,
    Likeness,
    Localization,
    Trustworthiness,
    WeaklySupervisedLocalization,
)
from holdfast.contracts import HoldfastError, InputError
from holdfast.data import ImageData
from holdfast.manipulation import RandomSign, TopK
from holdfast.models import Architecture
from holdfast.parts import with_digest
from holdfast.training import load, save
from holdfast.training.recipe import build

IG = IntegratedGradients(steps=4)
CHECK = "top_k/integrated_gradients"
AUDIT = Audit(
    attacks={"pgd": PGD(eps=0.1, step_size=0.05, steps=3)},
    manipulations={CHECK: TopK(IG, k=20, eps=0.1, step_size=0.03, steps=4)},
    k=20,
    gallery=3,
    shard=8,
)


@pytest.fixture(scope="module")
def data():
    return ImageData("digits", limit=20).load("test")


@pytest.fixture(scope="module")
def model():
    """Trained a little, so that some images are right and some wrong."""
    torch.manual_seed(0)
    train = ImageData("digits", limit=200).load("train").batch(range(200))
    net = nn.Sequential(nn.Flatten(), nn.Linear(256, 24), nn.ReLU(), nn.Linear(24, 10))
    optimizer = torch.optim.Adam(net.parameters(), lr=0.01)
    for _ in range(25):
        loss = nn.functional.cross_entropy(net(train["images"]), train["labels"])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return net


def values(records, check, measure):
    rows = records.to_pylist()
    return {r["index"]: r["value"] for r in rows if r["check"] == check and r["measure"] == measure}


def all_equal(model, images, targets=None, *, create_graph=False):
    return torch.ones_like(images)


@pytest.mark.parametrize(
    "attribution",
    [
        from_captum(captum.attr.Occlusion, sliding_window_shapes=(1, 8, 8)),
        IntegratedGradients(steps=2, baseline=torch.full((1, 16, 16), 0.5)),
        all_equal,
    ],
    ids=["captum", "baseline image", "function"],
)
def test_any_attribution_is_audited_and_told_from_others(attribution, model, data, tmp_path):
    audit = dataclasses.replace(AUDIT, manipulations={"r": RandomSign(attribution, eps=0.1)})
    records = audit(model, data, tmp_path, progress=False)
    assert values(records, "r", "preserved")
    assert audit(model, data, tmp_path, progress=False).equals(records)
    other = dataclasses.replace(AUDIT, manipulations={"r": RandomSign(IG, eps=0.1)})
    with pytest.raises(HoldfastError, match=r"other settings \(manipulations\)"):
        other(model, data, tmp_path, progress=False)


def test_records_equal_independent_measurements(model, data, tmp_path):
    records = AUDIT(model, data, tmp_path, progress=False)
    assert records.schema.names == ["index", "label", "check", "measure", "value"]
    batch = data.batch(range(20))
    images, labels = batch["images"], batch["labels"]
    right = (model(images).argmax(1) == labels).tolist()
    assert 0 < sum(right) < 20
    assert values(records, "clean", "correct") == {i: float(r) for i, r in enumerate(right)}
    assert {r["index"]: r["label"] for r in records.to_pylist()} == dict(enumerate(labels.tolist()))

    tau = values(records, CHECK, "kendall_tau")
    preserved = values(records, CHECK, "preserved")
    assert set(preserved) == {i for i in range(20) if right[i]}
    assert set(tau) == {i for i, p in preserved.items() if p}

    def scores(x, y):
        mean = torch.zeros_like(x)
        for k in range(1, 5):
            z = (x * k / 4).requires_grad_(True)
            model(z[None])[0, y].backward()
            mean += z.grad / 4
        return (mean * x).abs().flatten().numpy()

    for i in tau:
        x, y = images[i : i + 1], labels[i : i + 1]
        x_ = AUDIT.manipulations[CHECK](model, x, y).images[0]
        before, after = scores(x[0], y[0]), scores(x_, y[0])
        top = [set(np.argsort(-s, kind="stable")[:20].tolist()) for s in (before, after)]
        # Blank pixels tie at exactly 0 on one path and may not on another: compare loosely.
        assert tau[i] == pytest.approx(stats.kendalltau(before, after).statistic, abs=0.02)
        assert values(records, CHECK, "top_k_intersection")[i] == pytest.approx(
            len(top[0] & top[1]) / 20, abs=0.051
        )


def test_an_audit_that_was_cut_goes_on_and_ends_the_same(model, data, tmp_path):
    whole = AUDIT(model, data, tmp_path / "whole", progress=False)
    AUDIT(model, data, tmp_path / "cut", progress=False)
    (tmp_path / "cut" / "part-00001.parquet").unlink()
    (tmp_path / "cut" / "gallery.safetensors").unlink()
    kept = (tmp_path / "cut" / "part-00000.parquet").stat().st_mtime_ns
    again = AUDIT(model, data, tmp_path / "cut", progress=False)
    assert again.equals(whole)
    assert (tmp_path / "cut" / "part-00000.parquet").stat().st_mtime_ns == kept
    assert (tmp_path / "cut" / "gallery.safetensors").read_bytes() == (
        tmp_path / "whole" / "gallery.safetensors"
    ).read_bytes()


def test_files(model, data, tmp_path):
    AUDIT(model, data, tmp_path, progress=False)
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "fitness.yaml",
        "gallery.safetensors",
        "part-00000.parquet",
        "part-00001.parquet",
        "part-00002.parquet",
        "settings.yaml",
    ]
    assert pq.ParquetFile(tmp_path / "part-00002.parquet").read()["index"].to_pylist()[0] == 16
    settings = yaml.safe_load((tmp_path / "settings.yaml").read_text())
    assert settings["data"]["images"] == 20
    assert settings["k"] == 20
    assert "torch" in settings["versions"]
    with safe_open(tmp_path / "gallery.safetensors", "pt") as file:
        assert file.get_tensor(f"{CHECK}|maps").shape[1:] == (1, 16, 16)
        gallery, tau = file.get_tensor("index").tolist(), file.get_tensor(f"{CHECK}|kendall_tau")
    records = AUDIT(model, data, tmp_path, progress=False)
    recorded = values(records, CHECK, "kendall_tau")
    assert tau.tolist() == [recorded[i] for i in gallery]


@pytest.mark.parametrize("count", [0, 1, 7])
def test_explains_only_so_many_and_the_same_for_every_model(count, model, data, tmp_path):
    few = dataclasses.replace(AUDIT, explained=count)
    chosen = set()
    for number, net in enumerate((model, nn.Sequential(nn.Flatten(), nn.Linear(256, 10)))):
        records = few(net, data, tmp_path / str(number), progress=False)
        assert len(values(records, "clean", "correct")) == 20
        chosen |= set(values(records, CHECK, "preserved"))
    assert len(chosen) <= count


@dataclasses.dataclass(frozen=True)
class Brightness:
    """A check whose measure of dark images is NaN, and of very bright ones infinite."""

    def __call__(self, model, batch):
        mean = batch["images"].mean((1, 2, 3))
        value = torch.where(mean < 0.3, torch.nan, mean)
        return {"mean": torch.where(mean > 0.33, torch.inf, value), "label": batch["labels"]}


def test_checks_are_made_on_the_images_drawn_and_nan_leaves_no_record(model, data, tmp_path):
    audit = dataclasses.replace(AUDIT, checks={"brightness": Brightness()}, explained=12)
    records = audit(model, data, tmp_path, progress=False)
    drawn = set(values(records, "brightness", "label"))
    assert len(drawn) == 12
    right = {i for i, r in values(records, "clean", "correct").items() if r}
    assert set(values(records, CHECK, "preserved")) == drawn & right
    assert drawn - right  # also images that the model gets wrong
    means = data.batch(range(20))["images"].mean((1, 2, 3)).tolist()
    expected = {i: means[i] for i in drawn if 0.3 <= means[i] <= 0.33}
    assert 0 < len(expected) < 12
    assert values(records, "brightness", "mean") == pytest.approx(expected)
    without = AUDIT(model, data, tmp_path / "without", progress=False).to_pylist()
    same = [r for r in records.to_pylist() if r["check"] in ("clean", "pgd")]
    assert same == [r for r in without if r["check"] in ("clean", "pgd")]


def test_settings_describe_checks_and_can_be_built_again(model, data, tmp_path):
    natural = Architecture("mlp", classes=10, in_channels=1, size=16, options={"hidden": [8]})
    save(natural.build(), tmp_path / "natural", architecture=natural, classes=data.classes)
    checks = {
        "localization/gradient": Localization(Gradient()),
        "wsol/gradient": WeaklySupervisedLocalization(thresholds=(0.25, 0.5)),
        "alignment/image": ImageAlignment(),
        "alignment/boundary": BoundaryAlignment(steps=7),
        "faithfulness/gradient": Faithfulness(Gradient(), Insertion(8), Deletion(8)),
        "reference/gradient": Likeness(Gradient(), load(tmp_path / "natural"), k=9),
        "trust/top_k": Trustworthiness(
            AUDIT.manipulations[CHECK], PGD(0.1, 0.02, 5), (PGD(0.1, 0.02, 9), APGD(0.1)), 7
        ),
    }
    audit = dataclasses.replace(AUDIT, checks=checks, explained=0)
    audit(model, data, tmp_path, progress=False)
    settings = yaml.safe_load((tmp_path / "settings.yaml").read_text())
    likeness = settings["checks"]["reference/gradient"]
    assert likeness["init_args"]["reference"] == str(tmp_path / "natural")
    fields = {f.name for f in dataclasses.fields(Audit)}
    again = build(Audit, {key: value for key, value in settings.items() if key in fields})
    del settings["checks"]["reference/gradient"]  # a module equals nothing but itself
    assert again.checks["reference/gradient"].k == 9
    assert again.checks.keys() == checks.keys()
    for name in settings["checks"]:
        assert again.checks[name] == checks[name], name


def test_the_worst_cases_follow_the_first_in_the_gallery(model, data, tmp_path):
    audit = dataclasses.replace(AUDIT, gallery=2, worst=3)
    records = audit(model, data, tmp_path, progress=False)
    tau = values(records, CHECK, "kendall_tau")
    lowest = set(sorted(tau, key=lambda i: (tau[i], i))[:3])
    drawn = torch.randperm(20, generator=torch.Generator().manual_seed(0)).tolist()
    right = values(records, "clean", "correct")
    first = [i for i in drawn if right[i]][:2]
    with safe_open(tmp_path / "gallery.safetensors", "pt") as file:
        index, worst = file.get_tensor("index").tolist(), file.get_tensor("worst").tolist()
        images = file.get_tensor("images")
    assert index[:2] == first
    assert set(index) == set(first) | lowest
    assert len(index) == len(set(index))
    assert {i for i, is_worst in zip(index, worst, strict=True) if is_worst} == lowest
    assert torch.equal(images, data.batch(index)["images"])


def test_work_that_is_shared_ends_the_same(model, data, tmp_path):
    alone = AUDIT(model, data, tmp_path / "alone", progress=False)
    shared = tmp_path / "shared"
    second = AUDIT(model, data, shared, progress=False, rank=1, world=2)
    assert [p.name for p in shared.glob("part-*")] == ["part-00001.parquet"]
    assert set(second["index"].to_pylist()) == set(range(8, 16))
    with pytest.raises(HoldfastError, match="lacks 2 of 3 shards"):
        AUDIT.finish(model, data, shared)
    AUDIT(model, data, shared, progress=False, rank=0, world=2)
    assert not (shared / "gallery.safetensors").exists()
    assert AUDIT.finish(model, data, shared).equals(alone)
    assert (shared / "gallery.safetensors").read_bytes() == (
        tmp_path / "alone" / "gallery.safetensors"
    ).read_bytes()
    # More processes than shards: one of them has nothing to do.
    assert AUDIT(model, data, shared, progress=False, rank=3, world=4).num_rows == 0
    with pytest.raises(InputError, match="rank: expected a number from 0 to 1"):
        AUDIT(model, data, shared, progress=False, rank=2, world=2)


def test_refuses_a_measure_that_is_not_one_value_an_image(model, data, tmp_path, own_errors):
    @dataclasses.dataclass(frozen=True)
    class Loss:
        def __call__(self, model, batch):
            return {"loss": batch["images"].mean()}

    audit = dataclasses.replace(AUDIT, manipulations={}, checks={"mine": Loss()})
    with pytest.raises(InputError, match=r"checks.mine: expected shape \(8,\), got loss of shape"):
        audit(model, data, tmp_path, progress=False)


def test_refuses_one_name_twice(own_errors):
    with pytest.raises(InputError, match="several checks named clean, pgd"):
        Audit(
            attacks={"pgd": PGD(0.1, 0.1, 1)}, checks={"pgd": Brightness(), "clean": Brightness()}
        )


def test_refuses_to_mix_audits(model, data, tmp_path):
    AUDIT(model, data, tmp_path, progress=False)
    with pytest.raises(HoldfastError, match=r"other settings \(k\)"):
        dataclasses.replace(AUDIT, k=10)(model, data, tmp_path, progress=False)
    with pytest.raises(HoldfastError, match=r"other settings \(model\)"):
        AUDIT(nn.Sequential(nn.Flatten(), nn.Linear(256, 10)), data, tmp_path, progress=False)


def test_goes_on_with_an_audit_from_before_a_setting_was_there(model, data, tmp_path):
    records = AUDIT(model, data, tmp_path, progress=False)
    file = tmp_path / "settings.yaml"
    settings = yaml.safe_load(file.read_text())
    del settings["checks"], settings["worst"], settings["digest"]
    file.write_text(with_digest(yaml.safe_dump(settings)))
    with pytest.warns(UserWarning, match="made with other settings; shard"):  # of another digest
        assert AUDIT(model, data, tmp_path, progress=False).equals(records)
    with pytest.raises(HoldfastError, match=r"other settings \(worst\)"):
        dataclasses.replace(AUDIT, worst=1)(model, data, tmp_path, progress=False)


def test_leaves_model_and_generators_as_they_were(data, tmp_path, untouched):
    net = nn.Sequential(
        nn.Conv2d(1, 4, 3, 2),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.Dropout(),
        nn.Flatten(),
        nn.Linear(196, 10),
    )
    before = torch.get_rng_state()
    with untouched(net):
        AUDIT(net, data, tmp_path, progress=False)
    assert torch.equal(torch.get_rng_state(), before)


def test_a_model_that_is_never_right_has_records_of_predictions_only(data, tmp_path):
    class Wrong(nn.Module):
        def forward(self, x):
            return torch.cat([x.flatten(1)[:, :10] / 9, x.mean((1, 2, 3))[:, None] + 1], 1)

    records = AUDIT(Wrong(), data, tmp_path, progress=False)
    assert set(records["check"].to_pylist()) == {"clean", "pgd"}
    assert sum(values(records, "pgd", "correct").values()) == 0
    assert sum(values(records, "clean", "correct").values()) == 0


def test_refuses_a_model_with_too_few_classes(data, tmp_path, own_errors):
    with pytest.raises(HoldfastError, match="4 classes, 0 to 3, but digits has images of class 9"):
        AUDIT(nn.Sequential(nn.Flatten(), nn.Linear(256, 4)), data, tmp_path, progress=False)
    assert not list(tmp_path.iterdir())  # another model may take the folder


@pytest.mark.parametrize(
    "changes", [{"k": 0}, {"shard": 0}, {"gallery": -1}, {"explained": -1}, {"worst": -1}]
)
def test_refuses_settings(changes, own_errors):
    with pytest.raises(InputError, match=f"Audit.{next(iter(changes))}"):
        dataclasses.replace(AUDIT, **changes)


def test_defaults_follow_the_papers():
    audit = Audit()
    attack = audit.manipulations[CHECK]
    assert (attack.k, attack.eps, attack.step_size, attack.steps) == (100, 8 / 255, 1 / 255, 50)
    assert audit.attacks["pgd"].steps == 40
    assert attack.path_samples is None
    assert Gradient() != attack.attribution


def test_settings_tell_where_a_model_came_from(data, tmp_path):
    @dataclasses.dataclass(frozen=True)
    class Preprocessing:
        size: tuple[int, int] = (16, 16)
        mean: tuple[float, ...] = (0.5,)

    torch.manual_seed(0)
    net = nn.Sequential(nn.Flatten(), nn.Linear(256, 10))
    plain = dataclasses.replace(AUDIT, manipulations={}, attacks={})
    records = plain(net, data, tmp_path, progress=False)
    before = yaml.safe_load((tmp_path / "settings.yaml").read_text())
    assert not {"model_origin", "model_preprocessing"} & before.keys()
    # The same weights by another name are the same model.
    net.origin, net.preprocessing = "timm:tiny", Preprocessing()
    assert plain(net, data, tmp_path, progress=False).equals(records)
    plain(net, data, tmp_path / "told", progress=False)
    told = yaml.safe_load((tmp_path / "told" / "settings.yaml").read_text())
    assert told["model_origin"] == "timm:tiny"
    assert told["model_preprocessing"] == {"size": [16, 16], "mean": [0.5]}
