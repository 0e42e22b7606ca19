"""Objectives on scikit-learn's digits: accuracy, and how well explanations hold, over seeds.

All objectives train the demonstration's perceptron (the last rows a small convolutional network) on
the same images, for as long, and are audited alike, by its attacks: PGD-40, and the top-k attack on
Integrated Gradients at ε = 0.1. Mean and standard deviation over seeds. Run it with

    python benchmarks/digits.py --out runs/digits --seeds 3

A network that is already trained in the folder is not trained again.
"""

from __future__ import annotations

import argparse
import re
import statistics
import time
from pathlib import Path
from typing import Any

import torch

from holdfast import report
from holdfast.audit import Audit
from holdfast.data import ImageData
from holdfast.training import load
from holdfast.training.fit import train
from holdfast.training.recipe import Recipe, build, read_recipe

PGD7 = {"class_path": "PGD", "init_args": {"eps": 0.1, "step_size": 0.025, "steps": 7}}
SHORT = {"class_path": "PGD", "init_args": {"eps": 0.1, "step_size": 0.05, "steps": 3}}
FEW = {"steps": 5, "attack_steps": 3, "rule": "stratified", "attack": SHORT}
WHOLE = {"steps": 50, "attack_steps": 10, "rule": "right", "attack": SHORT}
CNN = {"model": {"name": "mnist_cnn", "options": {"filters": [16, 32], "hidden": 128}}}
SEEING = {"model": {**CNN["model"], "attributing": True}}
L2 = {"class_path": "PGD", "init_args": {"eps": 1.0, "step_size": 0.25, "steps": 7, "norm": "l2"}}
SAME = ", same seed"
TEACHER = "natural" + SAME


def objective(class_path: str, **init_args: object) -> dict[str, object]:
    return {"objective": {"class_path": class_path, "init_args": init_args}}


SAT = {
    "class_path": "SaliencyTraining",
    "init_args": {"eps": 0.1, "alpha": 0.9, "teacher": TEACHER},
}
ROWS: dict[str, dict[str, object]] = {
    "natural": objective("Natural"),
    "uniform noise": objective("UniformNoise", eps=0.1),
    "pgd-7": objective("AdversarialTraining", attack=PGD7),
    "trades": objective("TRADES", attack=PGD7),
    "jacobian λ=0.5": objective("JacobianRegularization", weight=0.5),
    "distillation": objective("DefensiveDistillation", teacher=TEACHER),
    "sat": {"objective": SAT},
    "pgd-sat": objective(
        "Successive", first=SAT, then=objective("AdversarialTraining", attack=PGD7)["objective"]
    ),
    "trades-sat": objective(
        "Successive", first=SAT, then=objective("TRADES", attack=PGD7)["objective"]
    ),
    "ig_norm, 5 points": objective("AttributionRegularization", form="ig_norm", weight=1.0, **FEW),
    "ig_sum_norm, 5 points": objective("AttributionRegularization", weight=1.0, **FEW),
    "ig_sum_norm, 50 points": objective("AttributionRegularization", weight=1.0, **WHOLE),
    "cacr+wacr, 5 points": objective("EnhancedRegularization", **FEW),
    "cacr+wacr, 50 points": objective("EnhancedRegularization", **WHOLE),
    "art eq. 2": objective("GradientStability", attack=SHORT),
    "art eq. 4, l2": objective("InputAlignment", distance="l2", attack=SHORT),
    "art eq. 4, cosine": objective("InputAlignment", distance="cosine", attack=SHORT),
    "art, argmin": objective("ART", negative="argmin", attack=SHORT),
    "art λ=0.5": objective("ART", attack=SHORT),
    "art λ=1": objective("ART", weight=1.0, attack=SHORT),
    "art λ=3": objective("ART", weight=3.0, attack=SHORT),
    "art λ=10": objective("ART", weight=10.0, attack=SHORT),
    "art + pgd λ=3": objective("ART", weight=3.0, attack=SHORT, attack_cross_entropy=1.0),
    "cnn natural": CNN | objective("Natural"),
    "cnn pgd-7": CNN | objective("AdversarialTraining", attack=PGD7),
    "cnn pgd-7, l2": CNN | objective("AdversarialTraining", attack=L2),
    "cnn alignment": SEEING | objective("AttributionAlignment", teacher="cnn pgd-7, l2" + SAME),
    "cnn attention dropout": CNN | objective("AttentionDropout"),
    "cnn art λ=0.5": CNN | objective("ART", attack=SHORT),
    "cnn art λ=3": CNN | objective("ART", weight=3.0, attack=SHORT),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--out", type=Path, default=Path("runs/digits"))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--rows", nargs="*", default=list(ROWS), help="only rows that begin so")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    asked = parser.parse_args()
    torch.set_num_threads(asked.threads)
    columns = ("accuracy", "PGD-40", "IN", "tau", "rho", "s, training")
    print(f"{'objective':24}", *(f"{name:>12}" for name in columns))
    for row, changes in ROWS.items():
        if row.startswith(tuple(asked.rows)):
            runs = [measure(asked.out, row, changes, seed) for seed in range(asked.seeds)]
            print(f"{row:24}", *(spread(values) for values in zip(*runs, strict=True)), flush=True)


def measure(out: Path, row: str, changes: dict[str, object], seed: int) -> list[float]:
    run = folder(out, row, seed)
    settings = read_recipe("digits/natural", changes | {"seed": seed})
    begun = time.perf_counter()
    if not (run / "model.safetensors").exists():
        if SAME in str(changes):
            settings = with_teacher(settings, out, seed)
            begun = time.perf_counter()
        train(build(Recipe, settings), run, progress=False)
        (run / "seconds.txt").write_text(str(time.perf_counter() - begun))
    data = build(ImageData, settings["data"]).load("test")
    build(Audit, settings["audit"])(load(run), data, run / "audit", progress=False)
    read = report.read_run(run)
    check = "top_k/integrated_gradients"
    measures = ("top_k_intersection", "kendall_tau", "spearman_rho")
    values = [read.values("clean", "correct"), read.values("pgd-40", "correct")]
    values += [read.values(check, name) for name in measures]
    return [100 * float(each.mean()) for each in values] + [
        float((run / "seconds.txt").read_text())
    ]


def folder(out: Path, row: str, seed: int) -> Path:
    return out / f"{re.sub('[^a-z0-9=]+', '_', row)}_{seed}"


def with_teacher(settings: Any, out: Path, seed: int) -> Any:
    """Put the folder of a run in the place of ``"ROW, same seed"``, trained if it is not there."""
    if isinstance(settings, dict):
        return {key: with_teacher(value, out, seed) for key, value in settings.items()}
    if not isinstance(settings, str) or not settings.endswith(SAME):
        return settings
    row = settings.removesuffix(SAME)
    measure(out, row, ROWS[row], seed)
    return str(folder(out, row, seed))


def spread(values: tuple[float, ...]) -> str:
    deviation = statistics.stdev(values) if len(values) > 1 else 0.0
    return f"{statistics.mean(values):6.1f} ±{deviation:4.1f}"


if __name__ == "__main__":
    main()
