"""The gallery of the documentation: real images, every method, a natural and a robust model.

Draws a picture whose rows are images, each explained for a natural and for a robust model, with all
methods of `holdfast.attributions.METHODS` that apply to both. The images are the first test images,
of different classes, that both models classify rightly; where there are too few, that one of them
does. Beside each stand what the model says and its confidence, red where it is wrong.

    python benchmarks/gallery.py --data path/to/mnist --natural runs/mnist/natural \
        --robust runs/mnist/art --out docs/images/gallery-mnist.png
"""

from __future__ import annotations

import argparse
import textwrap
from pathlib import Path

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor, nn

from holdfast import plot
from holdfast.attributions import METHODS
from holdfast.contracts import InputError
from holdfast.data import ImageData, ImageDataset
from holdfast.training import load

TITLES = {
    "input_x_gradient": "input × gradient",
    "ig": "integrated gradients",
    "smooth_grad": "SmoothGrad",
    "gradient_shap": "gradient SHAP",
    "deep_lift": "DeepLIFT",
    "cam": "CAM",
    "grad_cam": "Grad-CAM",
    "grad_cam_plus_plus": "Grad-CAM++",
    "guided_grad_cam": "guided Grad-CAM",
    "guided_grad_cam_plus_plus": "guided Grad-CAM++",
    "bsm": "BSM",
    "big": "BIG",
    "bsg": "BSG",
    "boundary_deep_lift": "boundary DeepLIFT",
    "agi": "AGI",
}
Maps = dict[str, dict[str, Tensor]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", required=True, help="a data set that ImageData takes")
    parser.add_argument("--natural", required=True, help="the folder of a run")
    parser.add_argument("--robust", required=True, help="the folder of a run")
    parser.add_argument("--out", type=Path, required=True, help="the PNG to write")
    parser.add_argument("--images", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    models = {"natural": load(arguments.natural), "robust": load(arguments.robust)}
    architecture = models["natural"].architecture
    data = ImageData(arguments.data, size=architecture.size).load("test")
    images, labels = choose(data, list(models.values()), arguments.images)
    maps = explain(models, images)
    names = [data.classes[label].replace("_", " ") for label in labels.tolist()]
    figure = draw(
        images,
        names,
        {name: answers(model, images, data.classes) for name, model in models.items()},
        maps,
    )
    save(figure, arguments.out)
    print(f"{arguments.out}: {arguments.out.stat().st_size / 1e3:.0f} kB")
    for name, model in models.items():
        print(f"{name}: {accuracy(model, data):.1%} of {min(len(data), 500)} test images right")


def choose(data: ImageDataset, models: list[nn.Module], count: int) -> tuple[Tensor, Tensor]:
    """Take images of different classes that as many of the models as possible get right."""
    batch = data.batch(range(min(len(data), 500)))
    with torch.no_grad():
        right = sum(
            (model(batch["images"]).argmax(1) == batch["labels"]).long() for model in models
        )
    chosen: list[int] = []
    for place in torch.argsort(right, descending=True, stable=True).tolist():
        if batch["labels"][place] not in batch["labels"][chosen] and len(chosen) < count:
            chosen.append(place)
    return batch["images"][chosen], batch["labels"][chosen]


def explain(models: dict[str, nn.Module], images: Tensor) -> Maps:
    """Explain the predictions of each model by all methods that apply to it."""
    maps: Maps = {model: {} for model in models}
    for name, method in METHODS.items():
        try:
            found = {key: method(model, images) for key, model in models.items()}
        except InputError:
            continue  # no convolution, no global pooling, or no learned map
        for key, values in found.items():
            maps[key][TITLES.get(name, name.replace("_", " "))] = values
    return maps


def answers(model: nn.Module, images: Tensor, classes: tuple[str, ...]) -> list[str]:
    with torch.no_grad():
        confidence, predicted = model(images).softmax(1).max(1)
    return [
        f"{classes[label].replace('_', ' ')}, {100 * share:.0f} %"
        for label, share in zip(predicted.tolist(), confidence.tolist(), strict=True)
    ]


def accuracy(model: nn.Module, data: ImageDataset) -> float:
    batch = data.batch(range(min(len(data), 500)))
    with torch.no_grad():
        return float((model(batch["images"]).argmax(1) == batch["labels"]).float().mean())


def draw(images: Tensor, names: list[str], said: dict[str, list[str]], maps: Maps) -> Figure:
    """Draw the methods in two blocks, one below the other; in each, two rows an image."""
    titles = list(next(iter(maps.values())))
    columns = -(-len(titles) // 2)
    blocks = [titles[:columns], titles[columns:]]
    rows = len(images) * len(maps)
    figure = Figure(figsize=(1.05 * (columns + 1) + 0.4, 2 * (1.07 * rows + 0.6)))
    outer = figure.add_gridspec(
        2,
        1,
        hspace=0.08,
        left=0.055,
        right=0.995,
        top=1 - 0.4 / figure.get_figheight(),
        bottom=0.01,
    )
    for block, shown in zip(outer, blocks, strict=True):
        pairs = block.subgridspec(len(images), 1, hspace=0.07)
        for n, pair in enumerate(pairs):
            grid = pair.subgridspec(len(maps), columns + 1, hspace=0.03, wspace=0.05)
            for row, (model, found) in enumerate(maps.items()):
                cells = [figure.add_subplot(grid[row, column]) for column in range(len(shown) + 1)]
                plot.show_image(images[n], cells[0])
                label(cells[0], model, said[model][n], names[n])
                if n == row == 0:
                    cells[0].set_title("image", fontsize=8.5)
                for title, cell in zip(shown, cells[1:], strict=True):
                    plot.show_map(found[title][n], cell, images[n])
                    if n == row == 0:
                        cell.set_title(
                            textwrap.fill(title, 14, break_on_hyphens=False), fontsize=8.5
                        )
    return figure


def label(cell: Axes, model: str, said: str, truth: str) -> None:
    right = said.startswith(f"{truth},")
    cell.set_ylabel(
        f"{model}\n{said}", fontsize=7.5, color=plot.INK if right else "#a33c36", labelpad=3
    )


def save(figure: Figure, out: Path, limit: int = 800_000) -> None:
    """Save as PNG of 256 colours, as finely as stays below the limit in bytes."""
    out.parent.mkdir(parents=True, exist_ok=True)
    for dpi in (110, 95, 80, 65):
        figure.savefig(out, dpi=dpi)
        with Image.open(out) as picture:
            small = picture.convert("RGB").quantize(256, dither=Image.Dither.NONE)
        small.save(out, optimize=True)
        if out.stat().st_size < limit:
            break


if __name__ == "__main__":
    main()
