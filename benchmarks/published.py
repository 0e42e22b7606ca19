"""Five methods of the papers on two of their data sets, at a scale that two cores manage.

Natural and adversarial training, IG-SUM-NORM, CACR + WACR and ART, trained for as many steps on the
same images, and audited alike: PGD-40, and the top-k attack on Integrated Gradients, its gradient
estimated from a few points of the path. What the scale is stands in `SCALES`. Run it with

    python benchmarks/published.py mnist --data path/to/mnist --out runs/published/mnist
    python benchmarks/published.py flower17 --data path/to/flower17 --out runs/published/flower17

Nothing that is in the folder already is trained or audited again.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from holdfast import report
from holdfast.adversarial import PGD
from holdfast.attributions import IntegratedGradients
from holdfast.audit import Audit
from holdfast.data import ImageData
from holdfast.manipulation import TopK
from holdfast.training import load
from holdfast.training.fit import train
from holdfast.training.recipe import Recipe, build, read_recipe


@dataclass(frozen=True)
class Scale:
    """How far training and audit reach: ε, the top-k, and changes to the natural recipe."""

    eps: float
    k: int
    recipe: dict[str, Any]


SCALES = {
    "mnist": Scale(
        eps=0.1,
        k=200,
        recipe={
            "optimizer": {"name": "adam", "lr": 0.001},
            "batch_size": 50,
            "trainer": {"max_steps": 300},
        },
    ),
    "flower17": Scale(
        eps=4 / 255,
        k=100,
        recipe={
            "data.size": 32,
            "data.balance": None,
            "data.augmentation": {"flip": True},
            "model": {
                "name": "wide_resnet",
                "options": {"depth": 10, "width": 1},
                "standardize": True,
            },
            "optimizer": {"name": "adam", "lr": 0.002},
            "batch_size": 16,
            "trainer": {"max_steps": 400},
        },
    ),
}


def objectives(eps: float) -> dict[str, dict[str, Any]]:
    short = {"class_path": "PGD", "init_args": {"eps": eps, "step_size": eps / 2, "steps": 3}}
    few = {"steps": 5, "attack_steps": 3, "rule": "stratified", "attack": short}
    pgd = {"class_path": "PGD", "init_args": {"eps": eps, "step_size": eps / 4, "steps": 7}}
    return {
        "natural": {"class_path": "Natural"},
        "pgd": {"class_path": "AdversarialTraining", "init_args": {"attack": pgd}},
        "ig_sum_norm": {
            "class_path": "AttributionRegularization",
            "init_args": {"form": "ig_sum_norm", "weight": 1.0, **few},
        },
        "cacr_wacr": {"class_path": "EnhancedRegularization", "init_args": few},
        "art": {"class_path": "ART", "init_args": {"attack": short}},
    }


def audit(scale: Scale, explained: int) -> Audit:
    eps, k = scale.eps, scale.k
    attack = TopK(IntegratedGradients(50), k, eps, eps / 20, steps=30, path_samples=5)
    return Audit(
        {"pgd-40": PGD(eps, eps / 10, steps=40)},
        {"top_k/integrated_gradients": attack},
        k=k,
        explained=explained,
        gallery=3,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("name", choices=SCALES)
    parser.add_argument("--data", required=True, help="a data set that ImageData takes")
    parser.add_argument("--out", type=Path, required=True, help="the folder of the runs")
    parser.add_argument("--images", type=int, default=500, help="of the test images at most")
    parser.add_argument("--explained", type=int, default=100, help="whose maps are attacked")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    asked = parser.parse_args()
    torch.set_num_threads(asked.threads)
    scale = SCALES[asked.name]
    runs = []
    for name, objective in objectives(scale.eps).items():
        run, begun = asked.out / name, time.perf_counter()
        changes = {**scale.recipe, "data.path": asked.data, "objective": objective}
        settings = read_recipe(f"{asked.name}/natural", changes)
        if not (run / "model.safetensors").exists():
            train(build(Recipe, settings), run, progress=False)
            print(f"{name}: trained in {time.perf_counter() - begun:.0f} s", flush=True)
        data = build(ImageData, {**settings["data"], "limit": asked.images}).load("test")
        audit(scale, asked.explained)(load(run), data, run / "audit", progress=False)
        runs.append(report.read_run(run))
    print(report.to_markdown(report.table(runs)))


if __name__ == "__main__":
    main()
