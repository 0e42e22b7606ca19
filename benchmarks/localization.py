"""Where maps point, on images with boxes: tables of three of the papers, for models that are given.

Audits each run on the same images and prints
- Loc, EG, PP and Con of eight kinds of maps (Robust Models Are More Interpretable Because
  Attributions Look Normal, table 1), over the images that the model gets right and whose box fills
  less than 80 % of the image;
- weakly supervised localization by the gradient (Attributional Robustness Training, table 2), over
  the same draw of images, right or wrong, each model at the threshold that suits it best;
- accuracy under PGD-5 at ε = 1, 2 and 3 of 255 (On Saliency Maps and Adversarial Robustness).

    python benchmarks/localization.py --data path/to/tiny_imagenet_boxes --runs runs/tiny/*

An audit that was stopped goes on where it was.
"""

from __future__ import annotations

import argparse
import statistics
from pathlib import Path

import torch

from holdfast import report
from holdfast.adversarial import PGD
from holdfast.attributions import METHODS
from holdfast.audit import Audit, Localization, WeaklySupervisedLocalization
from holdfast.data import ImageData, ImageDataset
from holdfast.training import load

MAPS = ("big", "bsm", "agi", "gradient", "input_x_gradient", "smooth_grad", "ig", "deep_lift")
COLUMNS = ("loc", "energy_game", "positive_percentage", "concentration")
LARGEST = 0.8


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--data", required=True, help="a data set with boxes that ImageData takes")
    parser.add_argument("--runs", type=Path, nargs="+", required=True, help="folders of runs")
    parser.add_argument("--maps", nargs="*", default=list(MAPS), help="none for the other tables")
    parser.add_argument("--images", type=int, default=100, help="that are explained")
    parser.add_argument("--name", default="localization", help="of the folder beside each model")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    asked = parser.parse_args()
    torch.set_num_threads(asked.threads)
    data = ImageData(asked.data).load("test")
    attacks = {f"pgd-5 {n}/255": PGD(n / 255, n / 2 / 255, steps=5, seed=0) for n in (1, 2, 3)}
    boxes = {"wsol/gradient": WeaklySupervisedLocalization()}
    maps = {f"localization/{name}": Localization(METHODS[name]) for name in asked.maps}
    audit = Audit(attacks, {}, checks=boxes | maps, explained=asked.images, gallery=0, worst=0)
    small = {index for index, share in enumerate(shares(data)) if share < LARGEST}
    for run in asked.runs:
        audit(load(run), data, run / asked.name / "audit")
        read = report.read_run(run / asked.name, name=run.name)
        print(f"\n{run.name}: {read.values('clean', 'correct').mean():.1%} of {len(data)} right")
        for check in attacks:
            print(f"  {check:24} {read.values(check, 'correct').mean():7.1%}")
        print_wsol(read)
        for check in maps:
            print_localization(read, check, small)


def shares(data: ImageDataset) -> list[float]:
    """Return which share of its image each box fills."""
    boxes = data.batch(range(len(data)))["boxes"]
    _, height, width = data.shape
    sides = boxes[:, 2:] - boxes[:, :2]
    return (sides.prod(1) / (height * width)).tolist()


def print_wsol(read: report.AuditedRun) -> None:
    """Print GT-known Loc, Top-1 Loc and Top-1 accuracy at the best of the thresholds."""
    found = {
        measure.removeprefix("box_iou/"): read.values("wsol/gradient", measure) >= 0.5
        for measure in read.measures("wsol/gradient")
        if measure.startswith("box_iou/")
    }
    best = max(found, key=lambda threshold: found[threshold].mean())
    right = read.values("wsol/gradient", "top_1") == 1
    print(
        f"  threshold {best}: GT-known Loc {found[best].mean():.1%}, Top-1 Loc "
        f"{(found[best] & right).mean():.1%}, Top-1 accuracy {right.mean():.1%}, "
        f"of {len(right)} images"
    )


def print_localization(read: report.AuditedRun, check: str, small: set[int]) -> None:
    rows = [
        row for row in read.records.to_pylist() if row["check"] == check and row["index"] in small
    ]
    columns = [[row["value"] for row in rows if row["measure"] == name] for name in COLUMNS]
    if rows:
        means = "".join(f"{statistics.mean(values):8.3f}" for values in columns)
        print(f"  {check.partition('/')[2]:20}{means}   {len(columns[0])} images", flush=True)


if __name__ == "__main__":
    main()
