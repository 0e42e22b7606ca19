"""Does every attack work on every activation? A perceptron of the digits with each of them.

    python benchmarks/activations.py --threads 1

The same perceptron is trained with each activation function, module or spelled otherwise, and its
maps are attacked: by the top-k attack, by rank correlation, by the ensemble, and by random signs,
which need no derivatives. Printed is the mean of Kendall's τ between the maps before and after over
the images that the model classifies correctly; lower is a stronger attack. An attack that follows
gradients and ends above random signs has had nothing to follow: the surrogate did not reach the
activation. The last rows are out of its reach on purpose.
"""

from __future__ import annotations

import argparse
import time
import warnings
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from holdfast.attributions import Gradient, IntegratedGradients
from holdfast.contracts import Attribution, Manipulation
from holdfast.data import ImageData
from holdfast.manipulation import Ensemble, RandomSign, RankCorrelation, TopK
from holdfast.models import surrogate_fit

SIZE, EPS, K = 16, 0.1, 32


class Spelled(nn.Module):
    """A function as a module."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        """Apply it."""
        return self.function(x)


def spelled(function: Callable[[Tensor], Tensor]) -> Callable[[], nn.Module]:
    return lambda: Spelled(function)


# What makes the activation, and how many values it takes for each that it gives.
ACTIVATIONS: dict[str, tuple[Callable[[], nn.Module], int]] = {
    "ReLU": (nn.ReLU, 1),
    "ReLU6": (nn.ReLU6, 1),
    "relu(x) - relu(x - 6)": (spelled(lambda x: F.relu(x) - F.relu(x - 6)), 1),
    "LeakyReLU": (nn.LeakyReLU, 1),
    "PReLU": (nn.PReLU, 1),
    "RReLU": (nn.RReLU, 1),
    "ELU": (nn.ELU, 1),
    "CELU(2)": (lambda: nn.CELU(2.0), 1),
    "SELU": (nn.SELU, 1),
    "Hardtanh": (nn.Hardtanh, 1),
    "Hardswish": (nn.Hardswish, 1),
    "Hardsigmoid": (nn.Hardsigmoid, 1),
    "Threshold(0.1, 0)": (lambda: nn.Threshold(0.1, 0.0), 1),
    "Softshrink(0.05)": (lambda: nn.Softshrink(0.05), 1),
    "Hardshrink(0.05)": (lambda: nn.Hardshrink(0.05), 1),
    "SiLU": (nn.SiLU, 1),
    "GELU": (nn.GELU, 1),
    "Tanh": (nn.Tanh, 1),
    "abs": (spelled(torch.abs), 1),
    "x.clamp(min=0)": (spelled(lambda x: x.clamp(min=0)), 1),
    "x.clamp(0, 6)": (spelled(lambda x: x.clamp(0, 6)), 1),
    "torch.maximum(x, 0)": (spelled(lambda x: torch.maximum(x, torch.zeros(()))), 1),
    "torch.maximum(x, -x / 4)": (spelled(lambda x: torch.maximum(x, -x / 4)), 1),
    "max-pooling": (spelled(lambda x: F.max_pool1d(x, 2)), 2),
    "maxout": (spelled(lambda x: x.unflatten(1, (-1, 2)).max(2).values), 2),
    "x * (x > 0)": (spelled(lambda x: x * (x > 0)), 1),
    "torch.where(x > 0, x, 0)": (spelled(lambda x: torch.where(x > 0, x, 0.0)), 1),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--attribution", default="gradient", choices=("gradient", "ig"))
    parser.add_argument("--images", type=int, default=24)
    parser.add_argument("--steps", type=int, default=40, help="of the attacks by gradients")
    parser.add_argument("--epochs", type=int, default=15)
    parser.add_argument("--rows", nargs="*", default=[], help="only rows that begin so")
    parser.add_argument("--threads", type=int, help="CPU threads")
    asked = parser.parse_args()
    if asked.threads:
        torch.set_num_threads(asked.threads)
    warnings.simplefilter("ignore")  # that attacks are stuck is what the table shows
    maps = Gradient() if asked.attribution == "gradient" else IntegratedGradients(steps=20)
    attacks = manipulations(maps, asked.steps)
    data = ImageData("digits", size=SIZE)
    train, test = (whole(data, split) for split in ("train", "test"))
    columns = ("accuracy", "replaced", "change, %", *attacks, "stuck", "seconds")
    print(f"{'activation':26}", *(f"{name:>10}" for name in columns))
    for name, (make, width) in ACTIVATIONS.items():
        if not asked.rows or name.startswith(tuple(asked.rows)):
            begun = time.perf_counter()
            model = perceptron(make, width)
            fit(model, *train, asked.epochs)
            figures = measure(model, *test, attacks, asked.images)
            shown = (*figures, time.perf_counter() - begun)
            print(f"{name:26}", *(f"{value:10.3f}" for value in shown), flush=True)


def manipulations(maps: Attribution, steps: int) -> dict[str, Manipulation]:
    walk = {"eps": EPS, "step_size": EPS / 10, "steps": steps, "momentum": 0.7, "margin": 0.1}
    if isinstance(maps, IntegratedGradients):
        walk["path_samples"] = 4
    return {
        "top-k": TopK(maps, k=K, judge_every=5, **walk),  # type: ignore[arg-type]
        "rank": RankCorrelation(maps, judge_every=5, **walk),  # type: ignore[arg-type]
        "ensemble": Ensemble(maps, eps=EPS),
        "random": RandomSign(maps, eps=EPS, draws=10),
    }


def whole(data: ImageData, split: str) -> tuple[Tensor, Tensor]:
    loaded = data.load(split)
    batch = loaded.batch(range(len(loaded)))
    return batch["images"], batch["labels"]


def perceptron(make: Callable[[], nn.Module], width: int) -> nn.Module:
    torch.manual_seed(0)
    hidden = 128
    return nn.Sequential(
        nn.Flatten(),
        nn.Linear(SIZE**2, hidden * width),
        make(),
        nn.Linear(hidden, hidden * width),
        make(),
        nn.Linear(hidden, 10),
    )


def fit(model: nn.Module, images: Tensor, labels: Tensor, epochs: int) -> None:
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    for _ in range(epochs):
        for part in torch.randperm(len(images)).split(64):
            optimizer.zero_grad()
            F.cross_entropy(model(images[part]), labels[part]).backward()
            optimizer.step()
    model.eval().requires_grad_(False)


def measure(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    attacks: dict[str, Manipulation],
    count: int,
) -> list[float]:
    right = model(images).argmax(1) == labels
    chosen, classes = images[right][:count], labels[right][:count]
    surrogate = surrogate_fit(model, chosen)
    found = [attack(model, chosen, classes) for attack in attacks.values()]
    return [
        right.double().mean().item(),
        surrogate.replaced,
        100 * surrogate.change.median().item(),
        *(outcome.similarity.mean().item() for outcome in found),
        found[1].stuck.mean().item(),
    ]


if __name__ == "__main__":
    main()
