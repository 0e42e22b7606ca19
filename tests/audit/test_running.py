"""Audits in their folders: bound to what they were begun with, damaged, gone on with."""

import dataclasses
import os
import random
import shutil
import warnings

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import load_file
from scipy import stats
from torch import nn

from holdfast.adversarial import PGD, Transfer
from holdfast.attributions import Gradient
from holdfast.audit import Audit, Likeness, unfinished
from holdfast.audit.map_checks import similarities
from holdfast.contracts import HoldfastError, InputError, Outcome
from holdfast.data import ImageData, ImageDataset
from holdfast.data.images import DecodedImages
from holdfast.manipulation import RandomSign, Targeted, TopK
from holdfast.models import Architecture
from holdfast.training import load, save
from holdfast.training.recipe import build

TOP_K = TopK(Gradient(), k=20, eps=0.1, step_size=0.03, steps=3)
AUDIT = Audit(
    attacks={"pgd": PGD(eps=0.1, step_size=0.05, steps=2)},
    manipulations={"top_k": TOP_K, "sign": RandomSign(Gradient(), eps=0.1)},
    k=20,
    gallery=2,
    worst=1,
    shard=5,
)


@pytest.fixture(scope="module")
def data():
    return ImageData("digits", limit=15).load("test")


@pytest.fixture(scope="module")
def model(digits_model):
    return load(digits_model)


@pytest.fixture(scope="module")
def made(model, data, tmp_path_factory):
    folder = tmp_path_factory.mktemp("audit")
    records = AUDIT(model, data, folder, progress=False)
    return records, folder


@pytest.fixture
def folder(made, tmp_path):
    return shutil.copytree(made[1], tmp_path / "audit")


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def without_gallery(folder):
    (folder / "gallery.safetensors").unlink()


# --- bound to what it was begun with -------------------------------------------------------------


def changed(data, images=None, labels=None, order=None):
    """Return the data set with other pixels, labels or order."""
    pixels = data._images.pixels if images is None else images
    chosen = torch.arange(len(data)) if order is None else order
    return ImageDataset(
        data.name,
        data.classes,
        DecodedImages(pixels, data._images.sizes),
        data.labels if labels is None else labels,
        order=chosen,
    )


def test_refuses_other_images_labels_and_orders(model, data, folder, own_errors):
    before = contents(folder)
    pixels, labels = data._images.pixels.clone(), data.labels.clone()
    pixels[14, 0, 3, 3] += 1
    labels[3] = (labels[3] + 1) % 10
    backwards = torch.arange(14, -1, -1)
    fewer = torch.arange(14)
    for other, told in (
        (changed(data, images=pixels), r"\(the images or their order\)"),
        (changed(data, labels=labels), r"\(labels\)"),
        (changed(data, order=backwards), r"\(the images or their order, labels\)"),
        (changed(data, order=fewer), r"\(the number of images, 15 and not 14\)"),
        (ImageData("digits", limit=15, seed=1).load("test"), r"\(the images or their order, labe"),
        (ImageData("digits", limit=15, size=8).load("test"), r"\(the size of the images, model\)"),
    ):
        fits = other.shape == data.shape
        net = model if fits else nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
        with pytest.raises(HoldfastError, match=f"other settings {told}"):
            AUDIT(net, other, folder, progress=False)
    assert contents(folder) == before
    assert AUDIT(model, changed(data), folder, progress=False)


def test_boxes_masks_and_class_names_count(model, data, tmp_path):
    def with_boxes(boxes, classes=data.classes):
        images = DecodedImages(data._images.pixels, data._images.sizes)
        return ImageDataset("digits", classes, images, data.labels, boxes=boxes)

    audit = dataclasses.replace(AUDIT, manipulations={}, attacks={})
    boxes = torch.tensor([[0.0, 0.0, 5.0, 5.0]]).expand(15, 4).clone()
    audit(model, with_boxes(boxes), tmp_path, progress=False)
    other = boxes.clone()
    other[7, 2] = 4
    for wrong, told in (
        (with_boxes(other), r"\(boxes\)"),
        (with_boxes(None), r"\(boxes\)"),
        (with_boxes(boxes, tuple("abcdefghij")), r"\(labels\)"),
    ):
        with pytest.raises(HoldfastError, match=told):
            audit(model, wrong, tmp_path, progress=False)


class Scaled(nn.Module):
    """The model at a temperature, which no weight knows of."""

    def __init__(self, model, temperature):
        super().__init__()
        self.model, self.temperature = model, temperature

    def forward(self, x):
        return self.model(x) / self.temperature


class Twice(nn.Module):
    def __init__(self, model, temperature):
        super().__init__()
        self.model, self.temperature = model, temperature

    def forward(self, x):
        return (self.model(x) + self.model(x)) / 2 / self.temperature


def test_refuses_another_model_behind_the_same_weights(model, data, tmp_path):
    audit = dataclasses.replace(AUDIT, manipulations={}, attacks={})
    records = audit(Scaled(model, 1.0), data, tmp_path, progress=False)
    hooked = Scaled(model, 1.0)
    hooked.register_forward_hook(lambda module, given, logits: logits.detach())
    patched = Scaled(model, 1.0)
    patched.forward = lambda x: patched.model(x)
    for other, told in (
        (Scaled(model, 2.0), "the answers of the model"),
        (Twice(model, 1.0), "the code of the model"),
        (hooked, "the code of the model"),
        (patched, "the code of the model"),
    ):
        with pytest.raises(HoldfastError, match=rf"other settings \({told}\)"):
            audit(other, data, tmp_path, progress=False)
    assert audit(Scaled(model, 1.0), data, tmp_path, progress=False).equals(records)


@dataclasses.dataclass(frozen=True)
class Blur:
    eps: float = 0.1

    def __call__(self, net, images, labels):
        return images


@dataclasses.dataclass(frozen=True)
class Sharpen(Blur):
    pass


def test_refuses_another_part_behind_the_same_settings(model, data, tmp_path):
    def refused(first, second, told, folder):
        plain = dataclasses.replace(AUDIT, manipulations={}, attacks={})
        dataclasses.replace(plain, **first)(model, data, tmp_path / folder, progress=False)
        with pytest.raises(HoldfastError, match=rf"other settings \({told}\)"):
            dataclasses.replace(plain, **second)(model, data, tmp_path / folder, progress=False)
        dataclasses.replace(plain, **first)(model, data, tmp_path / folder, progress=False)

    refused({"attacks": {"a": Blur()}}, {"attacks": {"a": Sharpen()}}, "attacks", "net")
    brighter, darker = (lambda m, x, y: x * 1.0), (lambda m, x, y: x * 0.5)
    refused({"attacks": {"a": brighter}}, {"attacks": {"a": darker}}, "attacks", "lambda")
    # Another model in the same file.
    architecture = Architecture("mlp", classes=10, size=16, in_channels=1)
    file = tmp_path / "other.safetensors"
    others = []
    for seed in (0, 1):
        torch.manual_seed(seed)
        save(architecture.build(), file, architecture=architecture, classes=data.classes)
        others.append(load(file))
        file.unlink()
    checks = [{"checks": {"like": Likeness(Gradient(), other, k=5)}} for other in others]
    refused(*checks, "what checks.like.reference is", "reference")
    attacks = [{"attacks": {"t": Transfer(PGD(0.1, 0.1, 1), other)}} for other in others]
    refused(*attacks, "what attacks.t.source is", "source")


def test_refuses_another_seed(model, data, folder):
    with pytest.raises(HoldfastError, match=r"other settings \(seed\)"):
        dataclasses.replace(AUDIT, seed=1)(model, data, folder, progress=False)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (None, "holds records, but no settings.yaml"),
        ("", "settings.yaml is damaged or was changed by hand"),
        ("a: [", "settings.yaml"),
        ("\x00\x01", "settings.yaml"),
        ("- 1\n", "settings.yaml is damaged or was changed by hand"),
        (
            "k: 20\nmodel: 123\n",
            "holds an audit by an older Holdfast, which is not bound to its im",
        ),
    ],
)
def test_refuses_settings_that_are_missing_or_damaged(text, told, model, data, folder, own_errors):
    settings = folder / "settings.yaml"
    if text is None:
        settings.unlink()
    else:
        settings.write_text(text)
    before = contents(folder)
    with pytest.raises(HoldfastError, match=told) as error:
        AUDIT(model, data, folder, progress=False)
    assert "remove it or choose another folder" in str(error.value)
    assert "\n" not in str(error.value)
    assert contents(folder) == before


def test_refuses_settings_that_were_changed_by_hand(model, data, folder):
    settings = folder / "settings.yaml"
    settings.write_text(settings.read_text().replace("k: 20\n", "k: 10\n"))
    with pytest.raises(HoldfastError, match="changed by hand"):
        dataclasses.replace(AUDIT, k=10)(model, data, folder, progress=False)


def test_settings_hold_nothing_of_the_time_and_the_place(model, data, made, tmp_path):
    again = AUDIT(model, data, tmp_path / "elsewhere", progress=False)
    assert again.equals(made[0])
    assert contents(tmp_path / "elsewhere") == contents(made[1])


def test_what_fails_early_writes_nothing(data, tmp_path):
    with pytest.raises(HoldfastError):
        AUDIT(nn.Sequential(nn.Flatten(), nn.Linear(9, 10)), data, tmp_path / "new", progress=False)
    assert not (tmp_path / "new").exists()


# --- damaged, and made anew ----------------------------------------------------------------------


def swapped(folder):
    first, second = folder / "part-00000.parquet", folder / "part-00001.parquet"
    contents = first.read_bytes()
    first.write_bytes(second.read_bytes())
    second.write_bytes(contents)


@pytest.mark.parametrize(
    ("damage", "lines"),
    [
        (lambda folder: (folder / "part-00001.parquet").write_bytes(b""), 1),
        (lambda folder: os.truncate(folder / "part-00002.parquet", 900), 1),
        (swapped, 2),
        (lambda folder: (folder / "gallery.safetensors").write_bytes(b"no gallery"), 1),
        (lambda folder: (folder / "fitness.yaml").write_bytes(b"\xff\x00 garbage"), 1),
        (lambda folder: (folder / "fitness.yaml").write_text("images: 3\n"), 1),
        (without_gallery, 0),
        (lambda folder: (folder / "fitness.yaml").unlink(), 0),
    ],
)
def test_what_is_damaged_is_made_anew_with_a_line(damage, lines, model, data, made, folder):
    damage(folder)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        records = AUDIT(model, data, folder, progress=False)
    told = [str(w.message) for w in said if "anew" in str(w.message)]
    assert len(told) == lines
    assert records.equals(made[0])
    assert contents(folder) == contents(made[1])


def test_parts_of_another_audit_are_not_taken(model, data, made, folder, tmp_path):
    dataclasses.replace(AUDIT, k=10)(model, data, tmp_path / "other", progress=False)
    shutil.copy(tmp_path / "other" / "part-00001.parquet", folder / "part-00001.parquet")
    with pytest.warns(
        UserWarning, match="part-00001.parquet was made with other settings; shard 1"
    ):
        assert AUDIT(model, data, folder, progress=False).equals(made[0])
    assert contents(folder) == contents(made[1])


def test_another_process_in_the_folder_is_refused(model, data, tmp_path):
    from holdfast.files import locked

    with locked(tmp_path / "audit"), pytest.raises(HoldfastError, match="works in"):
        AUDIT(model, data, tmp_path / "audit", progress=False)


# --- the gallery ---------------------------------------------------------------------------------


def test_the_gallery_shows_what_was_measured(made):
    records, folder = made
    kept = load_file(folder / "gallery.safetensors")
    rows = {(r["check"], r["measure"], r["index"]): r["value"] for r in records.to_pylist()}
    for check in AUDIT.manipulations:
        maps, after = kept[f"{check}|maps"], kept[f"{check}|perturbed_maps"]
        again = similarities(maps, after, AUDIT.k)
        for place, index in enumerate(kept["index"].tolist()):
            assert kept[f"{check}|preserved"][place] == rows[check, "preserved", index]
            moved = (kept[f"{check}|perturbed_images"] - kept[f"{check}|images"])[place].abs().max()
            assert float(moved) == pytest.approx(rows[check, "moved", index])
            for measure in ("kendall_tau", "top_k_intersection"):
                measured = rows[check, measure, index]
                assert kept[f"{check}|{measure}"][place] == measured
                assert again[measure][place] == measured


class StopError(Exception):
    pass


@dataclasses.dataclass(frozen=True)
class Drawing:
    """A method that draws from all global generators, counts its calls, and stops at one."""

    calls: list = dataclasses.field(default_factory=list, compare=False)
    attribution: Gradient = Gradient()
    stop: int = 0

    def __call__(self, model, images, labels):
        self.calls.append(len(images))
        if len(self.calls) == self.stop:
            raise StopError
        noise = torch.rand_like(images) * random.random() * float(np.random.rand())
        one = torch.ones(len(images))
        return Outcome((images + 0.1 * noise).clamp(0, 1), one, one.bool())


@dataclasses.dataclass(frozen=True)
class Drawn:
    """A check that draws, too."""

    def __call__(self, model, batch):
        return {"draw": torch.rand(len(batch["labels"])) + random.random() + np.random.rand()}


def drawing(stop=0):
    methods = {name: Drawing(stop=0) for name in ("a", "c")}
    methods = {"a": methods["a"], "b": Drawing(stop=stop), "c": methods["c"]}
    return dataclasses.replace(
        AUDIT,
        attacks={"pgd": PGD(0.1, 0.05, 2, seed=None)},
        manipulations=methods,
        checks={"d": Drawn()},
    )


@pytest.fixture
def plain(monkeypatch):
    """Settings that are alike wherever a method stops."""
    from holdfast.audit import binding

    monkeypatch.setattr(binding, "_parts", lambda name, part: ())
    real = binding.to_settings
    monkeypatch.setattr(
        binding, "to_settings", lambda part: real(dataclasses.replace(part, manipulations={}))
    )


@pytest.mark.parametrize("every", [0.0, 1e9])
@pytest.mark.parametrize("stop", [1, 2, 3])
def test_a_shard_goes_on_where_it_was(every, stop, model, data, plain, tmp_path, monkeypatch):
    monkeypatch.setattr(unfinished, "EVERY", every)
    whole = drawing()
    records = whole(model, data, tmp_path / "whole", progress=False)
    with pytest.raises(StopError):
        drawing(stop)(model, data, tmp_path / "cut", progress=False)
    left = list((tmp_path / "cut").glob("unfinished-*"))
    assert bool(left) == (every == 0)
    again = drawing()
    assert again(model, data, tmp_path / "cut", progress=False).equals(records)
    assert contents(tmp_path / "cut") == contents(tmp_path / "whole")
    shards = len(whole.manipulations["a"].calls)
    done = stop if every == 0 else stop - 1
    assert len(again.manipulations["a"].calls) == shards - done
    assert len(again.manipulations["b"].calls) == shards - (stop - 1)


@pytest.mark.parametrize("kept", [0, 1, 2])
def test_damage_in_what_is_kept_of_a_shard_costs_only_time(
    kept, model, data, plain, tmp_path, monkeypatch
):
    monkeypatch.setattr(unfinished, "EVERY", 0.0)
    records = drawing()(model, data, tmp_path / "whole", progress=False)
    with pytest.raises(StopError):
        drawing(2)(model, data, tmp_path / "cut", progress=False)
    files = sorted((tmp_path / "cut").glob("unfinished-*"))
    assert [file.name for file in files] == [
        f"unfinished-00001-00{n}.safetensors" for n in range(3)
    ]
    os.truncate(files[kept], 100)
    assert drawing()(model, data, tmp_path / "cut", progress=False).equals(records)
    assert contents(tmp_path / "cut") == contents(tmp_path / "whole")


def test_nothing_is_attacked_twice(model, data, plain, tmp_path):
    audit = drawing()
    audit(model, data, tmp_path, progress=False)
    assert len(audit.manipulations["a"].calls) == 3  # a call a shard, none for the gallery
    # Only where it is gone, and what attacks left of it, are its shards examined again.
    without_gallery(tmp_path)
    before = contents(tmp_path)
    audit(model, data, tmp_path, progress=False)
    assert 3 < len(audit.manipulations["a"].calls) <= 6
    assert before.items() <= contents(tmp_path).items()
    assert not list(tmp_path.glob("candidates-*"))


def test_settings_are_plain_yaml(made):
    settings = yaml.safe_load((made[1] / "settings.yaml").read_text())
    assert set(settings["data"]["digests"]) == {"images", "labels"}
    assert settings["manipulations"]["sign"]["class_path"].endswith("RandomSign")


class TestShuffledTargets:
    ATTACK = Targeted(Gradient(), 0.1, 0.03, 3, shuffled=True, judge_every=3)
    AUDIT = Audit({}, {"shuffled": ATTACK}, k=20, gallery=1, worst=0, explained=9, shard=4)

    def measured(self, audit, model, data, folder):
        """Return each measure by the image."""
        found = {}
        for row in audit(model, data, folder, progress=False).to_pylist():
            found.setdefault(row["measure"], {})[row["index"]] = row["value"]
        return found

    def test_are_other_images_of_the_data_set(self, model, data, tmp_path):
        found = self.measured(self.AUDIT, model, data, tmp_path)
        images = data.batch(range(len(data)))["images"].requires_grad_(True)
        logits = model(images)
        (gradients,) = torch.autograd.grad(logits.max(1).values.sum(), images)
        scores = gradients.abs().sum(1).flatten(1).numpy()
        top = [set((-score).argsort(kind="stable")[:20]) for score in scores]
        targets = {}
        for index, tau in found["target_before_kendall_tau"].items():
            taus = [stats.kendalltau(scores[index], other).statistic for other in scores]
            (targets[index],) = np.flatnonzero(np.isclose(taus, tau, atol=1e-6))
            shared = len(top[index] & top[targets[index]]) / 20
            assert found["target_before_top_k_intersection"][index] == pytest.approx(shared)
        assert len(targets) > 5
        assert all(target != index for index, target in targets.items())
        assert len(set(targets.values())) == len(targets)
        nearer = [
            found["target_kendall_tau"][i] - found["target_before_kendall_tau"][i] for i in targets
        ]
        assert np.mean(nearer) > 0
        assert np.mean(list(found["kendall_tau"].values())) < 0.95

    def test_do_not_depend_on_shards_and_on_who_else_is_explained(self, model, data, tmp_path):
        found = self.measured(self.AUDIT, model, data, tmp_path / "few")
        other = dataclasses.replace(self.AUDIT, shard=15, explained=None)
        all_of_them = self.measured(other, model, data, tmp_path / "all")
        for measure in ("kendall_tau", "target_kendall_tau", "moved"):
            for index, value in found[measure].items():
                assert all_of_them[measure][index] == pytest.approx(value, abs=0.02), measure
        again = dataclasses.replace(other, manipulations={"shuffled": self.seeded(1)})
        reseeded = self.measured(again, model, data, tmp_path / "seed")
        name = "target_before_kendall_tau"
        both = reseeded[name].keys() & all_of_them[name].keys()
        assert len([i for i in both if reseeded[name][i] != all_of_them[name][i]]) > 5

    def seeded(self, seed):
        return dataclasses.replace(self.ATTACK, seed=seed)

    def test_from_yaml(self):
        settings = {
            "class_path": "Targeted",
            "init_args": {
                "attribution": {"class_path": "Gradient"},
                **{"eps": 0.1, "step_size": 0.03, "steps": 3, "shuffled": True, "judge_every": 3},
            },
        }
        audit = build(Audit, {"attacks": {}, "manipulations": {"shuffled": settings}})
        assert audit.manipulations == self.AUDIT.manipulations

    def test_need_more_than_one_image(self, model, tmp_path, own_errors):
        one = ImageData("digits", limit=1).load("test")
        with pytest.raises(InputError, match=r"shuffled.shuffled: expected more than one image"):
            self.AUDIT(model, one, tmp_path / "one", progress=False)
        assert not list((tmp_path / "one").glob("*.parquet"))
