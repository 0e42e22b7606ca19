"""Objectives on scikit-learn's digits: accuracy, and how well explanations hold, over seeds.

Each row is trained by its recipe and audited like the demonstration. Run it with

    python benchmarks/digits.py --out runs/digits --seeds 3

A network that is already trained in the folder is not trained again.
"""

from __future__ import annotations

import argparse
import statistics
from pathlib import Path

import torch

from holdfast import report
from holdfast.audit import Audit
from holdfast.data import ImageData
from holdfast.training import load
from holdfast.training.fit import train
from holdfast.training.recipe import Recipe, build, read_recipe

MLP: dict[str, object] = {}
CNN = {"model": {"name": "mnist_cnn", "options": {"filters": [16, 32], "hidden": 128}}}
ROWS = {
    "mlp natural": ("digits/natural", MLP),
    "mlp pgd": ("digits/pgd", MLP),
    "mlp ig_norm": ("digits/ig_norm", MLP),
    "mlp ig_sum_norm": ("digits/ig_sum_norm", MLP),
    "mlp art λ=0.5": ("digits/art", MLP | {"objective.weight": 0.5}),
    "mlp art λ=1": ("digits/art", MLP | {"objective.weight": 1.0}),
    "mlp art λ=3": ("digits/art", MLP | {"objective.weight": 3.0}),
    "mlp art λ=10": ("digits/art", MLP | {"objective.weight": 10.0}),
    "cnn natural": ("digits/natural", CNN),
    "cnn pgd": ("digits/pgd", CNN),
    "cnn art λ=0.5": ("digits/art", CNN | {"objective.weight": 0.5}),
    "cnn art λ=3": ("digits/art", CNN | {"objective.weight": 3.0}),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--out", type=Path, default=Path("runs/digits"))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--rows", nargs="*", default=list(ROWS), help="only rows that begin so")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    asked = parser.parse_args()
    torch.set_num_threads(asked.threads)
    print(f"{'row':18} {'accuracy':>12} {'PGD-40':>12} {'IN':>12} {'tau':>12} {'rho':>12}")
    for row, (recipe, changes) in ROWS.items():
        if row.startswith(tuple(asked.rows)):
            runs = [measure(asked.out, row, recipe, changes, seed) for seed in range(asked.seeds)]
            print(f"{row:18}", *(spread(values) for values in zip(*runs, strict=True)), flush=True)


def measure(out: Path, row: str, recipe: str, changes: dict[str, object], seed: int) -> list[float]:
    run = out / f"{row.replace(' ', '_')}_{seed}"
    settings = read_recipe(recipe, changes | {"seed": seed})
    if not (run / "model.safetensors").exists():
        train(build(Recipe, settings), run, progress=False)
    data = build(ImageData, settings["data"]).load("test")
    build(Audit, settings["audit"])(load(run), data, run / "audit", progress=False)
    read = report.read_run(run)
    check = "top_k/integrated_gradients"
    measures = ("top_k_intersection", "kendall_tau", "spearman_rho")
    values = [read.values("clean", "correct"), read.values("pgd-40", "correct")]
    values += [read.values(check, name) for name in measures]
    return [100 * float(each.mean()) for each in values]


def spread(values: tuple[float, ...]) -> str:
    deviation = statistics.stdev(values) if len(values) > 1 else 0.0
    return f"{statistics.mean(values):6.1f} ±{deviation:4.1f}"


if __name__ == "__main__":
    main()
