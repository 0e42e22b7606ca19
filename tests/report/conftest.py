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


@pytest.fixture
def make_run(tmp_path: Path) -> Callable[..., AuditedRun]:
    """Write a run folder and read it."""

    def make(name: str = "art", *args, **options) -> AuditedRun:
        return read_run(write_run(tmp_path / name, *args, **options))

    return make


@pytest.fixture
def four_runs(make_run) -> list[AuditedRun]:
    return [make_run(name, *sizes, seed=n) for n, (name, sizes) in enumerate(MODELS.items())]
