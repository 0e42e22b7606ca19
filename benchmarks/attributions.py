"""Attribution methods against Captum: the same maps and settings, side by side in one run.

Prints, for each model and method, how many times Captum's time ours takes (below 1 we are faster),
as the median of interleaved repeats, and the relative difference between the maps (the two random
methods draw their own noise). Both choose for themselves how many inputs the model sees at a time;
each method takes as many images as give the model ``INPUTS`` inputs in all. Before that, the memory
that Integrated Gradients of 1,000 images at 50 steps adds to the process.

    python benchmarks/attributions.py [--repeats 7] [--threads 1] [--images 1000]
"""

from __future__ import annotations

import argparse
import resource
import statistics
import time
import warnings
from collections.abc import Callable

import captum.attr
import torch
import torchvision
from torch import Tensor, nn
from torch.nn import functional as F

from holdfast import attributions, models

INPUTS, STEPS = 256, 16
Explain = Callable[[Tensor, Tensor], Tensor]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--images", type=int, default=1000, help="of the memory measurement")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    warnings.simplefilter("ignore")
    # First, as the peak of the process is what can be measured.
    measure_memory(arguments.images)
    for name, model, layer, images in subjects():
        with torch.no_grad():
            targets = model(images).argmax(1)
        print(f"\n{name}, images of {images.shape[2]}×{images.shape[3]}")
        print(f"{'':24}{'ours / Captum':>14}{'(quartiles)':>16}{'difference':>14}")
        for method, (inputs, ours, theirs) in pairs(model, layer).items():
            some = slice(INPUTS // inputs)
            ratios, difference = compare(
                ours, theirs, images[some], targets[some], arguments.repeats
            )
            low, middle, high = statistics.quantiles(ratios, n=4)
            print(f"{method:24}{middle:14.2f}{f'({low:.2f}-{high:.2f})':>16}{difference:14.1e}")


def subjects() -> list[tuple[str, nn.Module, str, Tensor]]:
    resnet = torchvision.models.resnet18(num_classes=10).eval()
    digits = models.mnist_cnn().eval()
    return [
        ("resnet18", resnet, "layer4", torch.rand(INPUTS, 3, 64, 64)),
        ("mnist_cnn", digits, "relu2", torch.rand(INPUTS, 1, 28, 28)),
    ]


def pairs(model: nn.Module, layer: str) -> dict[str, tuple[int, Explain, Explain]]:
    """Give each of our methods beside Captum's with the same settings, and its inputs an image."""
    saliency = captum.attr.Saliency(model)
    tunnel = captum.attr.NoiseTunnel(saliency)
    product = captum.attr.InputXGradient(model)
    path = captum.attr.IntegratedGradients(model)
    shap = captum.attr.GradientShap(model)
    cam = captum.attr.LayerGradCam(model, model.get_submodule(layer))

    def ours(method: attributions.Gradient) -> Explain:
        return lambda x, y: method(model, x, y)

    def grad_cam(x: Tensor, y: Tensor) -> Tensor:
        map = F.interpolate(
            cam.attribute(x, y, relu_attributions=True), x.shape[2:], mode="bilinear"
        )
        return map.repeat(1, x.shape[1], 1, 1) / x.shape[1]

    def black_and_white(x: Tensor) -> Tensor:
        return torch.stack([torch.zeros_like(x[0]), torch.ones_like(x[0])])

    return {
        "Gradient": (
            1,
            ours(attributions.Gradient()),
            lambda x, y: saliency.attribute(x.requires_grad_(True), y, abs=False),
        ),
        "InputXGradient": (
            1,
            ours(attributions.InputXGradient()),
            lambda x, y: product.attribute(x.requires_grad_(True), y),
        ),
        "IntegratedGradients": (
            STEPS,
            ours(attributions.IntegratedGradients(steps=STEPS)),
            lambda x, y: path.attribute(x, target=y, n_steps=STEPS, method="riemann_right"),
        ),
        "SmoothGrad": (
            STEPS,
            ours(attributions.SmoothGrad(samples=STEPS)),
            lambda x, y: tunnel.attribute(x, nt_samples=STEPS, stdevs=0.15, target=y, abs=False),
        ),
        "GradientSHAP": (
            STEPS,
            ours(attributions.GradientSHAP(samples=STEPS)),
            lambda x, y: shap.attribute(x, black_and_white(x), n_samples=STEPS, target=y),
        ),
        "GradCAM, layer named": (1, ours(attributions.GradCAM(layer=layer)), grad_cam),
        "GradCAM, layer found": (1, ours(attributions.GradCAM()), grad_cam),
    }


def compare(
    ours: Explain, theirs: Explain, images: Tensor, targets: Tensor, repeats: int
) -> tuple[list[float], float]:
    """Time both in turn; the ratio of each pair of runs, and how far the maps are apart."""
    first, second = ours(images.clone(), targets), theirs(images.clone(), targets).detach()
    difference = float((first - second).norm() / second.norm())
    ratios = []
    for repeat in range(repeats):
        # Each goes first in turn: what ran before leaves its memory behind.
        pair = (ours, theirs) if repeat % 2 else (theirs, ours)
        taken = {explain: seconds(explain, images.clone(), targets) for explain in pair}
        ratios.append(taken[ours] / taken[theirs])
    return ratios, difference


def seconds(explain: Explain, images: Tensor, targets: Tensor) -> float:
    start = time.perf_counter()
    explain(images, targets)
    return time.perf_counter() - start


def measure_memory(count: int) -> None:
    """Explain many images at once and print what the process needed on top of what it had."""
    model = models.mnist_cnn(filters=(8, 16), hidden=64).eval()
    method = attributions.IntegratedGradients(steps=50)
    method(model, torch.rand(2, 1, 28, 28))
    images = torch.rand(count, 1, 28, 28)
    all_points = 50 * images.nbytes / 2**20
    before = peak_megabytes()
    start = time.perf_counter()
    method(model, images)
    taken = time.perf_counter() - start
    print(
        f"IntegratedGradients, 50 steps, {count:,} images of 28×28: "
        f"{peak_megabytes() - before:.0f} MiB more than before ({all_points:.0f} MiB are the path "
        f"points of all images alone), {taken:.0f} s"
    )


def peak_megabytes() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    main()
