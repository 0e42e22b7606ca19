"""Kendall's τ-b of many maps at once: beside SciPy's and TorchMetrics' loops, in one run.

    python benchmarks/kendall.py

Half of the values of every second map are ties. The results are compared with SciPy's.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import torch
from scipy import stats
from torch import Tensor
from torchmetrics.functional import kendall_rank_corrcoef

from holdfast.metrics import kendall_tau


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--maps", type=int, default=1024)
    parser.add_argument("--pixels", type=int, default=1024)
    parser.add_argument("--torchmetrics", type=int, default=32, help="maps for TorchMetrics")
    parser.add_argument("--repeat", type=int, default=5, help="of all, the fastest counts")
    parser.add_argument("--threads", type=int, help="CPU threads")
    asked = parser.parse_args()
    if asked.threads:
        torch.set_num_threads(asked.threads)
    torch.manual_seed(0)
    first = torch.rand(asked.maps, asked.pixels)
    second = first + torch.rand(asked.maps, asked.pixels)
    for scores in (first, second):
        scores[::2, ::2] = (scores[::2, ::2] * 8).round() / 8
    few = slice(0, asked.torchmetrics)
    methods: dict[str, Callable[[], Tensor]] = {
        "holdfast": lambda: kendall_tau(first, second),
        "scipy": lambda: by_scipy(first, second),
        "torchmetrics": lambda: by_torchmetrics(first[few], second[few]),
    }
    kendall_tau(first[few], second[few])  # compiles
    seconds = {name: float("inf") for name in methods}  # a map
    found: dict[str, Tensor] = {}
    for _ in range(asked.repeat):
        for name, method in methods.items():
            begun = time.perf_counter()
            found[name] = method()
            taken = (time.perf_counter() - begun) / len(found[name])
            seconds[name] = min(seconds[name], taken)
    print(f"{asked.maps} maps of {asked.pixels} pixels")
    for name, taken in seconds.items():
        exact = found["scipy"][: len(found[name])]
        print(
            f"{name:12} {taken * 1e6:8.0f} µs a map, {taken / seconds['holdfast']:6.1f} × holdfast;"
            f" off SciPy by at most {(found[name] - exact).abs().max().item():.1e}"
        )


def by_scipy(first: Tensor, second: Tensor) -> Tensor:
    pairs = zip(first.numpy(), second.numpy(), strict=True)
    return torch.tensor([stats.kendalltau(a, b).statistic for a, b in pairs], dtype=torch.float64)


def by_torchmetrics(first: Tensor, second: Tensor) -> Tensor:
    pairs = zip(first, second, strict=True)
    return torch.stack([kendall_rank_corrcoef(a, b) for a, b in pairs])


if __name__ == "__main__":
    main()
