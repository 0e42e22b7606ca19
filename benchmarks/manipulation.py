"""Attacks on explanations, side by side in one run: the published one, cheap ones, the ensemble.

    holdfast train mnist/natural --data.path PATH --trainer.max_steps 300 --out runs/natural
    python benchmarks/manipulation.py runs/natural --data PATH --eps 0.3 --step-size 0.01 --k 200

Every attack sees the same images, which the model classifies correctly, a few at a time in turn, so
that a busy machine slows all of them alike. All are judged by the whole map; an image counts with
similarity 1 where an attack found no perturbation that keeps its label. The first row is the
published attack: the whole map in each step, judged after each step. Of the others, times and τ are
also printed as shares of that row.
"""

from __future__ import annotations

import argparse
import time
from collections import defaultdict

import torch
from rich.console import Console
from rich.progress import track
from torch import Tensor

from holdfast.attributions import METHODS, Gradient, IntegratedGradients
from holdfast.contracts import Attribution, Manipulation, chunks
from holdfast.data import ImageData
from holdfast.manipulation import Ensemble, RandomSearch, RandomSign, RankCorrelation, TopK
from holdfast.metrics import kendall_tau, pixel_scores, spearman_rho, top_k_intersection
from holdfast.training import load


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("run", help="folder of a trained run")
    parser.add_argument("--data", required=True, help="folder, file or hub name of the images")
    parser.add_argument("--attribution", default="ig", choices=list(METHODS))
    parser.add_argument("--path", type=int, default=100, help="points of Integrated Gradients")
    parser.add_argument("--eps", type=float, default=8 / 255)
    parser.add_argument("--step-size", type=float, default=1 / 255)
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--k", type=int, default=100)
    parser.add_argument("--images", type=int, default=64)
    parser.add_argument("--batch", type=int, default=16, help="images at a time")
    parser.add_argument("--rows", nargs="*", default=[], help="only rows that begin so")
    parser.add_argument("--threads", type=int, help="CPU threads")
    asked = parser.parse_args()
    if asked.threads:
        torch.set_num_threads(asked.threads)
    model = load(asked.run)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model.to(device)
    data = ImageData(asked.data, size=model.architecture.size, limit=8 * asked.images)
    images, labels = correct(model, data, asked.images)

    sums: dict[str, list[Tensor]] = defaultdict(list)
    seconds: dict[str, float] = defaultdict(float)
    rows = {
        name: attack
        for name, attack in attacks(asked).items()
        if not asked.rows or name.startswith(tuple(asked.rows))
    }
    parts = list(chunks(len(images), asked.batch))
    for part in track(parts, "Attacking", console=Console(stderr=True)):
        for name, attack in rows.items():
            begun = time.perf_counter()
            found = attack(model, images[part], labels[part])
            if device.type == "cuda":
                torch.cuda.synchronize()
            seconds[name] += time.perf_counter() - begun
            before = pixel_scores(attack.attribution(model, images[part], labels[part]))
            after = pixel_scores(attack.attribution(model, found.images, labels[part]))
            measures = (
                top_k_intersection(before, after, asked.k),
                kendall_tau(before, after),
                spearman_rho(before, after),
                found.preserved,
            )
            sums[name].append(torch.stack([each.double().cpu() for each in measures]))

    print(
        f"{asked.run}: {len(images)} images, {asked.attribution}, eps {asked.eps:.4g}, k {asked.k}"
    )
    print(f"{'':32} {'IN':>6} {'tau':>7} {'rho':>7}  label kept  time, share  tau, share")
    first: tuple[float, float] | None = None
    for name, parts in sums.items():
        values = torch.cat(parts, 1)
        mean = values.mean(1).tolist()
        first = first or (seconds[name], mean[1])
        print(
            f"{name:32} {mean[0]:6.3f} {mean[1]:7.3f} {mean[2]:7.3f}"
            f"  {int(values[3].sum()):4} of {len(images):3}"
            f"  {seconds[name] / first[0]:11.3f}  {mean[1] / first[1]:10.2f}"
        )
    print(f"The first row took {first[0] / len(images):.2f} s an image." if first else "")


def attacks(asked: argparse.Namespace) -> dict[str, Manipulation]:
    attribution: Attribution = METHODS[asked.attribution]
    samples = None
    if isinstance(attribution, IntegratedGradients):
        attribution, samples = IntegratedGradients(steps=asked.path), 4
    exact = (attribution, asked.eps, asked.step_size, asked.steps)
    seldom = asked.steps // 4
    rows: dict[str, Manipulation] = {
        "top_k, published": TopK(exact[0], asked.k, *exact[1:]),
        "top_k, judged seldom": TopK(
            exact[0], asked.k, *exact[1:], path_samples=samples, judge_every=seldom
        ),
        "top_k, momentum, steering": TopK(
            exact[0],
            asked.k,
            *exact[1:],
            momentum=0.7,
            margin=0.1,
            path_samples=samples,
            judge_every=seldom,
        ),
        "rank": RankCorrelation(
            *exact, momentum=0.7, margin=0.1, path_samples=samples, judge_every=seldom
        ),
        "ensemble": Ensemble(attribution, asked.eps),
        "random signs, 10 draws": RandomSign(attribution, asked.eps, draws=10),
    }
    if not isinstance(attribution, IntegratedGradients | Gradient):
        rows["random search, 100 queries"] = RandomSearch(attribution, asked.eps, queries=100)
    return rows


def correct(model: torch.nn.Module, data: ImageData, count: int) -> tuple[Tensor, Tensor]:
    """Take the first test images that the model classifies correctly."""
    test = data.load("test")
    batch = test.batch(range(len(test)))
    device = next(model.parameters()).device
    images, labels = batch["images"].to(device), batch["labels"].to(device)
    with torch.no_grad():
        right = torch.cat(
            [model(images[part]).argmax(1) == labels[part] for part in chunks(len(images), 256)]
        )
    return images[right][:count], labels[right][:count]


if __name__ == "__main__":
    main()
