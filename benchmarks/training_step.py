"""What a training step costs with each objective, as a multiple of a natural step, in one run.

    python benchmarks/training_step.py --threads 2

A step is the objective, its backward pass and the optimizer's, on a ResNet-18 for 32×32 images and
random data. All objectives take turns, so that a busy machine slows all of them alike; of each the
median counts. ``stochastic`` regularizers take a few stratified points of the path where the exact
ones take 50 in the loss and 10 in the attack.
"""

from __future__ import annotations

import argparse
import statistics
import time
from dataclasses import replace

import torch

from holdfast.adversarial import PGD
from holdfast.contracts import Batch, Objective
from holdfast.models import cifar_resnet18
from holdfast.objectives import (
    ART,
    TRADES,
    AdversarialTraining,
    AttributionRegularization,
    EnhancedRegularization,
    JacobianRegularization,
    Natural,
)

PGD7 = PGD(eps=8 / 255, step_size=2 / 255, steps=7)
RAR = AttributionRegularization(attack=PGD7)
CACR_WACR = EnhancedRegularization(attack=PGD7)
ROWS: dict[str, Objective] = {
    "natural": Natural(),
    "jacobian": JacobianRegularization(),
    "pgd-7": AdversarialTraining(PGD7),
    "trades-7": TRADES(attack=PGD7),
    "art": ART(),
    "ig_sum_norm, stochastic": replace(RAR, steps=5, attack_steps=2, rule="stratified"),
    "cacr_wacr, stochastic": replace(CACR_WACR, steps=5, attack_steps=2, rule="stratified"),
    "ig_sum_norm": RAR,
    "cacr_wacr": CACR_WACR,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--rows", nargs="*", default=[], help="only rows that begin so")
    parser.add_argument("--threads", type=int, help="CPU threads")
    asked = parser.parse_args()
    if asked.threads:
        torch.set_num_threads(asked.threads)
    torch.manual_seed(0)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    batch: Batch = {
        "images": torch.rand(asked.batch, 3, 32, 32, device=device),
        "labels": torch.randint(10, (asked.batch,), device=device),
    }
    model = cifar_resnet18().to(device).train()
    optimizer = torch.optim.SGD(model.parameters(), 1e-3, momentum=0.9)
    rows = {
        name: row
        for name, row in ROWS.items()
        if not asked.rows or name == "natural" or name.startswith(tuple(asked.rows))
    }

    def step(objective: Objective) -> float:
        begun = time.perf_counter()
        optimizer.zero_grad()
        objective(model, batch)["loss"].backward()
        optimizer.step()
        if device == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter() - begun

    step(Natural())
    taken: dict[str, list[float]] = {name: [] for name in rows}
    for _ in range(asked.repeat):
        for name, objective in rows.items():
            # A natural step takes so little that one is easily off.
            times = [step(objective) for _ in range(5 if name == "natural" else 1)]
            taken[name].append(statistics.median(times))
    median = {name: statistics.median(times) for name, times in taken.items()}
    print(f"ResNet-18, {asked.batch} images of 32×32, {device}")
    for name, seconds in median.items():
        print(f"{name:26} {seconds:8.3f} s  {seconds / median['natural']:6.1f} × natural")


if __name__ == "__main__":
    main()
