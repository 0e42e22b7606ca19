"""The picture of a targeted attack: one image's map made to look like another's, label kept.

Draws, for a natural and a robust model, the image and its map, the target and its map, and the
manipulated image and its map, with the top-k intersection and Kendall's τ between the maps before
and after, and the same between the manipulated map and the target's.

    python benchmarks/targeted.py --data path/to/cifar10 --natural runs/cifar_natural \
        --robust runs/cifar_robust --out docs/images/targeted-cifar10.png
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from matplotlib.figure import Figure
from torch import Tensor

from holdfast import plot
from holdfast.attributions import IntegratedGradients
from holdfast.data import ImageData
from holdfast.manipulation import Targeted
from holdfast.metrics import kendall_tau, pixel_scores, top_k_intersection
from holdfast.training import load

IG = IntegratedGradients(steps=50)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--data", required=True, help="a data set that ImageData takes")
    parser.add_argument("--natural", required=True, help="the folder of a run")
    parser.add_argument("--robust", required=True, help="the folder of a run")
    parser.add_argument("--out", type=Path, required=True, help="the PNG to write")
    parser.add_argument("--images", type=int, default=2, help="pictures, each with its own target")
    parser.add_argument("--eps", type=float, default=8 / 255)
    parser.add_argument("--step-size", type=float, default=1 / 255)
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--k", type=int, default=100)
    parser.add_argument("--threads", type=int, default=1)
    asked = parser.parse_args()
    torch.set_num_threads(asked.threads)
    models = {"natural": load(asked.natural), "robust": load(asked.robust)}
    data = ImageData(asked.data, size=models["natural"].architecture.size, limit=500).load("test")
    batch = data.batch(range(len(data)))
    images, labels = batch["images"], batch["labels"]
    with torch.no_grad():
        right = torch.stack([model(images).argmax(1) == labels for model in models.values()]).all(0)
    images, labels = images[right], labels[right]
    sources, targets = images[: asked.images], images[asked.images : 2 * asked.images]
    labels = labels[: asked.images]
    attack = Targeted(
        IG,
        asked.eps,
        asked.step_size,
        asked.steps,
        target=targets,
        weight=1.0,
        momentum=0.7,
        margin=0.1,
        path_samples=8,
        judge_every=asked.steps,
    )

    rows = []
    print(
        f"{'':8} {'image':>5}  with the map before: IN, tau  with the target's: tau before, after"
    )
    for name, model in models.items():
        found = attack(model, sources, labels)
        maps = IG(model, sources, labels), IG(model, targets), IG(model, found.images, labels)
        own, target, after = (pixel_scores(each) for each in maps)
        shared = top_k_intersection(own, after, asked.k).tolist()
        tau = kendall_tau(own, after).tolist()
        toward = list(zip(kendall_tau(target, own), kendall_tau(target, after), strict=True))
        for n in range(len(sources)):
            kept = "" if found.preserved[n] else "  label not kept"
            print(
                f"{name:8} {n:5}  {shared[n]:24.2f} {tau[n]:4.2f}  "
                f"{toward[n][0]:30.2f} {toward[n][1]:6.2f}{kept}"
            )
            said = f"{name}\nIN {100 * shared[n]:.0f} %, τ {tau[n]:.2f}"
            shown = [each[n].view(1, *sources.shape[2:]) for each in (own, target, after)]
            pictures = (sources[n], targets[n], found.images[n])
            rows.append((said, list(zip(pictures, shown, strict=True))))
    figure = draw(rows)
    asked.out.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(asked.out, dpi=110)
    print(f"{asked.out}: {asked.out.stat().st_size / 1e3:.0f} kB")


TITLES = ("image", "target", "manipulated")


def draw(rows: list[tuple[str, list[tuple[Tensor, Tensor]]]]) -> Figure:
    """Draw a row for each image and model: pictures, each with its pixel scores."""
    figure = Figure(figsize=(8.2, 1.35 * len(rows) + 0.3), layout="constrained")
    axes = figure.subplots(len(rows), 2 * len(TITLES), squeeze=False)
    for number, (line, (said, cells)) in enumerate(zip(axes, rows, strict=True)):
        for column, (picture, scores) in enumerate(cells):
            plot.show_image(picture, line[2 * column])
            plot.show_map(scores, line[2 * column + 1], blur=0.5)
            if number == 0:
                line[2 * column].set_title(TITLES[column], fontsize=9)
                line[2 * column + 1].set_title("importance", fontsize=9)
        line[0].set_ylabel(said, fontsize=8, color=plot.INK)
    return figure


if __name__ == "__main__":
    main()
