"""Made-up run folders: real pictures of digits, plausible records from a seeded generator."""

import json
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from safetensors.numpy import save_file
from sklearn.datasets import load_digits

from holdfast.report import AuditedRun, read_run

CHECK = "top_k/integrated_gradients"
OTHER = "mass_center/gradient"
# Accuracy, accuracy under PGD, and the mean of τ under the attack on the explanation.
MODELS = {
    "natural": (0.985, 0.08, 0.33),
    "pgd": (0.962, 0.71, 0.58),
    "ig_sum_norm": (0.968, 0.64, 0.63),
    "art": (0.966, 0.69, 0.71),
}


def write_run(
    folder: Path,
    accuracy: float = 0.98,
    robust: float = 0.1,
    tau: float = 0.4,
    *,
    images: int = 200,
    checks: tuple[str, ...] = (CHECK,),
    gallery: tuple[int, ...] = (4, 17, 23, 42, 58, 99),
    parts: int = 3,
    seed: int = 0,
) -> Path:
    random = np.random.default_rng(seed)
    labels = load_digits().target[np.arange(images) % 1797]
    records = []

    def note(index, check, measure, value):
        records.append((int(index), int(labels[index]), check, measure, float(value)))

    correct = random.random(images) < accuracy
    correct[list(gallery)] = True
    for index in range(images):
        note(index, "clean", "correct", correct[index])
        note(index, "pgd", "correct", correct[index] and random.random() < robust)
        for number, check in enumerate(checks if correct[index] else ()):
            kept = random.random() < 0.95 or index in gallery
            note(index, check, "preserved", kept)
            if kept:
                value = np.clip(random.normal(tau + 0.05 * number, 0.12), -1, 1)
                note(index, check, "top_k_intersection", np.clip(value + 0.08, 0, 1))
                note(index, check, "kendall_tau", value)
                note(index, check, "spearman_rho", np.clip(1.3 * value, -1, 1))
    write_records(folder, records, parts)
    config = {
        "data": {"name": "digits", "image_size": [1, 8, 8]},
        "model": {"class_path": "SmallCNN", "init_args": {"width": 32}},
        "objective": {"class_path": folder.name, "init_args": {"eps": 0.1}},
        "optimizer": {"lr": 0.05 if "natural" in folder.name else 0.01, "momentum": 0.9},
        "trainer": {"max_epochs": 20, "precision": "32-true"},
        "seed": 0,
    }
    (folder / "config.yaml").write_text(yaml.safe_dump(config, sort_keys=False))
    settings = {
        "images": images,
        "checks": {"pgd": {"eps": 0.1, "steps": 40}, CHECK: {"k": 12, "eps": 0.1, "steps": 50}},
        "versions": {"holdfast": "0.1.0", "torch": "2.11.0", "numpy": "2.4.0"},
    }
    (folder / "audit" / "settings.yaml").write_text(yaml.safe_dump(settings, sort_keys=False))
    if gallery:
        write_gallery(folder / "audit" / "gallery.safetensors", gallery, checks, tau, random)
    return folder


def write_records(folder: Path, records: list[tuple], parts: int = 1) -> None:
    (folder / "audit").mkdir(parents=True, exist_ok=True)
    kinds = [pa.int64(), pa.int64(), pa.string(), pa.string(), pa.float64()]
    names = ["index", "label", "check", "measure", "value"]
    cuts = np.linspace(0, len(records), parts + 1).astype(int)
    for number, (start, end) in enumerate(pairwise(cuts)):
        columns = zip(*records[start:end], strict=True)
        arrays = [pa.array(c, kind) for c, kind in zip(columns, kinds, strict=True)]
        table = pa.table(arrays, names=names)
        pq.write_table(table, folder / "audit" / f"part-{number:05d}.parquet")


def write_gallery(path, indices, checks, tau, random) -> None:
    digits = load_digits()
    images = (digits.images[list(indices)] / 16).astype(np.float32)[:, None].clip(0, 1)
    tensors = {"index": np.array(indices), "label": digits.target[list(indices)]}
    for check in checks:
        noise = random.normal(size=(2, *images.shape)).astype(np.float32)
        maps = (images - 0.4) * images * (1 + 0.2 * noise[0])
        tensors |= {
            f"{check}|images": images,
            f"{check}|maps": maps,
            f"{check}|perturbed_images": (images + 0.05 * np.sign(noise[0])).clip(0, 1),
            f"{check}|perturbed_maps": tau * maps + (1 - tau) * 0.15 * noise[1],
            f"{check}|kendall_tau": random.normal(tau, 0.1, len(indices)).clip(-1, 1),
            f"{check}|top_k_intersection": random.normal(tau, 0.1, len(indices)).clip(0, 1),
            f"{check}|preserved": np.arange(len(indices)) != 2,
        }
    arrays = {
        key: np.ascontiguousarray(v, np.int64 if key in ("index", "label") else np.float32)
        for key, v in tensors.items()
    }
    save_file(arrays, path, {"classes": json.dumps([f"digit {n}" for n in range(10)])})


ATTRIBUTIONS = {"gradient": "Gradient", "integrated_gradients": "IntegratedGradients"}
CORRUPTIONS = ("gaussian_noise", "fog", "jpeg_compression")
THRESHOLDS = (0.1, 0.2, 0.3, 0.5)
STRENGTHS = (2, 4, 8, 16)


def write_whole_run(
    folder: Path,
    strength: float = 0.5,
    *,
    images: int = 60,
    corruptions: tuple[str, ...] = CORRUPTIONS,
    severities: tuple[int, ...] = (1, 2, 3),
    thresholds: tuple[float, ...] = THRESHOLDS,
    masks: bool = True,
    pictures: np.ndarray | None = None,
    seed: int = 0,
) -> Path:
    """Write a run with every kind of record; the higher the strength, the better its figures."""
    random = np.random.default_rng(seed)
    labels = load_digits().target[np.arange(images) % 1797]
    records = []

    def note(check, measure, values, chosen=None):
        for index in np.arange(images) if chosen is None else chosen:
            value = float(values[index])
            records.append((int(index), int(labels[index]), check, measure, value))

    def right(share):
        return (correct & (random.random(images) < share)).astype(float)

    def near(mean, spread=0.12, low=-1.0, high=1.0):
        return np.clip(random.normal(mean, spread, images), low, high)

    correct = np.ones(images, bool)
    correct = right(0.93 + 0.04 * (1 - strength)).astype(bool)
    note("clean", "correct", correct)
    for eps in STRENGTHS:
        note(f"pgd_{eps}", "correct", right(np.exp(-eps * (1 - strength) / 4)))
    for steps in (100, 500):
        note(f"pgd_{steps}", "correct", right(np.exp(-8.1 * (1 - strength) / 4)))
    for number, name in enumerate(corruptions):
        for severity in severities:
            note(
                f"corruption/{name}/{severity}",
                "correct",
                right(1 - 0.02 * severity * (1 + number % 7) * (1.2 - strength)),
            )
    shown = np.flatnonzero(correct)
    attacks = {f"top_k/{name}": 8 for name in ATTRIBUTIONS}
    attacks |= {f"top_k_{eps}/integrated_gradients": eps for eps in (4, 16)}
    attacks |= {f"mass_centre/{name}": 8 for name in ATTRIBUTIONS}
    for check, eps in attacks.items():
        note(check, "preserved", np.ones(images), shown)
        tau = near(0.2 + 0.6 * strength - 0.015 * eps + 0.05 * ("mass" in check))
        note(check, "top_k_intersection", np.clip(tau + 0.08, 0, 1), shown)
        note(check, "kendall_tau", tau, shown)
        note(check, "spearman_rho", np.clip(1.3 * tau, -1, 1), shown)
    for check in list(attacks)[:2]:
        figures = {"tau": 0.6, "tau_twice_steps": 0.59, "tau_twice_eps": 0.5 + 0.4 * strength}
        for measure, mean in (figures | {"tau_random_search": 0.8}).items():
            note(f"trust/{check}", measure, near(mean, 0.05), shown)
        note(f"trust/{check}", "zero_gradient", np.zeros(images), shown)
        for measure, share in {"pgd": 0.5, "pgd_100": 0.49, "spsa": 0.6, "no_bound": 0.0}.items():
            note(f"trust/{check}", f"correct_{measure}", right(share), shown)
    closeness = random.normal(size=images)
    for number, name in enumerate(ATTRIBUTIONS):
        check = f"localization/{name}"
        quality = 0.3 + 0.2 * strength + 0.05 * number
        note(check, "loc", np.clip(quality + 0.05 * closeness + near(0, 0.05), 0, 1), shown)
        note(check, "energy_game", near(quality + 0.1, 0.05) + 0.04 * closeness, shown)
        note(check, "positive_percentage", near(0.5 + 0.1 * strength, 0.05), shown)
        note(check, "concentration", near(4 + strength, 0.6, 0, 9), shown)
        note(check, "pointing_game", right(0.5 + 0.3 * strength), shown)
        check = f"wsol/{name}"
        note(check, "top_1", correct)
        for threshold in thresholds:
            middle = 0.62 + 0.1 * strength - 2.2 * (threshold - 0.25) ** 2
            note(check, f"box_iou/{threshold:.2f}", near(middle, 0.2, 0, 1))
            if masks:
                note(check, f"mask_iou/{threshold:.2f}", near(middle - 0.1, 0.2, 0, 1))
        note(f"faithfulness/{name}", "insertion", near(0.5 + 0.2 * strength), shown)
        note(f"faithfulness/{name}", "deletion", near(0.3 - 0.1 * strength), shown)
        for measure in ("top_k_intersection", "kendall_tau", "spearman_rho"):
            note(f"reference/{name}", measure, near(0.3, 0.1), shown)
    note("alignment/image", "alignment", near(2 + 4 * strength, 1, 0, 99), shown)
    note("alignment/image", "absolute_cosine", near(0.1 + 0.3 * strength, 0.05, 0, 1), shown)
    note("alignment/image", "signed_cosine", near(0.3 * strength, 0.05), shown)
    for measure in ("sm_bsm", "ig_big", "ig_agi"):
        distance = 9 - 4 * strength - closeness + 0.3 * random.normal(size=images)
        note("alignment/boundary", measure, distance, shown)
    write_records(folder, records, 2)
    write_settings(folder, attacks, thresholds)
    held = shown[:6]
    whole = None if pictures is None else pictures[held]
    write_whole_gallery(folder, held, labels, list(attacks), thresholds, random, whole)
    return folder


def write_settings(folder: Path, attacks: dict[str, int], thresholds: tuple[float, ...]) -> None:
    def part(kind, **arguments):
        return {"class_path": f"holdfast.somewhere.{kind}", "init_args": arguments}

    def pgd(eps, steps):
        return part("PGD", eps=eps / 255, step_size=eps / 1020, steps=steps, seed=0)

    made = {
        name: part(kind, **({"steps": 50} if kind.startswith("Int") else {}))
        for name, kind in ATTRIBUTIONS.items()
    }
    kinds = {"top": "TopK", "mass": "MassCentre"}
    settings = {
        "data": {"name": "digits", "images": 60},
        "attacks": {f"pgd_{eps}": pgd(eps, 40) for eps in STRENGTHS}
        | {f"pgd_{steps}": pgd(8, steps) for steps in (100, 500)},
        "manipulations": {
            check: part(
                kinds[check.split("_")[0]],
                attribution=made[check.partition("/")[2]],
                eps=eps / 255,
                step_size=eps / 2550,
                steps=50,
            )
            for check, eps in attacks.items()
        },
        "checks": {
            f"localization/{name}": part("Localization", attribution=attribution)
            for name, attribution in made.items()
        }
        | {
            f"wsol/{name}": part(
                "WeaklySupervisedLocalization", attribution=attribution, thresholds=[*thresholds]
            )
            for name, attribution in made.items()
        },
        "versions": {"holdfast": "0.1.0", "torch": "2.11.0"},
    }
    config = {"model": {"class_path": "SmallCNN"}, "objective": {"class_path": folder.name}}
    (folder / "config.yaml").write_text(yaml.safe_dump(config, sort_keys=False))
    (folder / "audit" / "settings.yaml").write_text(yaml.safe_dump(settings, sort_keys=False))


def write_whole_gallery(folder, indices, labels, attacks, thresholds, random, images=None) -> None:
    """Write a gallery whose last image is there for being the worst."""
    count = len(indices)
    if images is None:
        images = (load_digits().images[indices] / 16).astype(np.float32)[:, None].clip(0, 1)
    side = images.shape[-1]
    boxes = np.tile([0.2, 0.1, 0.8, 0.9], (count, 1)).astype(np.float32) * side
    inner = np.linspace(0.05, 0.3, len(thresholds))[None, :, None] * side
    estimated = boxes[:, None] + inner * np.array([1, 1, -1, -1])
    tensors = {
        "index": indices,
        "label": labels[indices],
        "worst": np.arange(count) == count - 1,
        "images": images,
        "boxes": boxes,
    }
    for check in attacks:
        maps = (images - 0.4) * images + 0.05 * random.normal(size=images.shape)
        tensors |= {
            f"{check}|images": images,
            f"{check}|maps": maps,
            f"{check}|perturbed_images": (images + 0.02 * np.sign(maps)).clip(0, 1),
            f"{check}|perturbed_maps": maps + 0.2 * random.normal(size=images.shape),
            f"{check}|kendall_tau": random.normal(0.5, 0.1, count).clip(-1, 1),
            f"{check}|top_k_intersection": random.normal(0.5, 0.1, count).clip(0, 1),
            f"{check}|preserved": np.ones(count),
        }
    for name in ATTRIBUTIONS:
        tensors |= {
            f"wsol/{name}|heat_maps": images.max(axis=1),
            f"wsol/{name}|thresholds": np.array(thresholds),
            f"wsol/{name}|estimated_boxes": estimated,
        }
    kinds = {"index": np.int64, "label": np.int64, "worst": bool}
    arrays = {
        key: np.ascontiguousarray(v, kinds.get(key, np.float32)) for key, v in tensors.items()
    }
    names = json.dumps([f"digit {n}" for n in range(10)])
    save_file(arrays, folder / "audit" / "gallery.safetensors", {"classes": names})


@pytest.fixture
def make_whole_run(tmp_path: Path) -> Callable[..., AuditedRun]:
    """Write a run folder with every kind of record and read it."""

    def make(name: str = "art", *args, **options) -> AuditedRun:
        return read_run(write_whole_run(tmp_path / name, *args, **options))

    return make


@pytest.fixture(scope="module")
def whole_runs(tmp_path_factory: pytest.TempPathFactory) -> list[AuditedRun]:
    """Three runs with every kind of record, written once for the tests that only read them."""
    folder, strengths = tmp_path_factory.mktemp("runs"), {"natural": 0.1, "pgd": 0.5, "art": 0.8}
    return [
        read_run(write_whole_run(folder / name, strength, seed=seed))
        for seed, (name, strength) in enumerate(strengths.items())
    ]


@pytest.fixture
def three_whole_runs(make_whole_run) -> list[AuditedRun]:
    strengths = {"natural": 0.1, "pgd": 0.5, "art": 0.8}
    return [make_whole_run(n, s, seed=k) for k, (n, s) in enumerate(strengths.items())]


@pytest.fixture
def make_run(tmp_path: Path) -> Callable[..., AuditedRun]:
    """Write a run folder and read it."""

    def make(name: str = "art", *args, **options) -> AuditedRun:
        return read_run(write_run(tmp_path / name, *args, **options))

    return make


@pytest.fixture
def four_runs(make_run) -> list[AuditedRun]:
    return [make_run(name, *sizes, seed=n) for n, (name, sizes) in enumerate(MODELS.items())]
